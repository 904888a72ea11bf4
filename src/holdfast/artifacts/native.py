"""Native model files are data, but their parsers trust what stands in them: sizes, indices and names are checked before.

- ONNX: no tensor in an external file, no operator that loads files or code.
- XGBoost (JSON, UBJSON) and LightGBM (text): every child, feature, category and class index lies inside its array, and no node
  has two parents, so that a prediction ends and reads only the model's memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.artifacts.ubjson import decode_ubjson
from holdfast.core.errors import InvalidModel

DEEPEST_GRAPH = 20
LOADING_OPERATORS = (b"EPContext", b"PyOp", b"TrtPlugin", b"CustomOp")
GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE, FUNCTION = "graph", "node", "attribute", "tensor", "sparse tensor", "function"
FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: GRAPH, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
    TENSOR: {},
}


def check_onnx(data: bytes, source: str) -> None:
    """Refuse an ONNX file that is malformed, refers to other files, or has operators that load code.

    Raises:
        InvalidModel: as above.
    """
    seen: set[str] = set()
    pending = [("model", 0, len(data), 0)]
    while pending:
        kind, start, end, depth = pending.pop()
        if depth > DEEPEST_GRAPH * 3:
            raise InvalidModel("graphs nested too deeply", where=source)
        seen.add(kind)
        for number, wire, begin, stop in _fields(data, start, end, source):
            if kind == TENSOR and number in (13, 14) and (number == 13 or data[begin] == 1):
                raise InvalidModel(
                    "tensors in an external file", where=source, hint="Save the model with its weights inside: one .onnx file."
                )
            if kind == NODE and number == 4 and data[begin:stop] in LOADING_OPERATORS:
                raise InvalidModel(f"operator {data[begin:stop].decode()} loads other files or code", where=source)
            inner = FIELDS[kind].get(number)
            if inner and wire == 2:
                pending.append((inner, begin, stop, depth + 1))
    if GRAPH not in seen or NODE not in seen:
        raise InvalidModel("no model file that is understood", where=source, hint="scikit-learn, torch, XGBoost, LightGBM, ONNX.")


def check_xgboost_json(data: bytes, source: str) -> None:
    """Refuse an XGBoost JSON file whose trees point outside themselves.

    Raises:
        InvalidModel: as above, or malformed.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidModel("malformed JSON", where=source) from error
    _check_xgboost(document, source)


def check_xgboost_ubj(data: bytes, source: str) -> None:
    """Refuse an XGBoost UBJSON file whose trees point outside themselves.

    Raises:
        InvalidModel: as above, or malformed.
    """
    _check_xgboost(decode_ubjson(data, source), source)


def check_lightgbm(data: bytes, source: str) -> None:
    """Refuse a LightGBM text file whose trees point outside themselves.

    Raises:
        InvalidModel: as above, or malformed.
    """
    try:
        text = data.decode("utf-8")
        head, *blocks = text.split("\nTree=")
        settings = dict(line.split("=", 1) for line in head.splitlines() if "=" in line)
        features = int(settings["max_feature_idx"]) + 1
        classes = int(settings["num_tree_per_iteration"])
        _check_tree_sizes(data, settings.get("tree_sizes", ""), len(blocks), source)
        if classes < 1 or len(blocks) % classes:
            raise InvalidModel(f"{len(blocks)} trees for {classes} classes", where=source)
        for index, block in enumerate(blocks):
            _check_lightgbm_tree(block.split("\nend of trees", 1)[0], features, f"{source}, tree {index}")
    except (KeyError, ValueError, OverflowError) as error:
        raise InvalidModel(f"malformed LightGBM file: {error}", where=source) from error


def check_tree(children: Sequence[NDArray[np.int64]], nodes: int, where: str, roots: int = 1) -> None:
    """Refuse a tree in which a child lies outside, or a node has two parents, or a root has one.

    Args:
        children: the child indices of each side; a negative index is no inner node.
        nodes: how many nodes there are.
        where: for errors.
        roots: how many nodes, from 0, are roots.

    Raises:
        InvalidModel: as above.
    """
    inner = np.concatenate([side[side >= 0] for side in children])
    if inner.size and (inner.max() >= nodes or inner.min() < roots or np.bincount(inner).max() > 1):
        raise InvalidModel("a tree that points outside itself or into itself", where=where, hint="The file is damaged or forged.")


def _fields(data: bytes, start: int, end: int, source: str) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and bounds of the content of each field of a protobuf message."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end, source)
        wire = tag & 7
        if wire == 0:
            begin = at
            _, at = _varint(data, at, end, source)
        elif wire in (1, 5):
            begin, at = at, at + (8 if wire == 1 else 4)
        elif wire == 2:
            size, begin = _varint(data, at, end, source)
            at = begin + size
        else:
            raise InvalidModel("no model file that is understood", where=source)
        if at > end or not tag >> 3:
            raise InvalidModel("malformed or truncated ONNX file, or of another format", where=source)
        yield tag >> 3, wire, begin, at


def _varint(data: bytes, at: int, end: int, source: str) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at
    raise InvalidModel("malformed or truncated ONNX file, or of another format", where=source)


