"""Fitted objects whose compiled code trusts their arrays: indices are checked after loading and before the first prediction."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.artifacts.native import check_tree
from holdfast.core.errors import InvalidModel

MOST_OBJECTS = 2_000_000


def check_objects(value: Any, source: str) -> None:
    """Refuse trees, histogram predictors, support vectors and neighbour trees that point outside their own arrays.

    Raises:
        InvalidModel: as above.
    """
    seen: set[int] = set()
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if id(item) in seen or len(seen) > MOST_OBJECTS:
            continue
        seen.add(id(item))
        check = CHECKS.get(f"{type(item).__module__}.{type(item).__name__}")
        if check:
            check(item, source)
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, (list, tuple, set, frozenset)):
            pending += item
        elif isinstance(item, np.ndarray):
            pending += item.ravel().tolist() if item.dtype == object else []
        elif hasattr(item, "__dict__") and not isinstance(item, type):
            pending += vars(item).values()
            if hasattr(item, "_predictors") and hasattr(item, "_n_features"):
                _check_histogram(item, source)


def _check_tree(tree: Any, source: str) -> None:
    left, right = np.asarray(tree.children_left), np.asarray(tree.children_right)
    features = np.asarray(tree.feature)[left >= 0]
    if ((left < 0) != (right < 0)).any() or (features.size and (features.min() < 0 or features.max() >= tree.n_features)):
        raise InvalidModel("a tree that splits on features it does not have", where=source)
    check_tree((left.astype(np.int64), right.astype(np.int64)), int(tree.node_count), source)


def _check_histogram(estimator: Any, source: str) -> None:
    for stage in estimator._predictors:
        for predictor in stage:
            nodes = predictor.nodes
            inner = nodes[nodes["is_leaf"] == 0]
            sides = [inner[name].astype(np.int64) for name in ("left", "right")]
            if inner.size and (inner["feature_idx"].max() >= estimator._n_features or inner["feature_idx"].min() < 0):
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
    fits = len(counts) == classes and counts.min() >= 0 and int(counts.sum()) == vectors == len(machine.support_)
    if not fits or machines[1] != vectors or machines[0] != classes - 1:
        raise InvalidModel("support vectors that do not fit their counts", where=source)


def _check_neighbours(tree: Any, source: str) -> None:
    data, index, nodes, _ = tree.get_arrays()
    points = len(data)
    spans_fit = nodes["idx_start"].min(initial=0) >= 0 and nodes["idx_end"].max(initial=0) <= points
    if len(index) != points or (points and (index.min() < 0 or index.max() >= points)) or not spans_fit:
        raise InvalidModel("a neighbour tree that points outside its data", where=source)


CHECKS: dict[str, Any] = {
    "sklearn.tree._tree.Tree": _check_tree,
    "sklearn.svm._classes.SVC": _check_support_vectors,
    "sklearn.svm._classes.NuSVC": _check_support_vectors,
    "sklearn.neighbors._kd_tree.KDTree": _check_neighbours,
    "sklearn.neighbors._ball_tree.BallTree": _check_neighbours,
}
