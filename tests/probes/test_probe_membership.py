"""P-PRI-MIA finds memory where it is, finds none where there is none, and refuses where it cannot tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from holdfast.attacks.privacy.identification import strict
from holdfast.attacks.privacy.signals import signals
from holdfast.core.errors import CannotMeasure, Inconclusive, Unmeasured
from holdfast.core.oracle import Access, Oracle
from holdfast.core.probe import Budget, Probe
from holdfast.core.progress import Silent
from holdfast.core.target import Dataset
from holdfast.hardening.answers import harden_answers
from holdfast.probes import membership
from holdfast.probes.membership import MembershipInference
from made_targets import as_model, forest, made_target, people

BUDGET = Budget(level="quick", rows=64, queries=300, repeats=3, shadows=8)


def numbers(rows: int, seed: int) -> Dataset:
    """An array data set with noisy labels."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 6))
    y = ((x[:, 0] > 0) ^ (random.random(rows) < 0.2)).astype(np.int64)
    return Dataset(name="numbers", x=x, y=y, classes=("a", "b"), ids=np.arange(rows).astype(str))


@pytest.fixture(scope="module")
def overfitted():
    return made_target(forest(), people(2400, 0), train=1200)


@pytest.fixture(scope="module")
def strong(overfitted):
    return MembershipInference().run(overfitted, BUDGET, 3, Silent())


def test_it_is_a_probe():
    assert isinstance(MembershipInference(), Probe)


@pytest.mark.claim("loop-4")
def test_shadow_models_find_what_the_strict_threshold_reads_as_zero(overfitted, strong):
    train, holdout = overfitted.train, overfitted.holdout
    inside = signals(Oracle(overfitted.model, Access.SCORES, len(train)), train)
    outside = signals(Oracle(overfitted.model, Access.SCORES, len(holdout)), holdout)
    found = strong.metric("TPR at 1 % FPR")
    assert strict(inside, outside, 0.01).value < 0.01
    assert found.low is not None
    assert found.low > 0.12
    assert strong.strength == "strong"
    assert "LiRA" in strong.method
    expected = strong.metric("achieved FPR at nominal 1 %").high
    floor = int((found.low - expected) / (1 - expected) * found.trials)
    assert strong.findings[0].startswith(
        f"These attacks, with this access, identify at least {floor} of {found.trials} members beyond chance"
    )
    assert "Absence of a finding is not evidence of safety" in strong.findings[1]


def test_rows_are_the_evaluated_members_and_carry_only_ids(overfitted, strong):
    units = [row.unit for row in strong.rows]
    assert set(units) <= set(overfitted.train.ids)
    assert len(units) == len(set(units))
    assert sum(row.success for row in strong.rows) == strong.metric("TPR at 1 % FPR").successes
    assert strong.axis == ""  # one question a record is all there is to ask, so no reach stays untested
    assert strong.chance >= 0.01
    assert all(not row.detail for row in strong.rows)


def test_the_first_metric_is_the_rate_that_the_rows_show(strong):
    first = strong.metrics[0]
    assert first.name == "TPR at 1 % FPR"
    assert first.trials == len(strong.rows)
    assert first.low < first.value < first.high


def test_the_same_seed_gives_the_same_evidence(overfitted, strong):
    assert MembershipInference().run(overfitted, BUDGET, 3, Silent()) == strong


def test_disabled_shadows_lose_the_finding(overfitted, strong, monkeypatch):
    """The mutation: with likelihood ratio and calibration replaced by the bare signal, most of the finding goes."""
    monkeypatch.setattr(membership, "likelihood_ratio", lambda observed, shadows: observed)
    monkeypatch.setattr(membership, "calibrated", lambda observed, shadows: observed)
    weak = MembershipInference().run(overfitted, BUDGET, 3, Silent())
    assert weak.metric("TPR at 1 % FPR").value < 0.5 * strong.metric("TPR at 1 % FPR").value
    assert weak.metric("TPR at 1 % FPR").value < strong.metric("TPR at 1 % FPR").low


def test_without_a_recipe_the_grade_is_g0_and_the_strength_weak():
    evidence = MembershipInference().run(made_target(forest(), people(2400, 1), train=1200, recipe=False), BUDGET, 0, Silent())
    assert evidence.strength == "weak"
    assert "G0" in evidence.reason
    assert "no shadow models" in evidence.reason
    assert evidence.metric("AUC").low > 0.55


def test_a_model_that_remembers_nothing_gives_no_finding():
    data = numbers(3000, 5)
    evidence = MembershipInference().run(made_target(LogisticRegression(), data, train=1500, recipe=False), BUDGET, 0, Silent())
    assert evidence.findings[0].startswith("No attack told members from non-members beyond chance")
    assert "not evidence of safety" in evidence.findings[1]


