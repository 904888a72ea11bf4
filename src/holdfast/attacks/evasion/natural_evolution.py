"""Natural evolution: evasion by scores, through gradients estimated from pairs of opposite inputs.

1. Ask about the inputs a small step ahead and behind in random directions, in pairs; the differences of the margins give the
   gradient. Each input of a pair is a query.
2. Take a step against the margin, by its sign under linf, else along it, and project.
3. Stop as soon as a sample is misclassified; shorten the steps of a sample whose margin no longer falls.

All samples are asked about in one call. The directions come from orthonormal bases of cosines with random signs for each sample,
and a gradient keeps part of what the steps before it found: the gradients of neighbouring inputs are alike.

Sources: Ilyas, Engstrom, Athalye and Lin (2018), "Black-box adversarial attacks with limited queries and information",
algorithm 1, for pairs of opposite directions and the projected step; Ilyas, Engstrom and Madry (2019), "Prior convictions:
black-box adversarial attacks with bandits and priors", section 3, for carrying the gradient from step to step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.frames import frames, margins
from holdfast.core.arrays import Array, as_like, as_numpy, copied
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams

SHORTEST = 1 / 64
"""Share of the first step below which steps are not shortened."""
PATIENCE = 5
"""Steps without a smaller margin after which a sample goes back to its best point with half the step."""


@dataclass(frozen=True, kw_only=True)
class NaturalEvolution(Attack):
    """Gradient descent on the margin by scores alone.

    Attributes:
        queries: most queries for one sample where the run has no budget.
        pairs: of opposite inputs for one gradient.
        reach: how far those lie from the point, as a share of the radius.
        step: length of the first steps, as a share of the radius.
        carried: share of the evidence for a gradient that is kept for the next step.
    """

    queries: int = 1000
    pairs: int = 20
    reach: float = 0.1
    step: float = 0.25
    carried: float = 0.9
    access = Access.SCORES

    def __post_init__(self) -> None:
        if min(self.queries, self.pairs) < 1 or not min(self.reach, self.step) > 0 or not 0 <= self.carried < 1:
            raise ConfigurationError("natural evolution needs queries, pairs, a positive reach and step, and carried in [0, 1)")

    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams) -> Array:
        """The input with the smallest margin found for each sample.

        Raises:
            ConfigurationError: the radius is not finite.
        """
        if not math.isfinite(domain.radius):
            raise ConfigurationError("natural evolution searches within a radius", hint="Declare domain.radius.")
        descent = _Descent(self, oracle, x, y, domain, streams)
        while len(active := descent.active()):
            descent.look(active)
            if len(active := descent.active()):
                descent.move(active)
        return descent.best


class _Descent:
    """The state of all samples: where each is, its best point and margin, its step and the evidence for its gradient."""

    def __init__(
        self,
        attack: NaturalEvolution,
        oracle: Oracle,
        x: Array,
        y: NDArray[np.int64],
        domain: Domain,
        streams: SampleStreams,
    ) -> None:
        self.attack, self.oracle, self.x, self.y, self.domain, self.streams = attack, oracle, x, y, domain, streams
        self.xp, self.shape = array_namespace(x), tuple(x.shape[1:])
        self.features = math.prod(self.shape)
        self.point, self.best = copied(x), copied(x)
        self.margin = np.full(len(x), np.inf)
        self.evidence = np.zeros((len(x), self.features))
        self.size = np.full(len(x), attack.step * self._scale())
        self.idle = np.zeros(len(x), dtype=np.int64)

    def active(self) -> NDArray[np.int64]:
        """Samples that are not misclassified yet and have queries left."""
        return np.flatnonzero((self.margin >= 0) & (self.left() > 0))

    def left(self) -> NDArray[np.int64]:
        """Queries that each sample may still ask."""
        if self.oracle.budget is None:
            return self.attack.queries - self.oracle.cost.queries
        return self.oracle.remaining()

    def look(self, active: NDArray[np.int64]) -> None:
        """Ask about the points themselves."""
        found = margins(self.oracle.scores(self.point[active], active), self.y[active])
        better = found < self.margin[active]
        won = active[better]
        self.best[won] = self.point[won]
        self.margin[won] = found[better]
        self.idle[active] = np.where(better, 0, self.idle[active] + 1)
        stuck = active[self.idle[active] >= PATIENCE]
        self.point[stuck] = self.best[stuck]
        self.size[stuck] = np.maximum(self.size[stuck] / 2, SHORTEST * self.attack.step * self._scale())
        self.idle[stuck] = 0

    def move(self, active: NDArray[np.int64]) -> None:
        """Estimate gradients from pairs and step along them."""
        count = min(self.attack.pairs, int(self.left()[active].min()) // 2)
        if count:
            self._estimate(active, count)
        slope = self.evidence[active]
        if self.domain.norm == "linf":
            slope = np.sign(slope)
        else:
            slope = slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-30)
        steps = as_like(self.x, (-self.size[active, None] * slope).reshape(len(active), *self.shape))
        self.point[active] = self.domain.project(self.x[active], self.point[active] + steps)

    def _estimate(self, active: NDArray[np.int64], count: int) -> None:
        ahead = frames(self.streams, active, count, self.features)(np.arange(count)) * self.attack.reach * self._scale()
        if self.domain.norm == "linf":
            ahead *= math.sqrt(self.features)
        owner = np.repeat(active, 2 * count)
        both = np.stack([ahead, -ahead], axis=2).reshape(-1, *self.shape)
        rows = self.domain.project(self.x[owner], self.point[owner] + as_like(self.x, both))
        found = margins(self.oracle.scores(rows, owner), self.y[owner])
        self._keep(rows, found, active, 2 * count)
        pairs = as_numpy(rows).reshape(len(active), count, 2, self.features)
        moved = pairs[:, :, 0] - pairs[:, :, 1]
        change = found.reshape(len(active), count, 2)
        change = np.clip(change[:, :, 0] - change[:, :, 1], -1e15, 1e15)
        length = np.maximum((moved**2).sum(axis=2), 1e-30)
        fresh = ((change / length)[:, :, None] * moved).sum(axis=1)
        self.evidence[active] = self.attack.carried * self.evidence[active] + fresh

    def _keep(self, rows: Array, found: NDArray[np.float64], active: NDArray[np.int64], many: int) -> None:
        """A misclassified input of a pair is as good as a point."""
        table = found.reshape(len(active), many)
        at = table.argmin(axis=1)
        low = table[np.arange(len(active)), at]
        won = np.flatnonzero((low < 0) & (low < self.margin[active]))
        self.best[active[won]] = rows[won * many + at[won]]
        self.margin[active[won]] = low[won]

    def _scale(self) -> float:
        """The radius as a length; under l1 and l0 that of a change that is spread out."""
        norm, radius = self.domain.norm, self.domain.radius
        return radius / math.sqrt(self.features) if norm == "l1" else math.sqrt(radius) if norm == "l0" else radius
