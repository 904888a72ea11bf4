"""From a system file to a target: every kind of model, every refusal, and nothing hostile ever run."""

from __future__ import annotations

import hashlib
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from holdfast.artifacts.trust import TrustStore
from holdfast.assessment.loading import label_names, load_target, ordered_names
from holdfast.core.errors import ConfigurationError, HoldfastError, InvalidData, InvalidModel, Unmeasured, UnsafeFile
from holdfast.core.oracle import Access
from holdfast.core.target import Target
from holdfast.threats.reader import parse_system

X, Y = load_iris(return_X_y=True, as_frame=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    frame = X.assign(kind=NAMES, patient=[f"p{row // 2}" for row in range(len(X))], ward=["a", "b"] * 75)
    frame[::2].to_csv(folder / "train.csv", index=False)
    frame[1::2].to_csv(folder / "holdout.csv", index=False)
    joblib.dump(LogisticRegression(max_iter=1000).fit(X[::2], NAMES[::2]), folder / "model.joblib")
    return folder


DATA = """
data:
  - {name: train, path: train.csv, role: train, target: kind, drop: [ward], cluster: patient}
  - {name: holdout, path: holdout.csv, role: holdout, target: kind, drop: [ward], cluster: patient}
"""


def load(folder: Path, model: str = "{path: model.joblib}", data: str = DATA, more: str = "", **options: Any) -> Target:
    text = f"system: made\nmodel: {model}\n{data}\n{more}\n"
    (folder / "holdfast.yaml").write_text(text)
    return load_target(parse_system(text), folder / "holdfast.yaml", **options)


def test_a_table_and_its_model_become_a_target(project: Path) -> None:
    target = load(project, "{path: model.joblib, recipe: clone}", more="serving: {reach: internal}")
    assert target.name == "made"
    assert target.modality == "tabular"
    assert target.model.classes == ("setosa", "versicolor", "virginica")
    assert target.train is not None
    assert len(target.train) == len(target.holdout) == 75
    assert target.holdout.x.columns.tolist() == X.columns.tolist()
    assert (target.model.labels(target.holdout.x) == target.holdout.y).mean() > 0.9
    assert target.facts == {"reach": ("internal",)}
    assert target.digests["model"] == hashlib.sha256((project / "model.joblib").read_bytes()).hexdigest()
    assert set(target.digests) == {"model", "train", "holdout", "recipe", "system", "served", "data", "domain"}
    assert target.bare is None
    assert target.weights is target.model
    refitted = target.require_recipe().fit(target.train, 1)
    assert (refitted.labels(target.holdout.x) == target.holdout.y).mean() > 0.9


def test_what_rows_share_is_kept_under_a_number(project: Path) -> None:
    target = load(project)
    assert target.train is not None
    assert target.train.clusters is not None
    assert target.holdout.clusters is not None
    assert target.holdout.clusters[:3].tolist() == target.train.clusters[:3].tolist()
    assert not any(name.startswith("p") for name in target.holdout.clusters)
    assert len(set(target.holdout.clusters)) == 75


def test_hardened_answers_stand_in_front_of_the_bare_model(project: Path) -> None:
    target = load(project, more="serving: {answers: label}")
    assert target.model.access == Access.LABELS
    assert target.bare is not None
    assert target.weights.access == Access.SCORES
    assert target.harden is not None
    assert target.harden(target.weights).access == Access.LABELS
    rounded = load(project, more="serving: {answers: {round: 1}}")
    assert len(np.unique(np.exp(rounded.model.scores(rounded.holdout.x)).round(6))) <= 12


def test_one_file_without_a_role_is_held_out_and_said_so(project: Path) -> None:
    target = load(project, data="data: [{name: d, path: holdout.csv, target: kind, drop: [ward, patient]}]")
    assert target.train is None
    assert any("neither role nor split" in note for note in target.notes)


def test_columns_for_groups_are_left_out_where_the_model_does_not_take_them(project: Path) -> None:
    joblib.dump(LogisticRegression(max_iter=1000).fit(X.to_numpy(), NAMES), project / "model.joblib")
    data = "data: [{name: d, path: holdout.csv, role: holdout, target: kind, drop: [patient], groups: [ward]}]"
    target = load(project, data=data)
    assert target.holdout.x.columns.tolist() == X.columns.tolist()
    assert target.holdout.groups is not None
    assert any("groups" in note for note in target.notes)
    with pytest.raises(InvalidModel):
        load(project, data=data.replace("groups: [ward]", "groups: []"))


def test_a_sensitive_column_that_is_no_input_is_noted(project: Path) -> None:
    data = "data: [{name: d, path: holdout.csv, role: holdout, target: kind, sensitive: [ward]}]"
    target = load(project, data=data)
    assert target.holdout.sensitive == ()
    assert any("ward" in note for note in target.notes)


def test_the_domain_speaks_of_the_models_columns(project: Path) -> None:
    name = "sepal length (cm)"
    domain = f'domain: {{norm: l1, immutable: ["{name}"], relations: [{{weights: {{"{name}": 1}}, equals: 3}}]}}'
    target = load(project, more=domain)
    assert target.domain.immutable == (name,)
    assert target.domain.relations[0].kind == "equals"
    assert target.domain.relations[0].bound == 3
    with pytest.raises(ConfigurationError, match="sepal lenth") as caught:
        load(project, more='domain: {immutable: ["sepal lenth (cm)"]}')
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("data", "error", "problem"),
    [
        ("", ConfigurationError, "no data"),
        ("data: [{name: d, path: train.csv, role: train, target: kind}]", ConfigurationError, "no holdout"),
        (DATA.replace("role: train", "role: holdout"), ConfigurationError, "2 data entries"),
        (DATA.replace("train.csv, role", "none.csv, role"), ConfigurationError, "no file"),
        (DATA.replace("target: kind", "target: ward").replace("drop: [ward]", "drop: [kind]"), InvalidData, "does not know"),
        (DATA.replace("drop: [ward]", "drop: ['sepal width (cm)']"), InvalidData, "lacks columns"),
    ],
)
def test_data_that_do_not_fit_say_why(project: Path, data: str, error: type[HoldfastError], problem: str) -> None:
    with pytest.raises(error, match=problem):
        load(project, data=data)


