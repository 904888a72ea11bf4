"""SurFree: evasion by labels alone along circles, without estimating the boundary's direction.

1. Find a misclassified start for each sample and walk towards the original until the label flips back, as HopSkipJump does.
2. Take a random direction at right angles to the way to the original. With the way it spans a plane, and in it a circle that
   runs through both points; ask about a turn by some angle to either side on it. Each is closer than the point was.
3. Where one is misclassified, ask about larger turns to the same side. The closest misclassified input is the next point.
4. Shorten the turns of a sample where both sides failed, and go on with 2 until the queries are spent.

The directions of one sample are orthonormal, so that none is tried twice. L2 only.

Source: Maho, Furon and Le Merrer (2021), "SurFree: a fast surrogate-free black-box attack", section 3 and algorithm 1. Unlike
the paper, larger turns are asked about at once instead of one by one, which costs a query or two and saves calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.frames import frames
from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump, Search
from holdfast.core.arrays import Array, as_like, as_numpy
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams

Index = NDArray[np.int64]
Floats = NDArray[np.float64]
LARGER = (1.4, 2.0, 2.8)
"""Turns that are asked about after a success, as multiples of the one that succeeded."""
SMALLEST, LARGEST = math.radians(0.5), math.radians(80.0)
"""Between which turns lie."""
SHORTENED = 0.85
"""What is left of a turn after a failure on both sides."""
DRAWN_AT_ONCE = 64
"""Directions of one sample that are drawn at once where there are not as many features."""


@dataclass(frozen=True, kw_only=True)
class SurFree(Attack):
    """Approach the nearest decision boundary by labels, plane by plane.

    Attributes:
        queries: most queries for one sample where the run has no budget.
        angle: of the first turns, in degrees.
        tries: most random start candidates for one sample.
        starts: (m, ...) rows the attacker owns, in the attack's encoding; the nearest of another class are tried first.
        start_labels: (m,) their labels.
    """

    queries: int = 1000
    angle: float = 30.0
    tries: int = 64
    starts: Any = field(default=None, repr=False, compare=False)
    start_labels: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    access = Access.LABELS

    def __post_init__(self) -> None:
        if not 0 < self.angle <= 80:
            raise ConfigurationError("SurFree turns by an angle in (0, 80] degrees")
        self._walk()

    def _walk(self) -> HopSkipJump:
        return HopSkipJump(queries=self.queries, tries=self.tries, starts=self.starts, start_labels=self.start_labels)

    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams) -> Array:
        """The closest misclassified input found for each sample; the original where there is none.

        Raises:
            ConfigurationError: the norm is not l2.
        """
        if domain.norm != "l2":
            raise ConfigurationError(f"SurFree turns on circles, which have no meaning under {domain.norm}", hint="Use norm: l2.")
        search = Search(self._walk(), oracle, x, y, domain, streams)
        search.start()
        search.bisect(search.active())
        turns = _Turns(search, np.full(len(x), math.radians(self.angle)))
        while len(active := search.active()):
            turns.once(active)
        return search.best


class _Turns:
    """The angle of each sample's next turn, and the directions that are ready."""

    def __init__(self, search: Search, angle: Floats) -> None:
        self.search, self.angle, self.turn = search, angle, 0
        self.many = max(DRAWN_AT_ONCE, search.features)

    def once(self, active: Index) -> None:
        """Turn each sample to both sides in one plane, and further where that succeeds."""
        search = self.search
        x0 = as_numpy(search.x[active]).reshape(len(active), -1)
        way = as_numpy(search.best[active]).reshape(len(active), -1) - x0
        distance = np.linalg.norm(way, axis=1, keepdims=True)
        way /= distance
        side = self._direction(active)
        side -= (side * way).sum(axis=1, keepdims=True) * way
        side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-30)
        plane = (x0, distance, way, side)
        both = self.angle[active, None] * np.array([1.0, -1.0])
        hit = self._ask(active, plane, both)
        won = hit.any(axis=1)
        self.angle[active[~won]] = np.maximum(self.angle[active[~won]] * SHORTENED, SMALLEST)
        at = np.flatnonzero(won & (search.left(active) > 0))
        if not len(at):
            return
        sign = np.where(hit[at, 0], 1.0, -1.0)
        further = np.minimum(self.angle[active[at], None] * np.array(LARGER), LARGEST)
        hit = self._ask(active[at], tuple(part[at] for part in plane), sign[:, None] * further)
        reached = np.where(hit, further, self.angle[active[at], None]).max(axis=1)
        self.angle[active[at]] = np.minimum(reached, LARGEST)

    def _ask(self, samples: Index, plane: tuple[Floats, ...], angles: Floats) -> NDArray[np.bool_]:
        """(n, m) whether the turns of each sample by its angles are misclassified; those beyond its queries are not."""
        search = self.search
        x0, distance, way, side = (part[:, None] for part in plane)
        cosine, sine = np.cos(angles)[:, :, None], np.sin(angles)[:, :, None]
        rows = x0 + distance * cosine * (cosine * way + sine * side)
        asked = np.arange(angles.shape[1]) < search.left(samples)[:, None]
        owner = np.repeat(samples, angles.shape[1])[asked.reshape(-1)]
        points = as_like(search.x, rows[asked].reshape(-1, *search.shape))
        hit = np.zeros(angles.shape, dtype=bool)
        hit[asked] = search.ask(search.domain.repair(search.x[owner], points), owner)
        return hit

    def _direction(self, active: Index) -> Floats:
        """(n, features) the next direction of each sample."""
        search = self.search
        if self.turn % self.many == 0:
            self.drawn = active
            self.ahead = frames(search.streams, active, self.many, search.features)
        at = np.array([self.turn % self.many])
        self.turn += 1
        return np.asarray(self.ahead(at)[np.searchsorted(self.drawn, active), 0])
