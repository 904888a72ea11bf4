"""Boosters, ONNX and plain callables, held against the libraries' own answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from holdfast.core.errors import AccessDenied, Inconclusive, InvalidData, InvalidModel
from holdfast.core.oracle import Access
from holdfast.models.answers import Context
from holdfast.models.loading import model_from_native, model_from_object
from holdfast.models.python import PythonModel

X, Y = load_breast_cancer(return_X_y=True, as_frame=True)
IRIS, KINDS = load_iris(return_X_y=True)


def softmax(scores: Any) -> Any:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("form", ["json", "ubj"])
@pytest.mark.parametrize(("x", "y"), [(X, Y), (IRIS, KINDS)])
def test_xgboost_files_answer_as_the_wrapper_does(form: str, x: Any, y: Any) -> None:
    xgboost = pytest.importorskip("xgboost")
    fitted = xgboost.XGBClassifier(n_estimators=20).fit(x, y)
    names = tuple(str(label) for label in sorted(set(y)))
    context = Context(sample=x[:8], labels=names)
    model = model_from_native(f"xgboost-{form}", bytes(fitted.get_booster().save_raw(form)), context)
    assert model.framework == "xgboost"
    assert model.classes == names
    assert np.allclose(softmax(model.scores(x)), fitted.predict_proba(x), atol=1e-5)
    assert (model.labels(x) == fitted.predict(x)).all()


def test_xgboost_uses_the_best_round() -> None:
    xgboost = pytest.importorskip("xgboost")
    fitted = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=3, learning_rate=0.9)
    fitted.fit(X[:300], Y[:300], eval_set=[(X[300:], Y[300:])], verbose=False)
    assert fitted.best_iteration + 1 < fitted.get_booster().num_boosted_rounds()
    model = model_from_native("xgboost-ubj", bytes(fitted.get_booster().save_raw()), Context(sample=X[:8], labels=("0", "1")))
    assert np.allclose(softmax(model.scores(X)), fitted.predict_proba(X), atol=1e-5)


def test_lightgbm_files_answer_as_the_wrapper_does_whatever_it_did_to_the_names() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    fitted = lightgbm.LGBMClassifier(n_estimators=15, verbose=-1).fit(X, Y)
    context = Context(sample=X[:8], labels=("0", "1"))
    model = model_from_native("lightgbm", fitted.booster_.model_to_string().encode(), context)
    assert np.allclose(softmax(model.scores(X[X.columns[::-1]])), fitted.predict_proba(X), atol=1e-9)
    pickled = model_from_object(fitted, context)
    assert pickled.framework == "lightgbm"
    assert (pickled.labels(X) == fitted.predict(X)).all()
    with pytest.raises(InvalidData, match="lacks"):
        model.labels(X.drop(columns="mean radius"))


def test_boosters_of_other_tasks_are_refused() -> None:
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    context = Context(sample=X[:8], labels=("0", "1"))
    with pytest.raises(InvalidModel, match="objective"):
        model_from_object(xgboost.XGBRegressor(n_estimators=2).fit(X, Y).get_booster(), context)
    with pytest.raises(InvalidModel, match="objective"):
        model_from_object(lightgbm.LGBMRegressor(n_estimators=2, verbose=-1).fit(X, Y).booster_, context)


@pytest.mark.parametrize("zipped", [True, False])
def test_onnx_with_and_without_a_map_of_classes(zipped: bool) -> None:
    to_onnx = pytest.importorskip("skl2onnx").to_onnx
    fitted = LogisticRegression(max_iter=500).fit(IRIS, np.array(["a", "b", "c"])[KINDS])
    options = None if zipped else {id(fitted): {"zipmap": False}}
    content = to_onnx(fitted, IRIS[:1].astype(np.float32), options=options).SerializeToString()
    model = model_from_native("onnx", content, Context(sample=IRIS[:8], labels=("a", "b", "c")))
    assert model.classes == ("a", "b", "c")
    assert np.allclose(np.exp(model.scores(IRIS)), fitted.predict_proba(IRIS), atol=1e-5)
    with pytest.raises(InvalidModel, match="failed on"):
        model.labels(IRIS[:, :2])


def test_onnx_pipelines_take_raw_columns() -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    types = skl2onnx.common.data_types
    frame = pd.DataFrame({"kind": ["a", "b", "c"] * 20, "size": np.arange(60, dtype=np.float32)})
    y = (frame["size"] > 30).astype(int)
    encode = ColumnTransformer([("hot", OneHotEncoder(handle_unknown="ignore"), ["kind"])], remainder="passthrough")
    fitted = Pipeline([("encode", encode), ("model", LogisticRegression(max_iter=500))]).fit(frame, y)
    inputs = [("kind", types.StringTensorType([None, 1])), ("size", types.FloatTensorType([None, 1]))]
    content = skl2onnx.convert_sklearn(fitted, initial_types=inputs).SerializeToString()
    model = model_from_native("onnx", content, Context(sample=frame[:8], labels=("0", "1")))
    assert model.feature_names == ("kind", "size")
    assert (model.labels(frame[["size", "kind"]]) == fitted.predict(frame)).all()


def test_callables_of_each_form() -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))

    def context(**options: Any) -> Context:
        return Context(sample=x[:16], **{"labels": ("no", "yes"), **options})

    probability = PythonModel(lambda x: 1 / (1 + np.exp(-x[:, 0])), context())
    logits = PythonModel(lambda x: np.c_[np.zeros(len(x)), x[:, 0]], context())
    names = PythonModel(lambda x: np.where(x[:, 0] > 0, "yes", "no"), context())
    numbers = PythonModel(lambda x: (x[:, 0] > 0).astype(int), context())
    flags = PythonModel(lambda x: x[:, 0] > 0, context())
    lists = PythonModel(lambda x: ["yes" if value > 0 else "no" for value in x[:, 0]], context())
    for model in (probability, logits, names, numbers, flags, lists):
        assert model.classes == ("no", "yes")
        assert (model.labels(x) == (x[:, 0] > 0)).all()
    assert (probability.access, names.access) == (Access.SCORES, Access.LABELS)
    assert np.allclose(softmax(logits.scores(x)), np.exp(probability.scores(x)))
    with pytest.raises(AccessDenied):
        names.scores(x)


@pytest.mark.claim("loop-2")
@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda x: np.full((len(x), 2), np.nan), Inconclusive),
        (lambda x: 1 / 0, InvalidModel),
        (lambda x: None, InvalidModel),
        (lambda x: 0.3, InvalidModel),
        (lambda x: np.zeros((3, 2)), InvalidModel),
        (lambda x: np.zeros((len(x), 5)), InvalidModel),
        (lambda x: np.full(len(x), "maybe"), InvalidModel),
        (lambda x: np.zeros((len(x), 2), dtype=complex), InvalidModel),
    ],
)
def test_callables_that_answer_nonsense_are_refused(function: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        PythonModel(function, Context(sample=np.zeros((16, 2)), labels=("no", "yes")))


def test_what_is_no_model_is_said_to_be_none() -> None:
    context = Context(sample=IRIS[:4], labels=("0", "1", "2"))
    with pytest.raises(InvalidModel, match="bundle"):
        model_from_object({"model": LogisticRegression(max_iter=300).fit(IRIS, KINDS), "version": 3}, context)
    for value in (3, [1], LogisticRegression):
        with pytest.raises(InvalidModel):
            model_from_object(value, context)
