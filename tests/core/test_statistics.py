"""Intervals against published values, scipy's own, exact coverage sums and simulated clusters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from holdfast.core.errors import InvalidData
from holdfast.core.statistics import (
    clopper_pearson,
    difference,
    effective_trials,
    intra_cluster_correlation,
    jeffreys,
    paired_change,
    rate,
    wilson,
)

EACH = {"five": 5, "twenty": 20, "fifty": 50}
COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS)
def test_clopper_pearson_and_wilson_equal_scipys(counts: tuple[int, int]) -> None:
    k, n = counts
    exact = stats.binomtest(k, n).proportion_ci(0.95, "exact")
    assert clopper_pearson(k, n) == pytest.approx((exact.low, exact.high), abs=1e-9)
    score = stats.binomtest(k, n).proportion_ci(0.95, "wilson")
    assert wilson(k, n) == pytest.approx((score.low, score.high), abs=1e-9)


def test_the_bounds_after_no_success_are_the_closed_ones() -> None:
    assert clopper_pearson(0, 256) == pytest.approx((0.0, 1 - 0.025 ** (1 / 256)))
    assert round(clopper_pearson(0, 256)[1], 3) == 0.014
    assert clopper_pearson(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0))


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(0, 7, 0.000, 0.292), (1, 7, 0.016, 0.501), (2, 10, 0.044, 0.503), (5, 10, 0.224, 0.776), (1, 10, 0.011, 0.381)],
)
def test_jeffreys_equals_the_table_of_brown_cai_and_dasgupta(k: int, n: int, low: float, high: float) -> None:
    computed = jeffreys(k, n)
    assert (round(computed[0], 3), round(computed[1], 3)) == (low, high)


def test_difference_equals_newcombes_published_example() -> None:
    assert difference(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference(0, 0, 1, 2) == (-1.0, 1.0)


@pytest.mark.claim("loop-1")
@pytest.mark.parametrize("n", [40, 256])
@pytest.mark.parametrize("p", [0.005, 0.01, 0.05, 0.1, 0.3, 0.5])
def test_shown_intervals_cover_at_least_what_they_say(n: int, p: float) -> None:
    covered = 0.0
    for k in range(n + 1):
        shown = rate(np.arange(n) < k)
        covered += float(stats.binom.pmf(k, n, p)) * (shown.low <= p <= shown.high)
    assert covered >= 0.95


@pytest.mark.claim("loop-1")
@pytest.mark.slow
@pytest.mark.parametrize("p", [0.02, 0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize(
    ("clusters", "size"), [(50, "five"), (50, "mixed"), (10, "five"), (10, "mixed"), (20, "fifty"), (30, "twenty")]
)
def test_clustered_intervals_cover(clusters: int, size: str, p: float) -> None:
    draw = np.random.default_rng(7)
    covered, runs = 0, 500
    for _ in range(runs):
        sizes = draw.integers(1, 12, clusters) if size == "mixed" else np.full(clusters, EACH[size])
        member = np.repeat(np.arange(clusters), sizes)
        chance = draw.beta(p * 3 / 7, (1 - p) * 3 / 7, clusters)
        shown = rate(draw.random(len(member)) < chance[member], member)
        covered += shown.low <= p <= shown.high
    assert covered / runs >= 0.90


def test_ignoring_the_clusters_does_not_cover() -> None:
    draw = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        member = np.repeat(np.arange(50), 5)
        chance = draw.beta(0.1 * 3 / 7, 0.9 * 3 / 7, 50)
        shown = rate(draw.random(250) < chance[member])
        covered += shown.low <= 0.1 <= shown.high
    assert covered / 300 < 0.85


def test_intra_cluster_correlation_equals_the_analysis_of_variance() -> None:
    draw = np.random.default_rng(3)
    member = np.repeat(np.arange(12), 6)
    outcome = (draw.random(72) < np.repeat(draw.random(12), 6)).astype(float)
    f = stats.f_oneway(*(outcome[member == i] for i in range(12))).statistic
    assert intra_cluster_correlation(outcome, member) == pytest.approx((f - 1) / (f + 5))


def test_an_outcome_that_never_varies_counts_clusters_and_not_rows() -> None:
    member = np.repeat(np.arange(20), 5)
    nothing = rate(np.zeros(100, dtype=bool), member)
    assert nothing.effective_trials == pytest.approx(20)
    assert nothing.high == pytest.approx(clopper_pearson(0, 20)[1])
    assert effective_trials(np.ones(8), np.zeros(8)) == pytest.approx(1)
    assert effective_trials(np.ones(8), np.arange(8)) == 8


def test_outcomes_that_few_clusters_show_count_clusters_and_not_rows() -> None:
    member = np.repeat(np.arange(20), 50)
    seen = np.zeros(1000, dtype=bool)
    seen[[0, 50, 100, 150]] = True
    assert rate(seen, member).effective_trials == pytest.approx(20)
    assert rate(~seen, member).effective_trials == pytest.approx(20)
    assert paired_change(seen, ~seen & False, member).high > 0.1
    seen[200] = True
    assert rate(seen, member).effective_trials > 200


def test_few_clusters_are_paid_for_by_the_t_quantiles_of_korn_and_graubard() -> None:
    """Rows alike in all clusters have a design effect of 1; what is left of 100 rows are the tabled t(99) and t(9), squared."""
    seen, member = np.tile([True] * 3 + [False] * 7, 10), np.repeat(np.arange(10), 10)
    assert intra_cluster_correlation(seen, member) == 0
    assert effective_trials(seen, member) == pytest.approx(100 * (1.98422 / 2.26216) ** 2, rel=1e-5)
    assert effective_trials(seen, member, 0.9) == pytest.approx(100 * (1.66039 / 1.83311) ** 2, rel=1e-5)
    assert rate(seen, member).high > rate(seen).high


@given(st.lists(st.integers(0, 12), min_size=2, max_size=60), st.booleans())
@settings(deadline=None, max_examples=300)
def test_clusters_that_all_succeed_or_all_change_have_an_interval(members: list[int], value: bool) -> None:
    outcome, member = np.full(len(members), value), np.array(members)
    assert rate(outcome, member).high >= rate(outcome, member).low
    assert paired_change(outcome, ~outcome, member).low <= paired_change(outcome, ~outcome, member).high


@pytest.mark.parametrize(("rows", "clusters"), [(54, 17), (49, 16), (24, 8)])
def test_rounding_never_makes_more_successes_than_trials(rows: int, clusters: int) -> None:
    draw = np.random.default_rng(0)
    for _ in range(100):
        assert rate(np.ones(rows, dtype=bool), draw.integers(0, clusters, rows)).high == 1


def test_nothing_tried_says_nothing() -> None:
    empty = rate(np.zeros(0, dtype=bool))
    assert np.isnan(empty.value)
    assert (empty.low, empty.high) == (0.0, 1.0)
    assert rate(np.zeros(0, dtype=bool), np.zeros(0)).high == 1.0


@given(COUNTS.filter(lambda c: c[0] < c[1]))
def test_intervals_rise_with_successes_and_contain_the_share(counts: tuple[int, int]) -> None:
    k, n = counts
    for interval in (clopper_pearson, jeffreys, wilson):
        low, high = interval(k, n)
        more_low, more_high = interval(k + 1, n)
        assert 0 <= low <= k / n + 1e-12
        assert k / n - 1e-12 <= high <= 1
        assert more_low >= low
        assert more_high >= high


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=60))
@settings(deadline=None)
def test_clusters_never_sharpen_an_interval(rows: list[tuple[bool, int]]) -> None:
    outcome, member = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    plain, clustered = rate(outcome), rate(outcome, member)
    assert clustered.effective_trials <= plain.effective_trials + 1e-9
    assert clustered.low <= plain.low + 1e-9
    assert clustered.high >= plain.high - 1e-9


@pytest.mark.parametrize(("fixed", "broken"), [(0.10, 0.05), (0.02, 0.01), (0.30, 0.30), (0.15, 0.0), (0.05, 0.0)])
def test_paired_intervals_cover(fixed: float, broken: float) -> None:
    n, covered = 40, 0.0
    for b in range(n + 1):
        for c in range(n - b + 1):
            weight = stats.multinomial.pmf([b, c, n - b - c], n, [fixed, broken, 1 - fixed - broken])
            if weight > 1e-6:
                row = np.arange(n)
                change = paired_change(row < b, (row >= b) & (row < b + c))
                covered += float(weight) * (change.low <= fixed - broken <= change.high)
    assert covered >= 0.94


def test_the_paired_interval_equals_the_published_score_interval() -> None:
    """Fagerland, Lydersen and Laake (2014), airway reactivity in 21 children: 1 and 7 discordant pairs."""
    row = np.arange(21)
    change = paired_change(row < 1, (row >= 1) & (row < 8))
    assert (round(change.low, 3), round(change.high, 3)) == (-0.517, -0.026)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_paired_interval_ends_are_where_the_score_test_turns(fixed: int, broken: int, rest: int) -> None:
    """Against the score statistic with its nuisance parameter found by numerical maximum likelihood."""
    n = fixed + broken + rest
    row = np.arange(n)
    change = paired_change(row < fixed, (row >= fixed) & (row < fixed + broken))

    def z(difference: float) -> float:
        def loss(share: float) -> float:
            cells = np.array([share + difference, share, 1 - 2 * share - difference])
            counts = np.array([fixed, broken, rest])
            return -float(np.sum(counts[counts > 0] * np.log(np.clip(cells[counts > 0], 1e-300, None))))

        bounds = (max(0.0, -difference), (1 - difference) / 2)
        share = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        variance = n * (2 * share + difference - difference**2)
        return float((fixed - broken - n * difference) / np.sqrt(variance))

    assert z(change.low) == pytest.approx(1.96, abs=0.01)
    assert z(change.high) == pytest.approx(-1.96, abs=0.01)


def test_paired_clusters_widen_the_interval_and_cover() -> None:
    draw = np.random.default_rng(11)
    covered = plain = 0
    for _ in range(400):
        member = np.repeat(np.arange(40), 5)
        kind = draw.choice(3, size=40, p=[0.2, 0.1, 0.7])[member]
        before, after = kind == 0, kind == 1
        with_clusters, without = paired_change(before, after, member), paired_change(before, after)
        covered += with_clusters.low <= 0.1 <= with_clusters.high
        plain += without.low <= 0.1 <= without.high
    assert covered / 400 >= 0.92
    assert plain / 400 < 0.8


def test_the_noise_hardening_that_harmed_is_not_called_help() -> None:
    before = np.array([True] * 6 + [False] * 14 + [True] * 20 + [False] * 60)
    after = np.array([False] * 6 + [True] * 14 + [True] * 20 + [False] * 60)
    change = paired_change(before, after)
    assert (change.fixed, change.broken) == (6, 14)
    assert round(change.probability_helps, 2) == 0.04
    assert change.verdict == "no evidence of help"
    assert paired_change(before, np.zeros(100, dtype=bool)).verdict == "helps"
    assert paired_change(np.zeros(100, dtype=bool), after).verdict == "harms"


def test_wrong_counts_and_shapes_are_refused() -> None:
    with pytest.raises(InvalidData):
        clopper_pearson(3, 2)
    with pytest.raises(InvalidData):
        jeffreys(-1, 2)
    with pytest.raises(InvalidData):
        paired_change([True], [True, False])
