"""The measuring instrument itself: areas against brute force, thresholds that keep their rate, honesty under the null."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from holdfast.attacks.privacy.identification import area, identify, resolved, strict, threshold_at
from holdfast.core.errors import Inconclusive
from holdfast.core.statistics import clopper_pearson


def brute_force(members, others):
    """DeLong's estimate and variance from their definition, pair by pair."""
    psi = (members[:, None] > others[None]) + 0.5 * (members[:, None] == others[None])
    variance = psi.mean(axis=1).var(ddof=1) / len(members) + psi.mean(axis=0).var(ddof=1) / len(others)
    return psi.mean(), variance


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=3, max_size=40), st.lists(st.integers(0, 6), min_size=3, max_size=40), st.integers(0, 99)
)
def test_area_is_delongs(inside, outside, seed):
    members, others = np.array(inside, dtype=float), np.array(outside, dtype=float)
    value, variance = brute_force(members, others)
    found = area(members, others)
    assert found.value == pytest.approx(value)
    if 0 < value < 1 and variance > 1e-12:
        half = stats.norm.ppf(0.975) * variance**0.5
        assert found.high == pytest.approx(min(1.0, value + half))
        assert found.low == pytest.approx(max(0.0, value - half))


def test_perfect_separation_still_has_an_interval():
    found = area(np.ones(20), np.zeros(20))
    assert found.value == 1
    assert found.low == pytest.approx(0.025 ** (1 / 20), abs=1e-9)
    assert area(np.ones(1), np.zeros(5)).low == 0


def test_copies_of_a_row_in_one_cluster_add_no_certainty():
    random = np.random.default_rng(0)
    members, others = random.normal(0.5, 1, 200), random.normal(0, 1, 300)
    names = (np.arange(200).astype(str), np.arange(1000, 1300).astype(str))
    once = area(members, others)
    copied = area(np.repeat(members, 4), np.repeat(others, 4), clusters=(np.repeat(names[0], 4), np.repeat(names[1], 4)))
    assert copied.value == pytest.approx(once.value)
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.01)
    naive = area(np.repeat(members, 4), np.repeat(others, 4))
    assert naive.high - naive.low < 0.6 * (once.high - once.low)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.5), st.integers(0, 999))
def test_no_more_than_the_allowed_share_lies_above_the_threshold(values, nominal, seed):
    others = np.array(values, dtype=float)
    draws = np.random.default_rng(seed).random(len(others))
    threshold, tie = threshold_at(others, draws, nominal)
    above = (others > threshold) | ((others == threshold) & (draws > tie))
    assert above.sum() <= max(0, np.floor(nominal * (len(others) + 1) + 1e-9) - 1)


@pytest.mark.parametrize("levels", [2, 5, 10**9])
def test_a_fresh_non_member_is_named_at_the_nominal_rate_however_tied(levels):
    random = np.random.default_rng(1)
    named = 0
    for _ in range(3000):
        signal = np.floor(random.random(100) * levels)
        draw = random.random(100)
        threshold, tie = threshold_at(signal[:99], draw[:99], 0.05)
        named += bool(signal[99] > threshold or (signal[99] == threshold and draw[99] > tie))
    assert stats.binomtest(named, 3000, 0.05).pvalue > 0.001


def test_ties_do_not_read_zero_as_they_do_for_a_strict_threshold():
    random = np.random.default_rng(2)
    members, others = (random.random(2000) < 0.9).astype(float), (random.random(2000) < 0.45).astype(float)
    assert strict(members, others, 0.01).value == 0
    found = [identify(members, others, 0.01, seed=seed) for seed in range(40)]
    assert np.mean([one.true_positive.value for one in found]) == pytest.approx(0.02, abs=0.003)
    assert np.mean([one.false_positive.value for one in found]) == pytest.approx(0.01, abs=0.001)


def test_only_what_the_sample_resolves_is_stated():
    assert resolved(99) == ()
    assert resolved(100) == (0.1,)
    assert resolved(1000) == (0.1, 0.01)
    assert resolved(10_000) == (0.1, 0.01, 0.001)
    with pytest.raises(Inconclusive, match="unresolvable"):
        identify(np.zeros(500), np.zeros(500), 0.01, seed=0)
    with pytest.raises(Inconclusive, match="NaN"):
        identify(np.full(2000, np.nan), np.zeros(2000), 0.01, seed=0)


def test_whole_clusters_are_judged_by_one_threshold():
    random = np.random.default_rng(3)
    signal = np.repeat(random.normal(size=600), 4)
    clusters = np.repeat(np.arange(600).astype(str), 4)
    found = identify(signal[:1200], signal[1200:], 0.1, seed=0, clusters=(clusters[:1200], clusters[1200:]))
    assert found.true_positive.effective_trials < 450


@pytest.mark.slow
@pytest.mark.claim("loop-4")
@pytest.mark.parametrize("levels", [4, 10**9])
def test_permuted_membership_is_called_a_leak_in_at_most_one_run_in_twenty(levels):
    """The null: signals of one distribution, membership drawn at random, 400 times, at the levels that the probe uses."""
    random = np.random.default_rng(4)
    runs, leaks, covered = 400, 0, 0
    for run in range(runs):
        signal = np.floor(random.beta(2, 5, 2400) * levels)
        order = random.permutation(2400)
        found = identify(signal[order[:1200]], signal[order[1200:]], 0.01, seed=run)
        space = area(signal[order[:1200]], signal[order[1200:]], confidence=0.975)
        leaks += bool(found.p_value <= 0.025 or space.low > 0.5)
        covered += found.false_positive.low <= 0.01 <= found.false_positive.high
    assert leaks <= 0.05 * runs
    assert covered >= 0.95 * runs


@pytest.mark.slow
@pytest.mark.claim("loop-4")
@pytest.mark.parametrize("shift", [0.0, 1.5, 3.0])
@pytest.mark.parametrize("size", [1, 3])
def test_the_interval_pays_for_the_threshold(shift, size):
    """What is covered is the rate at the true threshold, of which ten non-members tell little."""
    random = np.random.default_rng(8)
    truth = stats.norm.sf(stats.norm.ppf(0.99) - shift)
    covered, runs = 0, 200
    for run in range(runs):
        members, others = (np.repeat(random.normal(at, 1, 1002 // size), size) for at in (shift, 0.0))
        person = np.arange(2004) // size
        names = (person[:1002].astype(str), person[1002:].astype(str))
        found = identify(members, others, 0.01, seed=run, clusters=names)
        covered += found.true_positive.low <= truth <= found.true_positive.high
    assert covered >= 0.9 * runs


@pytest.mark.slow
@pytest.mark.claim("loop-1")
def test_the_interval_covers_where_the_curve_bends_right_at_the_rate():
    """The hardest curve: three in ten members leak up to the nominal rate and nobody beyond it."""
    random = np.random.default_rng(10)
    covered, runs = 0, 600
    for run in range(runs):
        u = random.random(3000)
        members = 1 - np.where(random.random(3000) < 0.3, 0.01 * u, u)
        found = identify(members, random.random(3000), 0.01, seed=run).true_positive
        covered += found.low <= 0.3 + 0.7 * 0.01 <= found.high
    assert covered >= 0.95 * runs


def test_the_interval_is_wider_than_that_of_a_known_threshold():
    random = np.random.default_rng(9)
    found = identify(random.normal(1.5, 1, 1000), random.normal(0, 1, 1000), 0.01, seed=0).true_positive
    low, high = clopper_pearson(found.successes, found.trials)
    assert found.high - found.low > 2 * (high - low)
