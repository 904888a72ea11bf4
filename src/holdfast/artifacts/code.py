"""Python code that a system file names: `FILE.py:FUNCTION` beside it, or `module:function` of an installed package.

A system file may be hostile, so naming code is not enough to run it: the digest of the code's file must be trusted. The
bytes that were judged are the bytes that run.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import sys
import types
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.artifacts.paths import resolve_inside
from holdfast.core.errors import ConfigurationError, HoldfastError, InvalidModel, UnsafeFile
from holdfast.core.files import read_file

MOST_BYTES = 4 << 20


@dataclass(frozen=True)
class Code:
    """A function, and the file and digest it came from."""

    function: Callable[..., Any]
    path: Path
    digest: str


def load_code(reference: str, root: Path, trusted: Collection[str], where: str) -> Code:
    """The function a reference names.

    Args:
        reference: `FILE.py:FUNCTION` or `module:function`.
        root: the system file's folder.
        trusted: digests of files that may run.
        where: the field, for errors.

    Raises:
        ConfigurationError: nothing there, or no function of that name.
        UnsafeFile: the file's digest is not trusted.
        InvalidModel: running the file failed.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise ConfigurationError(f"{reference!r} names no function", where=where, hint="FILE.py:FUNCTION or module:function.")
    from_file = place.endswith(".py")
    path = resolve_inside(root, place, where) if from_file else _module_file(place, where)
    data = read_file(path, MOST_BYTES, where=where)
    digest = hashlib.sha256(data).hexdigest()
    if digest not in trusted:
        raise UnsafeFile(
            f"{path.name} is code, and its digest is not trusted",
            where=where,
            hint=f"Read it. If you want it to run: holdfast trust {path}\n  sha256 {digest}",
        )
    module = _run(path, data, digest, where) if from_file else _imported(place, where)
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigurationError(f"{place} has no function {name!r}", where=where)
    return Code(function, path, digest)


def call_code(code: Code, where: str) -> Any:
    """What the function returns when it is called without arguments.

    Raises:
        InvalidModel: it fails.
    """
    try:
        return code.function()
    except HoldfastError:
        raise
    except Exception as error:
        raise InvalidModel(f"{code.path.name} failed: {type(error).__name__}: {error}", where=where) from error


def _run(path: Path, data: bytes, digest: str, where: str) -> types.ModuleType:
    name = f"holdfast_user_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(compile(data, str(path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        hint = "It may import installed packages only, not files beside it." if isinstance(error, ImportError) else None
        raise InvalidModel(f"running {path.name} failed: {type(error).__name__}: {error}", where=where, hint=hint) from error
    return module


def _module_file(module: str, where: str) -> Path:
    """The source file of an installed module, found without importing anything."""
    locations = None
    spec = None
    parts = module.split(".")
    for depth, part in enumerate(parts):
        if not part.isidentifier():
            raise ConfigurationError(f"{module!r} is no module name", where=where)
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[: depth + 1]), locations)
        locations = spec.submodule_search_locations if spec else None
        if spec is None or (locations is None and depth + 1 < len(parts)):
            raise ConfigurationError(f"no installed module {module!r} with a source file", where=where)
    origin = spec.origin if spec else None
    if origin is None or not origin.endswith(".py") or not Path(origin).is_file():
        raise ConfigurationError(f"module {module!r} has no source file whose digest could be trusted", where=where)
    return Path(origin)


def _imported(module: str, where: str) -> types.ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise InvalidModel(f"importing {module} failed: {type(error).__name__}: {error}", where=where) from error
