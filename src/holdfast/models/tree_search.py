"""The nearest input that an ensemble of trees gives another class, and a proof that none is nearer.

An ensemble is constant on cells, the boxes between its thresholds. For one input and one other class,

1. the distances at which a cell can begin are listed: the nearest cell of that class begins at one of them;
2. "is there such a cell within this distance?" is decided by branch and bound. A box of cells is bounded by the best leaf
   of each tree that the box still reaches. Every threshold in the box is tried on both sides: where a side's bound shows that
   it cannot hold the class, the box shrinks to the other side; else the threshold with the strongest bounds splits it;
3. bisection over the listed distances, hard ones left out at first, and in the end a proof just below the best cell found.

Cells whose margin lies within the rounding of the model's own sums are put to the model itself. Effort is counted in leaf
bounds and not in seconds, so that results are the same on each machine; what stays undecided leaves a gap between the proven
and the found distance.

Sources: Kantchelian, Tygar and Joseph (2016), "Evasion and hardening of tree ensemble classifiers", for the problem; Chen et
al. (2019), "Robustness verification of tree-based models", for the bound by the best reachable leaf of each tree. Trying each
threshold on both sides is strong branching with probing, as in mixed-integer programming (Savelsbergh 1994).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.models.ensembles import LEAF, Floats, Index, TreeEnsemble

EFFORT = 120_000_000
"""Leaf bounds for one input; about half a second."""
OVERHEAD = 20_000
"""Leaf bounds that looking at one box counts for besides its own."""
SOFT = 0.05
"""Share of the effort that a distance gets while others may be easier."""
MOST_UNDECIDED = 2
"""Distances left undecided between a proof and a cell before the proof just below the cell is tried."""
MOST_MOVES = 200
"""Moves of one feature in search of a cell before branch and bound begins."""
GROWTH, SLOWER = 1.6, 1.25
"""Factors between the distances that are tried before a cell is found: after a proof, and after an undecided one."""
SAME = 1e-12
"""Relative difference of distances below which they are one."""
MOST_ASKED = 64
"""Cells of one input that are put to the model, for the rounding of its sums."""
AT_ONCE = 64
"""Inputs that are searched in turn, so that the model is asked about all of them at once."""
Ask = Callable[[Floats, Index], NDArray[np.bool_]]
"""Whether the model itself gives each row (m, features) another class than its input (m,) has."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The numbers that inputs may hold.

    Attributes:
        below, above: (nodes,) the largest on the left of each node's split, and the smallest on its right.
        single, whole: (features,) whether only those of float32, or only whole numbers.
    """

    below: Floats
    above: Floats
    single: NDArray[np.bool_]
    whole: NDArray[np.bool_]

    @classmethod
    def of(cls, ensemble: TreeEnsemble, *, single: Any = False, whole: Any = False) -> Grid:
        """Those of float64, unless said otherwise for each or all of the features."""
        single, whole = (np.broadcast_to(np.asarray(kind, dtype=bool), ensemble.features) for kind in (single, whole))
        at, split = np.maximum(ensemble.feature, 0), ensemble.split
        above = np.where(whole[at], np.ceil(split), np.where(single[at], _up(split), split))
        below = np.where(single[at], _down(np.nextafter(above, -np.inf)), np.nextafter(above, -np.inf))
        return cls(below=np.where(whole[at], above - 1, below), above=above, single=single, whole=whole)

    def inside(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """(features,) the ends of a box as such numbers, inside it."""
        low, high = np.where(self.single, _up(low), low), np.where(self.single, _down(high), high)
        return np.where(self.whole, np.ceil(low), low), np.where(self.whole, np.floor(high), high)


def _up(values: Floats) -> Floats:
    """The smallest float32 that is not smaller."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
        return np.where(near < values, np.nextafter(near, np.float32(np.inf)), near).astype(np.float64)


