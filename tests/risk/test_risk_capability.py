"""P(success) from evidence: posteriors, monotony, the untested region, chance and stronger attacks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from holdfast.attacks.privacy.identification import identify
from holdfast.core.evidence import Evidence, Row
from holdfast.core.statistics import clopper_pearson
from holdfast.risk.capability import CapabilityCurve, JeffreysQuantiles, Luck, success_probability
from holdfast.risk.defaults import STRONGER_ATTACKS, gap_shape
from holdfast.risk.losses import Lognormal


def curve_of(capabilities: list[float | None], tested: float = 100, **more: object) -> CapabilityCurve:
    rows = tuple(Row(unit=str(at), capability=value) for at, value in enumerate(capabilities))
    fields = {"axis": "queries", "strength": "exact", **more}
    return CapabilityCurve.of(Evidence(probe="P", threats=("T",), status="measured", tested=tested, rows=rows, **fields))


@pytest.mark.parametrize(("k", "n", "weight"), [(0, 40, 1.0), (1, 200, 1.0), (37, 1000, 1.0), (700, 1000, 0.25), (5, 5, 1.0)])
def test_quantiles_equal_scipys_beta(k: int, n: int, weight: float) -> None:
    shares = np.linspace(0.001, 0.999, 400)
    ours = JeffreysQuantiles(n, n, weight)(np.full(400, k), shares)
    exact = stats.beta.ppf(shares, k * weight + 0.5, (n - k) * weight + 0.5)
    assert ours == pytest.approx(exact, rel=0.006, abs=1e-9)


@given(st.integers(1, 300), st.floats(0.05, 1), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_quantiles_rise_with_successes_and_with_the_share(n: int, weight: float, seed: int) -> None:
    quantiles = JeffreysQuantiles(n, n, weight)
    draw = np.random.default_rng(seed)
    share = np.full(n + 1, draw.random())
    assert np.all(np.diff(quantiles(np.arange(n + 1), share)) >= -1e-12)
    k = np.full(200, int(draw.integers(0, n + 1)))
    assert np.all(np.diff(quantiles(k, np.sort(draw.random(200)))) >= 0)


def test_each_draw_is_a_curve_that_rises_with_capability() -> None:
    curve = curve_of([5, 5, 10, 20, 40, 80, None, None, None, None])
    luck = Luck.of(500, 1, "curve")
    levels = np.stack([curve.draw(c, luck) for c in (1, 5, 9, 10, 30, 80, 100)])
    assert np.all(np.diff(levels, axis=0) >= 0)
    assert levels[0] == pytest.approx(stats.beta.ppf(luck.curve, 0.5, 10.5), rel=0.006)
    assert levels[-1] == pytest.approx(stats.beta.ppf(luck.curve, 6.5, 4.5), rel=0.006)


def test_beyond_the_tested_anything_up_to_one_is_as_likely() -> None:
    curve = curve_of([10] * 20 + [None] * 180)
    luck = Luck.of(20_000, 3, "beyond")
    tested, beyond = curve.draw(100, luck), curve.draw(101, luck)
    assert np.all(beyond >= tested)
    assert np.mean(beyond) == pytest.approx((1 + np.mean(tested)) / 2, abs=0.01)
    assert curve.untested(Lognormal.typical(100, 500)) == pytest.approx(0.5)
    assert curve.untested(Lognormal.typical(20, 100)) == pytest.approx(0.05)
    assert curve.untested(Lognormal.typical(50, 50)) == 0.0
    assert curve.untested(Lognormal.typical(150, 150)) == 1.0


def test_what_was_tested_without_saying_how_far_reaches_only_to_the_last_success() -> None:
    rows = tuple(Row(unit=str(at), capability=value) for at, value in enumerate([3.0, None]))
    evidence = Evidence(probe="P", threats=("T",), status="measured", axis="queries", rows=rows)
    assert CapabilityCurve.of(evidence).tested == 3.0
    none = evidence.model_copy(update={"rows": (Row(unit="0"),)})
    assert CapabilityCurve.of(none).untested(Lognormal.typical(1, 2)) == 1.0


def test_only_success_above_chance_counts() -> None:
    luck = Luck.of(20_000, 5, "chance")
    half = curve_of([1.0] * 500 + [None] * 500, chance=0.5)
    assert np.mean(half.draw(np.inf, luck)) < 0.02
    above = curve_of([1.0] * 750 + [None] * 250, chance=0.5)
    assert np.mean(above.draw(np.inf, luck)) == pytest.approx(0.5, abs=0.01)


def test_no_success_is_not_zero_and_a_weak_probe_says_less_than_a_strong_one() -> None:
    luck = Luck.of(20_000, 5, "gap")
    grades = ("exact", *STRONGER_ATTACKS)
    means = {grade: np.mean(curve_of([None] * 200, strength=grade).draw(np.inf, luck)) for grade in grades}
    assert 0 < means["exact"] < means["strong"] < means["moderate"] < means["weak"]
    assert means["exact"] == pytest.approx(0.5 / 201, rel=0.05)
    for strength in STRONGER_ATTACKS:
        assert means[strength] == pytest.approx(means["exact"] + (1 - means["exact"]) / (1 + gap_shape(strength)), abs=0.005)


def test_the_gap_is_the_maximum_likelihood_of_the_measured_pairs() -> None:
    for strength, pairs in STRONGER_ATTACKS.items():
        gaps = np.array([(stronger - probe) / (1 - probe) for probe, stronger in pairs])
        shapes = np.linspace(0.5, 60, 20_000)
        likelihood = len(gaps) * np.log(shapes) + (shapes - 1) * np.log1p(-gaps).sum()
        assert gap_shape(strength) == pytest.approx(shapes[np.argmax(likelihood)], rel=0.01)


def test_averaging_over_capability_equals_drawing_it() -> None:
    draw = np.random.default_rng(0)
    spent = draw.lognormal(3, 1, 300)
    curve = curve_of([float(c) if c <= 100 else None for c in spent])
    capability = Lognormal.typical(20, 100)
    luck = Luck.of(20_000, 9, "average")
    drawn = curve.draw(capability.draw(draw, 20_000), luck)
    assert np.mean(curve.average(capability, luck)) == pytest.approx(np.mean(drawn), abs=0.01)
    assert np.var(curve.average(capability, luck)) < np.var(drawn)


def test_clusters_count_as_fewer_units() -> None:
    rows = tuple(Row(unit=str(at), cluster=str(at // 5), capability=1.0 if at // 5 < 4 else None) for at in range(100))
    clustered = CapabilityCurve.of(Evidence(probe="P", threats=("T",), status="measured", axis="", rows=rows, strength="exact"))
    assert clustered.weight < 0.21
    luck = Luck.of(5000, 1, "clusters")
    assert np.std(clustered.draw(np.inf, luck)) > 2 * np.std(curve_of([1.0] * 20 + [None] * 80).draw(np.inf, luck))


def test_shown_points_are_exact_and_end_at_what_was_tested() -> None:
    curve = curve_of([float(at) for at in range(1, 61)] + [None] * 40)
    assert len(curve.points) <= 25
    last = curve.points[-1]
    assert (last.capability, last.successes, last.trials) == (100, 60, 100)
    assert (last.low, last.high) == pytest.approx(clopper_pearson(60, 100))
    assert [point.value for point in curve.points] == sorted(point.value for point in curve.points)


def test_success_probability_for_planners() -> None:
    rows = tuple(Row(unit=str(at), capability=float(at + 1)) for at in range(100))
    evidence = Evidence(probe="P", threats=("T",), status="measured", axis="queries", tested=100, rows=rows, strength="exact")
    weak, low, high = success_probability(evidence, 10, 20)
    assert low < weak < high
    assert weak < success_probability(evidence, 40, 60)[0] < success_probability(evidence)[0]
    assert success_probability(evidence, 10, 20) == (weak, low, high)
    silent = Evidence(probe="P", threats=("T",), status="failed", reason="crashed")
    assert success_probability(silent)[0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
@pytest.mark.claim("loop-6")
@pytest.mark.parametrize("by", [0.5, 2.0])
def test_what_an_estimated_threshold_leaves_open_reaches_the_risk(by: float) -> None:
    """The 90 % interval of P(success) covers the true excess at the nominal rate, of which few non-members tell."""
    random = np.random.default_rng(12)
    truth = (stats.norm.sf(stats.norm.isf(0.01) - by) - 0.01) / 0.99
    covered, runs = 0, 200
    for run in range(runs):
        found = identify(random.normal(by, 1, 1400), random.normal(0, 1, 1400), 0.01, seed=run)
        evidence = Evidence(
            probe="P-PRI-MIA",
            threats=("T-PRI-01",),
            status="measured",
            rows=tuple(Row(unit=str(place), capability=1.0 if hit else None) for place, hit in enumerate(found.named)),
            effective=found.true_positive.effective_trials,
            chance=0.01,
            strength="exact",
        )
        drawn = CapabilityCurve.of(evidence).draw(np.inf, Luck.of(2000, run))
        covered += np.quantile(drawn, 0.05) <= truth <= np.quantile(drawn, 0.95)
    assert covered >= 0.85 * runs
