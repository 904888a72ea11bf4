"""HopSkipJump: evasion by labels alone, for all samples at once, within an exact number of queries each.

1. Find a misclassified valid start for each sample: a random input within the radius, the nearest given row of another
   class, or a random input from anywhere.
2. Walk towards the original until the label flips back (bisection).
3. Ask about random inputs around that point; their labels give the boundary's direction.
4. Step along it, halving the step until the input is misclassified, and go on with 2 until the queries are spent.

Each step asks the model about all samples in one call. What is asked depends on the sample alone, not on the batch.

Source: Chen, Jordan and Wainwright (2020), "HopSkipJumpAttack: a query-efficient decision-based attack", algorithm 2.
Unlike the paper, every answer counts: the result is the closest misclassified input that was ever asked about, also in
step 3. Those inputs lie further from the boundary, at first very far, which finds the nearer of several boundaries and
spares fine bisection; they go along orthonormal directions, which tell more than independent ones; and a direction keeps
part of what earlier turns found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.corners import corner_draws
from holdfast.attacks.evasion.frames import frames
from holdfast.core.arrays import Array, as_like, as_numpy
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams

Index = NDArray[np.int64]
NUMBERS_AT_ONCE = 2**22
"""Most array elements in one model call; larger requests are cut, without changing what is asked."""
HALVINGS = 4
"""Step sizes that are tried before a direction is given up."""
MOST_CANDIDATES = 64
"""Start candidates that are asked about at once, for one sample."""
INSIDE = 0.3
"""Share of the features of an input within the radius that do not go to an end of what they may become."""
PRECISION = 0.02
"""Bisection stops when the boundary is known to this share of the distance."""
WIDE, NARROW, WIDEST = 18.0, 2.0, 2.0
"""Directions are asked about at WIDE / sqrt(turn) / sqrt(d) times the distance, at least NARROW / sqrt(d), at most WIDEST."""
CARRIED = 0.5
"""How much of the evidence for a direction stays from one turn to the next; the boundary turns slowly."""
CUBE = 0.6
"""The size of a feature's change under linf beside the reach, about that of uniform draws in [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(Attack):
    """Approach the nearest decision boundary by labels.

    Distances are the domain's own. Steps use the sign of the estimated direction under linf, else the direction itself.
    Without a success inside the domain's radius the attack spends its whole budget on coming closer.

    Attributes:
        queries: most queries for one sample where the run has no budget.
        probes: inputs asked about in the first direction estimate; the t-th estimate takes sqrt(t) times as many.
        reach: distance of those inputs from the boundary, as a share of the distance to the original; None for one that
            falls from turn to turn, so that the first directions lead past local minima.
        tries: most start candidates for one sample, besides those within the radius.
        near: share of the queries that may be spent on random inputs within a finite radius; trees have pockets there.
        starts: (m, ...) rows the attacker owns, in the attack's encoding; the nearest of another class are tried first.
        start_labels: (m,) their labels.
    """

    queries: int = 1000
    probes: int = 40
    reach: float | None = None
    tries: int = 64
    near: float = 0.0
    starts: Any = field(default=None, repr=False, compare=False)
    start_labels: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    access = Access.LABELS

    def __post_init__(self) -> None:
        if min(self.queries, self.probes, self.tries) < 1 or not 0 <= self.near < 1 or not (self.reach is None or self.reach > 0):
            raise ConfigurationError("HopSkipJump needs at least one query, probe and try, a positive reach, and near in [0, 1)")
        if self.starts is not None and (self.start_labels is None or len(self.starts) != len(self.start_labels)):
            raise ConfigurationError("each start row of HopSkipJump needs its label")

    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams) -> Array:
        """The closest misclassified input found for each sample; the original where there is none."""
        search = Search(self, oracle, x, y, domain, streams)
        search.start()
        search.bisect(search.active())
        turn = 0
        while len(samples := search.active()):
            turn += 1
            direction = search.direction(samples, turn)
            search.bisect(search.step(samples, direction, turn))
        return search.best


