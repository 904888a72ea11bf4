"""What a domain lets become of rows, in the columns of an ensemble of trees, and the way back.

In a `Ball` the ensemble's columns are those of the input. In a `Tabular` they are the table's, in the user's units: numbers
and whole numbers move at their declared cost, a column of two categories 0 and 1 moves between them, missing and immutable
cells stay, and so do all other categories, whose cheapest change is `fixed_cost`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.arrays import Array, as_like, as_numpy
from holdfast.core.domain import Ball, Domain
from holdfast.core.errors import ConfigurationError
from holdfast.core.table import MISSING, Feature, Floats
from holdfast.core.tabular import Tabular
from holdfast.models.ensembles import TreeEnsemble
from holdfast.models.tree_search import Grid, Reach


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A search problem, in the ensemble's columns.

    Attributes:
        rows: (n, features) what the ensemble reads; NaN is a missing cell.
        reach: what may become of them under linf.
        grid: the numbers that the inputs may hold.
        fixed_cost: what the cheapest change costs that the reach leaves out; infinite where it leaves out none.
    """

    rows: Floats
    reach: Reach
    grid: Grid
    fixed_cost: float


class Columns:
    """The columns of an ensemble as those of a domain's arrays.

    Args:
        ensemble: the trees.
        domain: a `Ball` or a `Tabular`, or a `Tabular` over tensors.
        names: the ensemble's columns by the table's names; None where both have the same order.

    Raises:
        ConfigurationError: the ensemble does not read the table's own columns, as behind a pipeline, or the domain is no other.
    """

    def __init__(self, ensemble: TreeEnsemble, domain: Domain, names: Sequence[str] | None = None) -> None:
        self.ensemble = ensemble
        plain = getattr(domain, "tabular", domain)
        if not isinstance(plain, (Ball, Tabular)):
            raise ConfigurationError(f"trees cannot be searched in a {type(domain).__name__}")
        self.domain: Ball | Tabular = plain
        self.features: tuple[Feature, ...] = ()
        if isinstance(plain, Tabular):
            self.features = tuple(plain.table.feature(name) for name in names) if names is not None else plain.table.features
            self._require_numbers()

    def rows(self, x: Array) -> Floats:
        """(n, features) the attack's arrays as the ensemble reads them."""
        plain = as_numpy(x)
        if isinstance(self.domain, Ball):
            return plain.reshape(len(plain), -1)
        out = np.empty((len(plain), len(self.features)))
        for number, feature in enumerate(self.features):
            block = plain[:, self.domain.table.columns[feature.name]]
            if feature.one_hot:
                values = np.array([float(value) for value in feature.values])
                out[:, number] = np.where(block.max(axis=1) > 0, values[block.argmax(axis=1)], np.nan)
            elif feature.kind == "category":
                values = np.array([float(value) for value in feature.values] or [np.nan])
                code = np.where(block[:, 0] == MISSING, 0, block[:, 0]).astype(np.int64)
                out[:, number] = np.where(block[:, 0] == MISSING, np.nan, values[code])
            else:
                out[:, number] = np.where(block[:, 0] == MISSING, np.nan, block[:, 0] * feature.unit)
        return out

    def back(self, x: Array, rows: Floats) -> Array:
        """The attack's arrays with the cells that differ from x's own rows changed."""
        if isinstance(self.domain, Ball):
            return as_like(x, rows.reshape(tuple(x.shape)))
        before, out = self.rows(x), as_numpy(x).copy()
        for number, feature in enumerate(self.features):
            changed = np.flatnonzero((rows[:, number] != before[:, number]) & ~np.isnan(rows[:, number]))
            place = self.domain.table.columns[feature.name]
            if feature.one_hot:
                values = np.array([float(value) for value in feature.values])
                out[changed, place] = (rows[changed, number, None] == values).astype(float)
            else:
                out[changed, place.start] = rows[changed, number] / feature.unit
        return as_like(x, out)

    def setting(self, x: Array, *, real: bool = False) -> Setting:
        """The search problem of (n, ...) attack arrays.

        Args:
            x: the arrays.
            real: look at all float64 values, also where the inputs hold fewer; whole numbers stay whole.

        Raises:
            ConfigurationError: distances are not linf, or relations bind columns together.
        """
        if self.domain.norm != "linf":
            raise ConfigurationError(
                f"the exact search is for linf, not {self.domain.norm}", hint="ThresholdDescent knows them all."
            )
        if isinstance(self.domain, Tabular):
            if self.domain.relations:
                raise ConfigurationError("the exact search knows no relations", hint="ThresholdDescent keeps them.")
            return self._of_table(self.domain, x, real)
        rows = self.rows(x)
        shape = tuple(x.shape)
        sides = (self.domain.low, self.domain.high)
        low, high = (np.broadcast_to(np.asarray(side, dtype=np.float64), shape).reshape(rows.shape) for side in sides)
        reach = Reach(low=low, high=high, weight=np.ones(rows.shape[1]))
        grid = Grid.of(self.ensemble, single="32" in str(x.dtype) and not real)
        return Setting(rows=rows, reach=reach, grid=grid, fixed_cost=np.inf)

    def _of_table(self, domain: Tabular, x: Array, real: bool) -> Setting:
        rows, count = self.rows(x), len(self.features)
        low, high = rows.copy(), rows.copy()
        weight, whole, fixed = np.zeros(count), np.zeros(count, dtype=bool), np.inf
        kinds = domain.table.decode(as_numpy(x)[:1]).dtypes.astype(str).to_numpy()
        kind_of = dict(zip(domain.table.columns, kinds, strict=True))
        single = np.array([kind_of[feature.name].lower() == "float32" and not real for feature in self.features])
        for number, feature in enumerate(self.features):
            if not feature.mutable:
                continue
            if feature.kind == "category":
                if not _two_numbers(feature):
                    fixed = min(fixed, feature.cost) if len(feature.values) > 1 else fixed
                    continue
                low[:, number], high[:, number], weight[number], whole[number] = 0.0, 1.0, feature.cost, True
            else:
                low[:, number] = np.fmin(feature.low, rows[:, number])
                high[:, number] = np.fmax(feature.high, rows[:, number])
                weight[number], whole[number] = feature.cost / feature.scale, feature.kind == "integer"
        absent = np.isnan(rows)
        low, high = np.where(absent, np.nan, low), np.where(absent, np.nan, high)
        grid = Grid.of(self.ensemble, single=single, whole=whole)
        return Setting(rows=rows, reach=Reach(low=low, high=high, weight=weight), grid=grid, fixed_cost=fixed)

    def _require_numbers(self) -> None:
        if len(self.features) != self.ensemble.features:
            raise ConfigurationError(
                f"the trees read {self.ensemble.features} columns and the table has {len(self.features)}",
                hint="Trees behind a pipeline read other columns than the table's; ThresholdDescent attacks them through it.",
            )
        for feature in self.features:
            if feature.kind == "category" and not all(_is_number(value) for value in feature.values):
                raise ConfigurationError(f"the trees cannot read column {feature.name!r}, which holds words")


def _two_numbers(feature: Feature) -> bool:
    return feature.one_hot and len(feature.values) == 2 and {float(value) for value in feature.values} == {0.0, 1.0}


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating)) and math.isfinite(float(value))
