"""Fitted objects whose compiled code trusts their arrays: indices are checked after loading and before the first prediction."""

from __future__ import annotations

import functools
import types
from collections import deque
from typing import Any

import numpy as np

from holdfast.artifacts import containers
from holdfast.artifacts.ensembles import NEIGHBOUR_TREES, TREE, check_fitted_tree, check_gradient_boosting, check_owner, name_of
from holdfast.artifacts.lightgbm_files import check_lightgbm
from holdfast.artifacts.xgboost_files import check_xgboost_ubj
from holdfast.core.errors import InvalidModel

MOST_OBJECTS = 10_000_000
HIGHEST_DEGREE = 20
NEIGHBOURS = (
    "sklearn.neighbors._regression.KNeighborsRegressor",
    "sklearn.neighbors._regression.RadiusNeighborsRegressor",
    "sklearn.neighbors._graph.KNeighborsTransformer",
    "sklearn.neighbors._graph.RadiusNeighborsTransformer",
    "sklearn.neighbors._unsupervised.NearestNeighbors",
    "sklearn.neighbors._lof.LocalOutlierFactor",
)
ATOMS = (str, bytes, bytearray, int, float, complex, bool, type(None), np.number, np.bool_, type)


def check_objects(value: Any, source: str) -> None:
    """Refuse objects that point outside their arrays, or whose values stand in for their class's methods.

    Raises:
        InvalidModel: as above.
    """
    seen: dict[int, Any] = {}
    boosted: list[Any] = []
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, ATOMS) or id(item) in seen:
            continue
        seen[id(item)] = item
        if len(seen) > MOST_OBJECTS:
            raise InvalidModel(f"holds more than {MOST_OBJECTS:,} objects", where=source)
        check = CHECKS.get(name_of(item))
        if check:
            check(item, source)
        if type(item).__module__ == "sklearn.ensemble._gb":
            boosted.append(item)
        pending += _parts(item, source)
        if hasattr(item, "__dict__") and not isinstance(item, types.FunctionType):
            _check_shadows(item, source)
            check_owner(item, source)
            pending += vars(item).values()
    for model in boosted:
        check_gradient_boosting(model, source)


def _parts(item: Any, source: str) -> list[Any]:
    """What an object holds elsewhere than in its `__dict__`."""
    if isinstance(item, dict):
        return [*item.keys(), *item.values()]
    if isinstance(item, (list, tuple, set, frozenset, deque)):
        return list(item)
    if isinstance(item, (np.ndarray, np.void)):
        containers.check_dtype(item.dtype, source)
        return item.ravel().tolist() if item.dtype == object and isinstance(item, np.ndarray) else []
    if isinstance(item, np.dtype):
        containers.check_dtype(item, source)
    if isinstance(item, functools.partial):
        return [*item.args, *item.keywords.values()]
    if isinstance(item, types.MethodType):
        return [item.__self__]
    return containers.parts_of(item) if type(item).__module__.partition(".")[0] == "pandas" else []


def _check_shadows(item: Any, source: str) -> None:
    """A value under the name of a method would be called instead of it, past every check that the method makes."""
    kind: Any = type(item)
    for name, value in vars(item).items():
        own = isinstance(value, types.MethodType) and value.__self__ is item and value.__func__ is getattr(kind, name, None)
        if not own and _is_method(kind, name):
            raise InvalidModel(f"a {kind.__name__} whose {str(name)[:40]!r} is not its own", where=source)


@functools.cache
def _is_method(kind: Any, name: str) -> bool:
    found = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
    cached = isinstance(found, functools.cached_property)
    return hasattr(type(found), "__get__") and not hasattr(type(found), "__set__") and not cached


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


def _check_rows(model: Any, source: str) -> None:
    """As many neighbours are made room for as rows are stated."""
    held = vars(model)
    if "_fit_X" in held and held.get("n_samples_fit_") != held["_fit_X"].shape[0]:
        raise InvalidModel("neighbours of another number of rows than stated", where=source)


