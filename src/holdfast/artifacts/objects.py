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
    """Refuse trees, histogram predictors, support vectors, neighbour trees and sparse matrices that point outside their arrays.

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
    if not 1 <= tree.node_count <= tree.capacity:
        raise InvalidModel("a tree of another number of nodes than it states", where=source)
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
    """libsvm takes every length from another array: counts, coefficients, intercepts and vectors have to agree."""
    held = vars(machine)
    if "_n_support" not in held:
        return
    counts, coefficients = np.asarray(machine._n_support), machine._dual_coef_
    precomputed = machine.kernel == "precomputed" or callable(machine.kernel)
    vectors = len(machine.support_) if precomputed else machine.support_vectors_.shape[0]
    one = not hasattr(machine, "classes_")
    classes = 2 if one else len(machine.classes_)
    pairs = classes * (classes - 1) // 2
    supported = int(counts[0]) if one and counts.size else int(counts.sum())
    fits = (
        "_impl" not in held
        and counts.shape == (classes,)
        and counts.min() >= 0
        and vectors == supported == len(machine.support_)
        and tuple(coefficients.shape) == (classes - 1, vectors)
        and np.shape(machine._intercept_) == (pairs,)
        and {len(machine._probA), len(machine._probB)} in ({0}, {pairs}, {2})
    )
    if not fits or (len(machine._probA) not in (0, pairs) and not one):
        raise InvalidModel("support vectors that do not fit their counts", where=source)
    if precomputed:
        fitted = held.get("_BaseLibSVM__Xfit")
        rows = int(machine.shape_fit_[0]) if fitted is None else min(int(machine.shape_fit_[0]), fitted.shape[0])
        if vectors and not 0 <= np.min(machine.support_) <= np.max(machine.support_) < rows:
            raise InvalidModel("support vectors that point outside the training rows", where=source)
    elif len({machine.support_vectors_.shape[1], machine.n_features_in_, machine.shape_fit_[1]}) != 1:
        raise InvalidModel("support vectors of another width than the inputs", where=source)
    if machine._sparse and (coefficients.nnz != (classes - 1) * vectors or len(coefficients.data) != coefficients.nnz):
        raise InvalidModel("support vectors that do not fit their counts", where=source)


def _check_neighbours(tree: Any, source: str) -> None:
    points, index, nodes, bounds, _, _, count, *_, metric, _ = tree.__getstate__()
    size = len(points)
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    spans = nodes["idx_start"].min(initial=0) >= 0 and nodes["idx_end"].max(initial=0) <= size
    fits = size and len(index) == size and index.min() >= 0 and index.max() < size and spans and len(nodes) == count > 0
    sides = 2 if type(tree).__name__.startswith("KD") else 1
    if not fits or np.shape(bounds) != (sides, count, points.shape[1]) or (2 * inner + 2 >= count).any():
        raise InvalidModel("a neighbour tree that points outside its data", where=source)
    if metric is None:
        raise InvalidModel("a neighbour tree without a metric", where=source)


def _check_sparse(matrix: Any, source: str) -> None:
    """Compiled products and conversions follow the indices of a sparse matrix wherever they point."""
    try:
        if matrix.format == "coo":
            fits = all(
                len(place) == len(matrix.data) and (not len(place) or (place.min() >= 0 and place.max() < size))
                for place, size in zip(matrix.coords, matrix.shape, strict=True)
            )
        elif matrix.format == "dia":
            fits = matrix.data.ndim == 2 and matrix.offsets.shape == matrix.data.shape[:1] and min(matrix.shape) >= 0
        elif matrix.format == "lil":
            rows = zip(matrix.rows, matrix.data, strict=True)
            fits = len(matrix.rows) == matrix.shape[0] and all(
                len(row) == len(values) and all(0 <= place < matrix.shape[1] for place in row) for row, values in rows
            )
        else:
            matrix.check_format(full_check=True)
            fits = True
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise InvalidModel(f"a malformed sparse matrix: {error}", where=source) from error
    if not fits:
        raise InvalidModel("a sparse matrix that points outside itself", where=source)


def _check_xgboost(booster: Any, source: str) -> None:
    check_xgboost_ubj(bytes(booster.save_raw("ubj")), source)


def _check_lightgbm(booster: Any, source: str) -> None:
    check_lightgbm(booster.model_to_string().encode(), source)


CHECKS: dict[str, Any] = {
    "sklearn.tree._tree.Tree": _check_tree,
    **{f"sklearn.svm._classes.{name}": _check_support_vectors for name in ("SVC", "NuSVC", "SVR", "NuSVR", "OneClassSVM")},
    **{
        f"scipy.sparse._{form}.{form}_{kind}": _check_sparse
        for form in ("csr", "csc", "bsr", "coo", "dia", "lil")
        for kind in ("matrix", "array")
    },
    "sklearn.neighbors._kd_tree.KDTree": _check_neighbours,
    "sklearn.neighbors._ball_tree.BallTree": _check_neighbours,
    "xgboost.core.Booster": _check_xgboost,
    "lightgbm.basic.Booster": _check_lightgbm,
}