def test_files_with_different_columns_are_told_apart(project: Path) -> None:
    pd.read_csv(project / "holdout.csv").drop(columns="petal width (cm)").to_csv(project / "holdout.csv", index=False)
    with pytest.raises(InvalidData, match="petal width"):
        load(project)


def test_torch_models_and_their_code(project: Path) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    torch.save(net.state_dict(), project / "net.pt")
    code = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    (project / "net.py").write_text(code)
    digits = load_digits()
    np.savez(project / "d.npz", x=(digits.images / 16).astype("f4")[:, None], y=digits.target)
    data = "data: [{name: d, path: d.npz, role: holdout}]"
    with pytest.raises(ConfigurationError, match="factory"):
        load(project, "{path: net.pt}", data)
    with pytest.raises(UnsafeFile, match=r"net\.py") as caught:
        load(project, '{path: net.pt, factory: "net.py:build"}', data)
    digest = hashlib.sha256(code.encode()).hexdigest()
    assert digest in str(caught.value)
    target = load(project, '{path: net.pt, factory: "net.py:build"}', data, trust=[digest])
    assert target.modality == "image"
    assert target.differentiable
    assert target.holdout.x.shape == (1797, 1, 8, 8)
    TrustStore().add(digest, "net.py")
    assert load(project, '{path: net.pt, factory: "net.py:build"}', data).digests["model"] == target.digests["model"]
    torch.jit.save(torch.jit.script(net.eval()), project / "script.pt")
    with pytest.raises(UnsafeFile, match="program"):
        load(project, "{path: script.pt}", data)
    script = hashlib.sha256((project / "script.pt").read_bytes()).hexdigest()
    assert load(project, "{path: script.pt}", data, trust=[f"sha256:{script}"]).differentiable


def test_native_boosters_and_onnx(project: Path) -> None:
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    to_onnx = pytest.importorskip("skl2onnx").to_onnx
    xgboost.XGBClassifier(n_estimators=5).fit(X, Y).save_model(project / "m.json")
    lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(X, Y).booster_.save_model(project / "m.txt")
    content = to_onnx(GaussianNB().fit(X.to_numpy(), NAMES), X[:1].to_numpy(dtype=np.float32)).SerializeToString()
    (project / "m.onnx").write_bytes(content)
    for name in ("m.json", "m.txt", "m.onnx"):
        target = load(project, f"{{path: {name}}}")
        assert target.model.classes == ("setosa", "versicolor", "virginica")
        assert (target.model.labels(target.holdout.x) == target.holdout.y).mean() > 0.85


