"""Tables as arrays that attacks can move in, and back.

A `Table` encodes a DataFrame as an array that attacks can move in and decodes it back, exactly, into a frame with the
user's own columns, types and categories, ready for the user's own pipeline:

- a number becomes value / unit, where the unit is the power of two nearest to the feature's scale, so that decoding
  gives back the very same number;
- a category becomes a group of one-hot columns, or a single column with its code where nobody may change it;
- a missing cell becomes `MISSING` in its column or an all-zero group, and stays missing.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.errors import ConfigurationError, InvalidData

Floats = NDArray[np.float64]
MISSING = -(2.0**600)
"""How a missing cell is encoded; far outside any bounds."""
MOST_CATEGORIES = 256
"""A column with more categories is taken for an identifier or free text, which is carried along but not attacked."""
LARGEST_WHOLE = 2**53
"""Beyond this, float64 does not hold every integer; such columns are identifiers too."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column.

    Attributes:
        name: the column's name.
        kind: `number`, `integer` or `category` (which includes booleans and strings).
        low, high: bounds of a number; changes never leave them.
        scale: how much of a number is one unit of distance.
        cost: what one unit of a number, or one change of a category, costs the attacker.
        mutable: whether the attacker may change it at all.
        values: the categories, in the frame's own type.
    """

    name: str
    kind: Literal["number", "integer", "category"]
    low: float = 0.0
    high: float = 1.0
    scale: float = 1.0
    cost: float = 1.0
    mutable: bool = True
    values: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        bounded = math.isfinite(self.low) and self.low <= self.high < math.inf and 0 < self.scale < math.inf
        if self.kind != "category" and not bounded:
            raise ConfigurationError(
                f"feature {self.name!r}: bounds {self.low} to {self.high} and scale {self.scale} do not describe a number"
            )
        if not 0 <= self.cost < math.inf:
            raise ConfigurationError(
                f"feature {self.name!r}: cost {self.cost} is not a finite number of at least 0",
                hint="Declare a feature that nobody can change as immutable.",
            )

    @property
    def one_hot(self) -> bool:
        """Whether it is encoded as a group of one-hot columns."""
        return self.kind == "category" and self.mutable and len(self.values) > 0

    @property
    def width(self) -> int:
        """Columns of the encoded array."""
        return len(self.values) if self.one_hot else 1

    @property
    def unit(self) -> float:
        """What one unit of the encoded array is worth in the user's units; a power of two, and 1 for a code."""
        return 1.0 if self.kind == "category" else float(2.0 ** round(math.log2(self.scale)))


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A linear relation that valid rows keep: sum of weight x value, `at_most` or `equals` a bound.

    Under `equals` the first feature of `weights` is computed from the others.
    """

    weights: Mapping[str, float]
    bound: float = 0.0
    kind: Literal["at_most", "equals"] = "at_most"

    def __post_init__(self) -> None:
        if not self.weights or not all(math.isfinite(value) for value in (*self.weights.values(), self.bound)):
            raise ConfigurationError("a relation needs at least one feature, and finite weights and bound")


class Table:
    """Encodes DataFrames with known columns as float64 arrays, and back.

    Args:
        features: the columns, in the frame's order.
        dtypes: the frame's own types, by the frame's own column labels, in the same order.
        missing: what stands for a missing cell in a column of Python objects; None by default.
    """

    def __init__(
        self, features: Sequence[Feature], dtypes: Mapping[Hashable, Any], missing: Mapping[str, Any] | None = None
    ) -> None:
        self.features = tuple(features)
        self._labels = dict(zip([feature.name for feature in features], dtypes, strict=True))
        self._dtypes = dict(zip(self._labels, dtypes.values(), strict=True))
        self._missing = dict(missing or {})
        self._by_name = {feature.name: feature for feature in features}
        self.columns: dict[str, slice] = {}
        start = 0
        for feature in self.features:
            self.columns[feature.name] = slice(start, start + feature.width)
            start += feature.width
        self.width = start

    @classmethod
    def describe(
        cls,
        frame: pd.DataFrame,
        *,
        immutable: Sequence[str] = (),
        integer: Sequence[str] = (),
        bounds: Mapping[str, tuple[float, float]] | None = None,
        costs: Mapping[str, float] | None = None,
    ) -> Table:
        """Read the columns off a reference frame; what is given by name overrides what is seen.

        Numbers get the frame's range as bounds and its standard deviation as scale; integer types stay integers; all
        other columns are categories. Columns that can only be identifiers or free text (more than `MOST_CATEGORIES`
        categories, integers beyond float64) are immutable.

        Raises:
            ConfigurationError: a name is no column of the frame, or says of a column what it cannot be.
            InvalidData: two columns have the same name, or a cell holds neither a number nor a category.
        """
        bounds, costs = bounds or {}, costs or {}
        labels = {str(label): label for label in frame.columns}
        if len(labels) < frame.shape[1]:
            raise InvalidData("two columns of the table have the same name")
        for name in [*immutable, *integer, *bounds, *costs]:
            if name not in labels:
                raise ConfigurationError(f"no column {name!r}", hint=f"Columns: {', '.join(labels)}")
        features, missing = [], {}
        for name, label in labels.items():
            column = frame[label]
            cost, mutable = float(costs.get(name, 1.0)), name not in immutable
            if _is_number(column):
                whole = name in integer or pd.api.types.is_integer_dtype(column)
                features.append(_number(name, column, whole, bounds.get(name), cost, mutable))
                continue
            if name in integer or name in bounds:
                raise ConfigurationError(f"column {name!r} does not hold numbers, so it has neither bounds nor whole values")
            values = _categories(name, column)
            features.append(
                Feature(name=name, kind="category", cost=cost, mutable=mutable and len(values) <= MOST_CATEGORIES, values=values)
            )
            absent = column[column.isna()]
            if len(absent):
                missing[name] = absent.iloc[0]
        return cls(features, {label: frame[label].dtype for label in labels.values()}, missing)

    def encode(self, frame: pd.DataFrame) -> Floats:
        """(n, width) array.

        Raises:
            InvalidData: a column is missing, a number is no number, or a category is unknown.
        """
        out = np.zeros((len(frame), self.width))
        for feature in self.features:
            label, place = self._labels[feature.name], self.columns[feature.name]
            if label not in frame.columns:
                raise InvalidData(f"no column {feature.name!r}")
            column = frame[label]
            if feature.kind != "category":
                try:
                    values = column.to_numpy(dtype=float, na_value=np.nan)
                except (TypeError, ValueError) as error:
                    raise InvalidData(f"column {feature.name!r} is not numeric") from error
                out[:, place.start] = np.where(np.isnan(values), MISSING, values / feature.unit)
                continue
            code = (
                pd.Index(feature.values).get_indexer(pd.Index(column.astype(object)))
                if feature.values
                else np.full(len(column), -1)
            )
            absent = column.isna().to_numpy()
            if ((code < 0) & ~absent).any():
                raise InvalidData(f"column {feature.name!r} has a category that the reference data has not")
            if feature.one_hot:
                rows = np.flatnonzero(~absent)
                out[rows, place.start + code[rows]] = 1.0
            else:
                out[:, place.start] = np.where(absent, MISSING, code)
        return out

    def decode(self, x: Floats) -> pd.DataFrame:
        """The frame of (n, width) encoded rows, with the reference's types; categories by the largest column."""
        columns: dict[Hashable, Any] = {}
        for feature in self.features:
            block, dtype = x[:, self.columns[feature.name]], self._dtypes[feature.name]
            if feature.kind == "category":
                columns[self._labels[feature.name]] = self._chosen(feature, block, dtype)
                continue
            absent = block[:, 0] == MISSING
            values = np.where(absent, np.nan, block[:, 0] * feature.unit)
            if pd.api.types.is_integer_dtype(dtype):
                values = np.rint(values)
            if isinstance(dtype, np.dtype):
                columns[self._labels[feature.name]] = values.astype(dtype)
            else:
                whole = pd.array(np.where(absent, 0.0, values), dtype=dtype)
                whole[absent] = pd.NA
                columns[self._labels[feature.name]] = whole
        return pd.DataFrame(columns, index=pd.RangeIndex(len(x)))

    def values(self, x: Floats, name: str) -> Floats:
        """(n,) numbers of one numeric feature in the user's units."""
        return np.asarray(x[:, self.columns[name].start] * self.feature(name).unit)

    def feature(self, name: str) -> Feature:
        """The feature of that name.

        Raises:
            ConfigurationError: there is none.
        """
        if name not in self._by_name:
            raise ConfigurationError(f"no column {name!r}", hint=f"Columns: {', '.join(self.columns)}")
        return self._by_name[name]

    def _chosen(self, feature: Feature, block: Floats, dtype: Any) -> Any:
        if feature.one_hot:
            code = np.where(block.max(axis=1) > 0, block.argmax(axis=1), -1)
        else:
            code = np.where(block[:, 0] == MISSING, -1, np.rint(block[:, 0])).astype(np.int64)
        if isinstance(dtype, pd.CategoricalDtype):
            return pd.Categorical.from_codes(code, dtype=dtype)
        if not isinstance(dtype, np.dtype):
            return pd.array(list(feature.values), dtype=dtype).take(code, allow_fill=True)
        pool = np.empty(len(feature.values) + 1, dtype=object)
        pool[:-1], pool[-1] = list(feature.values), self._missing.get(feature.name)
        return pd.Series(pool[code], dtype=dtype)


