"""P-PRI-ATTR counts only what the model adds to imputation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from holdfast.attacks.privacy.attributes import FieldGuesser
from holdfast.core.errors import CannotMeasure, Inconclusive, NotApplicable, Unmeasured
from holdfast.core.oracle import Access
from holdfast.core.probe import Budget, Probe
from holdfast.core.progress import Silent
from holdfast.core.target import Dataset, Target
from holdfast.hardening.answers import harden_answers
from holdfast.probes import attributes
from holdfast.probes.attributes import AttributeInference
from made_targets import as_model, forest, made_target, people

BUDGET = Budget(level="quick", rows=64, queries=300, repeats=3, shadows=8)


def leaking(rows: int, seed: int) -> Dataset:
    """Labels that nobody could know, but that a memorising model knows together with the secret."""
    random = np.random.default_rng(seed)
    data = people(rows, seed)
    x = data.x.assign(smoker=random.random(rows) < 0.5)
    return replace(data, x=x, y=((x["age"] > 55) ^ (x["smoker"] & (random.random(rows) < 0.8))).to_numpy().astype(np.int64))


@pytest.fixture(scope="module")
def target() -> Target:
    return made_target(forest(), leaking(3000, 0), train=1500)


@pytest.fixture(scope="module")
def evidence(target):
    return AttributeInference().run(target, BUDGET, 0, Silent())


def test_it_is_a_probe():
    assert isinstance(AttributeInference(), Probe)


def test_rows_and_chance_are_of_the_same_records(target, evidence):
    won = np.array([row.success for row in evidence.rows])
    without = np.array([row.detail["right without the model"] for row in evidence.rows])
    assert evidence.chance == pytest.approx(without.mean())
    gain = evidence.metric("gain over imputer", evidence.subject)
    assert evidence.subject == "smoker"
    assert gain.value == pytest.approx(won.mean() - without.mean())
    assert gain.low < gain.value < gain.high
    assert {row.unit for row in evidence.rows} <= set(target.train.ids)
    assert evidence.axis == ""  # every candidate is asked for, so no reach stays untested


def test_the_same_seed_gives_the_same_evidence(target, evidence):
    assert AttributeInference().run(target, BUDGET, 0, Silent()) == evidence


def test_what_imputation_knows_is_no_gain():
    """The label gives the field away to everybody: 80 % accuracy, and no finding."""
    data = people(2400, 1)
    data = replace(data, x=data.x.assign(smoker=data.x["pressure"] > 120))
    model = forest(leaf=30)
    evidence = AttributeInference().run(made_target(model, data, train=1200), BUDGET, 0, Silent())
    assert evidence.chance > 0.95
    gain = evidence.metric("gain over imputer", "smoker")
    assert gain.low <= 0
    assert evidence.findings[0].startswith("No gain from the model")


class Remembering:
    """Doubts the label of a training row as soon as its secret is changed."""

    classes = ("0", "1")
    framework = "python"
    access = Access.SCORES

    def __init__(self, data: Dataset) -> None:
        held = zip(data.x["income"], data.x["smoker"], data.y, strict=True)
        self.held = {income: (smoker, label) for income, smoker, label in held}

    def scores(self, x):
        found = []
        for income, age, smoker in zip(x["income"], x["age"], x["smoker"], strict=True):
            truth, label = self.held.get(income, (smoker, int(age > 55)))
            found.append((1 if label else -1) * (3.0 if truth == smoker else 0.5))
        return np.stack([np.zeros(len(x)), np.array(found)], axis=1)

    def labels(self, x):
        return self.scores(x).argmax(axis=1)


def test_memory_is_found_on_training_rows_and_on_no_others():
    target = made_target(forest(), people(2400, 3), train=1200)
    evidence = AttributeInference().run(replace(target, model=Remembering(target.train)), BUDGET, 0, Silent())
    assert evidence.metric("gain over imputer", "smoker").low > 0.2
    assert evidence.metric("gain over imputer on people who were not trained on", "smoker").low <= 0
    assert evidence.findings[0].startswith("The model helps to guess 'smoker'")
    hardened = harden_answers(Remembering(target.train), "label")
    told = AttributeInference().run(replace(target, model=hardened), BUDGET, 0, Silent())
    assert told.metric("gain over imputer", "smoker").low <= 0
    assert "labels only" in told.method


def test_an_attacker_who_ignores_the_answers_gains_nothing(monkeypatch):
    """The mutation: with the answers blanked the finding goes."""
    target = made_target(forest(), people(2400, 3), train=1200)
    original = FieldGuesser._ask
    monkeypatch.setattr(FieldGuesser, "_ask", lambda self, *rest: np.zeros_like(original(self, *rest)))
    evidence = AttributeInference().run(replace(target, model=Remembering(target.train)), BUDGET, 0, Silent())
    assert evidence.metric("gain over imputer", "smoker").low <= 0


@pytest.mark.slow
@pytest.mark.claim("loop-2")
def test_a_model_without_the_field_gives_no_gain_in_repeated_runs():
    gains = 0
    keep = FunctionTransformer(lambda x: x[["age", "pressure"]])
    for seed in range(15):
        target = made_target(make_pipeline(keep, LogisticRegression(max_iter=500)), people(900, seed), train=450)
        evidence = AttributeInference().run(target, BUDGET, seed, Silent())
        gains += evidence.metric("gain over imputer", "smoker").low > 0
    assert gains <= 2


def test_columns_with_nothing_to_guess_are_named_and_all_of_them_is_inconclusive():
    data = people(1200, 4)
    data = replace(data, x=data.x.assign(flag="same"), sensitive=("smoker", "flag"))
    evidence = AttributeInference().run(made_target(forest(leaf=20), data, train=600), BUDGET, 0, Silent())
    assert "'flag'" in evidence.reason
    alone = replace(data, sensitive=("flag",))
    with pytest.raises(CannotMeasure) as refused:
        AttributeInference().run(made_target(forest(leaf=20), alone, train=600), BUDGET, 0, Silent())
    assert refused.value.status == "inconclusive"


@pytest.mark.claim("loop-2")
def test_what_cannot_be_measured_says_why(target):
    probe = AttributeInference()
    with pytest.raises(Unmeasured, match="sensitive"):
        probe.check(replace(target, holdout=replace(target.holdout, sensitive=())))
    array = Dataset(name="h", x=np.zeros((9, 2)), y=np.zeros(9, dtype=np.int64), classes=("a", "b"), ids=np.arange(9).astype(str))
    with pytest.raises(NotApplicable):
        probe.check(replace(target, holdout=array))
    constant = as_model(DummyClassifier(strategy="most_frequent").fit(target.train.x, target.train.y), target.train)
    for broken in (
        replace(target, model=constant),
        replace(target, holdout=target.holdout.take(np.arange(0))),
        replace(target, holdout=target.holdout.take(target.holdout.y == 0)),
    ):
        with pytest.raises(CannotMeasure) as refused:
            probe.run(broken, BUDGET, 0, Silent())
        assert refused.value.status == "inconclusive"


def test_without_training_rows_holdout_rows_are_guessed(target):
    evidence = AttributeInference().run(replace(target, train=None), BUDGET, 0, Silent())
    assert {row.unit for row in evidence.rows} <= set(target.holdout.ids)
    assert "memory of people cannot show" in evidence.reason
    assert attributes.AttributeInference().work(replace(target, train=None), BUDGET).predictions > 0


@pytest.mark.claim("loop-2")
def test_copies_of_few_records_are_no_victims(target):
    forty = target.train.take(np.repeat(np.arange(40), 20))
    with pytest.raises(Inconclusive, match="only 40 distinct records"):
        AttributeInference().run(replace(target, train=replace(forty, ids=np.arange(800).astype(str))), BUDGET, 0, Silent())
