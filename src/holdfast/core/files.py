"""Files: read as hostile input, written whole or not at all.

What is read must be a regular file of a bounded size: a pipe would keep the reader waiting, and a device never ends. The
file is opened without waiting and judged by what was opened, so that it cannot be swapped in between.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from holdfast.core.errors import ConfigurationError, HoldfastError

LARGEST_DOCUMENT = 256 << 20
"""Bytes of the largest JSON document that is read."""
NO_FILE = "this is not a file but a folder, a pipe, a socket or a device"

D = TypeVar("D", bound=BaseModel)


def open_file(path: Path, *, error: type[HoldfastError] = ConfigurationError, where: str | None = None) -> BinaryIO | None:
    """Open a regular file for reading; None when there is none.

    Args:
        path: the file; links are followed.
        error: the kind of error to raise.
        where: what errors call the place; the path by default.

    Raises:
        error: it is no regular file, or may not be read.
    """
    place = where or (repr(str(path)) if "\0" in str(path) else str(path))
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as problem:
        special = not stat.S_ISREG(_mode(path) or stat.S_IFREG)
        reason = NO_FILE if special else getattr(problem, "strerror", None) or str(problem)
        raise error(f"the file cannot be read: {reason}", where=place) from problem
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise error(f"the file cannot be read: {NO_FILE}", where=place)
    return os.fdopen(handle, "rb")


def read_if_present(
    path: Path, most: int, *, error: type[HoldfastError] = ConfigurationError, where: str | None = None
) -> bytes | None:
    """The bytes of a regular file; None when there is none.

    Args:
        path: the file; links are followed.
        most: bytes that are read at most.
        error: the kind of error to raise.
        where: what errors call the place; the path by default.

    Raises:
        error: it is no regular file, may not be read, is too large, or grew while it was read.
    """
    file = open_file(path, error=error, where=where)
    if file is None:
        return None
    place = where or str(path)
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise error(f"larger than {_size(most)}", where=place)
        try:
            content = file.read(size + 1)
        except OSError as problem:
            raise error(f"the file cannot be read: {problem.strerror}", where=place) from problem
    if len(content) > size:
        raise error("the file grew while it was read", where=place)
    return content


def read_file(path: Path, most: int, *, error: type[HoldfastError] = ConfigurationError, where: str | None = None) -> bytes:
    """As `read_if_present`, for a file that must be there."""
    content = read_if_present(path, most, error=error, where=where)
    if content is None:
        raise error("no such file", where=where or str(path))
    return content


def read_document(path: Path, kind: type[D], what: str) -> D:
    """Read a JSON document of a known kind.

    Args:
        path: the file.
        kind: the model it must satisfy.
        what: what to call it in errors.

    Raises:
        ConfigurationError: there is no such file, it is too large, or it is not such a document.
    """
    return parse_document(read_file(path, LARGEST_DOCUMENT), kind, what, path)


def parse_document(content: bytes, kind: type[D], what: str, path: Path) -> D:
    """As `read_document`, for bytes already read; `path` is what errors call them."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"this is not {what}: {field + ': ' if field else ''}{first['msg']}", where=str(path)) from error


def write_document(path: Path, document: BaseModel, *, private: bool = False) -> None:
    """Write a document as indented JSON; see `write_bytes`."""
    write_text(path, document.model_dump_json(indent=1) + "\n", private=private)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a text file as UTF-8; lone surrogates are written as escapes; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"), private=private)


def write_bytes(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file so that readers see the old content or the new, whatever happens in between.

    Args:
        path: the file; missing folders are made.
        content: all of it.
        private: for its owner only; by default the file keeps its permissions, and a new one gets those of the umask.

    Raises:
        ConfigurationError: the folder cannot be written, or the path is taken by something that is no file.
    """
    present = _mode(path)
    if present is not None and not stat.S_ISREG(present):
        raise ConfigurationError(f"cannot write: {NO_FILE}", where=str(path))
    try:
        part = path.with_name(f".holdfast-{secrets.token_hex(8)}.part")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if private else 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                if present is not None and not private:
                    os.fchmod(file.fileno(), present & 0o777)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot write: {getattr(error, 'strerror', None) or error}", where=str(path)) from error
    with suppress(OSError):
        _sync_folder(path.parent)


def _size(count: int) -> str:
    return f"{count >> 30} GiB" if count >> 30 else f"{count >> 20} MiB" if count >> 20 else f"{count:,} bytes"


def _mode(path: Path) -> int | None:
    """The kind and permissions of what is there; None when nothing is, or it may not be known."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None


def _sync_folder(folder: Path) -> None:
    """Make a renaming outlast a power cut; not every file system can."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
