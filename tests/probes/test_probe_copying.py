"""P-EXT-COPY counts queries until a copy agrees, from the answers that the service really gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from holdfast.core.errors import CannotMeasure, Inconclusive
from holdfast.core.oracle import Access
from holdfast.core.probe import Budget, Probe
from holdfast.core.progress import Silent
from holdfast.core.target import Dataset
from holdfast.hardening.answers import harden_answers
from holdfast.probes import copying
from holdfast.probes.copying import ModelCopying
from made_targets import as_model, forest, made_target, people

BUDGET = Budget(level="quick", rows=64, queries=300, repeats=3, shadows=8)


def linear(rows: int, seed: int) -> Dataset:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 4))
    y = (x @ np.array([2.0, -1.0, 1.0, 0.5]) + random.normal(size=rows) > 0).astype(np.int64)
    return Dataset(name="l", x=x, y=y, classes=("a", "b"), ids=np.arange(rows).astype(str))


@pytest.fixture(scope="module")
def target():
    return made_target(LogisticRegression(), linear(1600, 0), train=600)


@pytest.fixture(scope="module")
def evidence(target):
    return ModelCopying().run(target, BUDGET, 0, Silent())


def test_it_is_a_probe():
    assert isinstance(ModelCopying(), Probe)


def test_a_linear_model_is_copied_within_the_budget(evidence):
    assert evidence.axis == "queries"
    assert evidence.tested == 300
    assert len(evidence.rows) == 3
    assert all(row.success for row in evidence.rows)
    assert all(10 <= row.capability <= 300 for row in evidence.rows)
    assert "3 of 3 attackers copied the model" in evidence.findings[0]


def test_capability_is_the_smallest_number_that_reaches_the_agreement(evidence):
    steps = sorted({int(m.name.split()[2]) for m in evidence.metrics if m.name.startswith("agreement after")})
    assert steps[0] == 10
    assert steps[-1] == 300
    assert {row.capability for row in evidence.rows} <= set(map(float, steps))
    for mode in ("scores", "labels"):
        values = [evidence.metric(f"agreement after {n} queries", f"answers: {mode}").value for n in steps]
        assert values[-1] > values[0]


def test_every_attacker_pays_for_his_answers_and_not_more(target, evidence):
    assert evidence.spent.queries == 3 * 300


def test_withheld_scores_make_copying_from_labels_the_measured_attack(target, evidence):
    hardened = replace(target, model=harden_answers(target.model, "label"), bare=target.model)
    labels = ModelCopying().run(hardened, BUDGET, 0, Silent())
    assert "served labels;" in labels.method
    groups = {metric.group for metric in labels.metrics if metric.group}
    assert groups == {"answers: labels"}
    name = "agreement after 300 queries"
    assert labels.metric(name, "answers: labels").value == pytest.approx(evidence.metric(name, "answers: labels").value, abs=0.03)


def test_a_copy_that_learns_nothing_is_not_counted(target, monkeypatch):
    """The mutation: with the learner replaced by a constant no attacker succeeds."""
    from holdfast.attacks.extraction.copying import Copy

    monkeypatch.setattr(
        copying, "train_copy", lambda *a, **k: Copy(learner="constant", predict=lambda x: np.zeros(len(x), dtype=np.int64))
    )
    evidence = ModelCopying().run(target, BUDGET, 0, Silent())
    assert not any(row.success for row in evidence.rows)


def test_the_same_seed_gives_the_same_evidence(target, evidence):
    assert ModelCopying().run(target, BUDGET, 0, Silent()) == evidence


def test_raw_tables_are_copied_too():
    evidence = ModelCopying().run(made_target(forest(leaf=30), people(900, 0, noise=0.05), train=400), BUDGET, 0, Silent())
    best = max(metric.value for metric in evidence.metrics if metric.name.startswith("agreement after 250"))
    assert best > evidence.metric("agreement of the commonest class").value + 0.1


@pytest.mark.slow
def test_images_of_ten_classes():
    digits = load_digits()
    data = Dataset(
        name="d",
        x=digits.images[:, None] / 16,
        y=digits.target.astype(np.int64),
        classes=tuple("0123456789"),
        ids=np.arange(1797).astype(str),
    )
    estimator = LogisticRegression(max_iter=200)
    flat = replace(data, x=data.x.reshape(len(data), -1))
    evidence = ModelCopying().run(made_target(estimator, flat, train=800), replace(BUDGET, repeats=1), 0, Silent())
    assert evidence.metric("agreement after 300 queries", "answers: scores").value > 0.75


@pytest.mark.claim("loop-2")
def test_what_cannot_be_measured_is_inconclusive(target):
    constant = as_model(DummyClassifier(strategy="most_frequent").fit(target.train.x, target.train.y), target.train)

    class Nearly:
        access, classes, framework = Access.LABELS, ("0", "1"), "python"

        def labels(self, x):
            return (np.asarray(x)[:, 0] > 2).astype(np.int64)

    for broken in (
        replace(target, model=constant),
        replace(target, model=Nearly()),
        replace(target, holdout=target.holdout.take(np.arange(0))),
        replace(target, holdout=target.holdout.take(target.holdout.y == 0)),
    ):
        with pytest.raises(CannotMeasure) as refused:
            ModelCopying().run(broken, BUDGET, 0, Silent())
        assert refused.value.status == "inconclusive"
    with pytest.raises(Inconclusive, match="a constant agrees"):
        ModelCopying().run(replace(target, model=Nearly()), BUDGET, 0, Silent())


def test_fewer_inputs_than_the_budget_are_said(target):
    few = replace(target, holdout=target.holdout.take(np.arange(300)))
    evidence = ModelCopying().run(few, BUDGET, 0, Silent())
    assert evidence.tested == 150
    assert "no more than 150 queries were tested" in evidence.reason


def test_agreement_on_rows_of_one_person_counts_as_one():
    """Ten people with twelve rows each, whose rows all agree or all differ, judged by three attackers."""
    judged = replace(linear(120, 3), clusters=np.repeat(np.arange(10), 12).astype(str))
    agrees = np.tile(np.repeat(np.arange(10) < 7, 12), (1, 1, 3, 1))
    copies = copying.Copies(agrees=agrees, learners=(("linear",),))
    found = copying._metrics(copies, [10], ("labels",), judged, 0.5)[1]
    alone = copying._metrics(copies, [10], ("labels",), replace(judged, clusters=None), 0.5)[1]
    assert found.value == alone.value == pytest.approx(0.7)
    assert found.high - found.low > 2.5 * (alone.high - alone.low)
