"""Cheap changes that flip a model with thresholds, under any norm and any constraints of a table, through the user's pipeline.

1. Several walkers for each sample start from valid misclassified inputs: one where HopSkipJump ends, the others at the
   attacker's own rows of another class, the cheapest to reach first.
2. Each walker moves one feature at a time towards the original: all the way, half of the thresholds between, one of them, or
   just up to the next; and several features at once. Of the moves that stay misclassified the cheapest counts.
3. Where none is cheaper, one feature moves away by a threshold while another comes closer.

Only labels are asked, and only valid rows, all samples in one call. Where thresholds are known, as of trees that read the
table's own columns, the steps are theirs; else they lie between the values that the attacker's rows hold.

Source: the walk over neighbouring cells follows Zhang, Zhang and Hsieh (2020), "An efficient adversarial attack for tree
ensembles", which moves from leaf tuple to leaf tuple; here the domain decides which cells are valid and what they cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.core.arrays import Array, as_like, as_numpy
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams
from holdfast.core.table import Floats
from holdfast.core.tabular import Tabular
from holdfast.models.ensembles import Index, TreeEnsemble
from holdfast.models.tree_reach import Columns
from holdfast.models.tree_search import Grid

ROWS_AT_ONCE = 2**16
MOST_STEPS = 256
"""Steps on one column that are read off the attacker's rows."""
MOVES = 128
"""Most moves that one walker asks about at once."""
DRAWN = 32
"""Exchanges that a stuck walker asks about."""
WALKED = 0.4
"""Share of the queries for the walk that finds the first start."""
PATIENCE = 3
"""Rounds of exchanges without a cheaper input before a walker stops."""
CLOSER = 1 - 1e-9


@dataclass(frozen=True, kw_only=True)
class ThresholdDescent(Attack):
    """Walk from misclassified inputs to cheaper ones over the model's thresholds.

    Attributes:
        starts: (m, ...) rows the attacker owns, in the attack's encoding.
        start_labels: (m,) their labels.
        ensemble: the model's trees, if they read the table's own columns; None to step between the values of `starts`.
        columns: the ensemble's columns by the table's names; None where both have the same order.
        walkers: starts for each sample.
        queries: most queries for one sample where the run has no budget.
    """

    starts: Any = field(repr=False, compare=False)
    start_labels: NDArray[np.int64] = field(repr=False, compare=False)
    ensemble: TreeEnsemble | None = field(default=None, repr=False, compare=False)
    columns: tuple[str, ...] | None = None
    walkers: int = 3
    queries: int = 10_000
    access = Access.LABELS

    def __post_init__(self) -> None:
        if min(self.walkers, self.queries) < 1 or len(self.starts) != len(self.start_labels):
            raise ConfigurationError("ThresholdDescent needs at least one walker and query, and a label for each start")

    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams) -> Array:
        """The cheapest misclassified input that a walker met; the original where none started."""
        walk = _Walk(self, oracle, as_numpy(x).reshape(len(x), -1), x, y, domain, streams)
        walk.start()
        patience = np.full(len(walk.owner), PATIENCE)
        while len(active := np.flatnonzero(patience > 0)):
            moved = walk.improve(active, walk.closer(active))
            stuck = active[~moved]
            patience[active[moved]] = PATIENCE
            if len(stuck):
                found = walk.improve(stuck, walk.exchanges(stuck))
                patience[stuck] = np.where(found, PATIENCE, patience[stuck] - 1)
            patience[walk.left(walk.owner) <= 0] = 0
        return walk.cheapest()


Moves = tuple[Floats, Index]
"""Rows, and the walker each is a move of."""


