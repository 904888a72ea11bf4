"""Trees read from each library answer as the library does, next to every threshold and with missing cells, or are refused."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from holdfast.core.errors import InvalidData, InvalidModel
from holdfast.models import tree_formats
from holdfast.models.answers import Context
from holdfast.models.boosting import LightGBMModel, XGBoostModel
from holdfast.models.ensembles import as_read_in_float32, read_ensemble
from holdfast.models.sklearn import SklearnModel

TAKES_MISSING = ["forest", "extra", "tree", "histogram", "xgboost", "dart", "lightgbm"]


def classifier(kind: str) -> Any:
    return {
        "forest": lambda: RandomForestClassifier(8, random_state=0),
        "extra": lambda: ExtraTreesClassifier(8, random_state=0),
        "tree": lambda: DecisionTreeClassifier(random_state=0, max_depth=4),
        "boosting": lambda: GradientBoostingClassifier(n_estimators=8, random_state=0),
        "histogram": lambda: HistGradientBoostingClassifier(max_iter=8, random_state=0),
        "xgboost": lambda: xgboost.XGBClassifier(n_estimators=8, n_jobs=1),
        "dart": lambda: xgboost.XGBClassifier(n_estimators=8, booster="dart", rate_drop=0.3, n_jobs=1),
        "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=8, min_child_samples=5, verbose=-1, n_jobs=1),
    }[kind]()


@pytest.mark.claim("evasion-5")
@pytest.mark.parametrize("load", [load_breast_cancer, load_iris])
@pytest.mark.parametrize("kind", [*TAKES_MISSING, "boosting"])
def test_labels_are_those_of_the_library(kind: str, load: Any) -> None:
    x, y = load(return_X_y=True)
    if kind in TAKES_MISSING:
        x = np.where(np.random.default_rng(0).random(x.shape) < 0.1, np.nan, x)
    model = classifier(kind).fit(x, y)
    ensemble = read_ensemble(model, x)
    assert (ensemble.margins(x).argmax(axis=1) == model.predict(x)).all()
    assert ensemble.takes_missing == (kind in TAKES_MISSING)


@pytest.mark.claim("evasion-5")
def test_a_learned_base_score_is_read() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    ensemble = read_ensemble(classifier("xgboost").fit(x, y), x)
    assert ensemble.base[1] == pytest.approx(np.log(y.mean() / (1 - y.mean())), abs=1e-3)


@pytest.mark.claim("evasion-5")
@given(st.floats(-1e30, 1e30, allow_nan=False), st.booleans())
@settings(max_examples=300)
def test_float32_splits_route_every_float64(threshold: float, inclusive: bool) -> None:
    own = np.array([threshold if inclusive else float(np.float32(threshold))])
    split = as_read_in_float32(own, inclusive=inclusive)
    near = np.concatenate([split, np.nextafter(split, -np.inf), np.nextafter(split, np.inf), own])
    rounded = near.astype(np.float32).astype(np.float64)
    goes_left = rounded <= own if inclusive else rounded < own
    assert ((near < split) == goes_left).all()


def test_an_adapter_keeps_its_order_of_classes() -> None:
    x, y = load_iris(return_X_y=True)
    names = np.array(["c", "a", "b"])[y]
    model = SklearnModel(classifier("forest").fit(x, names), Context(sample=x[:2], classes=("c", "a", "b"), fixed=True))
    assert (read_ensemble(model, x).margins(x).argmax(axis=1) == model.labels(x)).all()


def test_boosters_behind_adapters_are_read_up_to_their_best_round() -> None:
    x, y = load_iris(return_X_y=True)
    own = xgboost.XGBClassifier(n_estimators=30, early_stopping_rounds=2, n_jobs=1)
    own.fit(x, y, eval_set=[(x[::3], y[::3])], verbose=0)
    model = XGBoostModel(own.get_booster(), Context(sample=x[:2]))
    assert (read_ensemble(model, x).margins(x).argmax(axis=1) == model.labels(x)).all()
    light = LightGBMModel(classifier("lightgbm").fit(x, y).booster_, Context(sample=x[:2]))
    assert (read_ensemble(light, x).margins(x).argmax(axis=1) == light.labels(x)).all()


@pytest.mark.claim("evasion-5")
@pytest.mark.parametrize("fault", ["base", "split", "leaf", "missing"])
def test_trees_that_say_otherwise_than_the_model_are_refused(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    model = classifier("xgboost").fit(x, y)
    real = tree_formats.read_nodes

    def wrong(given: Any) -> Any:
        read = real(given)
        if fault == "base":
            read.ensemble.base[:] = 0.0
        elif fault == "split":
            read.ensemble.split[:] = np.nextafter(read.ensemble.split, np.inf)
        elif fault == "leaf":
            read.ensemble.value[np.flatnonzero(read.ensemble.feature < 0)[0]] += 0.01
        else:
            read.ensemble.missing_left[:] = ~read.ensemble.missing_left
        return read

    monkeypatch.setattr(tree_formats, "read_nodes", wrong)
    with pytest.raises(InvalidModel, match="say otherwise"):
        read_ensemble(model, x)


def test_what_is_no_sum_of_trees_on_numbers_is_refused() -> None:
    x, y = load_iris(return_X_y=True)
    with pytest.raises(InvalidModel, match="no ensemble"):
        read_ensemble(LogisticRegression(max_iter=500).fit(x, y))
    with pytest.raises(InvalidModel, match="linear"):
        read_ensemble(xgboost.XGBClassifier(booster="gblinear", n_estimators=2).fit(x, y))
    codes = np.column_stack([x, np.arange(len(x)) % 7])
    histogram = HistGradientBoostingClassifier(categorical_features=[4], max_iter=3).fit(codes, y)
    marked = np.arange(len(x)) % 7 % 3
    light = lightgbm.LGBMClassifier(verbose=-1, n_estimators=3, min_child_samples=3, min_data_per_group=1, cat_smooth=0.0)
    light.fit(codes, marked, categorical_feature=[4])
    matrix = xgboost.DMatrix(codes, marked, feature_types=["q"] * 4 + ["c"], enable_categorical=True)
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3}, matrix, 3)
    for model in (histogram, light, booster):
        with pytest.raises(InvalidModel, match="categories"):
            read_ensemble(model)
    with pytest.raises(InvalidData):
        read_ensemble(classifier("forest").fit(x, y), x[:, :3])
