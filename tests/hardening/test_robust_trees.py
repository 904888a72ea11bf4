"""Robust retraining moves the nearest adversarial examples of the new model itself further away, and keeps its accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from holdfast.certification.trees import certify_trees
from holdfast.core.control import Control
from holdfast.core.domain import Ball
from holdfast.core.errors import ConfigurationError, InvalidModel, NotApplicable
from holdfast.core.target import Dataset, Target
from holdfast.hardening.robust_trees import RobustTrees, harden_trees, numbers_of
from holdfast.models.answers import Context
from holdfast.models.ensembles import read_ensemble
from holdfast.models.sklearn import SklearnModel


def dataset(name: str, x: Any, y: Any) -> Dataset:
    ids = np.array([f"{name}-{row}" for row in range(len(y))])
    return Dataset(name=name, x=x, y=np.asarray(y, dtype=np.int64), classes=("0", "1"), ids=ids)


def target(estimator: Any, table: bool = False, columns: int = 12) -> Target:
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.min(axis=0)) / np.ptp(x, axis=0))[:, :columns]
    rows: Any = pd.DataFrame(x, columns=[f"f{place}" for place in range(columns)]) if table else x
    train, held = (rows.iloc[::2], rows.iloc[1::2]) if table else (rows[::2], rows[1::2])
    if table:
        train, held = train.reset_index(drop=True), held.reset_index(drop=True)
    model = SklearnModel(estimator.fit(train, y[::2]), Context(sample=train[:2]))
    parts = {"train": dataset("train", train, y[::2]), "holdout": dataset("holdout", held, y[1::2])}
    return Target(name="cancer", model=model, modality="tabular", **parts)


def median(model: Any, data: Dataset) -> float:
    rows = numbers_of(data)[0][:40]
    right = model.labels(data.x[:40]) == data.y[:40]
    return float(np.median(certify_trees(read_ensemble(model, rows), rows, data.y[:40], Ball(norm="linf", radius=np.inf))[right]))


@pytest.mark.slow
def test_the_exact_distance_grows_and_accuracy_stays() -> None:
    before = target(xgboost.XGBClassifier(n_estimators=20, n_jobs=1))
    done = harden_trees(before, 0, radius=1.2)
    accuracy = [float(np.mean(one.labels(before.holdout.x) == before.holdout.y)) for one in (before.model, done.model)]
    assert done.chosen.distance > done.tried[0].distance
    assert median(done.model, before.holdout) > median(before.model, before.holdout)
    assert accuracy[1] >= accuracy[0] - 0.03
    assert isinstance(RobustTrees(), Control)


@pytest.mark.slow
def test_nothing_is_chosen_that_costs_more_than_the_tolerance() -> None:
    before = target(xgboost.XGBClassifier(n_estimators=5, n_jobs=1))
    done = harden_trees(before, 0, radius=8.0, tolerance=0.0)
    kept = [one for one in done.tried if one.accuracy >= done.tried[0].accuracy]
    assert done.chosen in kept
    assert done.chosen.distance == max(one.distance for one in kept)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model_and_the_target_is_left_alone() -> None:
    before = target(xgboost.XGBClassifier(n_estimators=5, n_jobs=1), table=True)
    labels = before.model.labels(before.holdout.x)
    first, second = (harden_trees(before, 3, radius=0.6) for _ in range(2))
    assert first.tried == second.tried
    assert (first.model.scores(before.holdout.x) == second.model.scores(before.holdout.x)).all()
    assert (before.model.labels(before.holdout.x) == labels).all()


@pytest.mark.slow
def test_monotone_features_stay_monotone() -> None:
    before = target(HistGradientBoostingClassifier(max_iter=10, random_state=0), table=True)
    model = harden_trees(before, 0, radius=0.6, tolerance=1.0, monotone={"f0": -1}).model
    rows = before.holdout.x[:20]
    lifted = rows.assign(f0=rows["f0"] + 0.3)
    chosen = np.asarray(model.scores(lifted))[:, 1] - np.asarray(model.scores(rows))[:, 1]
    assert (chosen <= 1e-12).all()


def test_what_it_cannot_train_is_said() -> None:
    forest = target(xgboost.XGBClassifier(n_estimators=2, n_jobs=1))
    with pytest.raises(ConfigurationError, match="positive"):
        harden_trees(forest, 0, radius=-1.0)
    with pytest.raises(ConfigurationError, match="monotone"):
        harden_trees(forest, 0, monotone={"nowhere": 1})
    with pytest.raises(InvalidModel, match="no ensemble"):
        harden_trees(target(LogisticRegression(max_iter=500)), 0)
    words = dataset("train", pd.DataFrame({"a": ["x", "y"]}), [0, 1])
    with pytest.raises(NotApplicable, match="numbers"):
        numbers_of(words)
    with pytest.raises(NotApplicable, match="missing"):
        numbers_of(dataset("train", np.array([[np.nan], [1.0]]), [0, 1]))
