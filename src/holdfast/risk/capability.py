"""P(success) from evidence: how often an attack succeeds within a capability, and what that means for one actor.

1. The rows of one piece of evidence give a step curve: k(c) of n units fell within capability c.
2. One draw of the curve takes the same quantile of Beta(k + 1/2, n - k + 1/2), Jeffreys' posterior, at every c. Those
   distributions rise with k, so each draw is a curve that rises with c. Clustered units count as their effective number.
3. Beyond the largest tested capability nothing was seen: any value between the curve's end and 1 is as likely.
4. What happens by chance is taken off: (p - chance) / (1 - chance), at least 0.
5. A stronger attack than the probe's wins a further share of what is left: p + (1 - p) g, with g by the probe's strength.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, expit, logit, ndtr, ndtri

from holdfast.core import seeds
from holdfast.core.evidence import Evidence
from holdfast.core.statistics import effective_trials, rate
from holdfast.risk.defaults import gap_shape
from holdfast.risk.losses import Floats, Lognormal
from holdfast.risk.register import CurvePoint

SHOWN_POINTS = 24
SCORES = np.linspace(-6.5, 6.5, 105)
"""Normal scores at which the quantile functions of posteriors are tabulated."""


@dataclass(frozen=True)
class Luck:
    """What is not known about one measurement, as uniform draws: where the curve lies, the untested, a stronger attack."""

    curve: Floats
    beyond: Floats
    stronger: Floats

    @classmethod
    def of(cls, size: int, seed: int, *labels: object) -> Luck:
        """Draws named by `labels`; every actor who meets the same measurement shares them."""
        random = seeds.generator(seed, "luck", *labels)
        return cls(*(random.random(size) for _ in range(3)))

    def head(self, size: int) -> Luck:
        """The first `size` draws."""
        return Luck(self.curve[:size], self.beyond[:size], self.stronger[:size])


@dataclass(frozen=True)
class CapabilityCurve:
    """How many of the attacked units fell within which capability.

    Attributes:
        steps: (m,) capabilities at which units fell, ascending and distinct.
        fallen: (m,) how many had fallen by each.
        trials: units attacked.
        weight: effective units a unit, 1 when they are independent.
        tested: the largest capability tested; infinite when success has no axis.
        axis, chance, strength: of the evidence.
        points: the curve with exact intervals, thinned for reading.
    """

    steps: Floats
    fallen: NDArray[np.int64]
    trials: int
    weight: float
    tested: float
    axis: str
    chance: float
    strength: str
    points: tuple[CurvePoint, ...]

    @classmethod
    def of(cls, evidence: Evidence) -> CapabilityCurve:
        """The curve of evidence that `says_something`."""
        spent = np.array([np.inf if row.capability is None else row.capability for row in evidence.rows])
        clusters = None
        if any(row.cluster is not None for row in evidence.rows):
            names = [f"unit {row.unit}" if row.cluster is None else f"in {row.cluster}" for row in evidence.rows]
            clusters = np.unique(names, return_inverse=True)[1].astype(np.int64)
        won = np.isfinite(spent)
        steps, counts = np.unique(spent[won], return_counts=True)
        weight = 1.0 if clusters is None else effective_trials(won, clusters) / len(won)
        weight = weight if evidence.effective is None else min(weight, evidence.effective / len(won))
        end = float(steps[-1]) if len(steps) else 0.0
        tested = np.inf if not evidence.axis else end if evidence.tested is None else evidence.tested
        return cls(
            steps=steps,
            fallen=np.cumsum(counts),
            trials=len(won),
            weight=weight,
            tested=tested,
            axis=evidence.axis,
            chance=evidence.chance,
            strength=evidence.strength,
            points=_points(spent, clusters, steps, tested) if evidence.axis else (),
        )

    def untested(self, capability: Lognormal | None) -> float:
        """The share of an actor's capability beyond what was tested; None stands for the whole tested budget."""
        if capability is None:
            return 0.0
        if self.tested <= 0:
            return 1.0
        if capability.scale == 0:
            return float(np.exp(capability.location) > self.tested)
        return float(ndtr((capability.location - np.log(self.tested)) / capability.scale))

    def draw(self, capability: Floats | float, luck: Luck) -> Floats:
        """P(success) for each draw: of the capability there, or of the whole tested budget for an infinite one.

        Args:
            capability: (n,) or one for all.
            luck: n draws.
        """
        spent = np.broadcast_to(np.asarray(capability, dtype=float), luck.curve.shape)
        whole = np.isinf(spent)
        share = self._quantiles(self._within(spent), luck.curve)
        share = np.where((spent > self.tested) & ~whole, share + (1 - share) * luck.beyond, share)
        return self._excess(share, luck)

    def average(self, capability: Lognormal | None, luck: Luck, nodes: int = 16) -> Floats:
        """P(success) averaged over the actor's capability, for each draw of what a measurement could tell."""
        if capability is None:
            return self.draw(np.inf, luck)
        spent = capability.quantiles((np.arange(nodes) + 0.5) / nodes)
        within, beyond = self._within(spent), spent > self.tested
        cells, weights = np.unique(np.stack([within, beyond]), axis=1, return_counts=True)
        at = [spent[int(np.flatnonzero((within == k) & (beyond == b))[0])] for k, b in cells.T]
        return np.asarray(sum(self.draw(float(c), luck) * w for c, w in zip(at, weights, strict=True)) / nodes)

    @cached_property
    def _quantiles(self) -> JeffreysQuantiles:
        return JeffreysQuantiles(int(self.fallen[-1]) if len(self.fallen) else 0, self.trials, self.weight)

    def _within(self, capability: Floats) -> NDArray[np.int64]:
        """How many units fell within each capability, of those that were tested."""
        index = np.searchsorted(self.steps, np.minimum(capability, self.tested), side="right")
        return np.concatenate([[0], self.fallen])[index]

    def _excess(self, share: Floats, luck: Luck) -> Floats:
        above = np.clip((share - self.chance) / (1 - self.chance), 0.0, 1.0) if self.chance else share
        shape = gap_shape(self.strength)
        if np.isinf(shape):
            return above
        gap = -np.expm1(np.log1p(-luck.stronger) / shape)
        return above + (1 - above) * gap


