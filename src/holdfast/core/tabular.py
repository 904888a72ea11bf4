"""What an attacker may change in a table, on raw DataFrames.

`Tabular` is the domain over the arrays of a `Table`: immutable columns, integers, one-hot groups, bounds, linear
relations between numbers, and a cost for each feature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from holdfast.core.domain import TOLERANCE, Norm
from holdfast.core.errors import ConfigurationError
from holdfast.core.table import MISSING, Feature, Floats, Relation, Table

TIE = 1e-12
"""Disadvantage of the original category where another has the same value, so that a changed group stays changed."""

__all__ = ["MISSING", "Feature", "Relation", "Table", "Tabular"]


@dataclass(frozen=True, kw_only=True)
class Tabular:
    """Changes to the mutable cells of a table, within a cost budget.

    The distance of a change is the norm of (cost x |difference| in scale units) over numbers and (cost) over changed
    categories; under l0 each changed feature that costs anything counts one.

    Attributes:
        table: the columns.
        norm: how the features' costs add up.
        radius: the budget; `math.inf` leaves only the constraints.
        relations: kept by every projected row, where the original keeps them.
    """

    table: Table
    norm: Norm = "linf"
    radius: float = math.inf
    relations: tuple[Relation, ...] = ()

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2", "l1", "l0") or not self.radius >= 0:
            raise ConfigurationError(f"a budget of {self.radius} in the norm {self.norm!r} is none")
        for relation in self.relations:
            for name in relation.weights:
                if self.table.feature(name).kind == "category":
                    raise ConfigurationError(f"relation on {name!r}, which is a category")

    def repair(self, x0: Floats, x: Floats) -> Floats:
        """Restore immutable and missing cells, bounds, whole numbers, one-hot groups and relations."""
        return _Changes(self, x0, math.inf).valid(x)

    def project(self, x0: Floats, x: Floats) -> Floats:
        """As `repair`, within the budget; integers are rounded towards the original, so that rounding never overspends."""
        return _Changes(self, x0, self.radius).valid(x)

    def distance(self, x0: Floats, x: Floats) -> Floats:
        """(n,) what the change costs."""
        return _Changes(self, x0, self.radius).distance(x)

    def contains(self, x0: Floats, x: Floats) -> NDArray[np.bool_]:
        """Whether a row is valid, exactly, and within the budget."""
        changes = _Changes(self, x0, self.radius)
        unchanged = (_Changes(self, x0, math.inf).valid(x) == x).all(axis=1)
        return np.asarray(unchanged & (changes.distance(x) <= changes.allowed))

    def sample(self, x0: Floats, uniform: Floats) -> Floats:
        """Uniform over what each feature may become, then projected; draws near 0 and 1 give the ends."""
        return _Changes(self, x0, self.radius).drawn(uniform)

    def within(self, radius: float) -> Tabular:
        """The same constraints with another budget."""
        return replace(self, radius=radius)


class _Changes:
    """What may become of given originals within a radius; number columns are handled together, groups one by one."""

    def __init__(self, domain: Tabular, x0: Floats, radius: float) -> None:
        self.x0, self.radius, self.norm, self.relations = x0, radius, domain.norm, domain.relations
        self.table = domain.table
        features = self.table.features
        self.numbers = [feature for feature in features if feature.kind != "category"]
        self.groups = [feature for feature in features if feature.one_hot]
        self.codes = [self.table.columns[f.name].start for f in features if f.kind == "category" and not f.one_hot]
        self.at = np.array([self.table.columns[feature.name].start for feature in self.numbers], dtype=np.int64)
        self.unit = np.array([feature.unit for feature in self.numbers])
        self.weight = np.array([feature.cost * feature.unit / feature.scale for feature in self.numbers])
        self.whole = np.array([feature.kind == "integer" for feature in self.numbers], dtype=bool)
        self.origin = x0[:, self.at]
        held = ~np.array([feature.mutable for feature in self.numbers], dtype=bool) | (self.origin == MISSING)
        self.low = np.where(held, self.origin, np.minimum([f.low / f.unit for f in self.numbers], self.origin))
        self.high = np.where(held, self.origin, np.maximum([f.high / f.unit for f in self.numbers], self.origin))
        self.rounding = np.where(held, 0.0, np.abs(self.origin) * self.weight) * (4 * np.finfo(float).eps)
        self.allowed = radius * (1 + TOLERANCE) + 1e-12
        self.held = held

    def valid(self, x: Floats) -> Floats:
        """The rows of x with every constraint restored, within the radius."""
        out = np.where(np.isfinite(x), x, self.x0)
        out[:, self.codes] = self.x0[:, self.codes]
        self._restore_groups(out)
        out[:, self.at] = np.clip(out[:, self.at], self.low, self.high)
        self._shrink(out)
        for relation in self.relations:
            self._keep(out, relation)
            self._shrink(out)
        self._round(out)
        for relation in self.relations:
            self._keep(out, relation)
        self._revert(out)
        return out

    def distance(self, x: Floats) -> Floats:
        """(n,) what the change from the originals to x costs."""
        return self._combine(self._moved(x), self._switched(x))

    def drawn(self, uniform: Floats) -> Floats:
        """A random row within the radius for each original, from draws in [0, 1)."""
        out = np.array(uniform, dtype=float)
        low, high = self._within_reach()
        out[:, self.at] = low + uniform[:, self.at] * (high - low)
        return self.valid(out)

    def _restore_groups(self, out: Floats) -> None:
        rows = np.arange(len(out))
        for feature in self.groups:
            place = self.table.columns[feature.name]
            original, value = self.x0[:, place], out[:, place]
            after = (value - TIE * original).argmax(axis=1)
            picked = np.zeros_like(original)
            picked[rows, after] = 1.0
            kept = (original.max(axis=1) <= 0) | (value.max(axis=1) <= 0)
            out[:, place] = np.where((kept | (self._price(feature) > self.radius))[:, None], original, picked)
        if self.norm == "linf" or not math.isfinite(self.radius):
            return
        spent = self._switched(out)
        for index in reversed(range(len(self.groups))):
            over = self._combine(np.zeros((len(out), 0)), spent) > self.radius
            place = self.table.columns[self.groups[index].name]
            out[over, place] = self.x0[over, place]
            spent[over, index] = 0.0

    def _within_reach(self) -> tuple[Floats, Floats]:
        """Bounds of each number that cost at most the radius by themselves."""
        if self.norm == "l0" or not math.isfinite(self.radius):
            return self.low, self.high
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(self.weight > 0, self.radius / self.weight, np.inf)
        return np.maximum(self.low, self.origin - reach), np.minimum(self.high, self.origin + reach)

    def _shrink(self, out: Floats) -> None:
        if not math.isfinite(self.radius):
            return
        if self.norm == "linf":
            out[:, self.at] = np.clip(out[:, self.at], *self._within_reach())
            return
        moved, fixed = self._moved(out), self._combine(np.zeros((len(out), 0)), self._switched(out))
        if self.norm == "l0":
            rank = np.argsort(np.argsort(-moved, axis=1, kind="stable"), axis=1, kind="stable")
            undo = (moved > 0) & (rank >= np.floor(self.radius - fixed)[:, None])
            out[:, self.at] = np.where(undo, self.origin, out[:, self.at])
            return
        power = 2 if self.norm == "l2" else 1
        left = np.clip(self.radius**power - fixed**power, 0, None) ** (1 / power)
        used = self._combine(moved, np.zeros((len(out), 0)))
        over = self.distance(out) > self.allowed
        factor = np.where(over & (used > left), left / np.where(used > 0, used, 1.0), 1.0)[:, None]
        shrunk = self.origin + factor * (out[:, self.at] - self.origin)
        out[:, self.at] = np.where((factor < 1) & (self.weight > 0), shrunk, out[:, self.at])

    def _round(self, out: Floats) -> None:
        steps = (out[:, self.at] - self.origin) * self.unit
        steps = np.trunc(steps + np.sign(steps) * 1e-9) if math.isfinite(self.radius) else np.rint(steps)
        steps -= np.where(self._beyond(self.origin + steps / self.unit), np.sign(steps), 0.0)
        out[:, self.at] = np.where(self.whole, self.origin + steps / self.unit, out[:, self.at])

    def _keep(self, out: Floats, relation: Relation) -> None:
        """Move rows that break a relation onto its boundary: by its first feature if it equals, else by all mutable ones."""
        broken = np.flatnonzero(self._breaks(out, relation))
        names = list(relation.weights)[:1] if relation.kind == "equals" else list(relation.weights)
        places = np.array([i for i, f in enumerate(self.numbers) if f.name in names and f.mutable], dtype=np.int64)
        weights = np.array([relation.weights[self.numbers[index].name] for index in places])
        if not len(broken) or not (weights**2).sum():
            return
        block = np.ix_(broken, self.at[places])
        gap = self._gap(out[broken], relation)
        value = out[block] - (gap[:, None] * weights / (weights**2).sum()) / self.unit[places]
        if relation.kind == "at_most":
            origin = self.origin[np.ix_(broken, places)]
            steps = (value - origin) * self.unit[places]
            steps = np.where(weights > 0, np.floor(steps + 1e-9), np.ceil(steps - 1e-9))
            value = np.where(self.whole[places], origin + steps / self.unit[places], value)
        out[block] = np.clip(value, self.low[np.ix_(broken, places)], self.high[np.ix_(broken, places)])

    def _revert(self, out: Floats) -> None:
        """Give up the change of what still breaks a relation or the budget: its features first, then the whole row."""
        if not self.relations:
            return
        for relation in self.relations * len(self.relations):
            bad = self._breaks(out, relation) | (self.distance(out) > self.allowed)
            for name in relation.weights:
                at = self.table.columns[name].start
                out[bad, at] = self.x0[bad, at]
        steps = (out[:, self.at] - self.origin) * self.unit
        bad = (self.whole & (steps != np.rint(steps))).any(axis=1) | (self.distance(out) > self.allowed)
        for relation in self.relations:
            bad |= self._breaks(out, relation)
        out[bad] = self.x0[bad]

    def _breaks(self, x: Floats, relation: Relation) -> NDArray[np.bool_]:
        """Rows that break a relation more than their original does; a missing cell cannot break one."""
        places = [self.table.columns[name].start for name in relation.weights]
        size = abs(relation.bound) + sum(abs(w) * np.abs(self.table.values(x, n)) for n, w in relation.weights.items())
        now, before = self._gap(x, relation), self._gap(self.x0, relation)
        if relation.kind == "equals":
            now, before = np.abs(now), np.abs(before)
        more = now > np.clip(before, 0, None) + 1e-9 * size
        return np.asarray(more & ~(self.x0[:, places] == MISSING).any(axis=1))

    def _gap(self, x: Floats, relation: Relation) -> Floats:
        terms = [weight * self.table.values(x, name) for name, weight in relation.weights.items()]
        return np.asarray(np.sum(terms, axis=0) - relation.bound)

    def _beyond(self, value: Floats) -> NDArray[np.bool_]:
        return (value < self.low) | (value > self.high)

    def _price(self, feature: Feature) -> float:
        return float(feature.cost > 0) if self.norm == "l0" else feature.cost

    def _moved(self, x: Floats) -> Floats:
        """(n, numbers) what each number's change costs, beyond what the rounding of that number alone can make of it."""
        cost = np.where(self.held, 0.0, self.weight * np.abs(x[:, self.at] - self.origin))
        return (cost > 0).astype(float) if self.norm == "l0" else np.clip(cost - self.rounding, 0.0, None)

    def _switched(self, x: Floats) -> Floats:
        """(n, groups) what each category's change costs."""
        out = np.zeros((len(x), len(self.groups)))
        for index, feature in enumerate(self.groups):
            place = self.table.columns[feature.name]
            out[:, index] = self._price(feature) * (x[:, place] != self.x0[:, place]).any(axis=1)
        return out

    def _combine(self, moved: Floats, switched: Floats) -> Floats:
        spent = np.concatenate([moved, switched], axis=1)
        if self.norm == "linf":
            return np.asarray(spent.max(axis=1, initial=0.0))
        with np.errstate(over="ignore"):
            return np.asarray(np.sqrt((spent**2).sum(axis=1)) if self.norm == "l2" else spent.sum(axis=1))