@pytest.mark.parametrize("recipe", [True, False])
def test_swapped_roles_are_refused_and_not_read_as_privacy(overfitted, recipe):
    swapped = replace(
        overfitted,
        train=overfitted.holdout,
        holdout=overfitted.train,
        recipe=overfitted.recipe if recipe else None,
    )
    with pytest.raises(Inconclusive, match="holdout rows look more like training rows"):
        MembershipInference().run(swapped, BUDGET, 3, Silent())


def test_a_split_that_differs_without_the_model_is_not_assessable():
    data = people(2400, 2)
    data = replace(data, x=data.x.assign(income=data.x["income"] + np.where(np.arange(2400) < 1200, 0.0, 15.0)))
    with pytest.raises(Inconclusive, match="not assessable: train and holdout differ without the model"):
        MembershipInference().run(made_target(forest(), data, train=1200), BUDGET, 0, Silent())


def test_disabled_gate_would_let_the_confounded_split_through(monkeypatch):
    data = numbers(1200, 2)
    data = replace(data, x=data.x + np.where(np.arange(1200) < 600, 0.0, 1.0)[:, None])
    target = made_target(LogisticRegression(), data, train=600, recipe=False)
    with pytest.raises(Inconclusive, match="not assessable"):
        MembershipInference().run(target, BUDGET, 0, Silent())
    monkeypatch.setattr(membership.Separability, "confounded", property(lambda self: False))
    MembershipInference().run(target, BUDGET, 0, Silent())


def test_an_unresolvable_rate_is_not_stated():
    evidence = MembershipInference().run(
        made_target(LogisticRegression(), numbers(900, 3), train=500, recipe=False), BUDGET, 0, Silent()
    )
    names = {metric.name for metric in evidence.metrics}
    assert "TPR at 10 % FPR" in names
    assert not any("at 1 %" in name for name in names)
    assert "1 %, 0.1 % FPR unresolvable with this data" in evidence.metric("TPR at 10 % FPR").note


@pytest.mark.claim("loop-5")
def test_labels_only_is_attacked_through_the_gap_and_through_shadows_that_answer_labels():
    target = made_target(forest(trees=15), people(2200, 7, noise=0.35), train=1100)
    hardened = replace(
        target,
        model=harden_answers(target.model, "label"),
        bare=target.model,
        harden=lambda model: harden_answers(model, "label"),
    )
    evidence = MembershipInference().run(hardened, BUDGET, 0, Silent())
    assert "gap attack" in evidence.method
    assert "labels only" in evidence.method
    assert evidence.strength == "strong"
    assert evidence.metric("AUC").low > 0.55


def test_hardening_that_cannot_be_repeated_on_shadows_leaves_the_weak_attack():
    target = made_target(LogisticRegression(), numbers(2200, 7), train=1100)
    hardened = replace(target, model=harden_answers(target.model, {"round": 2}), bare=target.model)
    evidence = MembershipInference().run(hardened, BUDGET, 0, Silent())
    assert evidence.strength == "weak"
    assert "how the service hardens its answers is not known" in evidence.reason


def test_no_training_rows_is_unmeasured():
    target = replace(made_target(LogisticRegression(), numbers(400, 3), train=200), train=None)
    with pytest.raises(Unmeasured):
        MembershipInference().check(target)


class Nan:
    access = Access.SCORES
    classes = ("0", "1")
    framework = "python"

    def labels(self, x):
        return (np.asarray(x)[:, 0] > 0).astype(np.int64)

    def scores(self, x):
        return np.full((len(x), 2), np.nan)


def broken(kind: str):
    data = numbers(800, 4)
    target = made_target(LogisticRegression(), data, train=400, recipe=False)
    if kind == "constant":
        fitted = DummyClassifier(strategy="most_frequent").fit(data.x, data.y)
        return replace(target, model=as_model(fitted, data))
    if kind == "nan":
        return replace(target, model=Nan())
    if kind == "zero rows":
        return replace(target, holdout=target.holdout.take(np.arange(0)))
    if kind == "one class":
        return replace(target, holdout=target.holdout.take(target.holdout.y == 0))
    return replace(target, holdout=target.train)


@pytest.mark.claim("loop-2")
@pytest.mark.parametrize("kind", ["constant", "nan", "zero rows", "one class", "holdout is train"])
def test_what_cannot_be_measured_is_inconclusive(kind):
    with pytest.raises(CannotMeasure) as refused:
        MembershipInference().run(broken(kind), BUDGET, 0, Silent())
    assert refused.value.status == "inconclusive"


def test_rows_of_one_person_share_a_cluster():
    base = numbers(700, 9)
    index = np.repeat(np.arange(700), 3)
    visits = replace(
        base.take(index),
        ids=np.arange(2100).astype(str),
        clusters=base.ids[index],
        x=base.x[index] + np.arange(2100)[:, None] * 1e-6,
    )
    evidence = MembershipInference().run(made_target(LogisticRegression(), visits, train=1050, recipe=False), BUDGET, 0, Silent())
    assert len({row.cluster for row in evidence.rows}) == 350
