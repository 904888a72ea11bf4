from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from holdfast.core.control import Control
from holdfast.core.errors import ConfigurationError, NotApplicable, Unmeasured
from holdfast.core.oracle import Access
from holdfast.core.target import Dataset, Target
from holdfast.hardening.answers import AnswerHardening
from holdfast.hardening.retraining import RegularisedRetraining, retrain, utility
from holdfast.models.answers import Context
from holdfast.models.recipe import CloneRecipe, FunctionRecipe
from holdfast.models.sklearn import SklearnModel
from holdfast.threats.catalogue import load_catalogue

CLASSES = ("no", "yes")


def data(rows=600, seed=0, noise=0.25):
    x, y = make_classification(rows, 8, n_informative=4, flip_y=noise, random_state=seed)
    frame = pd.DataFrame(x, columns=[f"c{i}" for i in range(8)])
    return [
        Dataset(
            name=name,
            x=frame.iloc[part].reset_index(drop=True),
            y=y[part].astype(np.int64),
            classes=CLASSES,
            ids=np.array([f"r{i}" for i in range(rows)])[part],
        )
        for name, part in (("train", slice(0, rows // 2)), ("holdout", slice(rows // 2, rows)))
    ]


def target(estimator, **fields):
    train, holdout = data()
    fitted = estimator.fit(train.x, np.array(CLASSES)[train.y])
    context = Context(sample=train.x[:4], labels=CLASSES)
    model = SklearnModel(fitted, context)
    given = {"train": train, "holdout": holdout, "recipe": CloneRecipe(model, context, "digest")} | fields
    return Target(name="t", model=model, modality="tabular", **given)


def overfitted(**settings):
    return DecisionTreeClassifier(random_state=0, **settings)


def test_the_strongest_leaf_size_within_the_tolerance_is_chosen_on_training_rows_alone():
    given = target(overfitted())
    done = retrain(given, 0)
    best = max(one.utility for one in done.choice.tried)
    recall = done.choice.tried[0].recall - 0.005
    within = [one.strength for one in done.choice.tried if one.utility >= best - 0.005 and one.recall >= recall]
    assert done.choice.strength == within[-1] > 1
    assert done.model.estimator.min_samples_leaf == done.choice.strength
    assert utility(done.model, given.holdout, ranked=True)[1] > utility(given.model, given.holdout, ranked=True)[1]
    spoiled = replace(given, holdout=replace(given.holdout, y=1 - given.holdout.y))
    assert retrain(spoiled, 0).choice == done.choice
    assert given.model.estimator.min_samples_leaf == 1


def test_a_model_that_would_answer_one_class_to_all_is_never_chosen():
    """With a rare class, large leaves rank well and decide nothing."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(draw.normal(size=(1200, 8)), columns=[f"c{i}" for i in range(8)])
    y = (draw.random(1200) < 0.05 + 0.4 * (frame.c0 > 0.8)).astype(np.int64).to_numpy()
    train = Dataset(name="train", x=frame, y=y, classes=CLASSES, ids=np.arange(1200).astype(str))
    given = replace(target(overfitted()), train=train)
    forced = retrain(given, 0, strength=200).model.labels(frame)
    assert len(np.unique(forced)) == 1
    chosen = retrain(given, 0)
    assert len(np.unique(chosen.model.labels(frame))) == 2
    assert any(one.utility > chosen.choice.tried[0].utility for one in chosen.choice.tried)


def test_utility_is_the_auc_of_scikit_learn():
    given = target(RandomForestClassifier(20, random_state=0))
    expected = roc_auc_score(given.holdout.y, given.model.estimator.predict_proba(given.holdout.x)[:, 1])
    assert utility(given.model, given.holdout, ranked=True) == ("AUC", pytest.approx(expected))
    labels_only = AnswerHardening().apply(given, 0).model
    name, value = utility(labels_only, given.holdout, ranked=True)
    assert (name, value) == ("accuracy", np.mean(labels_only.labels(given.holdout.x) == given.holdout.y))


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (make_pipeline(StandardScaler(), overfitted()), {"decisiontreeclassifier__min_samples_leaf": 7}),
        (LogisticRegression(C=1000.0), {"C": 7.0}),
        (GradientBoostingClassifier(n_estimators=5), {"min_samples_leaf": 7, "n_iter_no_change": 10}),
        (HistGradientBoostingClassifier(max_iter=5), {"min_samples_leaf": 7, "early_stopping": True}),
    ],
)
def test_a_given_strength_is_set_where_the_estimator_has_it(estimator, expected):
    done = retrain(target(estimator), 0, strength=7)
    assert dict(done.choice.settings) == expected
    parameters = done.model.estimator.get_params()
    assert {name: parameters[name] for name in expected} == expected


def test_linear_penalties_grow_and_never_shrink():
    tried = retrain(target(LogisticRegression(C=10.0)), 0).choice.tried
    assert tried[0].strength is None
    strengths = [one.strength for one in tried[1:]]
    assert strengths == sorted(strengths, reverse=True)
    assert max(strengths) < 10


def test_the_recipe_trains_as_the_new_model_was_trained():
    given = target(overfitted())
    after = RegularisedRetraining(strength=20).apply(given, 0)
    assert after.recipe.fit(given.train, 1).estimator.min_samples_leaf == 20
    assert after.recipe.digest != given.recipe.digest
    assert after.digests["model"] != given.digests.get("model")


def test_hardened_answers_stay_hardened():
    given = AnswerHardening(answers="label").apply(target(overfitted()), 0)
    after = RegularisedRetraining(strength=20).apply(given, 0)
    assert after.model.access == Access.LABELS
    assert after.weights.estimator.min_samples_leaf == 20
    assert isinstance(RegularisedRetraining(), Control)


def test_same_seed_same_model():
    given = target(RandomForestClassifier(10, random_state=0))
    first, second = (retrain(given, 5, strength=5).model.scores(given.holdout.x) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_clusters_are_kept_together_in_the_folds():
    """A tree can recognise each patient; only folds that keep patients together show that this helps nobody else."""
    draw = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), 10)
    frame = pd.DataFrame(draw.normal(size=(60, 8))[patient], columns=[f"c{i}" for i in range(8)])
    y = draw.integers(2, size=60)[patient].astype(np.int64)
    train = Dataset(name="train", x=frame, y=y, classes=CLASSES, ids=np.arange(600).astype(str), clusters=patient.astype(str))
    given = target(overfitted())
    together = retrain(replace(given, train=train), 0).choice.tried[0].utility
    apart = retrain(replace(given, train=replace(train, clusters=None)), 0).choice.tried[0].utility
    assert apart > 0.95
    assert together < 0.75


def test_what_is_missing_is_said():
    given = target(overfitted())
    with pytest.raises(Unmeasured):
        retrain(replace(given, train=None), 0)
    with pytest.raises(Unmeasured):
        retrain(replace(given, recipe=None), 0)
    with pytest.raises(NotApplicable):
        retrain(target(GaussianNB()), 0)
    with pytest.raises(ConfigurationError):
        retrain(given, 0, strength=-1)
    with pytest.raises(NotApplicable, match="too few"):
        retrain(replace(given, train=given.train.take(np.arange(2))), 0)


def test_weight_decay_of_a_training_function():
    torch = pytest.importorskip("torch")
    from holdfast.models.torch import TorchModel

    def train(x, y, seed, weight_decay=0.0):
        torch.manual_seed(seed % 2**31)
        net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
        optimiser = torch.optim.AdamW(net.parameters(), lr=0.05, weight_decay=weight_decay)
        inputs, labels = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
        for _ in range(60):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(inputs), labels).backward()
            optimiser.step()
        return net.eval()

    parts = [replace(part, x=part.x.to_numpy(dtype=np.float32)) for part in data()]
    context = Context(sample=parts[0].x[:8], labels=CLASSES, output="logits")
    model = TorchModel(train(parts[0].x, parts[0].y, 0), context)
    recipe = FunctionRecipe(train, model, context, "digest", "train.py")
    given = Target(name="t", model=model, modality="tabular", train=parts[0], holdout=parts[1], recipe=recipe)
    after = RegularisedRetraining(strength=5.0).apply(given, 0)

    def size(one):
        return sum(float((weight.detach() ** 2).sum()) for weight in one.module.parameters())

    assert size(after.model) < 0.5 * size(model)
    assert after.recipe.digest != recipe.digest
    assert dict(retrain(given, 0).choice.settings).keys() <= {"weight_decay"}


def test_control_ids_and_threats_are_those_of_the_catalogue():
    catalogue = load_catalogue()
    for control in (AnswerHardening(), RegularisedRetraining()):
        listed = {threat.id for threat in catalogue.threats if control.id in threat.controls}
        assert set(control.mitigates) == listed