def _is_number(column: pd.Series) -> bool:
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return False
    if pd.api.types.is_complex_dtype(column):
        raise InvalidData(f"column {column.name!r} holds complex numbers")
    if not pd.api.types.is_integer_dtype(column) or column.isna().all():
        return True
    return max(-int(column.min()), int(column.max())) <= LARGEST_WHOLE


def _number(name: str, column: pd.Series, whole: bool, bounds: tuple[float, float] | None, cost: float, mutable: bool) -> Feature:
    present = column.dropna().to_numpy(dtype=float)
    present = present[np.isfinite(present)]
    low, high = bounds or ((present.min(), present.max()) if len(present) else (0.0, 0.0))
    if whole and (present % 1).any():
        raise ConfigurationError(f"column {name!r} is declared integer, but holds {present[present % 1 != 0][0]:g}")
    if pd.api.types.is_integer_dtype(column):
        room = np.iinfo(getattr(column.dtype, "numpy_dtype", column.dtype))
        low, high = max(low, room.min), min(high, room.max)
    with np.errstate(over="ignore"):
        spread = float(present.std()) if len(present) else 0.0
    return Feature(
        name=name,
        kind="integer" if whole else "number",
        low=float(low),
        high=float(high),
        scale=spread or 1.0,
        cost=cost,
        mutable=mutable,
    )


def _categories(name: str, column: pd.Series) -> tuple[Any, ...]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return tuple(column.cat.categories)
    try:
        return tuple(sorted(column.dropna().unique(), key=str))
    except TypeError as error:
        raise InvalidData(f"column {name!r} holds neither numbers nor categories: {error}") from error
