"""Paths that a system file names: relative to it, and inside its folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from holdfast.core.errors import ConfigurationError


def resolve_inside(root: Path, given: str, where: str) -> Path:
    """The real path of what is named, which exists and lies below `root`.

    Args:
        root: the system file's folder.
        given: the path as it stands in the system file.
        where: the field, for errors.

    Raises:
        ConfigurationError: absolute, with `..`, through a link that leads out, or nothing there.
    """
    hint = "Paths are relative to the system file and stay inside its folder."
    parts = PurePosixPath(given.replace("\\", "/")).parts
    if "\0" in given or not given.strip():
        raise ConfigurationError("not a path", where=where, hint=hint)
    if ".." in parts or given.startswith(("/", "\\", "~")) or PureWindowsPath(given).drive:
        raise ConfigurationError(f"path traversal: {given!r} leads out of the system file's folder", where=where, hint=hint)
    real_root = root.resolve()
    try:
        real = (real_root / given).resolve()
    except (OSError, RuntimeError) as error:
        raise ConfigurationError(f"{given!r} cannot be followed", where=where, hint=hint) from error
    if not real.is_relative_to(real_root):
        raise ConfigurationError(f"path traversal: {given!r} is a link that leads out", where=where, hint=hint)
    try:
        present = real.exists()
    except OSError:
        present = False
    if not present:
        raise ConfigurationError(f"no file {given!r}", where=where, hint=hint)
    return real
