"""P-POI-FLIP retrains as the user does, and calls harm only what exceeds the noise of training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import KNeighborsClassifier

from holdfast.core.errors import CannotMeasure, Unmeasured
from holdfast.core.probe import Budget, Probe
from holdfast.core.progress import Silent
from holdfast.core.target import Dataset
from holdfast.probes import label_flipping
from holdfast.probes.label_flipping import LabelFlipping, recall_lost
from made_targets import Retrain, as_model, forest, made_target, people

QUICK = Budget(level="quick", rows=64, queries=300, repeats=3, shadows=8)


def blobs(rows: int, seed: int) -> Dataset:
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, rows)
    return Dataset(
        name="b", x=random.normal(size=(rows, 2)) + 3.0 * y[:, None], y=y, classes=("a", "b"), ids=np.arange(rows).astype(str)
    )


@pytest.fixture(scope="module")
def fragile():
    """One neighbour believes every label it was given."""
    return made_target(KNeighborsClassifier(1), blobs(2000, 0), train=1000)


@pytest.fixture(scope="module")
def evidence(fragile):
    return LabelFlipping().run(fragile, QUICK, 0, Silent())


def test_it_is_a_probe():
    assert isinstance(LabelFlipping(), Probe)


def test_a_learner_that_believes_every_label_is_harmed(evidence):
    assert evidence.axis == "poison fraction"
    assert evidence.tested == 0.2
    assert [row.capability for row in evidence.rows] == [0.1] * 3
    assert evidence.chance == 0
    lost = evidence.metric("accuracy lost at 20 % flipped", "strategy: random")
    assert lost.low > 0.1
    assert lost.low < lost.value < lost.high
    assert "smallest share that did was 10 %" in evidence.findings[0]
    assert set(evidence.threats) == {"T-POI-01", "T-POI-08"}


def test_the_work_is_what_was_planned(fragile):
    recipe = Retrain(KNeighborsClassifier(1))
    LabelFlipping().run(replace(fragile, recipe=recipe), QUICK, 0, Silent())
    assert recipe.fits == LabelFlipping().work(fragile, QUICK).fits


def test_a_robust_learner_holds_out_longer():
    """Many neighbours vote random flips down; only flips of one side get through."""
    evidence = LabelFlipping().run(made_target(KNeighborsClassifier(101), blobs(2000, 0), train=1000), QUICK, 0, Silent())
    assert evidence.metric("accuracy lost at 10 % flipped", "strategy: random").value < 0.01
    assert all(row.capability is None or row.capability > 0.1 for row in evidence.rows)


def test_a_rare_class_lost_counts_though_accuracy_hardly_falls():
    """One row in eight is of the second class and hard to tell: forgetting it costs little accuracy and much recall."""
    random = np.random.default_rng(5)
    y = (random.random(3000) < 0.12).astype(np.int64)
    x = random.normal(size=(3000, 1)) + 1.6 * y[:, None]
    data = Dataset(name="r", x=x, y=y, classes=("a", "b"), ids=np.arange(3000).astype(str))
    evidence = LabelFlipping().run(made_target(KNeighborsClassifier(3), data, train=1500), QUICK, 0, Silent())
    assert evidence.metric("accuracy lost at 10 % flipped", "strategy: directed").value < 0.02
    assert evidence.metric("mean recall lost at 10 % flipped", "strategy: directed").low > 0.02
    assert all(row.success for row in evidence.rows)


def test_the_loss_of_recall_is_the_difference_of_the_recalls_and_its_interval_covers():
    random = np.random.default_rng(6)
    y = np.repeat([0, 1, 2], [400, 90, 30])
    missed = 0
    for _ in range(400):
        clean, poisoned = random.random(520) < 0.8, random.random(520) < np.array([0.8, 0.7, 0.5])[y]
        lost, low, high = recall_lost(clean, poisoned, y, None)
        missed += not low <= (0 + 0.1 + 0.3) / 3 <= high
    assert lost == pytest.approx(np.mean([clean[y == c].mean() - poisoned[y == c].mean() for c in range(3)]))
    assert missed <= 36
    copied = recall_lost(np.repeat(clean, 3), np.repeat(poisoned, 3), np.repeat(y, 3), np.repeat(np.arange(520).astype(str), 3))
    assert copied[2] - copied[1] == pytest.approx(high - low, rel=0.01)


def test_without_flips_no_run_is_harmed(fragile, monkeypatch):
    """The mutation: with flipping disabled nothing is found."""
    monkeypatch.setattr(label_flipping, "flip_labels", lambda data, *rest, **named: data)
    evidence = LabelFlipping().run(fragile, QUICK, 0, Silent())
    assert not any(row.success for row in evidence.rows)
    assert evidence.findings[0].startswith("No flipping of up to 20 %")
    assert "not evidence of safety" in evidence.findings[0]


@pytest.mark.slow
def test_noise_of_training_alone_is_seldom_called_harm(monkeypatch):
    """A recipe whose twins differ by seed as forests do: with flips disabled but seeds changed, runs stay unharmed."""
    monkeypatch.setattr(label_flipping, "flip_labels", lambda data, *rest, **named: data)

    class Restless(Retrain):
        def fit(self, data, seed):
            return super().fit(data, seed + self.fits)

    target = made_target(forest(trees=5), people(1200, 0), train=500)
    evidence = LabelFlipping().run(replace(target, recipe=Restless(forest(trees=5))), replace(QUICK, repeats=8), 0, Silent())
    assert sum(row.success for row in evidence.rows) <= 1


def test_a_standard_budget_adds_steps_and_the_confident_strategy(fragile):
    evidence = LabelFlipping().run(fragile, replace(QUICK, level="standard", repeats=1), 0, Silent())
    groups = {metric.group for metric in evidence.metrics if metric.group}
    assert groups == {"strategy: random", "strategy: directed", "strategy: confident"}
    assert evidence.metric("accuracy lost at 0.5 % flipped", "strategy: confident").value >= 0
    assert evidence.strength == "moderate"


def test_the_same_seed_gives_the_same_evidence(fragile, evidence):
    assert LabelFlipping().run(fragile, QUICK, 0, Silent()) == evidence


@pytest.mark.claim("loop-2")
def test_what_cannot_be_measured_says_why(fragile):
    probe = LabelFlipping()
    for missing in (replace(fragile, recipe=None), replace(fragile, train=None)):
        with pytest.raises(Unmeasured):
            probe.check(missing)
    constant = DummyClassifier(strategy="most_frequent")
    noise = replace(fragile.train, y=np.random.default_rng(99).integers(0, 2, len(fragile.train)))
    for broken in (
        replace(fragile, model=as_model(constant.fit(fragile.train.x, fragile.train.y), fragile.train)),
        replace(fragile, recipe=Retrain(constant)),
        replace(fragile, train=noise),
        replace(fragile, train=fragile.train.take(np.arange(50))),
        replace(fragile, train=fragile.train.take(fragile.train.y == 0)),
        replace(fragile, holdout=fragile.holdout.take(np.arange(0))),
        replace(fragile, holdout=fragile.holdout.take(fragile.holdout.y == 0)),
    ):
        with pytest.raises(CannotMeasure) as refused:
            probe.run(broken, QUICK, 0, Silent())
        assert refused.value.status == "inconclusive"


@pytest.mark.claim("loop-2")
def test_copies_of_rows_prove_no_harm_that_the_rows_do_not(fragile):
    once = fragile.holdout.take(np.arange(250))
    often = once.take(np.repeat(np.arange(250), 4))
    often = replace(often, ids=np.arange(1000).astype(str))
    lost = [
        LabelFlipping()
        .run(replace(fragile, holdout=data), replace(QUICK, repeats=1), 0, Silent())
        .metric("accuracy lost at 10 % flipped", "strategy: random")
        for data in (once, often)
    ]
    assert lost[0].value == lost[1].value
    assert lost[1].low == pytest.approx(lost[0].low, abs=0.01)
