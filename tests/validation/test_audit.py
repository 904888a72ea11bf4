from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import datasets
from sklearn.metrics import roc_auc_score

from holdfast.core.errors import InvalidData
from holdfast.core.target import Dataset
from holdfast.validation import audit as auditing
from holdfast.validation.audit import audit
from holdfast.validation.faults import planned_faults, self_test
from holdfast.validation.findings import excess, run_probability
from holdfast.validation.leakage import column_power, ranking


def split(x, y, classes, seed=0, share=0.7):
    order = np.random.default_rng(seed).permutation(len(y))
    cut = int(share * len(y))
    ids = np.array([f"r{i}" for i in range(len(y))])

    def part(rows, name):
        inputs = x.iloc[rows].reset_index(drop=True) if isinstance(x, pd.DataFrame) else x[rows]
        return Dataset(name=name, x=inputs, y=np.asarray(y)[rows].astype(np.int64), classes=classes, ids=ids[rows])

    return part(order[:cut], "train"), part(order[cut:], "holdout")


def bundled(name, seed=0):
    loaded = getattr(datasets, f"load_{name}")()
    x = loaded.images if name == "digits" else pd.DataFrame(loaded.data, columns=loaded.feature_names)
    return split(x, loaded.target, tuple(map(str, loaded.target_names)), seed)


def table(rows=1500, seed=0):
    draw = np.random.default_rng(seed)
    age = draw.normal(50, 12, rows)
    frame = pd.DataFrame(
        {
            "age": age,
            "pressure": 80 + age + draw.normal(0, 4, rows),
            "visits": draw.poisson(3, rows),
            "ward": draw.choice(["north", "south", "west"], rows),
        }
    )
    y = (draw.random(rows) < 1 / (1 + np.exp(-(age - 50) / 6))).astype(int)
    return split(frame, y, ("home", "stay"), seed)


def changed(data, **columns):
    return replace(data, x=data.x.assign(**columns))


def found(train, holdout, check, column=None, only=None):
    return [one for one in audit(train, holdout, only=only) if one.check == check and (column is None or one.column == column)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["breast_cancer", "wine", "iris", "digits"])
def test_clean_sets_raise_no_high_finding_and_few_others(name):
    others = 0
    for seed in range(5):
        findings = audit(*bundled(name, seed), seed=seed)
        assert not [one for one in findings if one.severity == "high"]
        others += sum(
            one.severity == "medium" and "duplicate" not in one.check and "overlap" not in one.check for one in findings
        )
    assert others <= 3


def test_exact_tests_against_scipy_and_counting():
    assert excess(5, 40, 1, 60) == pytest.approx(stats.fisher_exact([[5, 35], [1, 59]], alternative="greater").pvalue)
    assert run_probability(3, 6, 4) == pytest.approx(6 / 10 * 5 / 9 * 4 / 8)
    assert (excess(0, 10, 5, 10), run_probability(0, 3, 3)) == (1.0, 1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(60, 300))
def test_ranking_equals_the_auc_of_scikit_learn(seed, rows):
    draw = np.random.default_rng(seed)
    y = np.r_[0, 1, draw.integers(2, size=rows - 2)]
    shares = np.round(draw.random((rows, 2)), 1)
    assert ranking(shares, y)[0] == pytest.approx(roc_auc_score(y, shares[:, 1]))


def test_an_identifier_ranks_nothing_and_a_copy_everything():
    draw = np.random.default_rng(0)
    y = draw.integers(2, size=600)
    assert ranking(column_power(pd.Series([f"p{i}" for i in range(600)]), y, 2), y)[0] == pytest.approx(0.5, abs=0.05)
    assert ranking(column_power(pd.Series(y), y, 2), y)[0] == 1.0


def test_leaked_label_is_high_and_a_good_feature_is_not():
    train, holdout = table()
    (leak,) = found(changed(train, code=train.y * 7.0), changed(holdout, code=holdout.y * 7.0), "label leakage")
    assert (leak.column, leak.severity) == ("code", "high")
    named = [changed(one, code=np.array(["h", "s"])[one.y]) for one in (train, holdout)]
    assert found(*named, "label leakage", "code")[0].severity == "high"
    assert found(train, holdout, "label leakage") == []