class Search:
    """The state of all samples: the closest misclassified input of each, its distance, and the point it walks from."""

    def __init__(
        self,
        attack: HopSkipJump,
        oracle: Oracle,
        x: Array,
        y: NDArray[np.int64],
        domain: Domain,
        streams: SampleStreams,
    ) -> None:
        self.attack, self.oracle, self.x, self.y, self.streams = attack, oracle, x, y, streams
        self.xp = array_namespace(x)
        self.domain = domain.within(math.inf)
        self.ball = domain
        self.shape = tuple(x.shape[1:])
        self.features = int(np.prod(self.shape))
        self.signed = domain.norm == "linf"
        self.best = self.xp.asarray(x, copy=True)
        self.size = np.full(len(x), np.inf)
        self.point = self.xp.asarray(x, copy=True)
        self.across = np.zeros((len(x), self.features))

    def left(self, samples: Index) -> Index:
        """Queries that each sample may still ask."""
        if self.oracle.budget is None:
            return self.attack.queries - self.oracle.cost.queries[samples]
        return self.oracle.remaining()[samples]

    def active(self) -> Index:
        """Samples with a misclassified input away from the original, and queries left."""
        samples = np.flatnonzero(np.isfinite(self.size) & (self.size > 0))
        return samples[self.left(samples) > 0]

    def ask(self, rows: Array, owner: Index) -> NDArray[np.bool_]:
        """(m,) whether each row is misclassified; the closest misclassified one becomes its sample's best."""
        wrong = np.asarray(self.oracle.labels(rows, owner) != self.y[owner])
        hits = np.flatnonzero(wrong)
        if len(hits):
            distance = np.asarray(self.domain.distance(self.x[owner[hits]], rows[hits]))
            order = np.lexsort((distance, owner[hits]))
            samples, first = np.unique(owner[hits][order], return_index=True)
            nearest = order[first]
            closer = distance[nearest] < self.size[samples]
            self.size[samples[closer]] = distance[nearest][closer]
            self.best[samples[closer]] = rows[hits[nearest[closer]]]
        return wrong

    def start(self) -> None:
        """Ask about candidates, in rounds of 1, 1, 2, 4, ... for each sample, until one is misclassified."""
        given, near = self._given(), 0
        if math.isfinite(self.ball.radius):
            near = int(self.attack.near * (self.attack.queries if self.oracle.budget is None else self.oracle.budget))
        asked = 0
        while asked < near + self.attack.tries:
            samples = np.flatnonzero(~np.isfinite(self.size))
            samples = samples[self.left(samples) > 0]
            if not len(samples):
                return
            count = min(max(asked, 1), MOST_CANDIDATES, near + self.attack.tries - asked)
            width = max(1, NUMBERS_AT_ONCE // (self.features * count))
            for first in range(0, len(samples), width):
                rows, owner = self._candidates(samples[first : first + width], given, asked, count, near)
                kept = np.arange(len(owner)) - np.searchsorted(owner, owner) < self.left(owner)
                self.ask(rows[np.flatnonzero(kept)], owner[kept])
            self.point[samples] = self.best[samples]
            asked += count

    def bisect(self, samples: Index) -> None:
        """Walk from each sample's point towards the original until the label flips back."""
        far = self.point[samples]
        low, high = np.zeros(len(samples)), np.ones(len(samples))
        while len(at := np.flatnonzero((high - low > PRECISION * high) & (self.left(samples) > 0))):
            middle = (low[at] + high[at]) / 2
            rows = self._between(samples[at], far[at], middle)
            wrong = self.ask(rows, samples[at])
            self.point[samples[at[wrong]]] = rows[np.flatnonzero(wrong)]
            high[at] = np.where(wrong, middle, high[at])
            low[at] = np.where(wrong, low[at], middle)

    def direction(self, samples: Index, turn: int) -> Array:
        """The unit direction across the boundary, from labels around each point and half of what earlier turns found."""
        xp, count = self.xp, round(self.attack.probes * math.sqrt(turn))
        take = np.minimum(count, self.left(samples))
        centre = self.point[samples][:, None]
        ahead = frames(self.streams, samples, count, self.features)
        size = CUBE * math.sqrt(self.features) if self.signed else 1.0
        scale = self._column(self._length(centre[:, 0] - self.x[samples]) * self._reach(turn))[:, None]
        sums, hits = np.zeros((len(samples), 2, self.features)), np.zeros(len(samples))
        width = max(1, NUMBERS_AT_ONCE // (self.features * len(samples)))
        for start in range(0, count, width):
            numbers = np.arange(start, min(start + width, count))
            asked = numbers < take[:, None]
            if not asked.any():
                break
            owner = np.repeat(samples, len(numbers))
            noise = size * ahead(numbers).reshape(len(samples), len(numbers), *self.shape)
            rows = centre + scale * as_like(self.x, noise)
            rows = self.domain.repair(self.x[owner], xp.reshape(rows, (-1, *self.shape)))
            weight = np.stack([asked, asked], axis=1).astype(float)
            place = np.flatnonzero(asked)
            weight[:, 1][asked] = self.ask(rows[place], owner[place]) if len(place) < len(owner) else self.ask(rows, owner)
            change = (xp.reshape(rows, (len(samples), len(numbers), *self.shape)) - centre) / scale
            change = xp.reshape(change, (len(samples), len(numbers), self.features))
            sums += as_numpy(xp.matmul(as_like(self.x, weight), change))
            hits += weight[:, 1].sum(axis=1)
        share = (hits / np.maximum(take, 1))[:, None]
        moved, across = sums[:, 0], sums[:, 1] - share * sums[:, 0]
        across = np.where(share == 0, -moved, np.where(share == 1, moved, across)) + CARRIED * self.across[samples]
        self.across[samples] = across
        direction = as_like(self.x, across.reshape(len(samples), *self.shape))
        if self.signed:
            return xp.sign(direction)
        return direction / self._column(np.maximum(self._length(direction), 1e-30))

    def step(self, samples: Index, direction: Array, turn: int) -> Index:
        """Step along the direction, halving until misclassified; returns the samples that could."""
        centre = self.point[samples]
        size = np.asarray(self._length(centre - self.x[samples])) / np.sqrt(turn)
        landed = np.zeros(len(samples), dtype=bool)
        for _ in range(HALVINGS):
            at = np.flatnonzero(~landed & (self.left(samples) > 0))
            if not len(at):
                break
            owner = samples[at]
            rows = self.domain.repair(self.x[owner], centre[at] + self._column(size[at]) * direction[at])
            wrong = self.ask(rows, owner)
            self.point[owner[wrong]] = rows[np.flatnonzero(wrong)]
            landed[at] = wrong
            size[at] /= 2
        return samples[landed]

    def _given(self) -> list[Index]:
        """For each sample, the start rows of another class, the nearest first."""
        if self.attack.starts is None:
            return [np.zeros(0, dtype=np.int64)] * len(self.x)
        labels = np.asarray(self.attack.start_labels)
        order = []
        for sample in range(len(self.x)):
            other = np.flatnonzero(labels != self.y[sample])
            x0 = self.xp.broadcast_to(self.x[sample], (len(other), *self.shape))
            distance = self.domain.distance(x0, self.domain.repair(x0, self.attack.starts[other]))
            order.append(other[np.argsort(distance, kind="stable")])
        return order

    def _candidates(self, samples: Index, given: list[Index], asked: int, count: int, near: int) -> tuple[Array, Index]:
        """`count` start candidates for each sample, owner by owner: `near` ones, given rows, then random ones."""
        owner = np.repeat(samples, count)
        turn = np.tile(np.arange(asked, asked + count), len(samples))
        uniform = self.streams.uniform(samples, (count, *self.shape)).reshape(len(owner), *self.shape)
        kind = (turn % 4).reshape(-1, *[1] * len(self.shape))
        shaded = np.where(kind < 3, uniform ** np.choose(kind, [1.0, 8.0, 1 / 8, 1.0]), corner_draws(uniform))
        rows = self.domain.sample(self.x[owner], shaded)
        close = np.flatnonzero(turn < near)
        if len(close):
            rows[close] = self.ball.sample(self.x[owner[close]], corner_draws(uniform[close], INSIDE))
        for place, (sample, number) in enumerate(zip(owner, turn - near, strict=True)):
            if 0 <= number < len(given[sample]):
                rows[place] = self.attack.starts[given[sample][number]]
        return self.domain.repair(self.x[owner], rows), owner

    def _between(self, samples: Index, far: Array, share: NDArray[np.float64]) -> Array:
        """The valid input at `share` of the way from the original to the far point, in the domain's geometry."""
        x0 = self.x[samples]
        if not self.signed:
            return self.domain.repair(x0, x0 + self._column(share) * (far - x0))
        limit = self._column(share * np.asarray(self._length(far - x0)))
        return self.domain.repair(x0, self.xp.clip(far, x0 - limit, x0 + limit))

    def _reach(self, turn: int) -> float:
        """How far from the boundary labels are asked, as a share of the distance to the original."""
        return self.attack.reach or min(WIDEST, max(NARROW, WIDE / math.sqrt(turn)) / math.sqrt(self.features))

    def _length(self, change: Array) -> NDArray[np.float64]:
        flat = self.xp.reshape(change, (change.shape[0], -1))
        size = self.xp.max(self.xp.abs(flat), axis=1) if self.signed else self.xp.sqrt(self.xp.sum(flat * flat, axis=1))
        return as_numpy(size)

    def _column(self, values: NDArray[np.float64]) -> Array:
        """(n,) numbers as an array that multiplies one sample each."""
        return as_like(self.x, values.reshape(-1, *[1] * len(self.shape)))
