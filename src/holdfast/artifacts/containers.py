"""Arrays, sparse matrices and pandas containers whose compiled code follows their indices wherever they point."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.core.errors import InvalidModel


def check_dtype(dtype: np.dtype[Any], source: str) -> None:
    """Refuse a structured type whose fields lie outside its items.

    Raises:
        InvalidModel: as above.
    """
    if dtype.fields is None:
        return
    for part, offset, *_ in dtype.fields.values():
        if part.hasobject or offset < 0 or offset + part.itemsize > dtype.itemsize:
            raise InvalidModel("an array whose fields lie outside its items", where=source)
        check_dtype(part.base, source)


def check_sparse(matrix: Any, source: str) -> None:
    """Refuse a sparse matrix that points outside itself.

    Raises:
        InvalidModel: as above, or malformed.
    """
    try:
        if matrix.format == "coo":
            fits = all(
                len(place) == len(matrix.data) and (not len(place) or (place.min() >= 0 and place.max() < size))
                for place, size in zip(matrix.coords, matrix.shape, strict=True)
            )
        elif matrix.format == "dia":
            fits = matrix.data.ndim == 2 and matrix.offsets.shape == matrix.data.shape[:1] and min(matrix.shape) >= 0
        elif matrix.format == "lil":
            rows = zip(matrix.rows, matrix.data, strict=True)
            fits = len(matrix.rows) == matrix.shape[0] and all(
                len(row) == len(values) and all(0 <= place < matrix.shape[1] for place in row) for row, values in rows
            )
        else:
            matrix.check_format(full_check=True)
            fits = True
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise InvalidModel(f"a malformed sparse matrix: {error}", where=source) from error
    if not fits:
        raise InvalidModel("a sparse matrix that points outside itself", where=source)


def check_blocks(manager: Any, source: str) -> None:
    """Refuse a frame whose blocks are not its columns, each once.

    Raises:
        InvalidModel: as above.
    """
    shape = tuple(len(axis) for axis in manager.axes)
    fits = all(
        block.ndim == len(shape) and tuple(block.shape) == (len(block.mgr_locs), *shape[1:]) for block in manager.blocks
    ) and shape[0] == sum(len(block.mgr_locs) for block in manager.blocks)
    places = np.concatenate([block.mgr_locs.as_array for block in manager.blocks]) if fits and manager.blocks else np.arange(0)
    if not fits or not np.array_equal(np.sort(places), np.arange(shape[0])):
        raise InvalidModel("a frame whose blocks do not fit its columns", where=source)


def check_categories(values: Any, source: str) -> None:
    """Refuse categorical values outside their categories.

    Raises:
        InvalidModel: as above.
    """
    codes = values._ndarray
    if codes.dtype.kind != "i" or (codes.size and (codes.min() < -1 or codes.max() >= len(values.categories))):
        raise InvalidModel("categories that it does not have", where=source)


def check_dates(values: Any, source: str) -> None:
    """Refuse dates that are held as something else.

    Raises:
        InvalidModel: as above.
    """
    if values._ndarray.dtype.kind != "M":
        raise InvalidModel("dates that are none", where=source)


def check_masked(values: Any, source: str) -> None:
    """Refuse numbers and a mask that differ in length.

    Raises:
        InvalidModel: as above.
    """
    if np.shape(values._data) != np.shape(values._mask) or values._mask.dtype != bool:
        raise InvalidModel("numbers that do not fit their mask", where=source)


def check_levels(index: Any, source: str) -> None:
    """Refuse an index of several levels that points outside them.

    Raises:
        InvalidModel: as above.
    """
    levels, codes = list(index.levels), [np.asarray(part) for part in index.codes]
    fits = len(levels) == len(codes) and len({part.shape for part in codes}) <= 1
    for level, part in zip(levels, codes, strict=False):
        fits = fits and part.ndim == 1 and part.dtype.kind == "i"
        fits = fits and (not part.size or (part.min() >= -1 and part.max() < len(level)))
    if not fits:
        raise InvalidModel("an index that points outside its levels", where=source)


def parts_of(value: Any) -> list[Any]:
    """What a pandas container holds outside its `__dict__`."""
    names = ("blocks", "axes", "values", "_ndarray", "_dtype", "_data", "_mask", "_codes", "_levels", "_categories")
    return [getattr(value, name) for name in names if hasattr(type(value), name)]


CHECKS: dict[str, Any] = {
    **{
        f"scipy.sparse._{form}.{form}_{kind}": check_sparse
        for form in ("csr", "csc", "bsr", "coo", "dia", "lil")
        for kind in ("matrix", "array")
    },
    "pandas.core.internals.managers.BlockManager": check_blocks,
    "pandas.core.internals.managers.SingleBlockManager": check_blocks,
    "pandas.Categorical": check_categories,
    "pandas.arrays.DatetimeArray": check_dates,
    "pandas.arrays.IntegerArray": check_masked,
    "pandas.MultiIndex": check_levels,
}
