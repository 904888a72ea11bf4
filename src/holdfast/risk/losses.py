"""Lognormal quantities, and what a year's events cost together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from holdfast.risk.register import Loss

Floats = NDArray[np.float64]
Z95 = float(ndtri(0.95))
EXACT_EVENTS = 128
"""Up to so many events a year are added one by one; more are replaced by one lognormal of equal mean and variance."""

EXCEEDANCES = np.concatenate([np.linspace(0.95, 0.1, 18), np.geomspace(0.08, 0.001, 20)])
"""Probabilities at which an exceedance curve is given."""


@dataclass(frozen=True)
class Lognormal:
    """exp(location + scale * Z) with Z standard normal."""

    location: float
    scale: float

    @classmethod
    def between(cls, low: float, high: float) -> Lognormal:
        """With `low` and `high` as its 5 % and 95 % points."""
        return cls((np.log(low) + np.log(high)) / 2, float(np.log(high / low)) / (2 * Z95))

    @classmethod
    def typical(cls, median: float, high: float) -> Lognormal:
        """With that median, and `high` as its 95 % point."""
        return cls(float(np.log(median)), float(np.log(high / median)) / Z95)

    @property
    def mean(self) -> float:
        """The expected value."""
        return float(np.exp(self.location + self.scale**2 / 2))

    @property
    def variance(self) -> float:
        """The variance."""
        return float(np.expm1(self.scale**2)) * self.mean**2

    def draw(self, random: np.random.Generator, size: int) -> Floats:
        """(size,) independent draws."""
        return np.exp(self.location + self.scale * random.standard_normal(size))

    def quantiles(self, shares: Floats) -> Floats:
        """The values below which each share lies; same shape."""
        return np.asarray(np.exp(self.location + self.scale * ndtri(shares)))


def annual_losses(events: NDArray[np.int64], severity: Lognormal, random: np.random.Generator) -> tuple[Floats, Floats]:
    """What the events of each simulated year cost together, and the mean cost of one.

    Sums of up to `EXACT_EVENTS` losses are drawn as sums. Longer ones are drawn from the lognormal of the same mean and
    variance. Source: Fenton (1960), "The sum of log-normal probability distributions in scatter transmission systems".

    Args:
        events: (n,) the number of events in each year.
        severity: the loss of one event; events are independent.
        random: consumed.

    Returns:
        (n,) annual losses, and (n,) the mean loss of the year's events, that of a possible first event where there was none.
    """
    first = severity.draw(random, len(events))
    total = np.where(events > 0, first, 0.0)
    few = np.flatnonzero((events > 1) & (events <= EXACT_EVENTS))
    if len(few):
        year = np.repeat(few, events[few] - 1)
        total += np.bincount(year, weights=severity.draw(random, len(year)), minlength=len(events))
    many = np.flatnonzero(events > EXACT_EVENTS)
    if len(many):
        count = events[many].astype(float)
        variance = np.log1p(severity.variance / severity.mean**2 / count)
        location = np.log(count * severity.mean) - variance / 2
        total[many] = np.exp(location + np.sqrt(variance) * random.standard_normal(len(many)))
    return total, np.where(events > 0, total / np.maximum(events, 1), first)


def summarise(annual: Floats) -> Loss:
    """Mean, 5, 50 and 95 % points and the exceedance curve of simulated years."""
    ordered = np.sort(annual)
    p5, p50, p95 = (float(value) for value in np.quantile(ordered, (0.05, 0.5, 0.95)))
    some = float(np.mean(ordered > 0))
    levels = EXCEEDANCES[some > EXCEEDANCES]
    losses = np.quantile(ordered, 1 - levels) if len(levels) else np.zeros(0)
    points = [(0.0, some), *((float(loss), float(level)) for loss, level in zip(losses, levels, strict=True))]
    return Loss(mean=float(ordered.mean()), p5=p5, p50=p50, p95=p95, exceedance=tuple(points))