class _Walk:
    """All walkers: the sample each belongs to, its input, and what that costs."""

    def __init__(
        self,
        attack: ThresholdDescent,
        oracle: Oracle,
        flat: Floats,
        x: Array,
        y: NDArray[np.int64],
        domain: Domain,
        streams: SampleStreams,
    ) -> None:
        self.attack, self.oracle, self.x, self.y, self.streams = attack, oracle, x, y, streams
        self.domain = domain.within(math.inf)
        self.original, self.shape = flat, tuple(x.shape)
        self.starts = as_numpy(attack.starts).reshape(len(attack.starts), -1)
        plain = getattr(domain, "tabular", domain)
        self.groups: list[slice] = []
        numbers = list(range(flat.shape[1]))
        if isinstance(plain, Tabular):
            mutable = [feature for feature in plain.table.features if feature.mutable]
            self.groups = [plain.table.columns[feature.name] for feature in mutable if feature.one_hot]
            numbers = [plain.table.columns[feature.name].start for feature in mutable if feature.kind != "category"]
        self.above, self.below = _steps(attack, domain, self.starts, numbers)
        self.numbers = [column for column in numbers if len(self.above[column])]
        self.owner = np.zeros(0, dtype=np.int64)
        self.point, self.cost = np.zeros((0, flat.shape[1])), np.zeros(0)

    def left(self, samples: Index) -> Index:
        """Queries that each sample may still ask."""
        if self.oracle.budget is None:
            return self.attack.queries - self.oracle.cost.queries[samples]
        return self.oracle.remaining()[samples]

    def price(self, rows: Floats, sample: Index) -> tuple[Floats, Floats]:
        """The valid rows next to these, and what they cost."""
        x0 = self.x[sample]
        valid = self.domain.repair(x0, as_like(self.x, rows.reshape(len(rows), *self.shape[1:])))
        return as_numpy(valid).reshape(len(rows), -1), np.asarray(self.domain.distance(x0, valid))

    def wrong(self, rows: Floats, sample: Index) -> NDArray[np.bool_]:
        """(m,) whether the model misclassifies each row; rows beyond a sample's queries are not asked about, so never."""
        order = np.argsort(sample, kind="stable")
        rank = np.empty(len(sample), dtype=np.int64)
        rank[order] = np.arange(len(sample)) - np.searchsorted(sample[order], sample[order])
        answer = np.zeros(len(sample), dtype=bool)
        asked = np.flatnonzero(rank < self.left(sample))
        for at in range(0, len(asked), ROWS_AT_ONCE):
            part = asked[at : at + ROWS_AT_ONCE]
            given = as_like(self.x, rows[part].reshape(len(part), *self.shape[1:]))
            answer[part] = self.oracle.labels(given, sample[part]) != self.y[sample[part]]
        return answer

    def start(self) -> None:
        """The walkers: one where HopSkipJump ends, the others at the cheapest valid rows of another class."""
        labels, count = np.asarray(self.attack.start_labels), self.attack.walkers
        part: Any = _Part(self.oracle, int(WALKED * self.left(np.arange(len(self.x))).min(initial=self.attack.queries)))
        far = HopSkipJump(starts=self.attack.starts, start_labels=labels)
        met = as_numpy(far.perturb(part, self.x, self.y, self.domain, self.streams)).reshape(len(self.x), -1)
        rows, sample = [met], [np.arange(len(self.x))]
        for number in range(len(self.x)):
            others = self.starts[labels != self.y[number]]
            valid, cost = self.price(others, np.full(len(others), number))
            rows.append(valid[np.argsort(cost, kind="stable")[: 2 * (count - 1)]])
            sample.append(np.full(len(rows[-1]), number))
        self._begin(np.concatenate(rows), np.concatenate(sample))

    def _begin(self, rows: Floats, sample: Index) -> None:
        """Put a walker on the cheapest misclassified of these rows, at most so many a sample."""
        rows, cost = self.price(rows, sample)
        hits = np.flatnonzero(self.wrong(rows, sample))
        hits = hits[np.lexsort((cost[hits], sample[hits]))]
        rank = np.arange(len(hits)) - np.searchsorted(sample[hits], sample[hits])
        hits = hits[rank < self.attack.walkers]
        self.owner = np.concatenate([self.owner, sample[hits]])
        self.point, self.cost = np.concatenate([self.point, rows[hits]]), np.concatenate([self.cost, cost[hits]])

    def improve(self, walkers: Index, moves: Moves) -> NDArray[np.bool_]:
        """Let each walker make the cheapest of its moves that stays misclassified; whether it made one."""
        rows, who = moves
        before = rows
        rows, cost = self.price(rows, self.owner[who])
        keep = np.flatnonzero((cost < self.cost[who] * CLOSER) & np.isfinite(before).all(axis=1))
        keep = keep[np.lexsort((cost[keep], who[keep]))]
        rank = np.arange(len(keep)) - np.searchsorted(who[keep], who[keep])
        keep = keep[rank < MOVES]
        hits = keep[self.wrong(rows[keep], self.owner[who[keep]])]
        moved, first = np.unique(who[hits], return_index=True)
        self.point[moved], self.cost[moved] = rows[hits[first]], cost[hits[first]]
        return np.isin(walkers, moved)

    def closer(self, walkers: Index) -> Moves:
        """Moves of one changed feature towards the original, and of a random half and quarter of them all the way."""
        rows, who = [], []
        for column in self.numbers:
            changed = walkers[self.point[walkers, column] != self.original[self.owner[walkers], column]]
            level = self._level(column, changed)
            for target in (np.zeros_like(level), level // 2, np.maximum(level - 1, 0), level):
                row = self.point[changed].copy()
                row[:, column] = self._value(column, changed, target)
                rows.append(row)
                who.append(changed)
        for group in self.groups:
            changed = walkers[(self.point[walkers, group] != self.original[self.owner[walkers], group]).any(axis=1)]
            row = self.point[changed].copy()
            row[:, group] = self.original[self.owner[changed], group]
            rows.append(row)
            who.append(changed)
        draws = self._draws(walkers, 4, self.point.shape[1])
        for number, share in enumerate((0.5, 0.5, 0.25, 0.25)):
            back = draws[:, number] < share
            rows.append(np.where(back, self.original[self.owner[walkers]], self.point[walkers]))
            who.append(walkers)
        return np.concatenate(rows), np.concatenate(who)

    def exchanges(self, walkers: Index) -> Moves:
        """One feature a threshold further away, another one closer by a threshold, half of them or all."""
        if not self.numbers:
            return self.point[:0], walkers[:0]
        draws = self._draws(walkers, DRAWN, 3).reshape(-1, 3)
        who = np.repeat(walkers, DRAWN)
        rows = self.point[who]
        out, back = (draws[:, :2] * len(self.numbers)).astype(np.int64).T
        for place, column in enumerate(self.numbers):
            here = np.flatnonzero(out == place)
            rows[here, column] = self._value(column, who[here], self._level(column, who[here]) + 1)
            here = np.flatnonzero((back == place) & (out != place))
            level, how = self._level(column, who[here]), draws[here, 2]
            target = np.where(how < 0.4, level - 1, np.where(how < 0.7, level // 2, 0))
            rows[here, column] = self._value(column, who[here], np.maximum(target, 0))
        return rows, who

    def cheapest(self) -> Array:
        """The cheapest input of each sample's walkers."""
        out = self.original.copy()
        order = np.lexsort((self.cost, self.owner))
        samples, first = np.unique(self.owner[order], return_index=True)
        out[samples] = self.point[order[first]]
        return as_like(self.x, out.reshape(self.shape))

    def _draws(self, walkers: Index, count: int, width: int) -> Floats:
        """(walkers, count, width) uniform draws, each walker's from its sample's stream."""
        samples, place = np.unique(self.owner[walkers], return_inverse=True)
        rank = np.arange(len(walkers)) - np.searchsorted(self.owner[walkers], self.owner[walkers])
        draws = self.streams.uniform(samples, (self.attack.walkers, count, width))
        return np.asarray(draws[place, rank])

    def _level(self, column: int, walkers: Index) -> Index:
        """How many steps lie between the original and the walker on that column."""
        value, origin = self.point[walkers, column], self.original[self.owner[walkers], column]
        above, below = self.above[column], self.below[column]
        up = np.searchsorted(above, value, side="right") - np.searchsorted(above, origin, side="right")
        down = np.searchsorted(below, origin) - np.searchsorted(below, value)
        return np.asarray(np.where(value >= origin, up, down), dtype=np.int64)

    def _value(self, column: int, walkers: Index, level: Index) -> Floats:
        """That column so many steps from the original, on each walker's side of it; NaN beyond the last step."""
        value, origin = self.point[walkers, column], self.original[self.owner[walkers], column]
        above, below = self.above[column], self.below[column]
        up = np.searchsorted(above, origin, side="right") + level - 1
        down = np.searchsorted(below, origin) - level
        beyond = np.where(value >= origin, up >= len(above), down < 0)
        there = np.where(value >= origin, above[np.clip(up, 0, len(above) - 1)], below[np.clip(down, 0, len(below) - 1)])
        return np.where(level == 0, origin, np.where(beyond, np.nan, there))


class _Part:
    """An oracle that gives away only so many queries of each sample."""

    def __init__(self, oracle: Oracle, budget: int) -> None:
        self._oracle, self.budget, self.cost = oracle, budget, oracle.cost

    def labels(self, x: Array, owner: Index) -> Index:
        """As the oracle's."""
        return self._oracle.labels(x, owner)

    def remaining(self, owner: Index | None = None) -> Index:
        """How many rows of the part each sample may still ask for."""
        spent = self._oracle.cost.queries
        return np.asarray(self.budget - (spent if owner is None else spent[owner]))


def _steps(
    attack: ThresholdDescent, domain: Domain, starts: Floats, numbers: list[int]
) -> tuple[dict[int, Floats], dict[int, Floats]]:
    """For each column, the sorted smallest values beyond each threshold upwards, and the largest ones downwards."""
    above, below = {}, {}
    if attack.ensemble is None:
        for column in numbers:
            held = np.unique(starts[:, column])
            held = held[np.abs(held) < 1e150]
            if len(held) > MOST_STEPS:
                held = held[np.linspace(0, len(held) - 1, MOST_STEPS).round().astype(np.int64)]
            between = (held[1:] + held[:-1]) / 2
            above[column] = below[column] = np.unique(np.concatenate([held, between]))
        return above, below
    view = Columns(attack.ensemble, domain, attack.columns)
    grid = Grid.of(attack.ensemble, single="32" in str(getattr(attack.starts, "dtype", "")))
    for column in numbers:
        feature, unit = column, 1.0
        if isinstance(view.domain, Tabular):
            places = [number for number, f in enumerate(view.features) if view.domain.table.columns[f.name].start == column]
            if not places:
                above[column] = below[column] = np.zeros(0)
                continue
            feature, unit = places[0], view.features[places[0]].unit
        nodes = np.flatnonzero((attack.ensemble.feature == feature) & np.isfinite(attack.ensemble.split))
        above[column], below[column] = np.unique(grid.above[nodes]) / unit, np.unique(grid.below[nodes]) / unit
        if isinstance(view.domain, Tabular) and view.features[feature].kind == "integer":
            above[column] = np.unique(np.ceil(above[column] * unit)) / unit
            below[column] = np.unique(np.floor(below[column] * unit)) / unit
    return above, below
