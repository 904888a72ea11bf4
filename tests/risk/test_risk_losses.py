"""Lognormals from declared points, and sums of a year's losses against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.risk.losses import EXACT_EVENTS, Lognormal, annual_losses, summarise


def test_declared_points_are_the_lognormals() -> None:
    between = Lognormal.between(5_000, 400_000)
    assert stats.lognorm(between.scale, scale=np.exp(between.location)).ppf([0.05, 0.95]) == pytest.approx([5_000, 400_000])
    assert between.quantiles(np.array([0.05, 0.95])) == pytest.approx([5_000, 400_000])
    typical = Lognormal.typical(20, 100)
    assert stats.lognorm(typical.scale, scale=20).ppf([0.5, 0.95]) == pytest.approx([20, 100])
    fixed = Lognormal.between(7, 7)
    assert fixed.draw(np.random.default_rng(0), 3) == pytest.approx([7, 7, 7])


@pytest.mark.parametrize("events", [1, 3, EXACT_EVENTS, EXACT_EVENTS + 1, 200])
@pytest.mark.parametrize(("low", "high"), [(10, 20), (5_000, 400_000)])
def test_sums_of_losses_match_brute_force(events: int, low: float, high: float) -> None:
    severity = Lognormal.between(low, high)
    ours, mean = annual_losses(np.full(40_000, events), severity, np.random.default_rng(1))
    brute = severity.draw(np.random.default_rng(2), 40_000 * events).reshape(40_000, events).sum(axis=1)
    assert np.mean(ours) == pytest.approx(np.mean(brute), rel=0.03)
    for share in (0.05, 0.5, 0.95):
        assert np.quantile(ours, share) == pytest.approx(np.quantile(brute, share), rel=0.06)
    assert mean == pytest.approx(ours / events)


def test_years_without_events_cost_nothing_and_years_mix() -> None:
    events = np.array([0, 1, 2, 500, 0])
    annual, typical = annual_losses(events, Lognormal.between(10, 10), np.random.default_rng(0))
    assert annual == pytest.approx([0, 10, 20, 5000, 0])
    assert typical == pytest.approx([10, 10, 10, 10, 10])


def test_summary_of_known_years() -> None:
    annual = np.concatenate([np.zeros(6000), np.random.default_rng(0).uniform(1, 2, 4000)])
    loss = summarise(annual)
    assert (loss.p5, loss.p50) == (0, 0)
    assert loss.p95 == pytest.approx(1.875, abs=0.01)
    assert loss.exceedance[0] == (0.0, 0.4)
    losses, levels = zip(*loss.exceedance, strict=True)
    assert list(losses) == sorted(losses)
    assert list(levels) == sorted(levels, reverse=True)
    for value, level in loss.exceedance:
        assert np.mean(annual > value) == pytest.approx(level, abs=1e-3)
    assert summarise(np.zeros(1000)).exceedance == ((0.0, 0.0),)