def _check_labels(model: Any, source: str) -> None:
    """Compiled votes count by the labels of the neighbours, which stand in a place of their own."""
    _check_rows(model, source)
    held = vars(model)
    if "_y" not in held:
        return
    labels = np.asarray(held["_y"])
    classes = held["classes_"] if isinstance(held["classes_"], list) else [held["classes_"]]
    rows = held["_fit_X"].shape[0]
    fits = labels.dtype.kind in "iu" and labels.shape in ((rows,), (rows, len(classes))) and len(classes) >= 1
    columns = labels.reshape(rows, -1).T if fits else ()
    if not fits or len(columns) != len(classes):
        raise InvalidModel("neighbours whose labels do not fit their rows", where=source)
    for column, names in zip(columns, classes, strict=True):
        if rows and not 0 <= column.min() <= column.max() < len(names):
            raise InvalidModel("neighbours of classes that it does not have", where=source)


def _check_centres(model: Any, source: str) -> None:
    held = vars(model)
    if "cluster_centers_" not in held:
        return
    centres, features = np.asarray(held["cluster_centers_"]), held.get("n_features_in_")
    fits = type(features) is int and centres.ndim == 2 and centres.shape[0] >= 1 and centres.shape[1] == features
    pending = [held["_bisecting_tree"]] if "_bisecting_tree" in held else []
    while fits and pending:
        node = pending.pop()
        fits = np.shape(node.center) == (features,) and len(pending) <= 2 * len(centres)
        pending += [side for side in (node.left, node.right) if side is not None]
    if not fits:
        raise InvalidModel("cluster centres of another width than the inputs", where=source)


def _check_spline(spline: Any, source: str) -> None:
    held = vars(spline)
    knots, weights = (np.asarray(held[f"_{name}"] if f"_{name}" in held else held.get(name)) for name in "tc")
    degree = held.get("k")
    fits = (
        type(degree) is int
        and 0 <= degree <= HIGHEST_DEGREE
        and knots.ndim == 1
        and knots.dtype == np.float64
        and weights.dtype.kind in "fc"
        and weights.ndim >= 1
        and len(weights) >= len(knots) - degree - 1 >= degree + 1
        and np.isfinite(knots).all()
        and (np.diff(knots) >= 0).all()
        and np.isfinite(weights).all()
    )
    if not fits:
        raise InvalidModel("a spline whose knots, coefficients and degree do not fit", where=source)


def _check_vocabulary(vectorizer: Any, source: str) -> None:
    places = list(vars(vectorizer).get("vocabulary_", {}).values())
    if any(not isinstance(place, (int, np.integer)) or not 0 <= place < len(places) for place in places):
        raise InvalidModel("a vocabulary that points outside itself", where=source)


def _check_random(source_of_numbers: Any, source: str) -> None:
    """Compiled generators read on from the position that they are given."""
    generator = getattr(source_of_numbers, "_bit_generator", getattr(source_of_numbers, "bit_generator", source_of_numbers))
    state = generator.state
    position, most = (state["state"].get("pos", 0), 624) if "pos" in state["state"] else (state.get("buffer_pos", 0), 4)
    if not 0 <= position <= most:
        raise InvalidModel("random numbers from outside their state", where=source)


def _check_xgboost(booster: Any, source: str) -> None:
    check_xgboost_ubj(bytes(type(booster).save_raw(booster, "ubj")), source)


def _check_lightgbm(booster: Any, source: str) -> None:
    check_lightgbm(type(booster).model_to_string(booster).encode(), source)


CHECKS: dict[str, Any] = {
    **containers.CHECKS,
    TREE: check_fitted_tree,
    **{f"sklearn.svm._classes.{name}": _check_support_vectors for name in ("SVC", "NuSVC", "SVR", "NuSVR", "OneClassSVM")},
    **dict.fromkeys(NEIGHBOUR_TREES, _check_neighbours),
    **{f"sklearn.neighbors._classification.{kind}NeighborsClassifier": _check_labels for kind in ("K", "Radius")},
    **dict.fromkeys(NEIGHBOURS, _check_rows),
    **{f"sklearn.cluster._kmeans.{name}": _check_centres for name in ("KMeans", "MiniBatchKMeans")},
    "sklearn.cluster._bisect_k_means.BisectingKMeans": _check_centres,
    "scipy.interpolate._bsplines.BSpline": _check_spline,
    "sklearn.feature_extraction._dict_vectorizer.DictVectorizer": _check_vocabulary,
    "numpy.random.mtrand.RandomState": _check_random,
    "numpy.random._generator.Generator": _check_random,
    **{f"numpy.random._{module}.{name}": _check_random for module, name in (("mt19937", "MT19937"), ("philox", "Philox"))},
    "xgboost.core.Booster": _check_xgboost,
    "lightgbm.basic.Booster": _check_lightgbm,
}
