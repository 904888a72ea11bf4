"""How each library keeps its trees: scikit-learn's objects, XGBoost's JSON, LightGBM's text.

Nothing here is trusted to be understood: `models.ensembles` holds what was read against the model's own margins.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.core.errors import InvalidModel
from holdfast.models.boosting import LightGBMModel, XGBoostModel
from holdfast.models.ensembles import LEAF, Floats, Index, Nodes, TreeEnsemble, as_read_in_float32, rounding_of
from holdfast.models.sklearn import SklearnModel

KINDS = "scikit-learn trees, forests, extra trees, gradient and histogram boosting, XGBoost and LightGBM"
CATEGORICAL, DEFAULT_LEFT = 1, 2
"""Bits of LightGBM's decision_type; the next two say what counts as missing."""
MISSING_ZERO, MISSING_NAN = 1, 2
Margins = Callable[[Floats], NDArray[Any]]


def source_of(model: Any) -> str:
    """What to call the model in errors."""
    return str(getattr(model, "source", type(model).__name__))


def read_nodes(model: Any) -> Nodes:
    """The trees of a model in the order of its classes, with the model's own margins.

    Raises:
        InvalidModel: no ensemble of trees, or one with parts that are no thresholds on numbers.
    """
    if isinstance(model, SklearnModel):
        return _placed(read_nodes(model.estimator), model)
    if isinstance(model, XGBoostModel):
        return _xgboost(model._booster, model._rounds, model.source)
    if isinstance(model, LightGBMModel):
        return _lightgbm(model._booster, model.source)
    package, name = type(model).__module__.split(".")[0], type(model).__name__
    if package == "xgboost":
        booster = model.get_booster() if hasattr(model, "get_booster") else model
        best = booster.attr("best_iteration")
        return _xgboost(booster, (0, int(best) + 1) if best and best.isdecimal() else (0, 0), name)
    if package == "lightgbm":
        return _lightgbm(getattr(model, "booster_", model), name)
    for kind, reader in _sklearn_readers().items():
        if isinstance(model, kind):
            return reader(model)
    raise InvalidModel(f"a {name} is no ensemble of trees that can be read", hint=f"These can: {KINDS}.")


def _placed(read: Nodes, model: SklearnModel) -> Nodes:
    """Columns in the order of the adapter's classes; a class that the estimator does not know never wins."""
    own = {value: index for index, value in enumerate(np.asarray(model.estimator.classes_).tolist())}
    try:
        order = [own[value] for value in model.values(np.arange(len(model.classes))).tolist()]
    except KeyError as error:
        raise InvalidModel("has not all classes of the data", where=model.source) from error
    ensemble = read.ensemble
    placed = replace(ensemble, value=ensemble.value[:, order], base=ensemble.base[order], _cache={})

    def margins(x: Floats) -> NDArray[Any]:
        answer = np.asarray(read.margins(x))
        if answer.ndim == 1 or answer.shape[1] == 1:
            answer = np.stack([np.zeros(len(answer)), answer.reshape(-1)], axis=1)
        return answer[:, order]

    return Nodes(ensemble=placed, margins=margins)


def _sklearn_readers() -> dict[Any, Callable[[Any], Nodes]]:
    from sklearn.ensemble import (
        ExtraTreesClassifier,
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )
    from sklearn.tree import DecisionTreeClassifier

    return {
        RandomForestClassifier: lambda model: _votes(model, model.estimators_),
        ExtraTreesClassifier: lambda model: _votes(model, model.estimators_),
        DecisionTreeClassifier: lambda model: _votes(model, [model]),
        GradientBoostingClassifier: _gradient_boosting,
        HistGradientBoostingClassifier: _histogram_boosting,
    }


def _votes(model: Any, members: Sequence[Any]) -> Nodes:
    """Trees that vote with the shares of the classes in their leaves."""
    if getattr(model, "n_outputs_", 1) != 1:
        raise InvalidModel("predicts several outputs at once", where=type(model).__name__)
    parts, values = [], []
    for member in members:
        tree = member.tree_
        share = tree.value[:, 0, :] / tree.value[:, 0, :].sum(axis=1, keepdims=True)
        parts.append(_Part.of_sklearn(tree))
        values.append(np.where(parts[-1].leaf[:, None], share, 0.0))
    base = np.zeros(len(model.classes_))
    takes_missing = bool(model.__sklearn_tags__().input_tags.allow_nan)
    ensemble = _joined(parts, values, base, model.n_features_in_, np.float64, takes_missing)
    ask = _quiet(model.predict_proba)
    return Nodes(ensemble=ensemble, margins=lambda x: len(members) * ask(x))


