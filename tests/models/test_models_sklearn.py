"""Scikit-learn estimators behind the common door, held against the estimators themselves."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from holdfast.core.errors import AccessDenied, ConfigurationError, Inconclusive, InvalidData, InvalidModel
from holdfast.core.oracle import Access
from holdfast.core.target import Dataset, Model
from holdfast.models.answers import LOG_ZERO, Context
from holdfast.models.python import PythonModel
from holdfast.models.recipe import CloneRecipe, FunctionRecipe
from holdfast.models.sklearn import SklearnModel

X, Y = load_iris(return_X_y=True, as_frame=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]


def wrapped(estimator: Any, x: Any = X, **options: Any) -> SklearnModel:
    return SklearnModel(estimator, Context(sample=x[:5], **options))


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(10, n_jobs=2, random_state=0),
        make_pipeline(StandardScaler(), LogisticRegression()),
        HistGradientBoostingClassifier(max_iter=10),
        GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1]}, cv=2),
        GaussianNB(),
    ],
)
@pytest.mark.parametrize("labels", [Y, NAMES, Y.astype(float)])
def test_labels_and_scores_are_the_estimators_own(estimator: Any, labels: Any) -> None:
    model: Model = wrapped(estimator.fit(X, labels))
    assert model.access == Access.SCORES
    index = np.searchsorted(np.unique(labels), estimator.predict(X))
    assert (model.labels(X) == index).all()
    probabilities = estimator.predict_proba(X)
    assert model.scores(X).dtype == np.float64
    assert np.allclose(np.exp(model.scores(X)), probabilities, atol=1e-300)
    assert np.isfinite(model.scores(X)).all()


def test_boolean_labels_have_names() -> None:
    model = wrapped(LogisticRegression(max_iter=500).fit(X, Y == 1))
    assert model.classes == ("False", "True")


def test_margins_where_there_are_no_probabilities() -> None:
    binary = wrapped(RidgeClassifier().fit(X, Y == 1))
    assert np.allclose(binary.scores(X)[:, 1], binary.estimator.decision_function(X))
    assert (binary.scores(X).argmax(axis=1) == binary.labels(X)).all()
    several = wrapped(LinearSVC().fit(X, Y))
    assert np.allclose(several.scores(X), several.estimator.decision_function(X))


def test_one_column_a_pair_of_classes_is_no_score() -> None:
    model = wrapped(SVC(decision_function_shape="ovo").fit(X, Y))
    assert model.access == Access.LABELS
    with pytest.raises(AccessDenied):
        model.scores(X)
    with pytest.raises(AccessDenied):
        model.value_and_gradient(X, lambda logits: logits)


def test_columns_are_found_by_name_in_any_order_and_extra_ones_are_ignored() -> None:
    model = wrapped(LogisticRegression(max_iter=500).fit(X, Y))
    shuffled = X[X.columns[::-1]].assign(extra="text")
    assert (model.labels(shuffled) == model.labels(X)).all()
    with pytest.raises(InvalidData, match="petal"):
        model.labels(X.drop(columns="petal width (cm)"))


def test_frames_arrays_and_pictures_give_the_same() -> None:
    model = wrapped(LogisticRegression(max_iter=500).fit(X.to_numpy(), Y), X.to_numpy())
    assert (model.labels(X) == model.labels(X.to_numpy())).all()
    assert (model.labels(X.to_numpy().reshape(-1, 2, 2)) == model.labels(X)).all()


def test_tensors_get_tensors_back() -> None:
    torch = pytest.importorskip("torch")
    model = wrapped(GaussianNB().fit(X.to_numpy(), Y), X.to_numpy())
    scores = model.scores(torch.tensor(X.to_numpy()))
    assert isinstance(scores, torch.Tensor)
    assert np.allclose(scores.numpy(), model.scores(X.to_numpy()))
    assert isinstance(model.labels(torch.tensor(X.to_numpy())), np.ndarray)


def test_the_users_estimator_is_not_changed() -> None:
    forest = RandomForestClassifier(10, n_jobs=2, random_state=0).fit(X, Y)
    before = forest.get_params()
    model = wrapped(forest)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.scores(X)
    assert forest.get_params() == before
    assert forest.n_jobs == 2


class Broken:
    """An estimator that answers as it is told."""

    classes_ = np.array([0, 1])

    def __init__(self, answer: Any, scores: Any = None) -> None:
        self.answer, self.given = answer, scores

    def predict(self, x: Any) -> Any:
        return self.answer(x)

    def predict_proba(self, x: Any) -> Any:
        return self.given(x)


def zeros(x: Any) -> Any:
    return np.zeros(len(x), dtype=int)


@pytest.mark.claim("loop-2")
@pytest.mark.parametrize(
    ("estimator", "error"),
    [
        (Broken(zeros, lambda x: np.full((len(x), 2), np.nan)), Inconclusive),
        (Broken(zeros, lambda x: np.zeros((len(x) - 1, 2))), InvalidModel),
        (Broken(zeros, lambda x: 0.5), InvalidModel),
        (Broken(zeros, lambda x: np.full((len(x), 3), 1 / 3)), InvalidModel),
        (Broken(zeros, lambda x: 1 / 0), InvalidModel),
        (Broken(zeros, lambda x: np.full((len(x), 2), 0.4)), InvalidModel),
    ],
)
def test_broken_models_are_never_scored(estimator: Any, error: type[Exception]) -> None:
    model = wrapped(estimator)
    with pytest.raises(error):
        model.scores(X)


@pytest.mark.claim("loop-2")
def test_broken_labels_are_refused_when_the_model_is_loaded() -> None:
    for answer in (lambda x: 0, lambda x: np.zeros(1), lambda x: np.full(len(x), 7), lambda x: np.full(len(x), "a")):
        with pytest.raises(InvalidModel):
            wrapped(Broken(answer))


def test_what_is_no_classifier_is_refused_with_a_reason() -> None:
    for estimator in (LinearRegression().fit(X, Y), LogisticRegression(), StandardScaler().fit(X)):
        with pytest.raises(InvalidModel, match=r"no fitted classifier|predict"):
            wrapped(estimator)
    with pytest.raises(InvalidModel, match="1 class"):
        wrapped(DummyClassifier().fit(X, np.zeros(len(X))))
    with pytest.raises(InvalidModel, match="several outputs"):
        wrapped(RandomForestClassifier(3).fit(X, np.c_[Y, Y]))
    with pytest.raises(InvalidModel, match=r"model\.classes"):
        wrapped(GaussianNB().fit(X, NAMES), classes=("a", "b", "c"))


def test_declared_names_replace_numbers_in_their_order() -> None:
    model = wrapped(GaussianNB().fit(X, Y), classes=("a", "b", "c"))
    assert model.classes == ("a", "b", "c")
    permuted = wrapped(GaussianNB().fit(X, NAMES), classes=("virginica", "setosa", "versicolor"))
    assert np.allclose(permuted.scores(X)[:, 0], wrapped(GaussianNB().fit(X, NAMES)).scores(X)[:, 2])


def dataset(rows: Any = slice(None)) -> Dataset:
    return Dataset(
        name="train",
        x=X[rows].reset_index(drop=True),
        y=Y[rows].to_numpy(),
        classes=("setosa", "versicolor", "virginica"),
        ids=np.array([str(index) for index in range(len(X[rows]))]),
    )


def clone_of(estimator: Any) -> CloneRecipe:
    context = Context(sample=X[:5])
    return CloneRecipe(SklearnModel(estimator, context), context, "digest")


def test_clones_are_decided_by_their_seed() -> None:
    recipe = clone_of(make_pipeline(StandardScaler(), ExtraTreesClassifier(5, n_jobs=2, max_depth=3)).fit(X, NAMES))
    one, again, other = recipe.fit(dataset(), 1), recipe.fit(dataset(), 1), recipe.fit(dataset(), 2)
    assert (one.scores(X) == again.scores(X)).all()
    assert (one.scores(X) != other.scores(X)).any()
    state = np.random.get_state()[1]  # noqa: NPY002
    recipe.fit(dataset(), 3)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_a_clone_without_a_class_keeps_its_column() -> None:
    model = clone_of(RandomForestClassifier(5).fit(X, NAMES)).fit(dataset(slice(0, 100)), 0)
    assert model.classes == ("setosa", "versicolor", "virginica")
    assert (model.scores(X)[:, 2] == LOG_ZERO).all()
    assert set(model.labels(X)) <= {0, 1}


def test_a_clone_reads_no_cache_that_the_file_names(tmp_path: Any) -> None:
    pipeline = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())], memory=str(tmp_path / "cache"))
    recipe = clone_of(pipeline.fit(X, NAMES))
    for entry in list((tmp_path / "cache").rglob("*.pkl")):
        entry.write_bytes(b"not a pickle")
    recipe.fit(dataset(), 0)
    assert recipe.estimator.memory is None
    assert pipeline.memory is not None


def test_early_stopping_becomes_the_rounds_it_found() -> None:
    xgboost = pytest.importorskip("xgboost")
    x, y = load_breast_cancer(return_X_y=True)
    fitted = xgboost.XGBClassifier(n_estimators=50, early_stopping_rounds=2).fit(
        x, y, eval_set=[(x[:100], y[:100])], verbose=False
    )
    context = Context(sample=x[:5])
    recipe = CloneRecipe(SklearnModel(fitted, context), context, "d")
    assert recipe.estimator.n_estimators == fitted.best_iteration + 1
    data = Dataset(name="train", x=x, y=y, classes=("0", "1"), ids=np.arange(len(x)).astype(str))
    assert recipe.fit(data, 0).labels(x).shape == (len(x),)


def test_a_function_gets_the_models_own_labels() -> None:
    seen: list[Any] = []

    def train(x: Any, y: Any, seed: int) -> Any:
        seen.append((x.copy(), y, seed, np.random.random()))  # noqa: NPY002
        return LogisticRegression(max_iter=300).fit(x, y)

    context = Context(sample=X[:5])
    recipe = FunctionRecipe(train, SklearnModel(GaussianNB().fit(X, NAMES), context), context, "d", "train.py")
    model = recipe.fit(dataset(), 4)
    assert model.classes == ("setosa", "versicolor", "virginica")
    assert set(seen[0][1]) == {"setosa", "versicolor", "virginica"}
    assert seen[0][2] == 4
    recipe.fit(dataset(), 4)
    assert seen[0][3] == seen[1][3]
    partial = recipe.fit(dataset(slice(0, 100)), 0)
    assert partial.scores(X).shape == (150, 3)


def test_recipes_that_cannot_be_called_are_refused_early() -> None:
    context = Context(sample=X[:5])
    model = SklearnModel(GaussianNB().fit(X, Y), context)
    with pytest.raises(ConfigurationError, match="seed"):
        FunctionRecipe(lambda x: x, model, context, "d", "r.py")
    with pytest.raises(InvalidModel, match="boom"):
        FunctionRecipe(lambda x, y, seed: {}["boom"], model, context, "d", "r.py").fit(dataset(), 0)
    with pytest.raises(InvalidModel, match="no model"):
        FunctionRecipe(lambda x, y, seed: 3, model, context, "d", "r.py").fit(dataset(), 0)


def test_pipelines_on_raw_frames_with_text() -> None:
    frame = pd.DataFrame({"kind": ["a", "b", "c"] * 10, "size": np.arange(30.0)})
    y = np.where(frame["size"] > 14, "big", "small")
    encode = ColumnTransformer([("hot", OneHotEncoder(handle_unknown="ignore"), ["kind"])], remainder="passthrough")
    model = wrapped(Pipeline([("encode", encode), ("model", LogisticRegression(max_iter=500))]).fit(frame, y), frame)
    assert model.feature_names == ("kind", "size")
    assert (np.array(model.classes)[model.labels(frame)] == y).mean() > 0.9


@pytest.mark.parametrize("as_code", [False, True])
def test_a_failure_on_missing_values_names_their_columns(as_code: bool) -> None:
    frame = pd.DataFrame({"age": np.arange(20.0), "dose": np.arange(20.0) % 3})
    fitted = LogisticRegression().fit(frame, np.arange(20) % 2)
    model = PythonModel(fitted.predict_proba, Context(sample=frame)) if as_code else SklearnModel(fitted, Context(sample=frame))
    with pytest.raises(InvalidModel) as refused:
        model.labels(frame.assign(dose=np.nan))
    assert "'dose' holds missing values; does the model's pipeline fill them?" in str(refused.value)
    with pytest.raises(InvalidModel) as other:
        model.labels(frame.assign(dose="x"))
    assert "missing values" not in str(other.value)
