"""Native model files: the libraries' own pass, forged indices and external files do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from holdfast.artifacts.checking import check_file
from holdfast.artifacts.lightgbm_files import check_lightgbm
from holdfast.artifacts.onnx_files import check_onnx
from holdfast.artifacts.ubjson import decode_ubjson
from holdfast.artifacts.xgboost_files import check_xgboost_json, check_xgboost_ubj
from holdfast.core.errors import InvalidModel

X, Y = load_iris(return_X_y=True)
FRAME = pd.DataFrame({"a": X[:, 0], "kind": pd.Categorical(np.array(list("xyz"))[Y])})


def xgboost_bytes(form: str = "json", x: Any = X, y: Any = Y, **options: Any) -> bytes:
    xgboost = pytest.importorskip("xgboost")
    return bytes(xgboost.XGBClassifier(n_estimators=3, max_depth=3, **options).fit(x, y).get_booster().save_raw(form))


def lightgbm_text(x: Any = X, **options: Any) -> str:
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, min_child_samples=2, **options).fit(x, Y)
    return str(model.booster_.model_to_string())


CATEGORICAL = {"x": FRAME, "enable_categorical": True, "max_cat_to_onehot": 1}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("options", [{}, {"booster": "dart"}, {"booster": "gblinear"}, CATEGORICAL])
def test_xgboost_files_pass(options: dict[str, Any], tmp_path: Path) -> None:
    for form in ("json", "ubj"):
        (tmp_path / "m").write_bytes(xgboost_bytes(form, **options))
        assert check_file(tmp_path / "m").format == f"xgboost {form}"


def test_ubjson_reads_as_json_does() -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return [plain(item) for item in value.tolist()]
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return round(value, 4) if isinstance(value, float) else value

    text, binary = json.loads(xgboost_bytes("json")), decode_ubjson(xgboost_bytes("ubj"), "m")
    first, second = (plain(document["learner"]["gradient_booster"]["model"]["trees"]) for document in (text, binary))
    assert [tree["left_children"] for tree in first] == [tree["left_children"] for tree in second]
    assert [tree["split_indices"] for tree in first] == [tree["split_indices"] for tree in second]


FORGERIES: dict[str, Any] = {
    "child outside": lambda tree: tree["left_children"].__setitem__(0, 10**6),
    "negative child": lambda tree: tree["left_children"].__setitem__(0, -7),
    "loop": lambda tree: tree["right_children"].__setitem__(0, tree["left_children"][0]),
    "root as child": lambda tree: tree["left_children"].__setitem__(0, 0),
    "feature outside": lambda tree: tree["split_indices"].__setitem__(0, 4),
    "short array": lambda tree: tree["split_conditions"].pop(),
    "more nodes": lambda tree: tree["tree_param"].__setitem__("num_nodes", "99"),
    "no nodes": lambda tree: tree["tree_param"].__setitem__("num_nodes", "0"),
    "categories": lambda tree: tree.update(categories_segments=[0], categories_sizes=[9], categories_nodes=[0]),
}


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("name", FORGERIES)
def test_forged_xgboost_trees_are_refused(name: str) -> None:
    document = json.loads(xgboost_bytes())
    FORGERIES[name](document["learner"]["gradient_booster"]["model"]["trees"][0])
    with pytest.raises(InvalidModel):
        check_xgboost_json(json.dumps(document).encode(), "m")


@pytest.mark.claim("loop-10")
def test_forged_xgboost_models_are_refused() -> None:
    for path, value in (
        (("gradient_booster", "model", "tree_info"), [0, 1, 7] * 3),
        (("gradient_booster", "model", "iteration_indptr"), [0, 99]),
        (("learner_model_param", "num_feature"), "1"),
        (("gradient_booster", "name"), None),
    ):
        document = json.loads(xgboost_bytes())
        part = document["learner"]
        for step in path[:-1]:
            part = part[step]
        part[path[-1]] = value
        with pytest.raises(InvalidModel):
            check_xgboost_json(json.dumps(document).encode(), "m")
    for content in (b"[" * 100_000, b'{"learner": 3}', b'{"learner": {"learner_model_param": []}}', b"{"):
        with pytest.raises(InvalidModel):
            check_xgboost_json(content, "m")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_ubjson_ends_in_a_clear_error_or_a_checked_model(data: st.DataObject) -> None:
    content = bytearray(xgboost_bytes("ubj"))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    for candidate in (bytes(content), bytes(content[: data.draw(st.integers(1, len(content)))])):
        try:
            check_xgboost_ubj(candidate, "m")
        except InvalidModel:
            continue


HOSTILE = [b"[$d#L\x7f" + b"\xff" * 7, b"[" * 5000, b"{i\x01aZi\x01aZ}", b"SL" + b"\xff" * 8, b"[#i", b"Q", b"", b"ZZ"]


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_ubjson_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidModel):
        decode_ubjson(content, "m")


@pytest.mark.parametrize("options", [{}, {"boosting_type": "dart"}, {"x": FRAME, "max_cat_to_onehot": 1}])
def test_lightgbm_files_pass(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text(lightgbm_text(**options))
    assert check_file(tmp_path / "m.txt").format == "lightgbm"


def test_the_parser_agrees_with_the_library_on_trees() -> None:
    assert lightgbm_text().count("\nTree=") == 9
    check_lightgbm(lightgbm_text().encode(), "m")


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("left_child", lambda values: ["999", *values[1:]]),
        ("right_child", lambda values: ["-999", *values[1:]]),
        ("left_child", lambda values: ["0", *values[1:]]),
        ("split_feature", lambda values: ["4", *values[1:]]),
        ("split_feature", lambda values: ["-1", *values[1:]]),
        ("leaf_value", lambda values: values[1:]),
        ("threshold", lambda values: values[1:]),
        ("num_leaves", lambda values: ["99"]),
        ("num_leaves", lambda values: ["-1"]),
        ("num_cat", lambda values: ["3"]),
        ("decision_type", lambda values: ["1", *values[1:]]),
        ("left_child", lambda values: ["x", *values[1:]]),
        ("tree_sizes", lambda values: ["5", *values[1:]]),
        ("tree_sizes", lambda values: [*values, "5"]),
        ("tree_sizes", lambda values: ["-5", *values[1:]]),
        ("max_feature_idx", lambda values: ["0"]),
    ],
)
def test_forged_lightgbm_trees_are_refused(field: str, change: Any) -> None:
    lines = lightgbm_text().split("\n")
    at = next(index for index, line in enumerate(lines) if line.startswith(f"{field}="))
    lines[at] = f"{field}={' '.join(change(lines[at].split('=', 1)[1].split()))}"
    if field != "tree_sizes":
        lines = [line for line in lines if not line.startswith("tree_sizes=")]
    with pytest.raises(InvalidModel):
        check_lightgbm("\n".join(lines).encode(), "m")


def onnx_bytes() -> bytes:
    fitted = LogisticRegression(max_iter=500).fit(X, Y)
    return bytes(pytest.importorskip("skl2onnx").to_onnx(fitted, X[:1].astype(np.float32)).SerializeToString())


def test_onnx_files_pass(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(onnx_bytes())
    assert check_file(tmp_path / "m.onnx").format == "onnx"


@pytest.mark.claim("loop-10")
def test_onnx_with_external_files_or_loading_operators_is_refused() -> None:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    inside = onnx.numpy_helper.from_array(np.ones((2, 2), dtype=np.float32), "w")
    given = helper.make_tensor_value_info("x", kinds.FLOAT, [None, 2])
    out = helper.make_tensor_value_info("y", kinds.FLOAT, [None, 2])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [given], [out], [inside])
    check_onnx(helper.make_model(graph).SerializeToString(), "m")
    outside = onnx.TensorProto()
    outside.CopyFrom(inside)
    onnx.external_data_helper.set_external_data(outside, "../../secret")
    hidden = helper.make_node("Constant", [], ["c"], value=outside)
    for changed in (
        helper.make_graph(graph.node, "g", [given], [out], [outside]),
        helper.make_graph([hidden, *graph.node], "g", [given], [out], [inside]),
        helper.make_graph([helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")], "g", [given], [out], []),
        helper.make_graph(
            [helper.make_node("If", ["x"], ["y"], then_branch=helper.make_graph([hidden], "b", [], [out]), else_branch=graph)],
            "g",
            [given],
            [out],
            [],
        ),
    ):
        with pytest.raises(InvalidModel, match=r"external|loads"):
            check_onnx(helper.make_model(changed).SerializeToString(), "m")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_onnx_ends_in_a_clear_error_or_passes(data: st.DataObject) -> None:
    content = bytearray(onnx_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_onnx(bytes(content[: data.draw(st.integers(1, len(content)))]), "m")
    except InvalidModel:
        return
