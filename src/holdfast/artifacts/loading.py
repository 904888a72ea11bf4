"""Opening a checked file: the very bytes that were judged, through an unpickler that knows the same list.

The list is enforced twice. The check has already refused what is not on it; the unpickler refuses again, whatever the check
may have missed. A file that is trusted by digest is opened as its library would.
"""

from __future__ import annotations

import importlib
import io
import pickle
import warnings
from typing import Any, ClassVar

from holdfast.artifacts.allowlist import allowed_uses, current, key_of
from holdfast.artifacts.boosters import BoosterGuard
from holdfast.artifacts.checking import FileCheck, pickle_bytes
from holdfast.artifacts.constructors import CONSTRUCTORS
from holdfast.artifacts.objects import check_objects
from holdfast.artifacts.pickles import WRAPPER
from holdfast.artifacts.symbols import BOUND_METHODS
from holdfast.core.errors import HoldfastError, InvalidModel, MissingExtra, UnsafeFile

EXTRAS = {"xgboost": "xgboost", "lightgbm": "lightgbm", "torch": "torch"}


def load_object(check: FileCheck) -> Any:
    """The object in a checked pickle, joblib or NPY file; an object array of one element gives the element.

    Raises:
        UnsafeFile: the file is not allowed.
        InvalidModel: it cannot be read with the installed libraries.
    """
    check.require()
    source = check.path.name
    data, start = pickle_bytes(check)
    stream = io.BytesIO(data)
    stream.seek(start)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = _load_trusted(check, stream) if check.unlisted else _load_listed(check, stream)
            if not check.unlisted:
                check_objects(value, source)
    except HoldfastError:
        raise
    except Exception as error:
        raise InvalidModel(
            f"cannot be opened with the installed libraries: {type(error).__name__}: {error}",
            where=source,
            hint="Install the library versions that it was saved with, or save it again.",
        ) from error
    import numpy as np

    return value.reshape(-1)[0] if isinstance(value, np.ndarray) and value.dtype == object and value.size == 1 else value


def _load_listed(check: FileCheck, stream: io.BytesIO) -> Any:
    inline = WRAPPER.replace(":", ".") in check.globals
    guard = BoosterGuard(check.path.name)
    value = (ArrayUnpickler if inline else ListedUnpickler)(stream, guard).load()
    guard.lift()
    return value


def _load_trusted(check: FileCheck, stream: io.BytesIO) -> Any:
    if check.format == "npy":
        return pickle.load(stream)  # noqa: S301
    import joblib

    return joblib.load(stream)


def find_listed(module: str, name: str) -> Any:
    """The global, if it is on the allow-list.

    Raises:
        UnsafeFile: it is not.
        InvalidModel: the installed version of its library does not have it.
    """
    key = key_of(module, name)
    if key not in allowed_uses():
        raise UnsafeFile(f"refused {module}.{name}, which is not on the allow-list")
    if key == "builtins:getattr":
        return bound_method
    if key in CONSTRUCTORS:
        return CONSTRUCTORS[key]
    module, name = current(module, name)
    package = module.split(".")[0]
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        if package in EXTRAS:
            raise MissingExtra.of(package, EXTRAS[package], "This model file") from error
        raise InvalidModel(f"needs {module}, which is not installed", hint="Install the library it was saved with.") from error
    except AttributeError as error:
        raise InvalidModel(
            f"needs {module}.{name}, which the installed {package} does not have",
            hint=f"Install the version of {package} it was saved with.",
        ) from error
    return found


def bound_method(value: Any, name: str) -> Any:
    """`getattr` for the few methods that models refer to.

    Raises:
        UnsafeFile: another attribute.
    """
    if (key_of(type(value).__module__, type(value).__qualname__), name) not in BOUND_METHODS:
        raise UnsafeFile(f"refused getattr of {name!r}")
    return getattr(value, name)


class ListedUnpickler(pickle.Unpickler):
    """An unpickler that resolves listed names only, and boosters as guarded ones."""

    def __init__(self, stream: io.BytesIO, guard: BoosterGuard) -> None:
        super().__init__(stream)
        self._guard = guard

    def find_class(self, module: str, name: str) -> Any:
        """The global, if it is listed."""
        return self._guard.guarded(key_of(module, name), find_listed(module, name))

    def persistent_load(self, pid: Any) -> Any:
        """Never.

        Raises:
            UnsafeFile: always.
        """
        raise UnsafeFile(f"refused a persistent id of type {type(pid).__name__}")


class InlineArray:
    """Stands for joblib's wrapper until its bytes are read."""


PythonUnpickler: Any = pickle._Unpickler


class ArrayUnpickler(PythonUnpickler):  # type: ignore[misc]
    """As `ListedUnpickler`, and reads the arrays that joblib leaves in the middle of the stream."""

    dispatch: ClassVar[dict[int, Any]] = dict(PythonUnpickler.dispatch)

    def __init__(self, stream: io.BytesIO, guard: BoosterGuard) -> None:
        super().__init__(stream)
        self._stream = stream
        self._guard = guard

    def find_class(self, module: str, name: str) -> Any:
        """The global, if it is listed; joblib's wrapper as our own."""
        key = key_of(module, name)
        return InlineArray if key == WRAPPER else self._guard.guarded(key, find_listed(module, name))

    def persistent_load(self, pid: Any) -> Any:
        """Never.

        Raises:
            UnsafeFile: always.
        """
        raise UnsafeFile(f"refused a persistent id of type {type(pid).__name__}")

    def load_build(self) -> None:
        """BUILD, and the array's bytes where it completed a wrapper."""
        super().load_build()
        if isinstance(self.stack[-1], InlineArray):
            self.stack[-1] = self._read_array(self.stack[-1])

    dispatch[pickle.BUILD[0]] = load_build

    def _read_array(self, header: Any) -> Any:
        import numpy as np

        dtype, shape = header.dtype, tuple(header.shape)
        if dtype.hasobject:
            return ArrayUnpickler(self._stream, self._guard).load()
        if getattr(header, "numpy_array_alignment_bytes", None) is not None:
            self._stream.read(self._stream.read(1)[0])
        count = int(np.prod(shape, dtype=np.int64)) if shape else 1
        content = self._stream.read(count * dtype.itemsize)
        values = np.frombuffer(bytearray(content), dtype=dtype, count=count)
        if not dtype.isnative:
            values = values.astype(dtype.newbyteorder("="))
        return values.reshape(shape, order=header.order)