class JeffreysQuantiles:
    """The quantile functions of Beta(k w + 1/2, (n - k) w + 1/2) for k = 0 .. most, rising in k and in the share.

    The logits of the quantiles are tabulated over normal scores and over some k (every k near 0 and n, in between by a ratio)
    and read by bilinear interpolation; the result is within 0.5 % of the exact quantile between the outermost scores.

    Args:
        most: the largest k that will be asked.
        trials, weight: n and w.
    """

    def __init__(self, most: int, trials: int, weight: float) -> None:
        nodes = _success_nodes(trials)
        nodes = nodes[: int(np.searchsorted(nodes, most)) + 1]
        upper, lower = nodes * weight + 0.5, (trials - nodes) * weight + 0.5
        table = logit(betaincinv(upper[:, None], lower[:, None], ndtr(SCORES)))
        self._table = np.clip(table, -700.0, 36.0)
        self._place = np.interp(np.arange(most + 1), nodes, np.arange(len(nodes)))
        between = np.log((np.arange(most + 1) * weight + 0.5) / ((trials - np.arange(most + 1)) * weight + 0.5))
        at_nodes = np.log(upper / lower)
        left = np.minimum(self._place.astype(np.int64), max(len(nodes) - 2, 0))
        right = np.minimum(left + 1, len(nodes) - 1)
        width = at_nodes[right] - at_nodes[left]
        self._left, self._right = left, right
        self._part = np.where(width > 0, (between - at_nodes[left]) / np.where(width > 0, width, 1.0), 0.0)

    def __call__(self, successes: NDArray[np.int64], shares: Floats) -> Floats:
        """(m,) the quantile of each pair of k and share."""
        position = (np.clip(ndtri(shares), SCORES[0], SCORES[-1]) - SCORES[0]) / (SCORES[1] - SCORES[0])
        below = np.minimum(position.astype(np.int64), len(SCORES) - 2)
        part = position - below
        left, right, mix = self._left[successes], self._right[successes], self._part[successes]
        lower = self._table[left, below] * (1 - part) + self._table[left, below + 1] * part
        upper = self._table[right, below] * (1 - part) + self._table[right, below + 1] * part
        return np.asarray(expit(lower * (1 - mix) + upper * mix))


def _success_nodes(trials: int) -> NDArray[np.int64]:
    """0 .. n, all of them near both ends and by a ratio of 1.25 in between."""
    near = np.arange(9)
    far = np.geomspace(8, max(trials / 2, 8), max(2, int(np.ceil(np.log(max(trials / 16, 1)) / np.log(1.25))) + 1)).round()
    half = np.unique(np.concatenate([near, far]).astype(np.int64))
    half = half[half <= trials]
    return np.unique(np.concatenate([half, trials - half]))


def says_something(evidence: Evidence) -> bool:
    """Whether a probability follows from the evidence: it is measured, has rows, and chance does not always succeed."""
    return evidence.status == "measured" and bool(evidence.rows) and evidence.chance < 1


def success_probability(
    evidence: Evidence,
    typical: float | None = None,
    high: float | None = None,
    *,
    seed: int = 0,
    draws: int = 20_000,
) -> tuple[float, float, float]:
    """P(success) of an actor with a lognormal capability: mean, 5 % and 95 % points.

    Args:
        evidence: about the threat; if none follows from it, any probability is as likely.
        typical, high: median and 95 % point of the actor's capability; None means the whole tested budget.
        seed: decides the draws.
        draws: how many.
    """
    luck = Luck.of(draws, seed, evidence.probe)
    if not says_something(evidence):
        return spread(luck.curve)
    curve = CapabilityCurve.of(evidence)
    if not curve.axis or typical is None:
        return spread(curve.draw(np.inf, luck))
    capability = Lognormal.typical(typical, typical if high is None else high)
    return spread(curve.draw(capability.draw(seeds.generator(seed, "capability"), draws), luck))


def spread(probability: Floats) -> tuple[float, float, float]:
    """Mean, 5 % and 95 % points."""
    low, high = np.quantile(probability, (0.05, 0.95))
    return float(np.mean(probability)), float(low), float(high)


def _points(spent: Floats, clusters: NDArray[np.int64] | None, steps: Floats, tested: float) -> tuple[CurvePoint, ...]:
    thinned = np.unique(np.linspace(0, len(steps) - 1, SHOWN_POINTS).round().astype(int))
    shown = steps if len(steps) <= SHOWN_POINTS else steps[thinned]
    points = []
    for capability in np.unique([*shown, tested]):
        found = rate(spent <= capability, clusters)
        points.append(
            CurvePoint(
                capability=float(capability),
                value=found.value,
                low=found.low,
                high=found.high,
                successes=found.successes,
                trials=found.trials,
            )
        )
    return tuple(points)
