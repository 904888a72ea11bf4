"""XGBoost models, as files (JSON, UBJSON) and as pickled boosters hold them, are data that their parser trusts.

Every child, parent, feature, category, class and tree index lies inside its array, no node has two parents, and every size
that is stated twice is the same, so that loading and predicting end and stay within the model's memory.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.trees import check_tree
from holdfast.artifacts.ubjson import decode_ubjson
from holdfast.core.errors import InvalidModel

MOST_FEATURES = 10_000_000
MOST_CATEGORIES = 1 << 24
"""The library's own limit."""
ABSENT = 2**31 - 1
"""How the parent of a root is written."""
FORGED = "The file is damaged or forged."
MALFORMED = (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError)


def check_xgboost_json(data: bytes, source: str) -> None:
    """Refuse an XGBoost JSON file whose trees point outside themselves.

    Raises:
        InvalidModel: as above, or malformed.
    """
    _check_model(_json(data, source), source)


def check_xgboost_ubj(data: bytes, source: str) -> None:
    """Refuse an XGBoost UBJSON file whose trees point outside themselves.

    Raises:
        InvalidModel: as above, or malformed.
    """
    _check_model(decode_ubjson(data, source), source)


def check_xgboost_snapshot(data: bytes, source: str) -> None:
    """Refuse what a pickled booster holds, its model and its configuration, where it points outside itself.

    Raises:
        InvalidModel: as above, or malformed.
    """
    snapshot = _json(data, source) if data.startswith(b'{"') else decode_ubjson(data, source)
    if type(snapshot) is not dict or set(snapshot) != {"Model", "Config"}:
        raise InvalidModel("no snapshot of an XGBoost booster", where=source)
    _check_model(snapshot["Model"], source)
    try:
        told, learner = snapshot["Config"]["learner"], snapshot["Model"]["learner"]
        if told["gradient_booster"]["name"] != learner["gradient_booster"]["name"]:
            raise InvalidModel("a configuration of another booster than the model's", where=source)
        _check_objective(told["objective"], _number(learner["learner_model_param"]["num_class"]), source)
    except MALFORMED as error:
        raise _malformed(error, source) from error