def test_an_easy_label_is_not_called_high():
    draw = np.random.default_rng(0)
    y = draw.integers(2, size=800)
    frame = pd.DataFrame({name: y * 10 + draw.normal(size=800) for name in "abc"})
    findings = found(*split(frame, y, ("n", "y")), "label leakage")
    assert {one.severity for one in findings} == {"medium"}


def test_schema_and_types():
    train, holdout = table()
    lost = replace(train, x=train.x.drop(columns=["age"]))
    (schema,) = found(lost, holdout, "schema")
    assert (schema.column, schema.split, schema.severity) == ("age", "holdout", "high")
    assert found(changed(train, age=train.x.age.astype(str)), holdout, "type", "age")
    assert found(replace(train, x=train.x[["ward", "age", "pressure", "visits"]]), holdout, "schema")[0].severity == "low"
    arrays = replace(train, x=np.zeros((len(train), 4)))
    assert [one.severity for one in audit(arrays, holdout)] == ["high"]


def test_unit_changes_missing_cells_constants_and_rows_are_named():
    train, holdout = table()
    age = train.x.age.to_numpy(copy=True)
    age[:40] *= 1000
    (unit,) = found(changed(train, age=age), holdout, "range", "age")
    assert unit.severity == "high"
    assert set(unit.ids) <= set(train.ids[:40])
    age = train.x.age.mask(np.arange(len(train)) < 50)
    (gap,) = found(changed(train, age=age), holdout, "missing cells", "age")
    assert (gap.count, gap.severity) == (50, "medium")
    assert found(changed(train, age=np.nan), holdout, "missing cells", "age")[0].severity == "high"
    assert found(changed(train, age=1.0), holdout, "constant column", "age")[0].severity == "medium"
    visits = train.x.visits.astype(float)
    visits[:9] = np.inf
    assert found(changed(train, visits=visits), holdout, "infinite cells")[0].count == 9


def test_a_number_inside_its_range_that_contradicts_the_row_is_seen():
    train, holdout = table()
    pressure = train.x.pressure.to_numpy(copy=True)
    pressure[:40] = np.where(pressure[:40] > 130, 90.0, 165.0)
    changed_train = changed(train, pressure=pressure)
    assert found(changed_train, holdout, "range", "pressure") == []
    assert found(changed_train, holdout, "contradicted numbers", "pressure")[0].count >= 30


def test_text_cells():
    train, holdout = table()
    ward = train.x.ward.astype(object).to_numpy(copy=True)
    ward[:30], ward[30:60], ward[60:64] = "?", " NORTH", "sÃ©jour"
    found_text = {one.check for one in audit(changed(train, ward=ward), holdout, only=["encodings", "categories"])}
    assert {"placeholders", "spellings", "garbled text", "new categories"} <= found_text
    sentinel = train.x.visits.to_numpy(copy=True)
    sentinel[:30] = -999
    assert found(changed(train, visits=sentinel), holdout, "placeholders", "visits")[0].count == 30
    text = [changed(one, visits=one.x.visits.astype(str)) for one in (train, holdout)]
    assert found(*text, "numbers as text", "visits")
    assert audit(train, holdout, only=["encodings", "categories"]) == ()


def test_masks_over_rows_with_missing_cells_name_the_right_rows():
    train, holdout = table()
    ward = train.x.ward.astype(object).to_numpy(copy=True)
    ward[:100] = None
    ward[200:203] = "?"
    (one,) = found(changed(train, ward=ward), holdout, "placeholders")
    assert one.ids == tuple(train.ids[200:203])


def test_repeated_overlapping_near_and_contradicting_rows():
    train, holdout = table()
    doubled = train.take(np.r_[np.arange(len(train)), np.arange(30)])
    assert found(doubled, holdout, "duplicate rows")[0].count == 30
    leaked = replace(train, x=pd.concat([train.x.iloc[30:], holdout.x.iloc[:30]], ignore_index=True))
    (overlap,) = found(leaked, holdout, "overlap of train and holdout")
    assert (overlap.count, overlap.severity, overlap.ids[0]) == (30, "high", holdout.ids[0])
    near = leaked.x.copy()
    near.loc[len(near) - 30 :, ["age", "pressure"]] += 1e-4
    assert found(replace(train, x=near), holdout, "near duplicates across splits")[0].count >= 25
    other = doubled.y.copy()
    other[-30:] = 1 - other[-30:]
    assert found(replace(doubled, y=other), holdout, "contradicting labels")[0].count == 60
    assert not {"duplicate rows", "overlap of train and holdout"} & {one.check for one in audit(train, holdout)}


