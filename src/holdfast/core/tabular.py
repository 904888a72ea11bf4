"""What an attacker may change in a table, on raw DataFrames.

A `Table` encodes a DataFrame as an array that attacks can move in and decodes it back, exactly, into a frame with the
user's own columns, types and categories, ready for the user's own pipeline:

- a number becomes (value - low) / scale, so that one unit is one declared scale of the feature;
- a category becomes a group of one-hot columns;
- a missing cell becomes `MISSING` in its number or an all-zero group, and stays missing.

`Tabular` is the domain over such arrays: immutable columns, integers, one-hot groups, bounds, linear relations between
numbers, and a cost for each feature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.domain import TOLERANCE, Norm
from holdfast.core.errors import ConfigurationError, InvalidData

Floats = NDArray[np.float64]
MISSING = -1e6
"""How a missing number is encoded; far outside any bounds."""


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
        if self.kind != "category" and not (math.isfinite(self.low) and self.low <= self.high < math.inf and self.scale > 0):
            raise ConfigurationError(
                f"feature {self.name!r}: bounds {self.low} to {self.high} and scale {self.scale} do not describe a number"
            )
        if not self.cost >= 0:
            raise ConfigurationError(f"feature {self.name!r}: cost {self.cost} is not at least 0")

    @property
    def width(self) -> int:
        """Columns of the encoded array."""
        return len(self.values) if self.kind == "category" else 1


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A linear relation that valid rows keep: sum of weight x value, `at_most` or `equals` a bound.

    Under `equals` the first feature of `weights` is computed from the others.
    """

    weights: Mapping[str, float]
    bound: float = 0.0
    kind: Literal["at_most", "equals"] = "at_most"


class Table:
    """Encodes DataFrames with known columns as float64 arrays, and back.

    Args:
        features: the columns, in the frame's order.
        dtypes: the frame's own types, by column.
    """

    def __init__(self, features: Sequence[Feature], dtypes: Mapping[str, Any]) -> None:
        self.features = tuple(features)
        self._dtypes = dict(dtypes)
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
        other columns are categories.

        Raises:
            ConfigurationError: a name is no column of the frame.
        """
        bounds, costs = bounds or {}, costs or {}
        for name in [*immutable, *integer, *bounds, *costs]:
            if name not in frame.columns:
                raise ConfigurationError(f"no column {name!r}", hint=f"Columns: {', '.join(map(str, frame.columns))}")
        features = []
        for name in frame.columns:
            column = frame[name]
            shared: dict[str, Any] = {"name": str(name), "cost": float(costs.get(name, 1.0)), "mutable": name not in immutable}
            if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
                values = (
                    tuple(column.cat.categories) if hasattr(column, "cat") else tuple(sorted(column.dropna().unique(), key=str))
                )
                features.append(Feature(kind="category", values=values, **shared))
                continue
            present = column.dropna().to_numpy(dtype=float)
            present = present[np.isfinite(present)]
            low, high = bounds.get(name, (present.min(), present.max()) if len(present) else (0.0, 0.0))
            spread = float(present.std()) if len(present) else 0.0
            whole = name in integer or pd.api.types.is_integer_dtype(column)
            features.append(
                Feature(
                    kind="integer" if whole else "number",
                    low=float(low),
                    high=float(high),
                    scale=spread or 1.0,
                    **shared,
                )
            )
        return cls(features, {name: frame[name].dtype for name in frame.columns})

    def encode(self, frame: pd.DataFrame) -> Floats:
        """(n, width) array.

        Raises:
            InvalidData: a column is missing, a number is no number, or a category is unknown.
        """
        out = np.zeros((len(frame), self.width))
        for feature in self.features:
            if feature.name not in frame.columns:
                raise InvalidData(f"no column {feature.name!r}")
            column, place = frame[feature.name], self.columns[feature.name]
            if feature.kind == "category":
                code = pd.Index(feature.values).get_indexer(column)
                if ((code < 0) & column.notna().to_numpy()).any():
                    raise InvalidData(f"column {feature.name!r} has a category that the reference data has not")
                rows = np.flatnonzero(code >= 0)
                out[rows, place.start + code[rows]] = 1.0
            else:
                try:
                    values = column.to_numpy(dtype=float, na_value=np.nan)
                except (TypeError, ValueError) as error:
                    raise InvalidData(f"column {feature.name!r} is not numeric") from error
                out[:, place.start] = np.where(np.isnan(values), MISSING, (values - feature.low) / feature.scale)
        return out

    def decode(self, x: Floats) -> pd.DataFrame:
        """The frame of (n, width) encoded rows, with the reference's types; integers rounded, categories by largest column."""
        columns: dict[str, Any] = {}
        for feature in self.features:
            block = x[:, self.columns[feature.name]]
            dtype = self._dtypes[feature.name]
            if feature.kind == "category":
                chosen = np.empty(len(x), dtype=object)
                picked = block.argmax(axis=1) if feature.width else np.zeros(len(x), dtype=int)
                for row, index in enumerate(picked):
                    chosen[row] = feature.values[index] if feature.width and block[row, index] > 0 else None
                columns[feature.name] = pd.Series(chosen).astype(dtype)
                continue
            values = feature.low + block[:, 0] * feature.scale
            if feature.kind == "integer":
                values = np.round(values)
            values = np.where(block[:, 0] == MISSING, np.nan, values)
            columns[feature.name] = pd.Series(values).astype(dtype)
        return pd.DataFrame(columns)

    def values(self, x: Floats, name: str) -> Floats:
        """(n,) numbers of one numeric feature in the user's units."""
        feature = self.feature(name)
        return feature.low + x[:, self.columns[name].start] * feature.scale

    def feature(self, name: str) -> Feature:
        """The feature of that name.

        Raises:
            ConfigurationError: there is none.
        """
        for feature in self.features:
            if feature.name == name:
                return feature
        raise ConfigurationError(f"no column {name!r}", hint=f"Columns: {', '.join(self.columns)}")


