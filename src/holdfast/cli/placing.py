"""Where a command may write: never over what an assessment is made from, and never over a file of another kind.

Everything is looked at before the measuring begins, so that hours of work do not end at a path that cannot be written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from holdfast.core.errors import ConfigurationError

if TYPE_CHECKING:
    from holdfast.threats.system import System


def require_placeable(path: Path, sources: tuple[Path, ...], *, assessment: bool) -> None:
    """Return if a report may be written there.

    Args:
        path: where it is to go.
        sources: what it is made from; see `sources`.
        assessment: only an earlier assessment may stand there; any earlier file otherwise.

    Raises:
        ConfigurationError: something is there that is no regular file, is or lies in a source, or is of another kind; or the
            folder cannot be written.
    """
    from holdfast.core.files import NO_FILE

    try:
        for source in sources:
            if source.resolve() in (path.resolve(), *path.resolve().parents) or _same(source, path):
                raise ConfigurationError("this is what the report is made from; it is never replaced", where=str(path))
        folder = path.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ConfigurationError("cannot write in this folder", where=str(folder))
        if not path.exists():
            return
        if not path.is_file():
            raise ConfigurationError(f"cannot write: {NO_FILE}", where=str(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigurationError(f"cannot write: {getattr(error, 'strerror', None) or error}", where=repr(str(path))) from error
    if assessment:
        _require_assessment(path)


MARKS = {
    "HTML": b'content="holdfast',
    "SARIF": b'"name": "holdfast"',
    "JUnit": b'<testsuite name="holdfast ',
    "Markdown": b"## measured risk of ",
    "comparison": b'"holdfast-comparison/',
}
"""What an earlier report of each kind, and nobody else's file, has near its beginning, in lower case."""
LOOKED_AT = 1 << 16


def require_report(path: Path, kind: str, *sources: Path) -> None:
    """Return if a report of that kind may be written there; an earlier one of the same kind is replaced.

    Args:
        path: where it is to go.
        kind: of `MARKS`.
        sources: what it is made from.

    Raises:
        ConfigurationError: as for `require_placeable`, or a file of another kind stands there.
    """
    from holdfast.core.files import open_file

    require_placeable(path, sources, assessment=False)
    file = open_file(path)
    if file is None:
        return
    with file:
        head = file.read(LOOKED_AT).lower()
    if head and MARKS[kind] not in head:
        raise ConfigurationError(
            f"a file that is no {kind} report of Holdfast's stands there, and is left alone",
            where=str(path),
            hint="Choose another path.",
        )


def _require_assessment(path: Path) -> None:
    from pydantic import BaseModel

    from holdfast.core.files import read_document

    class AnyAssessment(BaseModel):
        """What tells an assessment from other JSON; its content may be damaged."""

        format: Literal["holdfast-assessment/1"]

    try:
        read_document(path, AnyAssessment, "an assessment")
    except ConfigurationError as error:
        raise ConfigurationError(
            "a file that is no assessment stands there, and is left alone", where=str(path), hint="Choose another --output."
        ) from error


def sources(system: System, file: Path) -> tuple[Path, ...]:
    """The system file, the files and folders that it names, and the decisions beside it."""
    from holdfast.risk.decisions import decisions_file

    root = file.resolve().parent
    return file, decisions_file(file), *(root / name for name in _named(system))


def _named(system: System) -> Iterator[str]:
    model = system.model
    yield from (part.path for part in system.data)
    for value in (model.path, model.entry, model.factory, model.recipe):
        if value:
            yield value if value == model.path else value.rpartition(":")[0] or value


def set_aside(path: Path) -> Path | None:
    """Move an existing file aside, so that a new one never destroys it; returns where it is now.

    Raises:
        ConfigurationError: it cannot be moved.
    """
    try:
        if not os.path.lexists(path):
            return None
        number = 1
        while (aside := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
            number += 1
        path.rename(aside)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"cannot move the earlier file aside: {getattr(error, 'strerror', None) or error}", where=str(path)
        ) from error
    return aside


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs out while an earlier file is moved aside and the new one written.

    Raises:
        ConfigurationError: the folder cannot be made or opened.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"cannot write: {error.strerror}", where=str(folder)) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _same(one: Path, other: Path) -> bool:
    """Whether both are there and are one file under two names."""
    return one.exists() and other.exists() and one.samefile(other)
