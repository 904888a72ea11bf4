"""Assessments and other documents as files: written whole or not at all, read as hostile input."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from holdfast.assessment.document import Assessment
from holdfast.core.errors import ConfigurationError, IntegrityFailure

LARGEST = 256 * 1024 * 1024
"""Bytes of the largest document that is read."""

D = TypeVar("D", bound=BaseModel)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all; lone surrogates are written as escapes.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, whatever happens in between.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise ConfigurationError(f"cannot write: {error.strerror}", where=str(path)) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644 & ~_umask())
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write: {error.strerror}", where=str(path)) from error
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_document(path: Path, document: BaseModel) -> None:
    """Write a document as indented JSON."""
    write_text(path, document.model_dump_json(indent=1) + "\n")


def read_document(path: Path, kind: type[D], what: str) -> D:
    """Read a JSON document of a known kind.

    Args:
        path: the file.
        kind: the model it must satisfy.
        what: what to call it in errors.

    Raises:
        ConfigurationError: there is no such file, it is too large, or it is not such a document.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigurationError(f"{what} is larger than {LARGEST // 2**20} MiB", where=str(path))
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {what}: {error.strerror}", where=str(path)) from error
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"this is not {what}: {field + ': ' if field else ''}{first['msg']}", where=str(path)) from error


def read_assessment(path: Path) -> Assessment:
    """Read an assessment and check its seal.

    Raises:
        ConfigurationError: it is not an assessment.
        IntegrityFailure: its content is not what was sealed.
    """
    assessment = read_document(path, Assessment, "an assessment of format holdfast-assessment/1")
    if assessment.seal != assessment.computed_seal():
        raise IntegrityFailure(
            "the assessment was changed after it was made",
            where=str(path),
            hint="Make it again with holdfast assess.",
        )
    return assessment


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
