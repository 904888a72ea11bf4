"""Natural shift: graded changes, missing and unseen values, subpopulations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from holdfast.core.errors import Inconclusive
from holdfast.core.probe import Budget, Probe
from holdfast.core.progress import Silent
from holdfast.core.seeds import SampleStreams
from holdfast.core.target import Dataset, Target
from holdfast.probes.corruptions import SEVERITIES, array_corruptions, picture_axes, table_corruptions
from holdfast.probes.shift import NaturalShift, _calibration
from made_targets import as_model, forest, made_target, people

BUDGET = Budget(level="quick", rows=80, queries=100, repeats=1, shadows=1)


def run(target: Target, budget: Budget = BUDGET, seed: int = 3):
    return NaturalShift().run(target, budget, seed, Silent())


@pytest.fixture(scope="module")
def table() -> Target:
    return made_target(forest(), people(1200, 0, noise=0.1), train=600)


def sorted_rows(rows: int = 400, spread: float = 1.0) -> Dataset:
    """Arrays whose label is the sign of their first feature."""
    x = np.random.default_rng(0).normal(size=(rows, 6)) * spread
    return Dataset(name="rows", x=x, y=(x[:, 0] > 0).astype(np.int64), classes=("0", "1"), ids=np.arange(rows).astype(str))


def test_it_keeps_the_contract() -> None:
    assert isinstance(NaturalShift(), Probe)
    assert (NaturalShift().id, NaturalShift().threats) == ("P-ROB-SHIFT", ("T-EVA-07",))


def test_evidence_is_measured_complete_and_repeatable(table: Target) -> None:
    evidence = run(table)
    assert (evidence.status, evidence.axis, evidence.tested) == ("measured", "severity", 5.0)
    assert {row.capability for row in evidence.rows} <= {None, 1.0, 2.0, 3.0, 4.0, 5.0}
    assert all((row.detail["change"] is None) == (not row.success) for row in evidence.rows)
    assert evidence.metric("success rate").trials == len(evidence.rows) == evidence.metric("clean accuracy").successes
    for kind in ("measurement noise", "unit of one column", "missing cells", "unseen categories"):
        for severity in SEVERITIES:
            metric = evidence.metric(f"accuracy, severity {severity}", kind)
            assert metric.low < metric.value or metric.value in (0, 1)
    assert evidence.model_dump() == run(table).model_dump()


def test_a_fragile_model_falls_at_lower_severities_than_a_steady_one() -> None:
    data = sorted_rows()

    def flips(margin: float) -> float:
        near = data.take(np.abs(data.x[:, 0]) > margin)
        fitted = HistGradientBoostingClassifier(max_iter=20).fit(data.x, data.y)
        target = Target(name="rows", model=as_model(fitted, data), modality="time_series", holdout=near)
        return run(target).metric("success rate").value

    assert flips(2.0) < flips(0.0)


def test_columns_in_which_missing_or_unseen_values_make_the_model_fail_are_named() -> None:
    def strict(x: pd.DataFrame) -> pd.DataFrame:
        if x["income"].isna().any():
            raise ValueError("no income")
        if not x["ward"].isin(["north", "south", "east"]).all():
            raise ValueError("no such ward")
        return x

    data = people(800, 0, noise=0.1)
    target = made_target(make_pipeline(FunctionTransformer(strict), *[step for _, step in forest().steps]), data, train=400)
    evidence = run(target)
    assert "The model fails on a missing value in 2 of the columns: income, ward." in evidence.findings
    assert "The model fails on an unseen category in 1 of the columns: ward." in evidence.findings
    assert not any(metric.group == "unseen categories" for metric in evidence.metrics)
    tolerant = run(made_target(forest(), data, train=400))
    assert not any("fails on" in finding for finding in tolerant.findings)


def test_a_change_on_which_the_model_fails_counts_as_flipping() -> None:
    data = sorted_rows()

    def strict(x: np.ndarray) -> np.ndarray:
        if np.abs(x).max() >= limit:
            raise ValueError("out of range")
        return x

    limit = float(np.abs(data.x).max()) * 0.999
    calm = data.take(np.abs(data.x).max(axis=1) < 2.0)
    fitted = make_pipeline(FunctionTransformer(strict), HistGradientBoostingClassifier()).fit(calm.x, calm.y)
    wide = replace(calm, x=calm.x.copy())
    target = Target(name="rows", model=as_model(fitted, calm), modality="time_series", holdout=wide)
    from holdfast.core.target import DomainSpec

    evidence = run(replace(target, domain=DomainSpec(low=-limit, high=limit)))
    assert evidence.status == "measured"
    assert any("fails on" in finding for finding in evidence.findings)
    assert evidence.metric("success rate").value == 1.0


def test_the_worst_subpopulation_is_found_and_noise_is_not() -> None:
    data = people(3000, 0, noise=0.0)
    fair = made_target(forest(), data, train=1500)
    assert not any("Accuracy is" in finding for finding in run(fair).findings)
    wrong = fair.holdout.y.copy()
    east = (fair.holdout.x["ward"] == "east").to_numpy()
    wrong[east & (np.random.default_rng(0).random(len(wrong)) < 0.4)] ^= 1
    holdout = replace(fair.holdout, y=wrong)
    evidence = run(replace(fair, holdout=holdout, show_values=True))
    assert any("ward = east" in finding for finding in evidence.findings)
    metric = evidence.metric("accuracy", "ward = east")
    assert metric.high < 0.75
    assert "corrected" in metric.note
    place = list(holdout.x["ward"].value_counts().index).index("east") + 1
    withheld = run(replace(fair, holdout=holdout))
    assert withheld.metric("accuracy", f"ward, value {place} of 3 by frequency").value == metric.value
    assert any(f"ward, value {place} of 3 by frequency" in finding for finding in withheld.findings)


def test_declared_groups_need_not_be_inputs() -> None:
    data = people(3000, 0, noise=0.0)
    region = np.where(np.arange(3000) % 3 == 0, "far", "near")
    fair = made_target(forest(), replace(data, groups=pd.DataFrame({"region": region})), train=1500)
    wrong = fair.holdout.y.copy()
    wrong[(fair.holdout.groups["region"] == "far").to_numpy() & (np.random.default_rng(0).random(1500) < 0.5)] ^= 1
    evidence = run(replace(fair, holdout=replace(fair.holdout, y=wrong)))
    assert any("region, value 2 of 2 by frequency" in finding for finding in evidence.findings)


def test_no_value_of_a_row_is_named_unless_the_user_opted_in() -> None:
    data = people(1500, 0, noise=0.0)
    groups = pd.DataFrame({"region": np.where(np.arange(1500) % 3 == 0, "canary-group", "near")})
    ward = data.x["ward"].replace("east", "canary-ward")
    target = made_target(forest(), replace(data, x=data.x.assign(ward=ward), groups=groups), train=700)
    holdout, wrong = target.holdout, target.holdout.y.copy()
    rich = (holdout.x["income"] > holdout.x["income"].quantile(0.75)).to_numpy()
    worst = rich | (holdout.groups["region"] == "canary-group").to_numpy() | (holdout.x["ward"] == "canary-ward").to_numpy()
    wrong[worst & (np.random.default_rng(0).random(len(wrong)) < 0.3)] ^= 1
    target = replace(target, holdout=replace(holdout, y=wrong))
    named = {"region = canary-group", "ward = canary-ward", f"to {holdout.x['income'].max():.4g}"}
    for shown in (False, True):
        said = run(replace(target, show_values=shown)).model_dump_json()
        assert {name for name in named if name in said} == (named if shown else set())
        assert ("canary" in said) is shown


def test_models_without_footing_are_inconclusive(table: Target) -> None:
    with pytest.raises(Inconclusive):
        run(made_target(DummyClassifier(strategy="most_frequent"), people(400, 0), train=200))
    with pytest.raises(Inconclusive):
        run(replace(table, holdout=table.holdout.take(np.arange(10))))
    with pytest.raises(Inconclusive, match="not above"):
        run(made_target(DummyClassifier(strategy="stratified", random_state=0), people(400, 0), train=200))
    with pytest.raises(Inconclusive, match="handled correctly"):
        run(table, replace(BUDGET, rows=10))


@pytest.mark.parametrize("shape", [(6,), (8, 8), (1, 8, 8), (3, 16, 16), (16, 16, 3)])
def test_array_changes_keep_shape_type_and_range_and_grow_with_severity(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    x = random.uniform(0, 1, size=(20, *shape)).astype(np.float32)
    original = x.copy()
    for kind in array_corruptions(0.0, 1.0, shape):
        sizes = []
        for severity in SEVERITIES:
            changed = kind.apply(x, severity, SampleStreams(0, range(20)))
            assert changed.shape == x.shape
            assert changed.dtype == x.dtype
            assert 0 <= changed.min() <= changed.max() <= 1
            sizes.append(float(np.abs(changed - x).mean()))
        assert sizes[-1] > sizes[0]
        assert sizes[-1] > 0.02
    assert np.array_equal(x, original)


def test_each_row_has_its_own_change() -> None:
    x = np.random.default_rng(0).uniform(0, 1, size=(6, 1, 8, 8))
    for kind in array_corruptions(0.0, 1.0, (1, 8, 8)):
        together = kind.apply(x, 4, SampleStreams(0, range(6)))
        alone = np.concatenate([kind.apply(x[i : i + 1], 4, SampleStreams(0, [i])) for i in range(6)])
        assert np.allclose(together, alone)


def test_table_changes_keep_types_where_they_can() -> None:
    frame = people(200, 0).x.assign(small=np.arange(200).astype(np.uint8), ward=lambda x: x["ward"].astype("category"))
    before = frame.copy()
    kinds = {kind.name: kind for kind in table_corruptions(frame, ["income", "age", "ward"], ["ward"])}
    streams = lambda: SampleStreams(0, range(200))  # noqa: E731
    noisy = kinds["measurement noise"].apply(frame, 3, streams())
    assert list(noisy.dtypes) == list(frame.dtypes)
    assert noisy["age"].between(frame["age"].min(), frame["age"].max()).all()
    assert (noisy["income"] - frame["income"]).std() == pytest.approx(0.2 * frame["income"].std(), rel=0.2)
    other = kinds["unit of one column"].apply(frame, 4, streams())
    changed = (other[["age", "income", "pressure", "small"]] != frame[["age", "income", "pressure", "small"]]).sum(axis=1)
    assert changed.max() == 1
    assert other["small"].max() <= 255
    holes = kinds["missing cells"].apply(frame, 1, streams())
    assert (holes.isna().sum(axis=1) == 1).all()
    strange = kinds["unseen categories"].apply(frame, 1, streams())
    assert (strange["ward"] == "unseen category").all()
    pd.testing.assert_frame_equal(frame, before)


def test_calibration_error_is_that_of_the_definition() -> None:
    class Sure:
        from holdfast.core.oracle import Access

        access = Access.SCORES

        def scores(self, x):
            return np.log(np.stack([x, 1 - x], axis=1))

    x = np.array([0.95] * 10 + [0.65] * 10)
    y = np.array([0] * 9 + [1] + [0] * 4 + [1] * 6)
    assert _calibration(Sure(), x, y, "g")[0].value == pytest.approx(0.5 * 0.05 + 0.5 * 0.25)


def test_pictures_are_told_from_other_arrays() -> None:
    assert picture_axes((8, 8)) == (1, 2)
    assert picture_axes((3, 8, 9)) == (2, 3)
    assert picture_axes((8, 9, 3)) == (1, 2)
    assert picture_axes((64,)) == picture_axes((2, 5)) == picture_axes((5, 5, 5)) == ()


@pytest.mark.claim("loop-2")
def test_copies_share_a_cluster_and_make_nothing_enough(table: Target) -> None:
    few = table.holdout.take(np.arange(60))
    copied = few.take(np.repeat(np.arange(60), 4))
    copied = replace(copied, ids=np.arange(240).astype(str))
    evidence = run(replace(table, holdout=copied), replace(BUDGET, rows=240))
    assert len({row.cluster for row in evidence.rows}) == len(evidence.rows) / 4
    with pytest.raises(Inconclusive, match="distinct"):
        run(replace(table, holdout=copied), replace(BUDGET, rows=20))