def test_tables_that_repeat_by_nature_are_not_called_leaks():
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"a": draw.integers(4, size=2000), "b": draw.choice(list("xy"), 2000)})
    train, holdout = split(frame, draw.integers(2, size=2000), ("n", "y"))
    assert found(train, holdout, "overlap of train and holdout")[0].severity != "high"


def test_flipped_labels_and_class_shares():
    train, holdout = bundled("digits")
    label = train.y.copy()
    label[:120] = (label[:120] + 3) % 10
    assert found(replace(train, y=label), holdout, "doubtful labels")[0].split == "train"
    assert found(train, holdout, "doubtful labels") == []
    gone = train.take(train.y != 4)
    assert found(gone, holdout, "missing class")[0].severity == "high"
    many = train.take(np.r_[np.arange(len(train)), np.flatnonzero(train.y == 2), np.flatnonzero(train.y == 2)])
    assert found(many, holdout, "class shares")


def test_identifiers_are_named():
    train, holdout = table()
    named = [changed(one, patient=[f"{name}{i}" for i in range(len(one))]) for name, one in (("a", train), ("b", holdout))]
    assert found(*named, "identifier", "patient")[0].severity == "low"
    assert found(train, holdout, "identifier") == []


def test_images():
    train, holdout = bundled("digits")
    x = train.x.copy()
    x[:60] *= 255
    assert found(replace(train, x=x), holdout, "range")
    x = train.x.copy()
    x[:20] = 0.0
    assert found(replace(train, x=x), holdout, "constant inputs")[0].count == 20
    x = train.x.copy()
    x[:20, 0, 0] = np.nan
    assert found(replace(train, x=x), holdout, "missing cells")[0].count == 20


def test_empty_splits_are_refused():
    train, holdout = table()
    with pytest.raises(InvalidData):
        audit(train.take(np.arange(0)), holdout)


def test_odd_columns_do_not_break_the_audit():
    train, holdout = table(200)
    odd = {
        "flag": lambda n: np.arange(n) % 2 == 0,
        "when": lambda n: pd.date_range("2020-01-01", periods=n, freq="h"),
        "kind": lambda n: pd.Categorical(["p", "q"] * (n // 2) + ["p"] * (n % 2)),
        "nothing": lambda n: [None] * n,
        "nullable": lambda n: pd.array([None, *range(n - 1)], dtype="Int64"),
        "=cmd()|<b>": lambda n: ["<script>"] * n,
        "mixed": lambda n: [1, "a"] * (n // 2) + [2] * (n % 2),
    }
    first, second = (changed(one, **{name: make(len(one)) for name, make in odd.items()}) for one in (train, holdout))
    findings = audit(first, second)
    assert {"nothing", "=cmd()|<b>"} <= {one.column for one in findings if one.check == "constant column"}
    trials = self_test(first, second, baseline=findings, seed=0, columns=20)
    assert len(trials) > 60


@pytest.mark.slow
def test_the_self_test_misses_what_a_disabled_check_would_see(monkeypatch):
    train, holdout = table(700)
    baseline = audit(train, holdout)

    def caught():
        return {one.fault.unit: one.caught for one in self_test(train, holdout, baseline=baseline, seed=0, columns=1)}

    before, real = caught(), auditing.checks
    assert np.mean(list(before.values())) > 0.7
    for name in ("schema", "missing", "constant", "encodings", "duplicates", "leakage"):
        monkeypatch.setattr(auditing, "checks", lambda seed=0, name=name: {**real(seed), name: lambda a, b: iter(())})
        missed = {unit for unit, hit in caught().items() if before[unit] and not hit}
        watched = {fault.unit for fault in planned_faults(train, columns=1, seed=0) if name in fault.checks}
        assert missed, name
        assert missed <= watched
    monkeypatch.setattr(auditing, "checks", lambda seed=0: {name: lambda a, b: iter(()) for name in real()})
    assert not any(caught().values())


def test_planting_leaves_the_data_untouched():
    train, holdout = table(300)
    x, y = train.x.copy(), train.y.copy()
    self_test(train, holdout, baseline=audit(train, holdout), seed=0, columns=4)
    pd.testing.assert_frame_equal(train.x, x)
    np.testing.assert_array_equal(train.y, y)