def test_entries_and_recipes_from_a_file(project: Path) -> None:
    code = (
        "import numpy as np\n"
        "def predict(x):\n    return np.where(x['petal length (cm)'] < 2.5, 'setosa', 'virginica')\n"
        "def train(X, y, seed):\n    return predict\n"
    )
    (project / "rule.py").write_text(code)
    digest = hashlib.sha256(code.encode()).hexdigest()
    model = '{entry: "rule.py:predict", recipe: "rule.py:train"}'
    with pytest.raises(UnsafeFile):
        load(project, model)
    target = load(project, model, trust=[digest])
    assert target.model.access == Access.LABELS
    assert target.model.classes == ("setosa", "versicolor", "virginica")
    assert target.model_path is None
    assert target.train is not None
    assert target.require_recipe().fit(target.train, 0).classes == target.model.classes


def test_pictures_in_folders(project: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    digits = load_digits()
    for label in ("3", "8"):
        (project / "pictures" / label).mkdir(parents=True)
        for row in np.flatnonzero(digits.target == int(label))[:20]:
            image.fromarray((digits.images[row] * 15).astype(np.uint8)).save(project / "pictures" / label / f"{row}.png")
    chosen = np.isin(digits.target, [3, 8])
    joblib.dump(GaussianNB(var_smoothing=0.01).fit(digits.data[chosen] / 17, digits.target[chosen]), project / "m.joblib")
    target = load(project, "{path: m.joblib}", "data: [{name: d, path: pictures, role: holdout}]")
    assert target.modality == "image"
    assert (target.model.labels(target.holdout.x) == target.holdout.y).mean() > 0.8


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.claim("loop-10")
def test_hostile_models_end_with_exit_code_4_or_2_and_run_nothing(project: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    bomb = zlib.compress(b"\x80\x04X" + bytes(200 << 20))
    hostile = pickle.dumps(Payload(marker))
    for content, code in ((hostile, 4), (zlib.compress(hostile), 4), (bomb, 2), (b"PK", 2)):
        (project / "model.joblib").write_bytes(content)
        with pytest.raises(HoldfastError) as caught:
            load(project)
        assert caught.value.exit_code == code
        assert not marker.exists()


@pytest.mark.claim("loop-10")
def test_hostile_paths_end_with_exit_code_2(project: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "outside.pkl").write_bytes(pickle.dumps(Payload(marker)))
    (project / "link.pkl").symlink_to(tmp_path / "outside.pkl")
    for given in ("../outside.pkl", str(tmp_path / "outside.pkl"), "link.pkl"):
        with pytest.raises(ConfigurationError, match="path traversal") as caught:
            load(project, f"{{path: {given}}}")
        assert caught.value.exit_code == 2
    for option in ("factory", "recipe"):
        with pytest.raises(HoldfastError):
            load(project, f'{{path: model.joblib, {option}: "../x.py:f"}}' if option == "recipe" else '{entry: "../x.py:f"}')
    with pytest.raises(ConfigurationError, match="path traversal"):
        load(project, data=DATA.replace("path: train.csv", "path: ../train.csv"))
    assert not marker.exists()


def test_names_are_ordered_as_their_labels_sort() -> None:
    assert ordered_names({"10", "9", "-1"}) == ("-1", "9", "10")
    assert ordered_names({"b", "a", "10"}) == ("10", "a", "b")
    assert label_names(np.array([2.0, 1.0, 2.0])) == ["2", "1", "2"]


def test_clone_is_offered_only_where_the_model_can_be_cloned(project: Path) -> None:
    def offered(target: Target) -> bool:
        with pytest.raises(Unmeasured) as refused:
            target.require_recipe()
        assert "FILE.py:FUNCTION" in str(refused.value)
        return "clone" in str(refused.value)

    assert offered(load(project))
    assert offered(load(project, more="serving: {answers: label}"))
    code = "def predict(x):\n    return ['setosa' if width < 1 else 'virginica' for width in x['petal width (cm)']]\n"
    (project / "rule.py").write_text(code)
    assert not offered(load(project, '{entry: "rule.py:predict"}', trust=[hashlib.sha256(code.encode()).hexdigest()]))
    pytest.importorskip("onnxruntime")
    fitted = LogisticRegression(max_iter=1000).fit(X[::2].to_numpy(dtype=np.float32), NAMES[::2])
    content = pytest.importorskip("skl2onnx").to_onnx(fitted, X[:1].to_numpy(dtype=np.float32)).SerializeToString()
    (project / "model.onnx").write_bytes(content)
    assert not offered(load(project, "{path: model.onnx}"))
