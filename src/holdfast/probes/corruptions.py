"""Natural changes of inputs, graded in five severities: what happens without an attacker.

Arrays and images: noise, blur, brightness, contrast and shift, or noise and unit errors where there is no picture. Tables:
measurement noise, a column in another unit, missing cells, unseen categories. Every draw belongs to its row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from holdfast.core.seeds import SampleStreams

SEVERITIES = (1, 2, 3, 4, 5)
TABLE_NOISE = (0.05, 0.1, 0.2, 0.35, 0.5)
"""Standard deviation of measurement noise, in standard deviations of the column."""
UNITS = (2.2046, 2.54, 0.1, 10.0, 1000.0)
"""Factors of unit errors: pounds for kilograms, inches for centimetres, a decimal point, thousands."""
CELLS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Share of a row's cells that are missing, or that hold an unseen category."""
ARRAY_NOISE = (0.04, 0.08, 0.12, 0.18, 0.26)
BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)
CONTRAST = (0.75, 0.6, 0.45, 0.3, 0.15)
BLUR = (0.02, 0.03, 0.04, 0.055, 0.07)
"""Width of the blur, as a share of the shorter side."""
SHIFT = (0.03, 0.06, 0.1, 0.14, 0.2)
"""Pixels of translation, as a share of each side, rounded; none in the lower severities of small pictures."""
UNSEEN = "unseen category"


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One kind of change.

    Attributes:
        name: in a reader's words.
        apply: from the originals, a severity in 1..5 and one stream a row to the changed rows.
    """

    name: str
    apply: Callable[[Any, int, SampleStreams], Any]


def array_corruptions(low: float, high: float, shape: tuple[int, ...]) -> list[Corruption]:
    """The changes for arrays in [low, high]; those of pictures where the shape is one."""
    span = high - low
    axes = picture_axes(shape)

    def clipped(x: Any, like: Any) -> Any:
        return np.clip(x, low, high).astype(like.dtype)

    def noise(x: Any, severity: int, streams: SampleStreams) -> Any:
        return clipped(x + ARRAY_NOISE[severity - 1] * span * streams.normal(np.arange(len(x)), x.shape[1:]), x)

    def blur(x: Any, severity: int, _: SampleStreams) -> Any:
        width = BLUR[severity - 1] * min(x.shape[axis] for axis in axes)
        return clipped(ndimage.gaussian_filter(x, width, axes=axes), x)

    def brightness(x: Any, severity: int, streams: SampleStreams) -> Any:
        sign = np.where(streams.uniform(np.arange(len(x)), ()) < 0.5, -1, 1).reshape(-1, *[1] * (x.ndim - 1))
        return clipped(x + sign * BRIGHTNESS[severity - 1] * span, x)

    def contrast(x: Any, severity: int, _: SampleStreams) -> Any:
        mean = x.mean(axis=tuple(range(1, x.ndim)), keepdims=True)
        return clipped(mean + CONTRAST[severity - 1] * (x - mean), x)

    def shift(x: Any, severity: int, streams: SampleStreams) -> Any:
        out = np.empty_like(x)
        signs = np.where(streams.uniform(np.arange(len(x)), (2,)) < 0.5, -1, 1)
        for row in range(len(x)):
            steps = [0] * (x.ndim - 1)
            for axis, sign in zip(axes, signs[row], strict=True):
                steps[axis - 1] = int(sign * round(SHIFT[severity - 1] * x.shape[axis]))
            out[row] = ndimage.shift(x[row], steps, order=0, mode="nearest")
        return out

    found = [Corruption(name="noise", apply=noise)]
    if not axes:
        return [*found, Corruption(name="offset", apply=brightness)]
    pictures = {"blur": blur, "brightness": brightness, "contrast": contrast, "shift": shift}
    return found + [Corruption(name=name, apply=apply) for name, apply in pictures.items()]


def picture_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width of inputs of that shape, counting the batch as axis 0; empty where they are no pictures."""
    if len(shape) == 2 and min(shape) >= 4:
        return 1, 2
    if len(shape) == 3 and shape[0] in (1, 3, 4) and min(shape[1:]) >= 4:
        return 2, 3
    if len(shape) == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) >= 4:
        return 1, 2
    return ()


