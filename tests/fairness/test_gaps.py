from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from holdfast.core.statistics import clopper_pearson, difference
from holdfast.fairness.gaps import ERROR, _holm, measure_gaps
from holdfast.fairness.groups import find_groups

CLASSES = ("no", "yes")


def gap_of(gaps, group, measure):
    (found,) = [gap for gap in gaps.gaps if (gap.group, gap.measure) == (group, measure)]
    return found


def test_newcombe_gives_the_published_intervals():
    """Newcombe (1998), table II, method 10, examples (a) and (b)."""
    assert difference(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference(9, 10, 3, 10) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_holm_against_a_worked_example():
    assert _holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(chances):
    corrected = np.array(_holm(chances))
    assert (corrected >= np.array(chances)).all()
    assert (corrected <= 1).all()
    assert (np.diff(corrected[np.argsort(chances, kind="stable")]) >= -1e-12).all()


def test_every_measure_equals_a_plain_count():
    draw = np.random.default_rng(1)
    y, predicted = draw.integers(2, size=800), draw.integers(2, size=800)
    probabilities = draw.dirichlet([1, 1], size=800)
    sex = np.where(draw.random(800) < 0.4, "F", "M")
    gaps = measure_gaps(y, predicted, pd.DataFrame({"sex": sex}), CLASSES, probabilities=probabilities)
    inside = sex == "F"
    for measure, among, hit in [
        (ERROR, np.ones(800, bool), predicted != y),
        ("selection rate of yes", np.ones(800, bool), predicted == 1),
        ("true positive rate of yes", y == 1, predicted == 1),
        ("false positive rate of yes", y == 0, predicted == 1),
    ]:
        gap = gap_of(gaps, "sex = F", measure)
        first, second = among & inside, among & ~inside
        assert gap.inside.value == hit[first].mean()
        assert (gap.inside.low, gap.inside.high) == clopper_pearson(int(hit[first].sum()), int(first.sum()))
        assert gap.gap == pytest.approx(hit[first].mean() - hit[second].mean())
        table = np.array([[hit[side].sum(), (~hit[side]).sum()] for side in (first, second)])
        assert gap.chance == pytest.approx(stats.fisher_exact(table).pvalue)
    off = probabilities[inside, 1] - y[inside]
    calibration = gap_of(gaps, "sex = F", "calibration of yes")
    interval = stats.t.interval(0.95, len(off) - 1, off.mean(), stats.sem(off))
    assert (calibration.gap, calibration.low, calibration.high) == pytest.approx((off.mean(), *interval))


def planted(rows=900, harm=0.25, seed=0):
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame({"sex": draw.choice(["F", "M"], rows), "region": draw.choice(["n", "s", "w"], rows)})
    y = draw.integers(2, size=rows)
    worse = ((frame.sex == "F") & (frame.region == "s")).to_numpy()
    wrong = draw.random(rows) < np.where(worse, 0.1 + harm, 0.1)
    return y, np.where(wrong, 1 - y, y), frame


def test_harm_that_only_a_crossing_shows_is_found():
    y, predicted, frame = planted(harm=0.35)
    gaps = measure_gaps(y, predicted, frame, CLASSES)
    assert gaps.harm_beyond_chance
    assert gaps.worst.group == "sex = F, region = s"
    assert gaps.overall < 0.01


@pytest.mark.slow
def test_chance_is_called_harm_in_at_most_five_percent_of_cases():
    false = sum(measure_gaps(*_null(seed), CLASSES, seed=seed).harm_beyond_chance for seed in range(200))
    assert false <= stats.binom.ppf(0.99, 200, 0.05)


def _null(seed):
    draw = np.random.default_rng(1000 + seed)
    y = draw.integers(2, size=400)
    predicted = np.where(draw.random(400) < 0.2, 1 - y, y)
    return y, predicted, pd.DataFrame({"a": draw.choice(list("xyz"), 400), "b": draw.choice(list("uv"), 400)})


@pytest.mark.slow
def test_clustered_rows_do_not_make_chance_look_like_harm():
    """Ten rows of each patient share group and luck; treated as independent they would be called harm far too often."""
    false = naive = 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        patients = np.repeat(np.arange(40), 10)
        y = np.zeros(400, dtype=np.int64)
        luck = draw.random(40) < 0.3
        predicted = luck[patients].astype(np.int64)
        frame = pd.DataFrame({"a": draw.choice(list("xyz"), 40)[patients]})
        false += measure_gaps(y, predicted, frame, CLASSES, clusters=patients.astype(str), seed=seed).harm_beyond_chance
        naive += measure_gaps(y, predicted, frame, CLASSES, seed=seed).harm_beyond_chance
    assert false <= stats.binom.ppf(0.99, 100, 0.05)
    assert naive > 30


@pytest.mark.slow
@pytest.mark.parametrize("within", [False, True])
def test_the_permutation_keeps_its_level_when_clusters_differ_in_size(within):
    """Few patients with many rows carry most of the luck; rows of several groups within a patient are dealt too."""
    found = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        sizes = np.r_[np.full(6, 40), np.full(60, 4)]
        patients = draw.permutation(np.repeat(np.arange(len(sizes)), sizes))
        predicted = (draw.random(len(sizes)) < 0.3)[patients].astype(np.int64)
        common = draw.choice(list("xyz"), len(sizes))[patients]
        own = draw.choice(list("xyz"), len(patients))
        frame = pd.DataFrame({"a": np.where(draw.random(len(patients)) < 0.5, own, common) if within else common})
        gaps = measure_gaps(np.zeros_like(predicted), predicted, frame, CLASSES, clusters=patients.astype(str), seed=seed)
        found += gaps.overall < 0.05
    assert found <= 0.08 * 200


def test_harm_within_clusters_is_found():
    """Each patient has rows of both groups, so that dealing whole patients alone would show nothing."""
    draw = np.random.default_rng(0)
    patients = np.repeat(np.arange(80), draw.integers(4, 12, 80))
    sex = draw.choice(["F", "M"], len(patients))
    predicted = (draw.random(len(patients)) < np.where(sex == "F", 0.35, 0.1)).astype(np.int64)
    gaps = measure_gaps(np.zeros_like(predicted), predicted, pd.DataFrame({"sex": sex}), CLASSES, clusters=patients.astype(str))
    assert gaps.harm_beyond_chance
    assert gaps.overall < 0.01


def test_harm_within_a_single_cluster_is_found():
    """Dealing whole clusters changes nothing here; only turning the memberships within it does."""
    draw = np.random.default_rng(5)
    sex = draw.choice(["F", "M"], 400)
    wrong = draw.random(400) < np.where(sex == "F", 0.4, 0.1)
    y = np.zeros(400, dtype=np.int64)
    gaps = measure_gaps(y, wrong.astype(np.int64), pd.DataFrame({"sex": sex}), ("no", "yes"), clusters=np.full(400, "ward"))
    assert gaps.overall < 0.05


def test_small_groups_are_too_few_to_tell():
    y = np.zeros(100, dtype=np.int64)
    predicted = np.r_[np.ones(5, dtype=np.int64), np.zeros(95, dtype=np.int64)]
    frame = pd.DataFrame({"origin": ["rare"] * 5 + ["common"] * 95})
    gaps = measure_gaps(y, predicted, frame, CLASSES)
    assert gaps.too_few == {"origin = rare": 5}
    assert gaps.worst is None
    assert not gaps.harm_beyond_chance


def test_numbers_are_cut_into_quarters_and_missing_is_a_group():
    draw = np.random.default_rng(0)
    age = pd.Series(draw.normal(50, 10, 400)).mask(np.arange(400) % 8 == 0)
    grouping = find_groups(pd.DataFrame({"age": age, "flag": np.arange(400) % 2}))
    names = [name for name in grouping.members if name.startswith("age") and "flag" not in name]
    assert len(names) == 5
    assert "age = missing" in names
    assert grouping.members["flag = 0"].sum() == 200
    quarters = [grouping.members[name].sum() for name in names if "missing" not in name]
    assert sum(quarters) == 350
    assert max(quarters) - min(quarters) <= 2


@given(st.integers(31, 200), st.integers(0, 3))
def test_groups_of_one_column_share_out_all_rows(rows, seed):
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": draw.choice(list("pq"), rows), "b": draw.normal(size=rows)})
    grouping = find_groups(frame, smallest=1)
    for column in frame:
        counts = np.zeros(rows)
        for name, mask in grouping.members.items():
            if name.startswith(f"{column} = ") and ", " not in name:
                counts += mask
        assert (counts <= 1).all()
        if frame[column].nunique() > 1:
            assert (counts == 1).all()