def _gradient_boosting(model: Any) -> Nodes:
    parts, values = [], []
    count = model.n_trees_per_iteration_
    for stage in model.estimators_:
        for place, member in enumerate(stage):
            parts.append(_Part.of_sklearn(member.tree_))
            own = np.where(parts[-1].leaf, model.learning_rate * member.tree_.value[:, 0, 0], 0.0)
            values.append(_column(own, place, count))
    x = np.zeros((2, model.n_features_in_), dtype=np.float32)
    x[1] = 1.0
    start = np.asarray(model._raw_predict_init(x), dtype=np.float64)
    if (start[0] != start[1]).any():
        raise InvalidModel("starts from another model than a constant", where=type(model).__name__)
    base = _with_zero(start[0])
    return Nodes(
        ensemble=_joined(parts, values, base, model.n_features_in_, np.float64, False), margins=_quiet(model.decision_function)
    )


def _histogram_boosting(model: Any) -> Nodes:
    if model.is_categorical_ is not None and np.any(model.is_categorical_):
        raise InvalidModel("splits on categories, which have no threshold", where=type(model).__name__)
    parts, values = [], []
    for stage in model._predictors:
        for place, predictor in enumerate(stage):
            nodes = predictor.nodes
            leaf = nodes["is_leaf"].astype(bool)
            parts.append(
                _Part(
                    feature=nodes["feature_idx"].astype(np.int64),
                    left=nodes["left"].astype(np.int64),
                    right=nodes["right"].astype(np.int64),
                    split=np.nextafter(nodes["num_threshold"], np.inf),
                    missing_left=nodes["missing_go_to_left"].astype(bool),
                    leaf=leaf,
                )
            )
            values.append(_column(np.where(leaf, nodes["value"], 0.0), place, len(stage)))
    base = _with_zero(np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1))
    return Nodes(
        ensemble=_joined(parts, values, base, model.n_features_in_, np.float64, True), margins=_quiet(model.decision_function)
    )


def _xgboost(booster: Any, rounds: tuple[int, int], source: str) -> Nodes:
    import xgboost

    learner = json.loads(booster.save_raw("json").decode())["learner"]
    booster_form, parameters = learner["gradient_booster"], learner["learner_model_param"]
    weight = booster_form.get("weight_drop")
    inner = booster_form.get("gbtree", booster_form)
    if inner.get("name", "gbtree") not in ("gbtree", "dart") or "model" not in inner:
        raise InvalidModel("has no trees: its booster is linear", where=source)
    objective = learner["objective"]["name"]
    if objective not in ("binary:logistic", "binary:logitraw", "reg:logistic", "multi:softprob", "multi:softmax"):
        raise InvalidModel(f"its objective is {objective}, not a classifier's", where=source)
    trees, classes = inner["model"]["trees"], inner["model"]["tree_info"]
    until = inner["model"]["iteration_indptr"][rounds[1]] if rounds[1] else len(trees)
    count = max(int(parameters["num_class"]), 1)
    features = int(parameters["num_feature"])
    parts, values = [], []
    for number, tree in enumerate(trees[:until]):
        if any(tree["split_type"]) or int(tree["tree_param"]["size_leaf_vector"]) > 1:
            raise InvalidModel("splits on categories, or has several outputs a leaf", where=source)
        left = np.array(tree["left_children"], dtype=np.int64)
        leaf, condition = left < 0, np.array(tree["split_conditions"], dtype=np.float32).astype(np.float64)
        parts.append(
            _Part(
                feature=np.array(tree["split_indices"], dtype=np.int64),
                left=left,
                right=np.array(tree["right_children"], dtype=np.int64),
                split=as_read_in_float32(condition, inclusive=False),
                missing_left=np.array(tree["default_left"], dtype=bool),
                leaf=leaf,
            )
        )
        own = np.where(leaf, condition, 0.0) * (1.0 if weight is None else weight[number])
        values.append(_column(own, classes[number], count))
    start = np.array(json.loads(parameters["base_score"]), dtype=np.float64).reshape(-1)
    if objective in ("binary:logistic", "reg:logistic"):
        start = np.log(start / (1 - start))
    base = _with_zero(start) if count == 1 else np.broadcast_to(start, (count,)).copy()

    def margins(x: Floats) -> NDArray[Any]:
        matrix = xgboost.DMatrix(x, nthread=1, feature_names=booster.feature_names, feature_types=booster.feature_types)
        return np.asarray(booster.predict(matrix, output_margin=True, iteration_range=rounds))

    return Nodes(ensemble=_joined(parts, values, base, features, np.float32, True), margins=margins)


def _lightgbm(booster: Any, source: str) -> Nodes:
    text = booster.model_to_string(num_iteration=booster.best_iteration if booster.best_iteration > 0 else -1)
    head, *blocks = text.split("\nTree=")
    lines = head.splitlines()
    facts = dict(line.split("=", 1) for line in lines if "=" in line)
    objective = facts.get("objective", "").split(" ")[0]
    if objective not in ("binary", "multiclass", "multiclassova", "cross_entropy"):
        raise InvalidModel(f"its objective is {objective or 'not stated'}, not a classifier's", where=source)
    count, features = int(facts["num_tree_per_iteration"]), int(facts["max_feature_idx"]) + 1
    divisor = len(blocks) // count if "average_output" in lines else 1
    parts, values = [], []
    for number, block in enumerate(blocks):
        fields = dict(line.split("=", 1) for line in block.split("\n\n", 1)[0].splitlines() if "=" in line)
        if int(fields.get("num_cat", 0)) or int(fields.get("is_linear", 0)):
            raise InvalidModel("splits on categories, or has linear leaves", where=source)
        part, own = _lightgbm_tree(fields, source)
        parts.append(part)
        values.append(_column(own / divisor, number % count, count))

    def margins(x: Floats) -> NDArray[Any]:
        return np.asarray(booster.predict(x, raw_score=True, num_threads=1))

    base = np.zeros(max(count, 2))
    return Nodes(ensemble=_joined(parts, values, base, features, np.float64, True), margins=margins)


