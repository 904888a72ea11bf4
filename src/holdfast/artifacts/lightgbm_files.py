"""LightGBM models are text whose parser trusts its numbers, read here as that parser does.

Every child, feature and category index lies inside its array, no node has two parents, and every number of classes is the
same, so that loading and predicting end and stay within the model's memory. Where another reader could see other lines or
other numbers (a line end that is not LF, a key twice, a NUL), the text is refused.
"""

from __future__ import annotations

import re

import numpy as np

from holdfast.artifacts.trees import check_tree
from holdfast.core.errors import InvalidModel

LINES_OF_A_TREE = 22
"""The parser reads no more."""
NUMBERS = re.compile(r"[-+0-9.eEinfaINFA ]*")
WHOLE = re.compile(r"-?[0-9]{1,10}( -?[0-9]{1,10})*|")
FORGED = "The file is damaged or forged."


def check_lightgbm(data: bytes, source: str) -> None:
    """Refuse a LightGBM text file whose trees point outside themselves.

    Raises:
        InvalidModel: as above, or malformed.
    """
    if b"\0" in data or b"\r" in data:
        raise InvalidModel("a LightGBM file with other line ends than LF, or a NUL", where=source, hint="Save it again.")
    try:
        head, *blocks = data.decode("utf-8").split("\nTree=")
        settings = _pairs([line for line in head.split("\n") if "=" in line])
        features = _whole(settings["max_feature_idx"]) + 1
        classes = _whole(settings["num_tree_per_iteration"])
        _check_tree_sizes(data, settings.get("tree_sizes", ""), len(blocks), source)
        told = [_whole(settings["num_class"]), *map(_whole, re.findall(r"num_class:(\S+)", settings.get("objective", "")))]
        if not blocks or classes < 1 or len(blocks) % classes or any(count != classes for count in told):
            raise InvalidModel(f"{len(blocks)} trees for {classes} classes", where=source)
        if features < 1 or len(settings["feature_names"].split(" ")) != features:
            raise InvalidModel("names that do not fit the features", where=source)
        for index, block in enumerate(blocks):
            _check_tree(block, features, last=index == len(blocks) - 1, where=f"{source}, tree {index}")
    except (KeyError, ValueError, OverflowError) as error:
        raise InvalidModel(f"malformed LightGBM file: {error}", where=source) from error


def _pairs(lines: list[str]) -> dict[str, str]:
    pairs = dict(line.split("=", 1) for line in lines)
    if len(pairs) != len(lines):
        raise ValueError("one key twice")
    return pairs


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,10}", text):
        raise ValueError(f"{text[:40]!r} is no whole number")
    return int(text)


def _check_tree_sizes(data: bytes, sizes: str, trees: int, source: str) -> None:
    """LightGBM jumps by these sizes; each jump must land on a tree."""
    if not sizes:
        return
    at = data.find(b"\nTree=") + 1
    steps = [_whole(size) for size in sizes.split(" ")]
    if len(steps) != trees:
        raise InvalidModel(f"{len(steps)} tree sizes for {trees} trees", where=source)
    for index, size in enumerate(steps):
        if size <= 0 or not data.startswith(b"Tree=%d\n" % index, at):
            raise InvalidModel("tree sizes that do not fit the trees", where=source, hint=FORGED)
        at += size


def _check_tree(block: str, features: int, *, last: bool, where: str) -> None:
    text, _, rest = block.partition("\n\n")
    _, *lines = text.split("\n")
    after = rest.strip("\n")
    if after and not (last and after.startswith("end of trees")):
        raise InvalidModel("text between two trees", where=where, hint=FORGED)
    if len(lines) > LINES_OF_A_TREE:
        raise InvalidModel("a tree of more lines than are read", where=where, hint=FORGED)
    values = _pairs(lines)
    if not all(NUMBERS.fullmatch(value) for value in values.values()):
        raise InvalidModel("a tree that holds something else than numbers", where=where, hint=FORGED)
    leaves, categories = _whole(values["num_leaves"]), _whole(values["num_cat"])
    if leaves < 1 or categories < 0 or _whole(values.get("is_linear", "0")):
        raise InvalidModel("a tree without leaves, or a linear tree", where=where)
    lengths = dict.fromkeys(("leaf_value", "leaf_weight", "leaf_count"), leaves)
    lengths |= dict.fromkeys(("threshold", "split_gain", "internal_value", "internal_weight", "internal_count"), leaves - 1)
    present = {name: len(values[name].split()) for name in lengths if values.get(name)}
    if leaves == 1 and len(values["leaf_value"].split()) == 1:
        return
    if "leaf_value" not in present or any(count != lengths[name] for name, count in present.items()):
        raise InvalidModel("a tree whose arrays differ in length", where=where)
    fields = ("left_child", "right_child", "split_feature", "decision_type")
    if not all(WHOLE.fullmatch(values[name]) for name in fields):
        raise InvalidModel("a tree that points by other than whole numbers", where=where, hint=FORGED)
    left, right, splits, kinds = (np.array(values[name].split(), dtype=np.int64) for name in fields)
    thresholds = np.array(values["threshold"].split(), dtype=np.float64)
    if {len(part) for part in (left, right, splits, kinds, thresholds)} != {leaves - 1}:
        raise InvalidModel("a tree whose arrays differ in length", where=where, hint=FORGED)
    if (splits < 0).any() or (splits >= features).any() or (kinds < 0).any() or (kinds > 127).any():
        raise InvalidModel("a tree that splits on features it does not have", where=where)
    check_tree((left, right), leaves - 1, where)
    check_tree((np.where(left < 0, ~left, -1), np.where(right < 0, ~right, -1)), leaves, where, roots=0)
    bounds = np.array(values.get("cat_boundaries", "0").split(), dtype=np.int64)
    bits = len(values.get("cat_threshold", "").split())
    chosen = thresholds[(kinds & 1) == 1]
    if len(bounds) != categories + 1 or bounds[0] != 0 or (np.diff(bounds) < 0).any() or bounds[-1] != bits:
        raise InvalidModel("a tree with categories it does not have", where=where)
    if chosen.size and not ((chosen >= 0) & (chosen < categories) & (chosen == np.round(chosen))).all():
        raise InvalidModel("a tree with categories it does not have", where=where)
