"""Fitted trees and ensembles of trees, whose compiled prediction follows every index and width that they state."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.trees import check_tree
from holdfast.core.errors import InvalidModel

TREE = "sklearn.tree._tree.Tree"
NEIGHBOUR_TREES = ("sklearn.neighbors._kd_tree.KDTree", "sklearn.neighbors._ball_tree.BallTree")
ENSEMBLES = ("sklearn.ensemble._forest", "sklearn.ensemble._gb", "sklearn.ensemble._iforest")
NO_CHILD = -1
"""Of a leaf; compiled prediction follows any other number."""
BITSET_WORDS = 8
"""A set of 256 categories in words of 32 bits."""


def name_of(value: Any) -> str:
    """Module and name of the class of a value."""
    return f"{type(value).__module__}.{type(value).__name__}"


def whole(value: Any, what: str, source: str) -> int:
    """A count that is a true integer.

    Raises:
        InvalidModel: it is a truth value, a text, a fraction or nothing.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise InvalidModel(f"{what} is no count", where=source)
    return int(value)


def check_owner(estimator: Any, source: str) -> None:
    """Compiled trees do not look at how many columns they are given; whoever owns them does, by a number of its own.

    Raises:
        InvalidModel: an owner without that number, or with trees that do not fit it.
    """
    held = vars(estimator)
    ensemble = type(estimator).__module__ in ENSEMBLES and "estimators_" in held
    if not ensemble and "tree_" not in held and "_predictors" not in held:
        return
    features = whole(held.get("n_features_in_"), "the number of features of a model of trees", source)
    if "_predictors" in held:
        _check_histogram(estimator, features, source)
    trees = [held["tree_"]] if "tree_" in held else []
    if any(name_of(tree) not in (TREE, *NEIGHBOUR_TREES) for tree in trees):
        raise InvalidModel("a tree of another kind", where=source)
    if ensemble:
        members = np.asarray(held["estimators_"], dtype=object).ravel()
        if any(type(member).__module__ != "sklearn.tree._classes" or "tree_" not in vars(member) for member in members):
            raise InvalidModel("an ensemble of something else than trees", where=source)
        trees += [member.tree_ for member in members]
    if any(tree.n_features > features for tree in trees if name_of(tree) == TREE):
        raise InvalidModel("a tree of more features than its model takes", where=source)


def check_fitted_tree(tree: Any, source: str) -> None:
    """Refuse a compiled tree that points outside itself, or is deeper than it states.

    Raises:
        InvalidModel: as above.
    """
    if not 1 <= tree.node_count <= tree.capacity:
        raise InvalidModel("a tree of another number of nodes than it states", where=source)
    left, right = np.asarray(tree.children_left), np.asarray(tree.children_right)
    features = np.asarray(tree.feature)[left >= 0]
    if min(left.min(), right.min()) < NO_CHILD or ((left < 0) != (right < 0)).any():
        raise InvalidModel("a tree that points outside itself", where=source)
    if features.size and (features.min() < 0 or features.max() >= tree.n_features):
        raise InvalidModel("a tree that splits on features it does not have", where=source)
    check_tree((left.astype(np.int64), right.astype(np.int64)), int(tree.node_count), source)
    if _depth(left, right) > tree.max_depth:
        raise InvalidModel("a tree that is deeper than it states", where=source)


def _depth(left: NDArray[Any], right: NDArray[Any]) -> int:
    level, depth = np.zeros(1, dtype=np.int64), -1
    while level.size:
        below = np.concatenate([left[level], right[level]])
        level, depth = below[below >= 0], depth + 1
    return depth


