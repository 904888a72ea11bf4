from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from holdfast.assessment.gate import upper_bound
from holdfast.core.errors import Inconclusive, Unmeasured
from holdfast.core.oracle import Access
from holdfast.core.probe import BUDGETS, Probe
from holdfast.core.progress import Silent
from holdfast.core.target import Dataset, Target
from holdfast.probes.unequal_harm import UnequalHarm


class Answers:
    """Answers what its input says."""

    classes = ("no", "yes")
    framework = "python"
    access = Access.SCORES

    def labels(self, x):
        return x["answer"].to_numpy(dtype=np.int64)

    def scores(self, x):
        p = np.where(x["answer"] == 1, 0.8, 0.2)
        return np.log(np.stack([1 - p, p], axis=1))

    def value_and_gradient(self, x, loss):
        raise NotImplementedError


def target(harm: float, rows: int = 1200, seed: int = 0) -> Target:
    draw = np.random.default_rng(seed)
    sex = draw.choice(["F", "M"], rows)
    y = draw.integers(2, size=rows)
    wrong = draw.random(rows) < np.where(sex == "F", 0.15 + harm, 0.15)
    data = Dataset(
        name="holdout",
        x=pd.DataFrame({"answer": np.where(wrong, 1 - y, y), "person": np.arange(rows)}),
        y=y,
        classes=("no", "yes"),
        ids=np.array([f"r{i}" for i in range(rows)]),
        groups=pd.DataFrame({"sex": sex}),
    )
    return Target(name="t", model=Answers(), modality="tabular", holdout=data)


def run(given: Target, seed: int = 0):
    return UnequalHarm().run(given, BUDGETS["quick"], seed, Silent())


def test_is_a_probe():
    assert isinstance(UnequalHarm(), Probe)


def test_planted_harm_is_measured_on_the_rows_of_the_group():
    given = target(harm=0.2)
    evidence = run(given)
    women = given.holdout.groups.sex == "F"
    assert {row.unit for row in evidence.rows} == set(given.holdout.ids[women])
    wrong = sum(row.success for row in evidence.rows) / len(evidence.rows)
    assert wrong == pytest.approx(0.35, abs=0.05)
    assert evidence.chance == pytest.approx(0.15, abs=0.04)
    assert "sex = F" in evidence.reason
    assert evidence.subject == "sex = F"
    assert evidence.metric("gap in error rate", evidence.subject).low > 0
    assert evidence.metric("p-value of the largest error gap").value < 0.01
    assert evidence == run(given)


def test_without_harm_nothing_is_left_above_chance_and_nothing_is_called_fair():
    evidence = run(target(harm=0.0))
    share = sum(row.success for row in evidence.rows) / len(evidence.rows)
    assert evidence.chance >= share
    assert "no evidence of equal treatment" in evidence.reason
    assert "fair" not in evidence.reason


@pytest.mark.claim("loop-2")
def test_what_cannot_be_told_is_not_called_fair():
    given = target(harm=0.3)
    nobody = replace(given, holdout=replace(given.holdout, groups=None))
    with pytest.raises(Unmeasured):
        UnequalHarm().check(nobody)
    alone = replace(given.holdout, groups=pd.DataFrame({"sex": ["F"] * len(given.holdout)}))
    with pytest.raises(Inconclusive, match="too few to tell"):
        run(replace(given, holdout=alone))
    constant = replace(given.holdout, x=given.holdout.x.assign(answer=0))
    with pytest.raises(Inconclusive):
        run(replace(given, holdout=constant))


@pytest.mark.claim("loop-2")
def test_copies_of_rows_are_no_further_evidence():
    given = target(harm=0.0, rows=200)
    times = np.repeat(np.arange(200), 10)
    many = replace(given.holdout.take(times), ids=np.arange(2000).astype(str))
    once, tenfold = run(given), run(replace(given, holdout=many))
    assert upper_bound(tenfold) >= upper_bound(once) - 0.005
    gaps = [evidence.metric("gap in error rate", "sex = F") for evidence in (once, tenfold)]
    assert gaps[0].value == pytest.approx(gaps[1].value)
    assert gaps[1].high - gaps[1].low >= 0.98 * (gaps[0].high - gaps[0].low)
    few = replace(given, holdout=given.holdout.take(times[:590]))
    with pytest.raises(Unmeasured, match="59 distinct holdout rows"):
        UnequalHarm().check(few)


def test_groups_are_as_large_as_their_distinct_rows():
    given = target(harm=0.0, rows=200)
    sex = given.holdout.groups.sex.to_numpy(copy=True)
    sex[:20] = "X"
    holdout = replace(given.holdout, groups=pd.DataFrame({"sex": sex}))
    many = holdout.take(np.repeat(np.arange(200), 10))
    findings = run(replace(given, holdout=many, show_values=True)).findings
    assert "sex = X: 20 rows are too few to tell" in findings


def test_small_groups_are_counted_and_named_only_if_the_user_opted_in():
    given = target(harm=0.0)
    sex = given.holdout.groups.sex.to_numpy(copy=True)
    sex[:4] = "X"
    given = replace(given, holdout=replace(given.holdout, groups=pd.DataFrame({"sex": sex})))
    evidence = run(given)
    assert "1 groups are too small to tell" in evidence.reason
    assert "sex = X" not in evidence.model_dump_json()
    assert "sex = X: 4 rows are too few to tell" in run(replace(given, show_values=True)).findings