def _json(data: bytes, source: str) -> Any:
    """The document, in which no key stands twice: two readers could take different ones."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) != len(pairs):
            raise InvalidModel("JSON with one key twice", where=source)
        return out

    try:
        return json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InvalidModel("malformed JSON", where=source) from error


def _malformed(error: Exception, source: str) -> InvalidModel:
    return InvalidModel(f"malformed XGBoost model: {type(error).__name__}: {error}", where=source)


def _number(value: Any) -> int:
    """A whole number of not more than 18 digits, or its text in the one way that every reader understands."""
    text = str(value) if type(value) is int else value
    if type(text) is not str or not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError(f"{str(value)[:40]!r} is no whole number")
    return int(text)


def _numbers(values: Any) -> NDArray[np.int64]:
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iub"):
        raise ValueError("not an array of whole numbers")
    return found.astype(np.int64)


def _check_model(document: Any, source: str) -> None:
    try:
        learner = document["learner"]
        parameters = learner["learner_model_param"]
        features = _number(parameters["num_feature"])
        groups = max(1, _number(parameters["num_class"])) * max(1, _number(parameters.get("num_target", 1)))
        if not 0 <= features <= MOST_FEATURES or groups > MOST_FEATURES:
            raise InvalidModel("more features or classes than a model has", where=source)
        _check_objective(learner["objective"], _number(parameters["num_class"]), source)
        offsets = str(parameters.get("base_score", "0")).strip("[]").split(",")
        if len(offsets) not in (1, groups):
            raise InvalidModel("base scores that do not fit the classes", where=source)
        booster = learner["gradient_booster"]
        if booster["name"] not in ("gbtree", "dart", "gblinear"):
            raise InvalidModel(f"a booster of the unknown kind {booster['name']!r}", where=source)
        if booster["name"] == "gblinear":
            if len(booster["model"]["weights"]) != (features + 1) * groups:
                raise InvalidModel("weights that do not fit the features", where=source)
            return
        model = booster["gbtree"]["model"] if booster["name"] == "dart" else booster["model"]
        _check_forest(model, features, groups, source)
        if booster["name"] == "dart" and len(booster["weight_drop"]) != len(model["trees"]):
            raise InvalidModel("weights that do not fit the trees", where=source)
    except MALFORMED as error:
        raise _malformed(error, source) from error


def _check_objective(objective: Any, classes: int, source: str) -> None:
    """An objective writes as many classes as it says; the room for them is made for as many as the model says."""
    stated = [_number(part["num_class"]) for part in objective.values() if type(part) is dict and "num_class" in part]
    if str(objective["name"]).startswith("multi:") and not stated:
        raise InvalidModel("an objective of many classes that does not say how many", where=source)
    if any(count not in (classes, max(1, classes)) for count in stated):
        raise InvalidModel("an objective of another number of classes than the model's", where=source)


def _check_forest(model: Any, features: int, groups: int, source: str) -> None:
    trees, told = model["trees"], model["gbtree_model_param"]
    owners = _numbers(model["tree_info"])
    if groups > max(1, len(trees)):
        raise InvalidModel(f"{groups} classes and {len(trees)} trees", where=source)
    if len(owners) != len(trees) or ((owners < 0) | (owners >= groups)).any():
        raise InvalidModel("trees of classes that it does not have", where=source)
    if _number(told["num_trees"]) != len(trees) or _number(told.get("num_parallel_tree", 1)) < 1:
        raise InvalidModel("another number of trees than it states", where=source)
    if [_number(tree["id"]) for tree in trees] != list(range(len(trees))):
        raise InvalidModel("trees that are not numbered one by one", where=source)
    rounds = _numbers(model.get("iteration_indptr", [0, len(trees)]))
    if rounds.size and (rounds[0] != 0 or rounds[-1] != len(trees) or (np.diff(rounds) < 0).any()):
        raise InvalidModel("boosting rounds that do not fit the trees", where=source)
    _check_names_of_categories(model.get("cats"), features, source)
    for index, tree in enumerate(trees):
        _check_nodes(tree, features, f"{source}, tree {index}")


def _check_nodes(tree: Any, features: int, where: str) -> None:
    told = tree["tree_param"]
    nodes = _number(told["num_nodes"])
    left, right, parents, splits, kinds = (
        _numbers(tree[name]) for name in ("left_children", "right_children", "parents", "split_indices", "split_type")
    )
    sizes = {len(part) for part in (left, right, parents, splits, kinds, tree["split_conditions"], tree["default_left"])}
    vector = _number(told.get("size_leaf_vector", 0)) > 1
    weights = [len(tree[name]) for name in ("base_weights", "sum_hessian", "loss_changes")]
    if nodes < 1 or sizes != {nodes} or weights != [nodes] * 3 or vector or _number(told["num_feature"]) != features:
        raise InvalidModel("a tree whose arrays differ in length", where=where, hint=FORGED)
    inner = left >= 0
    if (left[~inner] != -1).any() or (right[~inner] != -1).any():
        raise InvalidModel("a tree that points outside itself", where=where, hint=FORGED)
    if (right[inner] < 0).any() or (splits[inner] >= features).any() or (splits < 0).any():
        raise InvalidModel("a tree that splits on features it does not have", where=where)
    check_tree((left, right), nodes, where)
    _check_parents(np.flatnonzero(inner), left, right, parents, where)
    _check_categories(tree, kinds, inner, where)


def _check_parents(
    inner: NDArray[Any], left: NDArray[np.int64], right: NDArray[np.int64], parents: NDArray[np.int64], where: str
) -> None:
    """Each child names its parent; pruned nodes, which no tree holds any more, name one before them."""
    orphans = np.ones(len(parents), dtype=bool)
    orphans[0] = False
    orphans[left[inner]] = orphans[right[inner]] = False
    lost = np.flatnonzero(orphans)
    fits = (parents[left[inner]] == inner).all() and (parents[right[inner]] == inner).all()
    if not fits or parents[0] not in (-1, ABSENT) or (parents[lost] < 0).any() or (parents[lost] >= lost).any():
        raise InvalidModel("a tree whose nodes name other parents than they have", where=where, hint=FORGED)


def _check_categories(tree: Any, kinds: NDArray[np.int64], inner: NDArray[Any], where: str) -> None:
    segments, lengths, owners, values = (
        _numbers(tree.get(name, [])) for name in ("categories_segments", "categories_sizes", "categories_nodes", "categories")
    )
    if not len(segments) == len(lengths) == len(owners):
        raise InvalidModel("a tree whose categories differ in length", where=where)
    ends = np.cumsum(lengths)
    if (
        not np.isin(kinds, (0, 1)).all()
        or not np.array_equal(owners, np.flatnonzero((kinds == 1) & inner))
        or (lengths < 0).any()
        or not np.array_equal(segments, ends - lengths)
        or (int(ends[-1]) if ends.size else 0) != len(values)
        or ((values < 0) | (values >= MOST_CATEGORIES)).any()
    ):
        raise InvalidModel("a tree with categories it does not have", where=where)


def _check_names_of_categories(names: Any, features: int, source: str) -> None:
    """A dictionary of categories: for each feature a segment of the whole, and its texts by their ends or its numbers."""
    if names is None or not (names["enc"] or len(names["feature_segments"]) or len(names["sorted_idx"])):
        return
    bounds, order = _numbers(names["feature_segments"]), _numbers(names["sorted_idx"])
    fits = len(names["enc"]) == features and len(bounds) == features + 1 and bounds[0] == 0 and bounds[-1] == len(order)
    if not fits or (np.diff(bounds) < 0).any():
        raise InvalidModel("names of categories that do not fit the features", where=source)
    for index, part in enumerate(names["enc"]):
        size = int(bounds[index + 1] - bounds[index])
        place = order[bounds[index] : bounds[index + 1]]
        count = len(part["values"])
        if "offsets" in part:
            ends = _numbers(part["offsets"])
            if ends.size and (ends[0] != 0 or ends[-1] != count or (np.diff(ends) < 0).any()):
                raise InvalidModel("names of categories that point outside themselves", where=source)
            count = max(0, len(ends) - 1)
        if count != size or not np.array_equal(np.sort(place), np.arange(size)):
            raise InvalidModel("names of categories that do not fit their feature", where=source)
