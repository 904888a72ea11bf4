"""Shadow-model attacks against formulas written out by hand, and against worlds in which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdfast.attacks.privacy.identification import area, identify
from holdfast.attacks.privacy.membership import Shadows, calibrated, likelihood_ratio, retrained, train_shadows
from holdfast.core.errors import InvalidData
from holdfast.core.oracle import Access
from holdfast.core.target import Dataset


def world(records: int, shadows: int, seed: int, *, gain: float = 1.5) -> tuple[np.ndarray, np.ndarray, Shadows]:
    """Signals of a world where each record has its own difficulty and spread, and membership adds `gain`."""
    random = np.random.default_rng(seed)
    difficulty, spread = random.normal(0, 3, records), random.gamma(4, 0.2, records)
    member = random.random((shadows + 1, records)) < 0.5
    signal = difficulty + gain * member + spread * random.normal(size=member.shape)
    return signal[0], member[0], Shadows(signals=signal[1:], member=member[1:])


def test_the_ratio_is_that_of_two_normal_densities():
    observed, _, shadows = world(6, 40, 0)
    for variance in ("record", "pooled"):
        ratio = likelihood_ratio(observed, shadows, variance=variance)
        sides = []
        for side in (shadows.member, ~shadows.member):
            mean = np.array([shadows.signals[side[:, i], i].mean() for i in range(6)])
            own = np.array([shadows.signals[side[:, i], i].var(ddof=1) for i in range(6)])
            freedom = side.sum(axis=0) - 1
            sides.append((mean, own if variance == "record" else np.full(6, (own * freedom).sum() / freedom.sum())))
        expected = [stats.norm.logpdf(observed, mean, spread**0.5) for mean, spread in sides]
        assert ratio == pytest.approx(expected[0] - expected[1])


def test_shrinking_goes_from_pooled_to_own_variances():
    observed, _, shadows = world(50, 30, 1)
    own = likelihood_ratio(observed, shadows, variance="record")
    pooled = likelihood_ratio(observed, shadows, variance="pooled")
    none = likelihood_ratio(observed, shadows, weight=1e-9, mean_weight=0)
    heavy = likelihood_ratio(observed, shadows, weight=1e9, mean_weight=0)
    assert none == pytest.approx(own)
    assert heavy == pytest.approx(pooled, rel=1e-4)


def test_with_few_shadows_shrinking_beats_own_variances():
    found = {"record": 0.0, "shrunk": 0.0}
    for seed in range(4):
        observed, member, shadows = world(4000, 8, seed)
        for variance in found:
            score = likelihood_ratio(observed, shadows, variance=variance)
            found[variance] += identify(score[member], score[~member], 0.01, seed=0).true_positive.value / 4
    assert found["shrunk"] > 1.5 * found["record"]


def test_difficulty_hides_members_from_a_threshold_and_not_from_calibration():
    observed, member, shadows = world(4000, 16, 5)
    areas = [
        area(score[member], score[~member]).value
        for score in (observed, calibrated(observed, shadows), likelihood_ratio(observed, shadows))
    ]
    assert areas[0] < 0.68 < 0.85 < areas[1]
    assert areas[2] > 0.85


@pytest.mark.slow
@pytest.mark.claim("loop-4")
def test_shadow_attacks_find_nothing_where_membership_changes_nothing():
    leaks = 0
    for seed in range(120):
        observed, member, shadows = world(2200, 6, 1000 + seed, gain=0.0)
        for score in (calibrated(observed, shadows), likelihood_ratio(observed, shadows)):
            found = identify(score[member], score[~member], 0.01, seed=seed)
            if found.p_value <= 0.0125 or area(score[member], score[~member], confidence=0.9875).low > 0.5:
                leaks += 1
                break
    assert leaks <= 6


def test_a_record_that_no_shadow_had_is_still_judged():
    observed, _, shadows = world(100, 6, 2)
    member = shadows.member.copy()
    member[:, 0], member[:, 1] = False, True
    for variance in ("record", "pooled", "shrunk"):
        score = likelihood_ratio(observed, Shadows(signals=shadows.signals, member=member), variance=variance)
        assert np.isfinite(score).all()
    assert np.isfinite(calibrated(observed, Shadows(signals=shadows.signals, member=member))).all()


def test_equal_signals_do_not_divide_by_zero():
    shadows = Shadows(signals=np.zeros((8, 20)), member=np.arange(160).reshape(8, 20) % 2 == 0)
    assert np.isfinite(likelihood_ratio(np.ones(20), shadows)).all()


def test_every_shadow_plays_the_target_without_itself():
    _, _, shadows = world(300, 6, 3)
    seen: list[int] = []

    def attack(observed, others):
        seen.append(len(others.signals))
        assert not any((observed == row).all() for row in others.signals)
        return observed

    assert [len(inside) + len(outside) for inside, outside in retrained(shadows, attack)] == [300] * 6
    assert seen == [5] * 6


class Remembers:
    """Sure of the rows it was trained on."""

    access = Access.SCORES

    def __init__(self, x):
        self.seen = set(x[:, 0])

    def labels(self, x):
        return np.zeros(len(x), dtype=np.int64)

    def scores(self, x):
        return np.stack([np.array([3.0 if value in self.seen else -1.0 for value in x[:, 0]]), np.zeros(len(x))], axis=1)


def pool(rows: int, clusters=None) -> Dataset:
    return Dataset(
        name="pool",
        x=np.arange(rows, dtype=float)[:, None],
        y=np.zeros(rows, dtype=np.int64),
        classes=("a", "b"),
        ids=np.arange(rows).astype(str),
        clusters=clusters,
    )


def test_shadows_are_trained_on_halves_drawn_independently_by_cluster():
    trained = []

    def fit(data, seed):
        trained.append((data, seed))
        return Remembers(data.x)

    people = np.repeat(np.arange(50).astype(str), 2)
    records = np.array([5, 1, 60])
    shadows = train_shadows(fit, pool(100, people), records, 5, access=Access.SCORES, seed=0)
    for index, (data, _) in enumerate(trained):
        assert len(data) == 50
        assert len(set(data.clusters)) == 25
        assert (shadows.member[index] == np.isin(records, data.x[:, 0])).all()
        assert (shadows.signals[index] == np.where(shadows.member[index], 3.0, -1.0)).all()
    assert len({tuple(data.ids) for data, _ in trained}) == 5
    assert len({seed for _, seed in trained}) == 5
    with pytest.raises(InvalidData, match="at least 4"):
        train_shadows(fit, pool(100), records, 3, access=Access.SCORES, seed=0)