@dataclass(frozen=True, kw_only=True)
class Tabular:
    """Changes to the mutable cells of a table, within a cost budget.

    The distance of a change is the norm of (cost x |difference| in scale units) over numbers and (cost) over changed
    categories.

    Attributes:
        table: the columns.
        norm: how the features' costs add up.
        radius: the budget; `math.inf` leaves only the constraints.
        relations: kept by every projected row, where the original keeps them.
    """

    table: Table
    norm: Norm = "linf"
    radius: float = math.inf
    relations: tuple[Relation, ...] = field(default=())

    def __post_init__(self) -> None:
        for relation in self.relations:
            for name in relation.weights:
                if self.table.feature(name).kind == "category":
                    raise ConfigurationError(f"relation on {name!r}, which is a category")

    def repair(self, x0: Floats, x: Floats) -> Floats:
        """Restore immutable and missing cells, bounds, whole numbers, one-hot groups and relations."""
        return self._valid(x0, x, math.inf)

    def project(self, x0: Floats, x: Floats) -> Floats:
        """As `repair`, within the budget; integers are rounded towards the original, so that rounding never overspends."""
        return self._valid(x0, x, self.radius)

    def distance(self, x0: Floats, x: Floats) -> Floats:
        """(n,) what the change costs."""
        return self._combine(self._spent(x0, x))

    def contains(self, x0: Floats, x: Floats) -> NDArray[np.bool_]:
        """Whether a row is valid and within the budget."""
        same = np.isclose(self._valid(x0, x, math.inf), x, rtol=0, atol=1e-7).all(axis=1)
        return same & (self.distance(x0, x) <= self.radius * (1 + TOLERANCE) + 1e-12)

    def sample(self, x0: Floats, uniform: Floats) -> Floats:
        """Uniform over the bounds of each feature, then projected."""
        out = np.array(uniform, dtype=float)
        for feature in self.table.features:
            place = self.table.columns[feature.name]
            if feature.kind != "category":
                reach = (feature.high - feature.low) / feature.scale
                step = self.radius / feature.cost if feature.cost and math.isfinite(self.radius) else reach
                centre = x0[:, place]
                out[:, place] = (
                    np.clip(centre + step * (2 * uniform[:, place] - 1), 0, reach) if step < reach else uniform[:, place] * reach
                )
        return self.project(x0, out)

    def _valid(self, x0: Floats, x: Floats, radius: float) -> Floats:
        out = np.where(np.isfinite(x), x, x0).astype(float)
        self._restore_categories(x0, out, radius)
        numbers = [feature for feature in self.table.features if feature.kind != "category"]
        for feature in numbers:
            self._bound(x0, out, feature)
        if math.isfinite(radius):
            self._shrink(x0, out, numbers, radius)
        for relation in self.relations:
            self._keep(x0, out, relation)
        for feature in numbers:
            if feature.kind == "integer":
                at = self.table.columns[feature.name].start
                moved = (out[:, at] - x0[:, at]) * feature.scale
                whole = np.trunc(moved + np.sign(moved) * 1e-9) if math.isfinite(radius) else np.round(moved)
                out[:, at] = x0[:, at] + whole / feature.scale
                self._bound_whole(x0, out, feature)
        for relation in self.relations:
            self._revert_where_broken(x0, out, relation, radius)
        return out

    def _restore_categories(self, x0: Floats, out: Floats, radius: float) -> None:
        for feature in self.table.features:
            if feature.kind != "category" or not feature.width:
                continue
            place = self.table.columns[feature.name]
            original = x0[:, place]
            picked = np.zeros_like(original)
            picked[np.arange(len(out)), out[:, place].argmax(axis=1)] = 1.0
            frozen = (original.max(axis=1) <= 0) | (not feature.mutable) | (feature.cost > radius)
            out[:, place] = np.where(frozen[:, None], original, picked)
        if math.isfinite(radius) and self.norm != "linf":
            spent = self._spent(x0, out, kinds=("category",))
            for at in range(len(self.table.features) - 1, -1, -1):
                feature = self.table.features[at]
                over = self._combine(spent) > radius
                if feature.kind == "category" and over.any():
                    place = self.table.columns[feature.name]
                    out[over, place] = x0[over, place]
                    spent[over, at] = 0.0

    def _bound(self, x0: Floats, out: Floats, feature: Feature) -> None:
        at = self.table.columns[feature.name].start
        original = x0[:, at]
        reach = (feature.high - feature.low) / feature.scale
        clipped = np.clip(out[:, at], np.minimum(0.0, original), np.maximum(reach, original))
        frozen = (original == MISSING) | (not feature.mutable)
        out[:, at] = np.where(frozen, original, clipped)

    def _bound_whole(self, x0: Floats, out: Floats, feature: Feature) -> None:
        at = self.table.columns[feature.name].start
        original = x0[:, at]
        reach = (feature.high - feature.low) / feature.scale
        beyond = (out[:, at] > np.maximum(reach, original) + 1e-9) | (out[:, at] < np.minimum(0.0, original) - 1e-9)
        step = np.sign(out[:, at] - original) / feature.scale
        out[:, at] = np.where(beyond, out[:, at] - step, out[:, at])

    def _shrink(self, x0: Floats, out: Floats, numbers: list[Feature], radius: float) -> None:
        if self.norm == "linf":
            for feature in numbers:
                if feature.cost:
                    at, step = self.table.columns[feature.name].start, radius / feature.cost
                    out[:, at] = np.clip(out[:, at], x0[:, at] - step, x0[:, at] + step)
            return
        fixed = self._combine(self._spent(x0, out, kinds=("category",)))
        moving = self._spent(x0, out, kinds=("number", "integer"))
        if self.norm == "l0":
            order = np.argsort(-moving, axis=1, kind="stable")
            rank = np.argsort(order, axis=1, kind="stable")
            undo = (moving > 0) & (rank >= (radius - fixed)[:, None])
            for index, feature in enumerate(self.table.features):
                if feature.kind != "category":
                    at = self.table.columns[feature.name].start
                    out[:, at] = np.where(undo[:, index], x0[:, at], out[:, at])
            return
        power = 2 if self.norm == "l2" else 1
        left = np.clip(radius**power - fixed**power, 0, None) ** (1 / power)
        used = self._combine(moving)
        factor = np.where(used > left, left / np.where(used > 0, used, 1.0), 1.0)
        for feature in numbers:
            if feature.cost:
                at = self.table.columns[feature.name].start
                out[:, at] = x0[:, at] + factor * (out[:, at] - x0[:, at])

    def _keep(self, x0: Floats, out: Floats, relation: Relation) -> None:
        """Move rows that break a relation onto its boundary, along the mutable features."""
        broken = np.flatnonzero(self._excess(out, relation) > 1e-9) if relation.kind == "at_most" else np.arange(len(out))
        if not len(broken):
            return
        gap = self._signed(out[broken], relation)
        names = (
            [next(iter(relation.weights))]
            if relation.kind == "equals"
            else [n for n in relation.weights if self.table.feature(n).mutable]
        )
        slope = {name: relation.weights[name] * self.table.feature(name).scale for name in names}
        steep = sum(value * value for value in slope.values())
        if not steep:
            return
        for name in names:
            at = self.table.columns[name].start
            out[broken, at] -= slope[name] * gap / steep
            feature = self.table.feature(name)
            if relation.kind == "at_most" and feature.kind == "integer":
                value = self.table.values(out[broken], name)
                value = np.floor(value + 1e-9) if relation.weights[name] > 0 else np.ceil(value - 1e-9)
                out[broken, at] = (value - feature.low) / feature.scale
            part = out[broken]
            self._bound(x0[broken], part, feature)
            out[broken] = part

    def _revert_where_broken(self, x0: Floats, out: Floats, relation: Relation, radius: float) -> None:
        if relation.kind == "equals":
            moved = np.abs(self._signed(out, relation)) > np.abs(self._signed(x0, relation)) + 1e-7
        else:
            moved = self._excess(out, relation) > self._excess(x0, relation) + 1e-9
        if math.isfinite(radius):
            moved |= self.distance(x0, out) > radius * (1 + TOLERANCE) + 1e-12
        for name in relation.weights:
            at = self.table.columns[name].start
            out[moved, at] = x0[moved, at]

    def _signed(self, x: Floats, relation: Relation) -> Floats:
        total = np.full(len(x), -relation.bound)
        for name, weight in relation.weights.items():
            total += weight * self.table.values(x, name)
        return total

    def _excess(self, x: Floats, relation: Relation) -> Floats:
        return np.clip(self._signed(x, relation), 0, None)

    def _spent(self, x0: Floats, x: Floats, kinds: tuple[str, ...] = ("number", "integer", "category")) -> Floats:
        """(n, features) what each feature's change costs."""
        out = np.zeros((len(x), len(self.table.features)))
        for index, feature in enumerate(self.table.features):
            if feature.kind not in kinds or not feature.width:
                continue
            place = self.table.columns[feature.name]
            if feature.kind == "category":
                out[:, index] = feature.cost * (np.abs(x[:, place] - x0[:, place]).max(axis=1) > 0.5)
            else:
                out[:, index] = feature.cost * np.abs(x[:, place.start] - x0[:, place.start])
        return out

    def _combine(self, spent: Floats) -> Floats:
        if not spent.shape[1]:
            return np.zeros(len(spent))
        if self.norm == "linf":
            return np.asarray(spent.max(axis=1))
        if self.norm == "l2":
            return np.asarray(np.sqrt((spent**2).sum(axis=1)))
        if self.norm == "l1":
            return np.asarray(spent.sum(axis=1))
        return np.asarray((spent > 1e-9).sum(axis=1), dtype=float)
