"""Compiled constructors that trust their arguments: while a file is opened, ours stand in and look first."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.core.errors import InvalidModel

MOST_FEATURES = 2**31 - 1
MOST_OUTPUTS = 1_000_000


def make_tree(*arguments: Any) -> Any:
    """`sklearn.tree._tree.Tree` with as many numbers of classes as outputs.

    Raises:
        InvalidModel: other arguments; the tree would read beyond them.
    """
    from sklearn.tree._tree import Tree

    features, classes, outputs = arguments if len(arguments) == 3 else (None, None, None)
    fits = type(features) is int and type(outputs) is int and type(classes) is np.ndarray
    fits = fits and 0 < features <= MOST_FEATURES and 0 < outputs <= MOST_OUTPUTS  # type: ignore[operator]
    if not fits or classes.shape != (outputs,) or classes.dtype.kind != "i" or classes.min() < 1:  # type: ignore[union-attr]
        raise InvalidModel("a tree whose numbers of classes do not fit its outputs")
    return Tree(features, classes, outputs)


def make_buffer(*arguments: Any) -> Any:
    """A pyarrow buffer of bytes that nothing else can change.

    Raises:
        InvalidModel: something else than bytes.
    """
    import pyarrow as pa

    if len(arguments) != 1 or type(arguments[0]) not in (bytes, bytearray):
        raise InvalidModel("an Arrow buffer of something else than bytes")
    return pa.py_buffer(bytes(arguments[0]))


def make_arrow_array(*arguments: Any) -> Any:
    """A pyarrow array of text that was looked at whole.

    Raises:
        InvalidModel: another kind of array, or one that points outside its buffers.
    """
    import pyarrow as pa

    state = arguments[0] if len(arguments) == 1 else None
    if type(state) is not tuple or len(state) != 7:
        raise InvalidModel("an Arrow array without a state")
    kind, length, missing, offset, buffers, children, dictionary = state
    fits = (
        type(kind) is pa.DataType
        and kind in (pa.string(), pa.large_string())
        and all(type(number) is int for number in (length, missing, offset))
        and min(length, missing + 1, offset) >= 0
        and type(buffers) is list
        and len(buffers) == 3
        and all(buffer is None or type(buffer) is pa.Buffer for buffer in buffers)
        and not children
        and dictionary is None
    )
    if not fits:
        raise InvalidModel("an Arrow array of another form than pandas writes")
    array = pa.lib._restore_array(state)
    try:
        array.validate(full=True)
    except pa.ArrowException as error:
        raise InvalidModel(f"an Arrow array that points outside itself: {error}") from error
    return array


def make_array(*arguments: Any) -> Any:
    """`numpy._core.numeric._frombuffer` of bytes that nothing else can change.

    Raises:
        InvalidModel: something else than bytes, which could be freed while the array still points there.
    """
    from numpy._core import numeric

    restore: Any = vars(numeric)["_frombuffer"]
    if not arguments or type(arguments[0]) not in (bytes, bytearray):
        raise InvalidModel("an array of something else than bytes")
    return restore(*arguments)


CONSTRUCTORS: dict[str, Any] = {
    "sklearn.tree._tree:Tree": make_tree,
    "pyarrow.lib:py_buffer": make_buffer,
    "pyarrow.lib:_restore_array": make_arrow_array,
    "numpy._core.numeric:_frombuffer": make_array,
    "numpy.core.numeric:_frombuffer": make_array,
}