def _down(values: Floats) -> Floats:
    """The largest float32 that is not larger."""
    return -_up(-values)


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What may become of n inputs: each cell within its box, at a cost of weight x |change|; the distance is the largest cost.

    Attributes:
        low, high: (n, features) the box; equal where nothing may change.
        weight: (features,) positive, or 0 for what costs nothing.
    """

    low: Floats
    high: Floats
    weight: Floats


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """What was found for n inputs.

    Attributes:
        point: (n, features) the nearest input of another class; NaN where none was found. Missing cells stay missing.
        distance: (n,) its distance; infinite where none was found.
        proven: (n,) no input of another class is nearer than this; infinite where none exists in the box.
        effort: (n,) leaf bounds spent.
    """

    point: Floats
    distance: Floats
    proven: Floats
    effort: Index


def nearest(
    ensemble: TreeEnsemble,
    x: Floats,
    y: NDArray[np.int64],
    reach: Reach,
    *,
    grid: Grid | None = None,
    ask: Ask | None = None,
    effort: int = EFFORT,
    within: float = np.inf,
) -> Nearest:
    """The nearest input of another class for each row.

    Args:
        ensemble: the trees.
        x: (n, features) rows; NaN is a missing cell.
        y: (n,) their classes by the model.
        reach: what may become of them.
        grid: the numbers that an input may hold; any float64 by default.
        ask: the model itself, asked about cells that its rounding may decide either way. Without it such a cell counts as of
            the other class for the proof, and is not returned.
        effort: most leaf bounds for one row.
        within: distances beyond this do not matter; `proven` stops there.
    """
    grid = grid or Grid.of(ensemble)
    point, distance = np.full(x.shape, np.nan), np.full(len(x), np.inf)
    proven, spent = np.zeros(len(x)), np.zeros(len(x), dtype=np.int64)
    for start in range(0, len(x), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(x)))
        searches = [
            _Search(ensemble, grid, x[i], int(y[i]), reach.low[i], reach.high[i], reach.weight, effort, within) for i in rows
        ]
        _in_turn([search.run(ask is not None) for search in searches], rows, ask)
        for i, search in zip(rows, searches, strict=True):
            distance[i], proven[i], spent[i] = search.distance, min(search.proven, search.distance), search.spent
            if search.point is not None:
                point[i] = search.point
    return Nearest(point=point, distance=distance, proven=proven, effort=spent)


def _in_turn(searches: Sequence[Generator[Floats, bool, None]], rows: Index, ask: Ask | None) -> None:
    """Run all searches; whenever all that still run wait for the model, ask it about all their rows at once."""
    waiting: dict[int, Floats] = {}
    for number, search in enumerate(searches):
        row = next(search, None)
        if row is not None:
            waiting[number] = row
    while waiting and ask is not None:
        numbers = list(waiting)
        answers = ask(np.stack([waiting[number] for number in numbers]), rows[numbers])
        for number, answer in zip(numbers, answers, strict=True):
            try:
                waiting[number] = searches[number].send(bool(answer))
            except StopIteration:
                del waiting[number]


Questions = Generator[Floats, bool, Any]


class _Search:
    """The search for one input, over all other classes."""

    def __init__(
        self,
        ensemble: TreeEnsemble,
        grid: Grid,
        x: Floats,
        label: int,
        low: Floats,
        high: Floats,
        weight: Floats,
        effort: int,
        within: float,
    ) -> None:
        self.ensemble, self.grid, self.x, self.label, self.weight = ensemble, grid, x, label, weight
        absent = np.isnan(x)
        self.low, self.high = np.where(absent, np.nan, low), np.where(absent, np.nan, high)
        self.effort, self.spent, self.asked, self.within = effort, 0, 0, within
        self.point: Floats | None = None
        self.distance, self.proven = np.inf, np.inf

    def run(self, asking: bool) -> Questions:
        """Search for each other class, the likeliest first; yields rows for the model, if it may be asked."""
        self.asking = asking
        margins = self.ensemble.margins(self.x[None])[0]
        self.steps = self._distances()
        order = [int(t) for t in np.argsort(-margins, kind="stable") if t != self.label]
        for number, target in enumerate(order):
            share = self.spent + (self.effort - self.spent) // (len(order) - number)
            proven = yield from self._towards(target, share)
            self.proven = min(self.proven, proven)

    def cost(self, point: Floats) -> float:
        """The distance of a row."""
        moved = np.where(np.isnan(self.x) | (point == self.x), 0.0, np.abs(point - self.x))
        return float((self.weight * moved).max(initial=0.0))

    def found(self, point: Floats) -> bool:
        """Keep the point if it is the nearest so far."""
        cost = self.cost(point)
        if cost < self.distance:
            self.point, self.distance = point, cost
        return True

    def _distances(self) -> Floats:
        """The sorted distances at which a cell can begin inside the box, from 0."""
        inner = np.flatnonzero(self.ensemble.feature != LEAF)
        f = self.ensemble.feature[inner]
        x, weight = self.x[f], self.weight[f]
        above, below = self.grid.above[inner], self.grid.below[inner]
        up = (above > x) & (above <= self.high[f])
        down = (above <= x) & (below >= self.low[f])
        with np.errstate(invalid="ignore", over="ignore"):
            found: Floats = np.unique(np.concatenate([[0.0], (weight * (above - x))[up], (weight * (x - below))[down]]))
        found = found[np.isfinite(found)]
        return np.asarray(found[np.concatenate([[True], found[1:] > found[:-1] * (1 + SAME)])])

    def _towards(self, target: int, most: int) -> Questions:
        """The distance below which no cell of the target lies; cells found on the way become the best point."""
        steps, end = self.steps, len(self.steps)
        size = max(1, int(SOFT * (most - self.spent)))

        def known() -> int:
            """Cells at this step and beyond are no nearer than the best one, or too far to matter."""
            return int(np.searchsorted(steps, min(self.distance, self.within * (1 + SAME)) * (1 - SAME)))

        proven, hard, reach, undecided = 0, 0, float(steps[min(1, end - 1)]), 0
        while max(proven, hard) < known():
            at = max(min(int(np.searchsorted(steps, reach * (1 + SAME))), known()) - 1, proven, hard)
            verdict = yield from self._decide(target, at, min(most, self.spent + size))
            if verdict:
                break
            proven, hard = (at + 1, hard) if verdict is False else (proven, at + 1)
            reach = max(reach, float(steps[at])) * (GROWTH if verdict is False else SLOWER)
        while max(proven, hard) < known() and undecided < MOST_UNDECIDED:
            first = max(proven, hard)
            middle = (float(steps[first]) + min(self.distance, float(steps[known() - 1]))) / 2
            at = min(max(int(np.searchsorted(steps, middle, side="right")) - 1, first), known() - 1)
            verdict = yield from self._decide(target, at, min(most, self.spent + size))
            undecided += verdict is None
            if not verdict:
                proven, hard = (at + 1, hard) if verdict is False else (proven, at + 1)
        while proven < known() and self.spent < most:
            verdict = yield from self._decide(target, known() - 1, most)
            proven = known() if verdict is False else proven
        return float(steps[proven]) if proven < end and proven < known() else self._beyond(proven, end)

    def _beyond(self, proven: int, end: int) -> float:
        """What is proven once no nearer cell is left."""
        return np.inf if proven >= end else min(self.distance, self.within)

    def _decide(self, target: int, at: int, most: int) -> Questions:
        """Whether a cell of the target begins within the step: True with a nearer point, False, or None if undecided."""
        steps = self.steps
        radius = (steps[at] + steps[at + 1]) / 2 if at + 1 < len(steps) else np.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            span = np.where(self.weight > 0, radius / self.weight, np.inf)
        low, high = self.grid.inside(np.maximum(self.low, self.x - span), np.minimum(self.high, self.x + span))
        leaves = _Leaves(self, target, low, high)
        self.spent += len(leaves.lead)
        return (yield from _branch(self, leaves, most))


class _Leaves:
    """The leaves that a box reaches, and the cells between thresholds that lead to each.

    Attributes:
        lead: (leaves,) what each adds to the target's margin over the label's, ascending.
        tree: (leaves,) which tree each is of, counted from 0.
        low, high: (leaves, features) the part of the box that leads to it, for the features that have a threshold in the box.
        first, last: (leaves, features) the same as cells, which are numbered over all features, from low to high in each.
        cells: (features,) how many there are.
        begin, edges: (features,) the first cell, and where each cell begins.
        feature_of_cell, cell: (all cells,) which feature each is of, and which of its cells.
    """

    def __init__(self, search: _Search, target: int, low: Floats, high: Floats) -> None:
        ensemble, grid = search.ensemble, search.grid
        self.label, self.target = search.label, target
        self.trees = ensemble.trees
        self.start = float(ensemble.base[target] - ensemble.base[search.label])
        node, self.tree, lows, highs = _descended(ensemble, grid, low, high)
        free = np.flatnonzero(low < high)
        lead = ensemble.lead(search.label, target)[node]
        order = np.argsort(lead, kind="stable")
        self.lead, self.tree, lows, highs = lead[order], self.tree[order], lows[order], highs[order]
        edges = [np.unique(lows[:, number]) for number in range(len(free))]
        kept = [number for number, edge in enumerate(edges) if len(edge) > 1]
        self.free = free[kept]
        self.low, self.high = lows[:, kept], highs[:, kept]
        self.cells = np.array([len(edges[number]) for number in kept], dtype=np.int64)
        shape = (len(lead), len(kept))
        self.first, self.last = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        self.feature_of_cell = np.repeat(np.arange(len(kept)), self.cells)
        begin = np.cumsum(self.cells) - self.cells
        self.cell = np.arange(len(self.feature_of_cell)) - begin[self.feature_of_cell]
        for place, number in enumerate(kept):
            self.first[:, place] = begin[place] + np.searchsorted(edges[number], self.low[:, place])
            self.last[:, place] = begin[place] + np.searchsorted(edges[number], self.high[:, place], side="right") - 1
        self.begin, self.edges = begin, [edges[number] for number in kept]

    def cells_of(self, point: Floats) -> Index:
        """(features,) the cell of an input, brought into the box."""
        near = point[self.free]
        place = [np.searchsorted(edge, value, side="right") - 1 for edge, value in zip(self.edges, near, strict=True)]
        return self.begin + np.maximum(np.array(place, dtype=np.int64), 0)

    def point(self, x: Floats, chosen: Index) -> Floats:
        """The input nearest to x in the cell where these leaves, one of each tree, meet."""
        out = x.copy()
        out[self.free] = np.clip(x[self.free], self.low[chosen].max(axis=0), self.high[chosen].min(axis=0))
        return out


def _descended(ensemble: TreeEnsemble, grid: Grid, low: Floats, high: Floats) -> tuple[Index, Index, Floats, Floats]:
    """The leaves that a box reaches, their trees, and the part of the box that leads to each, for features that may change."""
    free = np.flatnonzero(low < high)
    place = np.full(ensemble.features, -1)
    place[free] = np.arange(len(free))
    node, tree = ensemble.roots, np.arange(ensemble.trees)
    lows, highs = (np.tile(side[free], (len(node), 1)) for side in (low, high))
    done: list[tuple[Any, ...]] = []
    while len(node):
        leaf = ensemble.feature[node] == LEAF
        done.append((node[leaf], tree[leaf], lows[leaf], highs[leaf]))
        node, tree, lows, highs = node[~leaf], tree[~leaf], lows[~leaf], highs[~leaf]
        feature = ensemble.feature[node]
        at, rows = place[feature], np.arange(len(node))
        lo, hi = low[feature], high[feature]
        inside = np.flatnonzero(at >= 0)
        lo[inside], hi[inside] = lows[inside, at[inside]], highs[inside, at[inside]]
        below, above, absent = grid.below[node], grid.above[node], np.isnan(lo)
        left = np.flatnonzero(np.where(absent, ensemble.missing_left[node], lo <= below))
        right = np.flatnonzero(np.where(absent, ~ensemble.missing_left[node], hi >= above))
        rows, is_left = np.concatenate([left, right]), np.arange(len(left) + len(right)) < len(left)
        lows, highs = lows[rows], highs[rows]
        for side, values, edge, narrower in ((is_left, highs, below, np.minimum), (~is_left, lows, above, np.maximum)):
            child = np.flatnonzero(side & (at[rows] >= 0))
            column = at[rows[child]]
            values[child, column] = narrower(values[child, column], edge[rows[child]])
        node, tree = np.concatenate([ensemble.left[node[left]], ensemble.right[node[right]]]), tree[rows]
    nodes, trees, all_low, all_high = (np.concatenate([part[side] for part in done]) for side in range(4))
    return nodes, trees, all_low, all_high


def _ascend(search: _Search, leaves: _Leaves, point: Floats, least: float) -> Index | None:
    """Move one feature after another to the cell with the largest lead; the leaves of each tree if the target wins there.

    A leaf counts for a cell of a feature if that feature is the only one to keep the present cells out of it.

    Args:
        point: the input to begin at, brought into the box.
    """
    count = len(leaves.cells)
    if not count:
        return None
    cell = leaves.cells_of(point)
    outside = (leaves.first > cell) | (leaves.last < cell)
    slot, ends = leaves.begin + np.arange(count), leaves.last + 1 + np.arange(count)
    starts = leaves.first + np.arange(count)
    reached = -np.inf
    for _ in range(MOST_MOVES):
        search.spent += outside.size
        away = outside.sum(axis=1)
        here = np.flatnonzero(away == 0)
        now = leaves.start + leaves.lead[here].sum()
        if now >= least:
            return here
        if now <= reached:
            return None
        reached = now
        close = np.flatnonzero(away == 1)
        which = outside[close].argmax(axis=1)
        size = int(leaves.cells.sum()) + count
        weights = np.concatenate([np.repeat(leaves.lead[here], count), leaves.lead[close]])
        gain = np.bincount(np.concatenate([starts[here].ravel(), starts[close, which]]), weights, size + 1)
        gain -= np.bincount(np.concatenate([ends[here].ravel(), ends[close, which]]), weights, size + 1)
        gain = np.cumsum(gain)
        gain[slot + leaves.cells] = -np.inf
        best = int(np.argmax(gain[:size]))
        feature = int(np.searchsorted(slot, best, side="right")) - 1
        outside[:, feature] = (starts[:, feature] > best) | (ends[:, feature] <= best)
    return None


@dataclass(frozen=True)
class _Box:
    """Cells from `first` to `last` of each feature, and the leaves they reach."""

    alive: Index
    first: Index
    last: Index


def _branch(search: _Search, leaves: _Leaves, most: int) -> Questions:
    """Depth-first branch and bound; the side with the higher bound first."""
    rounding = 4 * search.ensemble.rounding
    least = -rounding if rounding or leaves.target < leaves.label else float(np.finfo(float).smallest_subnormal)
    for begin in (search.x, search.point):
        met = None if begin is None else _ascend(search, leaves, begin, max(least, 2 * rounding))
        if met is not None:
            return search.found(leaves.point(search.x, met))
    stack = [_Box(np.arange(len(leaves.lead)), np.zeros_like(leaves.cells), leaves.cells - 1)]
    doubtful = False
    while stack:
        if search.spent >= most:
            return None
        shrunk = _shrink(search, leaves, stack.pop(), least)
        if shrunk is None:
            continue
        box, split = shrunk
        if split is not None:
            stack += _halves(leaves, box, split)
            continue
        point = leaves.point(search.x, box.alive)
        sure = not rounding or leaves.start + leaves.lead[box.alive].sum() > rounding
        if not sure and search.asking and search.asked >= MOST_ASKED:
            return None
        search.asked += not sure
        if sure or (search.asking and (yield point)):
            return search.found(point)
        doubtful |= not search.asking
    return None if doubtful else False


def _shrink(search: _Search, leaves: _Leaves, box: _Box, least: float) -> tuple[_Box, tuple[int, int, bool] | None] | None:
    """Cut off the cells at each end of the box that cannot reach `least`, until none is left to cut.

    Returns:
        The box, and where to split it: a feature, the first cell of the right part, and whether the left part is the better;
        None in place of the split where one leaf of each tree remains; None where nothing remains.
    """
    while True:
        best = np.full(leaves.trees, -np.inf)
        best[leaves.tree[box.alive]] = leaves.lead[box.alive]
        bound = leaves.start + best.sum()
        if not bound >= least:
            return None
        if len(box.alive) == leaves.trees:
            return box, None
        feature, cell, left, right = _bounds(search, leaves, box, best)
        no_left, no_right = left < least, right < least
        if (no_left & no_right).any():
            return None
        if not (no_left.any() or no_right.any()):
            gain = np.minimum(bound - left, bound - right) + 0.1 * np.maximum(bound - left, bound - right)
            at = int(np.argmax(gain))
            return box, (int(feature[at]), int(cell[at]), bool(left[at] >= right[at]))
        first, last = box.first.copy(), box.last.copy()
        np.maximum.at(first, feature[no_left], cell[no_left])
        np.minimum.at(last, feature[no_right], cell[no_right] - 1)
        if (first > last).any():
            return None
        box = _within(leaves, box.alive, first, last)


def _bounds(search: _Search, leaves: _Leaves, box: _Box, best: Floats) -> tuple[Index, Index, Floats, Floats]:
    """The bounds of both parts of the box for each place where it may be split.

    The best leaf of each tree over all cells up to one is a running maximum over the leaves by the cell where they begin.

    Args:
        best: (trees,) the best leaf of each tree in the box.

    Returns:
        (k,) features, the first cell of the right part, the bound of the left part, and that of the right part.
    """
    tree, lead = leaves.tree[box.alive], leaves.lead[box.alive]
    several = np.bincount(tree, minlength=leaves.trees) > 1
    trees = int(several.sum())
    fixed = leaves.start + best[~several].sum()
    moving = np.flatnonzero(several[tree])
    alive, lead, tree = box.alive[moving], lead[moving], (np.cumsum(several) - 1)[tree[moving]]
    widths = box.last - box.first + 1
    group = np.flatnonzero(widths > 1)
    group = group[np.argsort(-widths[group], kind="stable")]
    widths, low = widths[group], box.first[group]
    most = int(widths[0])
    wider = len(group) - np.searchsorted(widths[::-1], np.arange(1, most + 1))
    row = np.concatenate([[0], np.cumsum(wider)])
    search.spent += OVERHEAD + len(lead) * len(group) + int(row[-1]) * trees
    rank = np.zeros(len(box.first), dtype=np.int64)
    rank[group] = np.arange(len(group))
    feature, cell = leaves.feature_of_cell, leaves.cell
    inside = np.clip(cell, box.first[feature], box.last[feature])
    ends = []
    for cells, at in ((leaves.first, inside - box.first[feature]), (leaves.last, box.last[feature] - inside)):
        block = (row[at] + rank[feature]) * trees
        table = np.full(int(row[-1]) * trees, -np.inf)
        # Where several leaves share a place the last assigned stays, and leaves are sorted by what they add.
        table[block[cells[alive[:, None], group]] + tree[:, None]] = lead[:, None]
        for number in range(1, most):
            now = table[row[number] * trees : row[number + 1] * trees]
            np.maximum(now, table[row[number - 1] * trees :][: len(now)], out=now)
        ends.append(fixed + table.reshape(-1, trees).sum(axis=1))
    which = np.repeat(np.arange(len(group)), widths - 1)
    step = np.arange(len(which)) - np.repeat(np.cumsum(widths - 1) - (widths - 1), widths - 1)
    left, right = ends[0][row[step] + which], ends[1][row[widths[which] - 2 - step] + which]
    return group[which], low[which] + step + 1, left, right


def _halves(leaves: _Leaves, box: _Box, split: tuple[int, int, bool]) -> list[_Box]:
    """Both parts of a split box, the better one last."""
    feature, cell, left_is_better = split
    last, first = box.last.copy(), box.first.copy()
    last[feature], first[feature] = cell - 1, cell
    left, right = _within(leaves, box.alive, box.first, last), _within(leaves, box.alive, first, box.last)
    return [right, left] if left_is_better else [left, right]


def _within(leaves: _Leaves, alive: Index, first: Index, last: Index) -> _Box:
    """The box of these cells; the leaves it reaches are among `alive`."""
    kept = ((leaves.first[alive] <= leaves.begin + last) & (leaves.last[alive] >= leaves.begin + first)).all(axis=1)
    return _Box(alive[kept], first, last)
