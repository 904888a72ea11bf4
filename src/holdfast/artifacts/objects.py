"""Fitted objects whose compiled code trusts their arrays: indices are checked after loading and before the first prediction."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from holdfast.artifacts.lightgbm_files import check_lightgbm
from holdfast.artifacts.trees import check_tree
from holdfast.artifacts.xgboost_files import check_xgboost_ubj
from holdfast.core.errors import InvalidModel

MOST_OBJECTS = 10_000_000
ATOMS = (str, bytes, bytearray, int, float, complex, bool, type(None), np.generic, type)


def check_objects(value: Any, source: str) -> None:
    """Refuse trees, histogram predictors, support vectors and neighbour trees that point outside their own arrays.

    Raises:
        InvalidModel: as above.
    """
    seen: set[int] = set()
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, ATOMS) or id(item) in seen:
            continue
        seen.add(id(item))
        if len(seen) > MOST_OBJECTS:
            raise InvalidModel(f"holds more than {MOST_OBJECTS:,} objects", where=source)
        check = CHECKS.get(f"{type(item).__module__}.{type(item).__name__}")
        if check:
            check(item, source)
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, (list, tuple, set, frozenset, deque)):
            pending += item
        elif isinstance(item, np.ndarray):
            pending += item.ravel().tolist() if item.dtype == object else []
        elif hasattr(item, "__dict__"):
            pending += vars(item).values()
            _check_owner(item, source)


def _check_owner(estimator: Any, source: str) -> None:
    """Compiled trees do not look at how many columns they are given; whoever owns them does, by a number of its own."""
    held = vars(estimator)
    if "n_features_in_" not in held:
        return
    if "_predictors" in held:
        _check_histogram(estimator, source)
    trees = [held["tree_"]] if "tree_" in held else []
    if type(estimator).__module__ in ("sklearn.ensemble._forest", "sklearn.ensemble._gb"):
        members = np.asarray(held.get("estimators_", ()), dtype=object).ravel()
        trees += [member.tree_ for member in members if hasattr(member, "tree_")]
    if any(int(getattr(tree, "n_features", 0)) > int(held["n_features_in_"]) for tree in trees):
        raise InvalidModel("a tree of more features than its model takes", where=source)


def _check_tree(tree: Any, source: str) -> None:
    left, right = np.asarray(tree.children_left), np.asarray(tree.children_right)
    features = np.asarray(tree.feature)[left >= 0]
    if ((left < 0) != (right < 0)).any() or (features.size and (features.min() < 0 or features.max() >= tree.n_features)):
        raise InvalidModel("a tree that splits on features it does not have", where=source)
    check_tree((left.astype(np.int64), right.astype(np.int64)), int(tree.node_count), source)


def _check_histogram(estimator: Any, source: str) -> None:
    features = int(estimator.n_features_in_)
    for stage in estimator._predictors:
        for predictor in stage:
            nodes = predictor.nodes
            inner = nodes[nodes["is_leaf"] == 0]
            sides = [inner[name].astype(np.int64) for name in ("left", "right")]
            if inner.size and (inner["feature_idx"].max() >= features or inner["feature_idx"].min() < 0):
                raise InvalidModel("a tree that splits on features it does not have", where=source)
            bitsets = min(len(predictor.raw_left_cat_bitsets), len(predictor.binned_left_cat_bitsets))
            categorical = inner[inner["is_categorical"] == 1]
            if categorical.size and categorical["bitset_idx"].max() >= bitsets:
                raise InvalidModel("a tree with categories it does not have", where=source)
            if not len(nodes):
                raise InvalidModel("a tree without nodes", where=source)
            check_tree(sides, len(nodes), source)


def _check_support_vectors(machine: Any, source: str) -> None:
    counts = np.asarray(getattr(machine, "_n_support", ()))
    if not counts.size:
        return
    vectors = machine.support_vectors_.shape[0]
    machines = np.asarray(machine._dual_coef_.shape) if hasattr(machine, "_dual_coef_") else np.array([0, vectors])
    classes = len(machine.classes_) if hasattr(machine, "classes_") else 2
    if not machine._sparse and machine.kernel != "precomputed":
        widths = {machine.support_vectors_.shape[1], machine.n_features_in_, machine.shape_fit_[1]}
        if len(widths) != 1:
            raise InvalidModel("support vectors of another width than the inputs", where=source)
    fits = len(counts) == classes and counts.min() >= 0 and int(counts.sum()) == vectors == len(machine.support_)
    if not fits or machines[1] != vectors or machines[0] != classes - 1:
        raise InvalidModel("support vectors that do not fit their counts", where=source)


def _check_neighbours(tree: Any, source: str) -> None:
    data, index, nodes, _ = tree.get_arrays()
    points = len(data)
    spans_fit = nodes["idx_start"].min(initial=0) >= 0 and nodes["idx_end"].max(initial=0) <= points
    if len(index) != points or (points and (index.min() < 0 or index.max() >= points)) or not spans_fit:
        raise InvalidModel("a neighbour tree that points outside its data", where=source)


def _check_xgboost(booster: Any, source: str) -> None:
    check_xgboost_ubj(bytes(booster.save_raw("ubj")), source)


def _check_lightgbm(booster: Any, source: str) -> None:
    check_lightgbm(booster.model_to_string().encode(), source)


CHECKS: dict[str, Any] = {
    "sklearn.tree._tree.Tree": _check_tree,
    "sklearn.svm._classes.SVC": _check_support_vectors,
    "sklearn.svm._classes.NuSVC": _check_support_vectors,
    "sklearn.neighbors._kd_tree.KDTree": _check_neighbours,
    "sklearn.neighbors._ball_tree.BallTree": _check_neighbours,
    "xgboost.core.Booster": _check_xgboost,
    "lightgbm.basic.Booster": _check_lightgbm,
}