def _check_xgboost(document: Any, source: str) -> None:
    try:
        learner = document["learner"]
        parameters = learner["learner_model_param"]
        features, classes = int(parameters["num_feature"]), max(1, int(parameters["num_class"]))
        targets = max(1, int(parameters.get("num_target", 1)))
        booster = learner["gradient_booster"]
        if booster["name"] not in ("gbtree", "dart", "gblinear"):
            raise InvalidModel(f"a booster of the unknown kind {booster['name']!r}", where=source)
        if booster["name"] == "gblinear":
            groups = classes * targets
            if len(booster["model"]["weights"]) != (features + 1) * groups:
                raise InvalidModel("weights that do not fit the features", where=source)
            return
        model = booster["gbtree"]["model"] if booster["name"] == "dart" else booster["model"]
        trees = model["trees"]
        if len(model["tree_info"]) != len(trees) or any(not 0 <= int(group) < classes * targets for group in model["tree_info"]):
            raise InvalidModel("trees of classes that it does not have", where=source)
        steps = np.asarray(model.get("iteration_indptr", [0, len(trees)]), dtype=np.int64)
        if steps.size and (steps[0] != 0 or steps[-1] != len(trees) or (np.diff(steps) < 0).any()):
            raise InvalidModel("boosting rounds that do not fit the trees", where=source)
        if booster["name"] == "dart" and len(booster["weight_drop"]) != len(trees):
            raise InvalidModel("weights that do not fit the trees", where=source)
        for index, tree in enumerate(trees):
            _check_xgboost_tree(tree, features, f"{source}, tree {index}")
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
        raise InvalidModel(f"malformed XGBoost file: {type(error).__name__}: {error}", where=source) from error


def _check_xgboost_tree(tree: Any, features: int, where: str) -> None:
    nodes = int(tree["tree_param"]["num_nodes"])
    left, right, parents, splits = (
        np.asarray(tree[name], dtype=np.int64) for name in ("left_children", "right_children", "parents", "split_indices")
    )
    sizes = {len(part) for part in (left, right, parents, splits, tree["split_conditions"], tree["default_left"])}
    vector = int(tree["tree_param"].get("size_leaf_vector", 0)) > 1
    if nodes < 1 or sizes != {nodes} or len(tree["base_weights"]) < nodes or vector:
        raise InvalidModel("a tree whose arrays differ in length", where=where, hint="The file is damaged or forged.")
    if ((left < 0) != (right < 0)).any() or (splits[left >= 0] >= features).any() or (splits < 0).any():
        raise InvalidModel("a tree that splits on features it does not have", where=where)
    check_tree((left, right), nodes, where)
    segments, lengths, owners = (
        np.asarray(tree.get(name, []), dtype=np.int64) for name in ("categories_segments", "categories_sizes", "categories_nodes")
    )
    total = len(tree.get("categories", []))
    if not len(segments) == len(lengths) == len(owners):
        raise InvalidModel("a tree whose categories differ in length", where=where)
    if (
        (segments < 0).any()
        or (lengths < 0).any()
        or (segments + lengths > total).any()
        or (owners >= nodes).any()
        or (owners < 0).any()
    ):
        raise InvalidModel("a tree with categories it does not have", where=where)


def _check_tree_sizes(data: bytes, sizes: str, trees: int, source: str) -> None:
    """LightGBM jumps by these sizes; each jump must land on a tree."""
    if not sizes:
        return
    at = data.find(b"\nTree=") + 1
    steps = [int(size) for size in sizes.split()]
    if len(steps) != trees:
        raise InvalidModel(f"{len(steps)} tree sizes for {trees} trees", where=source)
    for index, size in enumerate(steps):
        if size <= 0 or not data.startswith(b"Tree=%d\n" % index, at):
            raise InvalidModel("tree sizes that do not fit the trees", where=source, hint="The file is damaged or forged.")
        at += size


def _check_lightgbm_tree(block: str, features: int, where: str) -> None:
    values = dict(line.split("=", 1) for line in block.splitlines()[1:] if "=" in line)
    leaves, categories = int(values["num_leaves"]), int(values["num_cat"])
    if leaves < 1 or categories < 0 or int(values.get("is_linear", "0")):
        raise InvalidModel("a tree without leaves, or a linear tree", where=where)
    if len(values["leaf_value"].split()) != leaves:
        raise InvalidModel("a tree whose arrays differ in length", where=where)
    if leaves == 1:
        return
    left, right, splits, kinds = (
        np.array(values[name].split(), dtype=np.int64) for name in ("left_child", "right_child", "split_feature", "decision_type")
    )
    thresholds = np.array(values["threshold"].split(), dtype=np.float64)
    if {len(part) for part in (left, right, splits, kinds, thresholds)} != {leaves - 1}:
        raise InvalidModel("a tree whose arrays differ in length", where=where, hint="The file is damaged or forged.")
    if (splits < 0).any() or (splits >= features).any():
        raise InvalidModel("a tree that splits on features it does not have", where=where)
    check_tree((left, right), leaves - 1, where)
    check_tree((np.where(left < 0, ~left, -1), np.where(right < 0, ~right, -1)), leaves, where, roots=0)
    bounds = np.array(values.get("cat_boundaries", "0").split(), dtype=np.int64)
    bits = len(values.get("cat_threshold", "").split())
    chosen = thresholds[(kinds & 1) == 1]
    if len(bounds) != categories + 1 or bounds[0] != 0 or (np.diff(bounds) < 0).any() or bounds[-1] > bits:
        raise InvalidModel("a tree with categories it does not have", where=where)
    if chosen.size and not ((chosen >= 0) & (chosen < categories) & (chosen == np.round(chosen))).all():
        raise InvalidModel("a tree with categories it does not have", where=where)