def check_gradient_boosting(model: Any, source: str) -> None:
    """Compiled boosting adds as many columns as there are trees a stage, into an array whose width comes from elsewhere.

    Raises:
        InvalidModel: another number of trees a stage than of raw scores, or trees of several outputs.
    """
    held = vars(model)
    if "estimators_" not in held:
        return
    stages, start = held["estimators_"], held.get("init_")
    classes = len(held["classes_"]) if "classes_" in held else 0
    width = classes if classes > 2 else 1
    stated = whole(held.get("n_trees_per_iteration_"), "the number of trees a stage", source)
    if type(stages) is not np.ndarray or stages.ndim != 2 or stages.shape[0] < 1 or stages.shape[1] != width or stated != width:
        raise InvalidModel("another number of trees a stage than of classes", where=source)
    if any(member.tree_.n_outputs != 1 or member.tree_.value.shape[1:] != (1, 1) for member in stages.ravel()):
        raise InvalidModel("a boosted tree of more than one output", where=source)
    if stages[0, 0].n_features_in_ != held.get("n_features_in_"):
        raise InvalidModel("a boosted tree of another number of features than its model", where=source)
    if isinstance(start, str) and start == "zero":
        return
    from sklearn.ensemble import _gb

    rows = np.zeros((2, held["n_features_in_"]), dtype=np.float32)
    scores = _gb._init_raw_predictions(rows, start, held["_loss"], hasattr(model, "predict_proba"))
    if scores.shape != (2, width):
        raise InvalidModel("base scores that do not fit the classes", where=source)


def _check_histogram(model: Any, features: int, source: str) -> None:
    categorical = np.asarray(model._bin_mapper.is_categorical_)
    if categorical.shape != (features,) or not np.isin(categorical, (0, 1)).all():
        raise InvalidModel("categorical columns that do not fit the features", where=source)
    _check_preprocessor(getattr(model, "_preprocessor", None), features, source)
    for stage in model._predictors:
        for predictor in stage:
            _check_histogram_tree(predictor, features, categorical.astype(bool), source)


def _check_histogram_tree(predictor: Any, features: int, categorical: NDArray[np.bool_], source: str) -> None:
    nodes = predictor.nodes
    if nodes.ndim != 1 or not len(nodes):
        raise InvalidModel("a tree without nodes", where=source)
    inner = nodes[nodes["is_leaf"] == 0]
    splits = inner["feature_idx"]
    if inner.size and (splits.max() >= features or splits.min() < 0):
        raise InvalidModel("a tree that splits on features it does not have", where=source)
    chosen = inner[inner["is_categorical"] != 0]
    sets = (predictor.raw_left_cat_bitsets, predictor.binned_left_cat_bitsets)
    if any(part.ndim != 2 or part.shape[1] != BITSET_WORDS or part.dtype != np.uint32 for part in sets):
        raise InvalidModel("a tree with categories of another form", where=source)
    if chosen.size and (chosen["bitset_idx"].max() >= min(map(len, sets)) or not categorical[chosen["feature_idx"]].all()):
        raise InvalidModel("a tree with categories it does not have", where=source)
    check_tree([inner[name].astype(np.int64) for name in ("left", "right")], len(nodes), source)


def _check_preprocessor(preprocessor: Any, features: int, source: str) -> None:
    """What encodes categories stands between the check of the columns and the trees: it must give as many as it takes."""
    if preprocessor is None:
        return
    from functools import partial

    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder
    from sklearn.utils.validation import check_array

    covered = np.zeros(features, dtype=int)
    fits = type(preprocessor) is ColumnTransformer and preprocessor.n_features_in_ == features
    for _, part, columns in preprocessor.transformers_ if fits else ():
        mask = np.asarray(columns)
        fits = fits and mask.dtype == bool and mask.shape == (features,)
        if not fits or (not mask.any()):
            continue
        covered += mask
        if type(part) is OrdinalEncoder:
            fits = len(part.categories_) == mask.sum() == part.n_features_in_ and not vars(part).get("_infrequent_enabled")
        elif type(part) is FunctionTransformer:
            fits = type(part.func) is partial and part.func.func is check_array and not part.func.args
        else:
            fits = isinstance(part, str) and part == "passthrough"
    if not fits or (covered != 1).any():
        raise InvalidModel("a model whose columns are encoded in another number than it takes", where=source)