def table_corruptions(reference: pd.DataFrame, lacking: Sequence[str], strange: Sequence[str]) -> list[Corruption]:
    """The changes for tables like the reference.

    Args:
        reference: gives each column's spread and range.
        lacking: columns whose cells may be missing.
        strange: columns of categories that may hold an unseen one.
    """
    numbers = numeric_columns(reference)
    found = []
    if numbers:
        found.append(Corruption(name="measurement noise", apply=lambda x, s, streams: _noisy(x, reference, numbers, s, streams)))
        found.append(Corruption(name="unit of one column", apply=lambda x, s, streams: _other_unit(x, numbers, s, streams)))
    if lacking:
        found.append(Corruption(name="missing cells", apply=lambda x, s, streams: _holes(x, lacking, s, streams, None)))
    if strange:
        found.append(Corruption(name="unseen categories", apply=lambda x, s, streams: _holes(x, strange, s, streams, UNSEEN)))
    return found


def numeric_columns(frame: pd.DataFrame) -> list[Any]:
    """Columns of numbers that vary and are not mere flags."""
    numbers = frame.select_dtypes("number").columns
    return [name for name in numbers if frame[name].nunique() > 2]


def category_columns(frame: pd.DataFrame) -> list[Any]:
    """Columns of text or categories."""
    return [
        name
        for name in frame.columns
        if isinstance(frame[name].dtype, pd.CategoricalDtype)
        or pd.api.types.is_string_dtype(frame[name])
        or (frame[name].dtype == object and frame[name].dropna().map(lambda value: isinstance(value, str)).all())
    ]


def with_hole(column: pd.Series, rows: NDArray[np.bool_], value: Any) -> pd.Series:
    """The column with `value`, or a missing cell for None, in some rows, in a type that can hold it."""
    if value is None:
        return (column.astype(float) if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iub" else column).mask(rows)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.add_categories([value])
    return column.mask(rows, value)


def _noisy(x: pd.DataFrame, reference: pd.DataFrame, numbers: list[Any], severity: int, streams: SampleStreams) -> pd.DataFrame:
    out = x.copy()
    draws = streams.normal(np.arange(len(x)), (len(numbers),))
    for at, name in enumerate(numbers):
        known = reference[name].astype(float)
        value = x[name].astype(float) + TABLE_NOISE[severity - 1] * known.std(ddof=0) * draws[:, at]
        out[name] = _as_before(value.clip(known.min(), known.max()), x[name])
    return out


def _other_unit(x: pd.DataFrame, numbers: list[Any], severity: int, streams: SampleStreams) -> pd.DataFrame:
    out = x.copy()
    chosen = (streams.uniform(np.arange(len(x)), ()) * len(numbers)).astype(int)
    for at, name in enumerate(numbers):
        value = x[name].astype(float)
        out[name] = _as_before(value.mask(chosen == at, value * UNITS[severity - 1]), x[name])
    return out


def _holes(x: pd.DataFrame, columns: Sequence[Any], severity: int, streams: SampleStreams, value: Any) -> pd.DataFrame:
    """At least one cell in each row, and that share of all, in random columns."""
    out = x.copy()
    draws = streams.uniform(np.arange(len(x)), (len(columns),))
    rank = np.argsort(np.argsort(draws, axis=1), axis=1)
    count = max(1, round(CELLS[severity - 1] * len(columns)))
    for at, name in enumerate(columns):
        out[name] = with_hole(x[name], rank[:, at] < count, value)
    return out


def _as_before(value: pd.Series, column: pd.Series) -> pd.Series:
    """Numbers in the column's own type: whole and in range where it holds whole numbers."""
    if not pd.api.types.is_integer_dtype(column):
        return value.astype(column.dtype)
    room = np.iinfo(getattr(column.dtype, "numpy_dtype", column.dtype))
    return value.round().clip(float(room.min), float(room.max) if room.max < 2**53 else 2.0**53).astype(column.dtype)