def _lightgbm_tree(fields: dict[str, str], source: str) -> tuple[_Part, Floats]:
    """A tree of LightGBM's text: splits first, then leaves; a child -1 is leaf 0, -2 leaf 1 and so on."""

    def numbers(name: str) -> Floats:
        return np.array([float(word) for word in fields.get(name, "").split()])

    leaves = numbers("leaf_value")
    feature, kind = numbers("split_feature").astype(np.int64), numbers("decision_type").astype(np.int64)
    inner, absent = len(feature), kind >> 2 & 3
    if (kind & CATEGORICAL).any() or (absent == MISSING_ZERO).any():
        raise InvalidModel("splits on categories, or takes zeros for missing", where=source)
    threshold = numbers("threshold")
    itself = np.arange(inner, inner + len(leaves))

    def child(name: str) -> Index:
        own = numbers(name).astype(np.int64)
        return np.concatenate([np.where(own < 0, inner - own - 1, own), itself])

    filler = np.zeros(len(leaves))
    missing_left = np.where(absent == MISSING_NAN, (kind & DEFAULT_LEFT) > 0, threshold >= 0)
    part = _Part(
        feature=np.concatenate([feature, filler.astype(np.int64)]),
        left=child("left_child"),
        right=child("right_child"),
        split=np.concatenate([np.nextafter(threshold, np.inf), filler]),
        missing_left=np.concatenate([missing_left, filler.astype(bool)]),
        leaf=np.concatenate([np.zeros(inner, dtype=bool), np.ones(len(leaves), dtype=bool)]),
    )
    return part, np.concatenate([np.zeros(inner), leaves])


class _Part:
    """One tree's nodes, numbered from 0."""

    def __init__(
        self,
        *,
        feature: Index,
        left: Index,
        right: Index,
        split: Floats,
        missing_left: NDArray[np.bool_],
        leaf: NDArray[np.bool_],
    ) -> None:
        itself = np.arange(len(feature))
        self.leaf, self.missing_left = leaf, missing_left
        self.feature = np.where(leaf, LEAF, feature)
        self.left, self.right = np.where(leaf, itself, left), np.where(leaf, itself, right)
        self.split = np.where(leaf, np.inf, split)

    @classmethod
    def of_sklearn(cls, tree: Any) -> _Part:
        """A scikit-learn tree, which reads float32."""
        return cls(
            feature=tree.feature.astype(np.int64),
            left=tree.children_left.astype(np.int64),
            right=tree.children_right.astype(np.int64),
            split=as_read_in_float32(tree.threshold, inclusive=True),
            missing_left=tree.missing_go_to_left.astype(bool),
            leaf=tree.children_left < 0,
        )


def _joined(
    parts: list[_Part], values: list[Floats], base: Floats, features: int, dtype: type[np.floating[Any]], takes_missing: bool
) -> TreeEnsemble:
    """All trees in one numbering."""
    if not parts:
        raise InvalidModel("has no trees")
    roots = np.concatenate([[0], np.cumsum([len(part.feature) for part in parts])[:-1]]).astype(np.int64)
    value = np.concatenate(values)
    return TreeEnsemble(
        feature=np.concatenate([part.feature for part in parts]),
        left=np.concatenate([part.left + root for part, root in zip(parts, roots, strict=True)]),
        right=np.concatenate([part.right + root for part, root in zip(parts, roots, strict=True)]),
        split=np.concatenate([part.split for part in parts]),
        missing_left=np.concatenate([part.missing_left for part in parts]),
        value=value,
        roots=roots,
        base=np.asarray(base, dtype=np.float64),
        features=int(features),
        takes_missing=takes_missing,
        rounding=rounding_of(value, roots, base, dtype),
    )


def _column(values: Floats, place: int, count: int) -> Floats:
    """(nodes, classes) the values in one class's column; a single margin is that of class 1."""
    out = np.zeros((len(values), max(count, 2)))
    out[:, place if count > 1 else 1] = values
    return out


def _with_zero(start: Floats) -> Floats:
    return np.concatenate([[0.0], start]) if len(start) == 1 else start


def _quiet(method: Callable[[Any], Any]) -> Margins:
    """The method on plain arrays, in one worker, without warnings about column names."""

    def call(x: Floats) -> NDArray[Any]:
        from joblib import parallel_config

        with parallel_config("sequential"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(method(x))

    return call
