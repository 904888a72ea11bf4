from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from holdfast.core.errors import Unmeasured
from holdfast.core.probe import BUDGETS, Probe
from holdfast.core.progress import Silent
from holdfast.core.target import Dataset, Target
from holdfast.probes.data_audit import DataAudit


def target(rows: int = 900, leak: bool = False) -> Target:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"age": draw.normal(50, 10, rows), "ward": draw.choice(list("nsw"), rows)})
    y = (draw.random(rows) < 1 / (1 + np.exp(-(frame.age - 50) / 6))).astype(np.int64).to_numpy()
    if leak:
        frame["billing_code"] = y * 3.0
    cut = rows * 2 // 3
    parts = [
        Dataset(
            name=name,
            x=frame.iloc[part].reset_index(drop=True),
            y=y[part],
            classes=("no", "yes"),
            ids=np.array([f"r{i}" for i in range(rows)])[part],
        )
        for name, part in (("train", slice(0, cut)), ("holdout", slice(cut, rows)))
    ]
    return Target(name="t", model=None, modality="tabular", train=parts[0], holdout=parts[1])  # type: ignore[arg-type]


def run(given: Target):
    return DataAudit().run(given, BUDGETS["quick"], 3, Silent())


def test_rows_are_planted_faults_and_success_means_unseen():
    assert isinstance(DataAudit(), Probe)
    given = target()
    evidence = run(given)
    rate = evidence.metric("planted faults detected")
    assert rate.trials == len(evidence.rows) > 25
    assert rate.trials - rate.successes == sum(row.success for row in evidence.rows)
    assert rate.low < rate.value < rate.high
    assert evidence.metric("false alarms").trials == 4
    assert evidence.metric("planted faults detected", "unit change x1000").value == 1.0
    assert evidence.findings == ()
    assert "what that is worth" in evidence.reason
    assert evidence == run(given)


def test_what_is_wrong_with_the_data_is_said_in_a_sentence():
    evidence = run(target(leak=True))
    assert any("billing_code predicts the label alone" in line and line.startswith("high") for line in evidence.findings)
    assert evidence.metric("findings of high severity").value == 1


@pytest.mark.claim("loop-2")
def test_without_training_rows_it_is_unmeasured():
    given = replace(target(), train=None)
    with pytest.raises(Unmeasured):
        DataAudit().check(given)
