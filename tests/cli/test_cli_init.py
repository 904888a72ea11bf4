"""init and trust through the real command."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import typer
import yaml
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from holdfast.assessment.inspection import inspect, sounds_like
from holdfast.assessment.loading import load_target
from holdfast.cli import init, trust
from holdfast.cli.init import render
from holdfast.core.errors import HoldfastError
from holdfast.threats.derivation import derive
from holdfast.threats.reader import parse_system, read_system


@dataclass
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def holdfast(*arguments: object, folder: Path, stdin: str | None = None) -> Done:
    """Run a command in `folder`, with a configuration of its own; errors become exit codes as in `holdfast.cli.main`."""
    app = typer.Typer()
    init.register(app)
    trust.register(app)
    before = Path.cwd()
    os.chdir(folder)
    try:
        environment = {"XDG_CONFIG_HOME": str(folder / "config"), "COLUMNS": "200"}
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin, env=environment)
    finally:
        os.chdir(before)
    if isinstance(result.exception, HoldfastError):
        return Done(result.exception.exit_code, result.stdout, str(result.exception))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.mark.slow
@pytest.mark.claim("loop-10")
def test_the_real_command_ends_with_the_errors_exit_code(clinic: Path) -> None:
    (clinic / "model.joblib").write_bytes(b"\x80\x04cposix\nsystem\n\x8c\x0etouch ./marker\x85R.")
    environment = {**os.environ, "XDG_CONFIG_HOME": str(clinic / "config")}
    for command, code in ((["init", "../x", "train.csv", "--yes"], 2), (["plan"], 4)):
        done = subprocess.run(
            [sys.executable, "-m", "holdfast.cli.main", *command],
            cwd=clinic,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
    assert not (clinic / "marker").exists()


def test_a_project_is_described_and_loads(clinic: Path) -> None:
    (clinic / "holdfast.yaml").unlink()
    result = holdfast("init", "model.joblib", "train.csv", "holdout.csv", "--yes", "--json", folder=clinic)
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    text = (clinic / "holdfast.yaml").read_text()
    system = read_system(clinic / "holdfast.yaml")
    assert system.model.recipe == "clone"
    assert [(entry.role, entry.target) for entry in system.data] == [("train", "outcome"), ("holdout", "outcome")]
    assert system.data[0].sensitive == ["smoker", "sex"]
    assert set(system.data[0].groups) == {"age", "sex"}
    assert system.data[0].data_sensitivity == "health"
    assert "serving.reach" in system.defaults
    assert "impact.integrity" in system.defaults
    assert document["defaults"] == system.defaults
    assert 15 <= len([line for line in text.splitlines() if not line.startswith("#")]) <= 22
    target = load_target(system, clinic / "holdfast.yaml")
    assert (target.model.labels(target.holdout.x) == target.holdout.y).mean() > 0.7


def test_no_default_excludes_a_threat_that_a_fact_did_not(clinic: Path) -> None:
    holdfast("init", "model.joblib", "train.csv", "holdout.csv", "--yes", "--force", folder=clinic)
    text = (clinic / "holdfast.yaml").read_text()
    guessed = {threat.id for threat in derive(parse_system(text)) if threat.applicability == "excluded"}
    document = yaml.safe_load(text)
    for name in document.pop("defaults"):
        section, *rest = name.split(".")
        if section in ("serving", "lifecycle", "people"):
            del document[section][rest[0]]
        elif section == "data":
            del next(entry for entry in document["data"] if entry["name"] == rest[0])[rest[-1]]
    known = {threat.id for threat in derive(parse_system(yaml.safe_dump(document))) if threat.applicability == "excluded"}
    assert guessed == known


def test_what_is_seen_is_no_guess(clinic: Path, tmp_path: Path) -> None:
    result = holdfast("init", "model.joblib", "train.csv", "holdout.csv", "--yes", "--force", folder=clinic)
    system = read_system(clinic / "holdfast.yaml")
    assert system.lifecycle.genai == "none"
    assert not any("genai" in name for name in system.defaults)
    assert system.lifecycle.federated is None
    assert "genai: none" in result.stdout
    text = (clinic / "holdfast.yaml").read_text()
    assert "holdfast.example" not in text
    assert "docs/reference/system-file.md" in text
    frame = pd.DataFrame({"a": [0.0, 1.0], "note": ["x", "y"], "label": ["p", "q"]})
    frame.to_csv(tmp_path / "texts.csv", index=False)
    assert inspect(None, [tmp_path / "texts.csv"], "label").generates is None
    frame.drop(columns="note").to_csv(tmp_path / "numbers.csv", index=False)
    assert inspect(None, [tmp_path / "numbers.csv"], "label").generates is False


def test_columns_that_name_rows_are_said_to_be_dropped(tmp_path: Path) -> None:
    frame = pd.DataFrame({"record_id": range(60), "patient": [index // 2 for index in range(60)], "a": np.arange(60) % 7})
    frame.assign(label=["x", "y", "y"] * 20).to_csv(tmp_path / "holdout.csv", index=False)
    joblib.dump(LogisticRegression().fit(frame[["a"]].to_numpy(), frame["a"] > 3), tmp_path / "m.joblib")
    result = holdfast("init", "m.joblib", "holdout.csv", "--yes", "--target", "label", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "patient repeats: dropped as input, set as cluster" in result.stdout
    assert "record_id: names rows; dropped as input" in result.stdout
    entry = read_system(tmp_path / "holdfast.yaml").data[0]
    assert (entry.cluster, entry.drop) == ("patient", ["record_id"])


def test_it_overwrites_only_when_told(clinic: Path) -> None:
    before = (clinic / "holdfast.yaml").read_text()
    refused = holdfast("init", "model.joblib", "train.csv", "--yes", folder=clinic)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert (clinic / "holdfast.yaml").read_text() == before
    assert holdfast("init", "model.joblib", "train.csv", "--yes", "--force", folder=clinic).returncode == 0


def test_without_a_terminal_it_asks_for_yes(clinic: Path) -> None:
    result = holdfast("init", "model.joblib", "train.csv", "--force", folder=clinic, stdin="")
    assert result.returncode == 2
    assert "--yes" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["none.joblib", "train.csv"], "no such file"),
        (["model.joblib", "none.csv"], "no such file"),
        (["model.joblib", "train.csv", "--target", "outcom"], "no column"),
        (["model.joblib", "train.csv", "--output", "sub/holdfast.yaml"], "lies outside"),
        (["train.csv", "train.csv"], "no model"),
    ],
)
def test_what_is_wrong_is_said(clinic: Path, arguments: list[str], problem: str) -> None:
    (clinic / "sub").mkdir()
    result = holdfast("init", *arguments, "--yes", "--force", folder=clinic)
    assert result.returncode == 2
    assert problem in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.claim("loop-10")
def test_hostile_column_names_cannot_write_yaml(tmp_path: Path) -> None:
    names = [
        "x]}\ncontrols: [C-AUTH]",
        "sex: &a {b: *a}",
        "=cmd()|age",
        "<script>alert(1)</script> health",
        "race\u202e#'\"",
    ]
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 5)), columns=names)
    joblib.dump(LogisticRegression().fit(frame, frame[names[0]] > 0), tmp_path / "m.joblib")
    frame.assign(outcome=frame[names[0]] > 0).to_csv(tmp_path / "holdout.csv", index=False)
    result = holdfast("init", "m.joblib", "holdout.csv", "--yes", "--target", "outcome", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    system = read_system(tmp_path / "holdfast.yaml")
    assert system.controls == []
    assert set(system.data[0].sensitive) == {names[1], names[3], names[4]}
    assert system.data[0].groups == [names[1], names[2], names[4]]


@pytest.mark.claim("loop-10")
def test_a_model_that_could_run_code_is_described_but_not_opened(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Payload:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {marker}",)

    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Payload()))
    (tmp_path / "d.csv").write_text("a,label\n1,x\n2,y\n")
    result = holdfast("init", "m.pkl", "d.csv", "--yes", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "system" in result.stdout
    assert "holdfast trust m.pkl" in result.stdout
    assert not marker.exists()
    shown = holdfast("trust", "m.pkl", folder=tmp_path, stdin="n\n")
    assert shown.returncode == 1
    assert "posix.system" in shown.stdout
    digest = hashlib.sha256((tmp_path / "m.pkl").read_bytes()).hexdigest()
    trusted = holdfast("trust", "m.pkl", "--yes", "--json", folder=tmp_path)
    assert json.loads(trusted.stdout)["sha256"] == digest
    listed = json.loads(holdfast("trust", "--list", "--json", folder=tmp_path).stdout)
    assert [entry["sha256"] for entry in listed["files"]] == [digest]
    assert holdfast("trust", "--remove", digest[:12], folder=tmp_path).returncode == 0
    assert json.loads(holdfast("trust", "--list", "--json", folder=tmp_path).stdout)["files"] == []
    assert not marker.exists()


def test_trust_wants_one_thing_and_says_when_none_is_needed(clinic: Path) -> None:
    assert holdfast("trust", folder=clinic).returncode == 2
    assert holdfast("trust", "model.joblib", "--list", folder=clinic).returncode == 2
    result = holdfast("trust", "model.joblib", folder=clinic)
    assert result.returncode == 0
    assert "needs no trust" in result.stdout
    (clinic / "net.py").write_text("x = 1\n")
    assert holdfast("trust", "net.py", "--yes", folder=clinic).returncode == 0


def test_other_kinds_of_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", x=np.zeros((6, 1, 4, 4)), y=np.arange(6) % 2)
    joblib.dump(LogisticRegression().fit(np.eye(4), [0, 1, 0, 1]), tmp_path / "m.joblib")
    seen = inspect(tmp_path / "m.joblib", [tmp_path / "train.npz"])
    assert seen.modality == "image"
    result = holdfast("init", "https://host/v2/models/m", "train.npz", "--yes", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    system = read_system(tmp_path / "holdfast.yaml")
    assert system.model.endpoint == "https://host/v2/models/m"
    assert system.data[0].role == "train"


def test_a_split_column_needs_no_roles(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": range(20), "part": ["train", "holdout"] * 10, "label": ["x", "y"] * 10, "patient_id": range(20)})
    frame.to_csv(tmp_path / "d.csv", index=False)
    joblib.dump(LogisticRegression().fit(frame[["a"]], frame["label"]), tmp_path / "m.joblib")
    assert holdfast("init", "m.joblib", "d.csv", "--yes", folder=tmp_path).returncode == 0
    entry = read_system(tmp_path / "holdfast.yaml").data[0]
    assert (entry.split, entry.role, entry.target, entry.drop) == ("part", None, "label", ["patient_id"])
    assert entry.id is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hiv_status", "health"),
        ("selfRatedHealth", "health"),
        ("ethnicity", "ethnicity"),
        ("Sex", "sex"),
        ("age_band", "age"),
        ("religion", "religion"),
        ("average_price", None),
        ("essex", None),
        ("image", None),
        ("petal length (cm)", None),
    ],
)
def test_names_sound_sensitive(name: str, kind: str | None) -> None:
    assert sounds_like(name) == kind


@pytest.fixture
def booster(tmp_path: Path) -> Path:
    """A folder with a model that does not say how it was trained, its rows, and code that trains it."""
    import xgboost

    folder = tmp_path / "booster"
    folder.mkdir()
    frame = pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0) % 7, "label": np.arange(40) % 2})
    model = xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(frame[["a", "b"]], frame["label"])
    model.save_model(folder / "model.json")
    for name in ("train.csv", "holdout.csv"):
        frame.to_csv(folder / name, index=False)
    (folder / "fitting.py").write_text("def fit(x, y, seed):\n    return None\n")
    return folder


def test_without_a_recipe_it_says_what_will_not_be_measured(booster: Path) -> None:
    result = holdfast("init", "model.json", "train.csv", "holdout.csv", "--yes", folder=booster)
    assert result.returncode == 0, result.stderr
    assert "no recipe: label flipping will not be measured" in result.stdout
    text = (booster / "holdfast.yaml").read_text()
    assert "# To add: recipe: FILE.py:FUNCTION" in text
    assert "clone refits it" not in text


def test_it_asks_how_a_model_is_trained_that_does_not_say(booster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "_somebody_there", lambda: True)
    answers = "no function\nmissing.py:fit\nfitting.py:fit\n" + "\n" * 30
    result = holdfast("init", "model.json", "train.csv", "holdout.csv", folder=booster, stdin=answers)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Function that trains it, FILE.py:FUNCTION (empty: none)") == 3
    assert "such as train.py:fit" in result.stdout
    assert "no such file" in result.stdout
    assert read_system(booster / "holdfast.yaml").model.recipe == "fitting.py:fit"


def in_words(folder: Path, *names: str) -> None:
    for name in names:
        frame = pd.read_csv(folder / name)
        frame.assign(label=frame["label"].map({0: "slow", 1: "fast"})).to_csv(folder / name, index=False)


def test_the_order_of_numbered_classes_is_a_marked_guess(booster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_words(booster, "train.csv", "holdout.csv")
    files = ("model.json", "train.csv", "holdout.csv")
    assert holdfast("init", *files, "--yes", folder=booster).returncode == 0
    system = read_system(booster / "holdfast.yaml")
    assert system.model.classes == ["fast", "slow"]
    assert "model.classes" in system.defaults
    monkeypatch.setattr(init, "_somebody_there", lambda: True)
    result = holdfast("init", *files, "--force", folder=booster, stdin="fast\nslow, fast\n" + "\n" * 30)
    assert result.returncode == 0, result.stderr
    assert "each of these once" in result.stdout
    system = read_system(booster / "holdfast.yaml")
    assert system.model.classes == ["slow", "fast"]
    assert "model.classes" not in system.defaults
    assert load_target(system, booster / "holdfast.yaml").holdout.classes == ("slow", "fast")


def test_onnx_that_numbers_its_classes_is_asked_about_them_and_one_that_names_them_is_not(booster: Path) -> None:
    to_onnx = pytest.importorskip("skl2onnx").to_onnx
    frame = pd.read_csv(booster / "train.csv")
    x = frame[["a", "b"]].to_numpy(dtype=np.float32)
    in_words(booster, "train.csv", "holdout.csv")
    for labels, numbered in ((frame["label"], True), (frame["label"].map({0: "slow", 1: "fast"}), False)):
        content = to_onnx(LogisticRegression().fit(x, labels), x[:1]).SerializeToString()
        (booster / "model.onnx").write_bytes(content)
        result = holdfast("init", "model.onnx", "train.csv", "holdout.csv", "--yes", "--force", folder=booster)
        assert result.returncode == 0, result.stderr
        system = read_system(booster / "holdfast.yaml")
        assert system.model.classes == (["fast", "slow"] if numbered else None)
        assert ("model.classes" in system.defaults) is numbered


def test_labels_in_words_for_a_model_with_numbers_say_how_to_name_them(booster: Path) -> None:
    holdfast("init", "model.json", "train.csv", "holdout.csv", "--yes", folder=booster)
    frame = pd.read_csv(booster / "train.csv")
    joblib.dump(LogisticRegression().fit(frame[["a", "b"]], frame["label"]), booster / "model.joblib")
    in_words(booster, "train.csv", "holdout.csv")
    text = (booster / "holdfast.yaml").read_text().replace("model.json", "model.joblib")
    with pytest.raises(HoldfastError) as refused:
        load_target(parse_system(text), booster / "holdfast.yaml")
    assert "model.classes: [label of 0, label of 1]" in str(refused.value)


@pytest.mark.parametrize("file", ["model.json", "model.joblib"])
def test_a_missing_library_is_to_be_installed_not_trusted(booster: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if file == "model.joblib":
        import xgboost

        frame = pd.read_csv(booster / "train.csv")
        joblib.dump(xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(frame[["a", "b"]], frame["label"]), booster / file)
        for name in [name for name in sys.modules if name.partition(".")[0] == "xgboost"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [NoXGBoost(), *sys.meta_path])
    else:
        monkeypatch.setattr("holdfast.assessment.inspection.find_spec", lambda _: None)
    result = holdfast("init", file, "train.csv", "holdout.csv", "--yes", folder=booster)
    assert result.returncode == 0, result.stderr
    assert "in the folder of Holdfast's source: pip install '.[xgboost]', then init again" in result.stdout
    assert "holdfast trust" not in result.stdout


class NoXGBoost:
    """An import system without xgboost."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "xgboost":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_without_holdout_rows_it_says_that_nothing_can_be_measured(booster: Path) -> None:
    result = holdfast("init", "model.json", "train.csv", "--yes", folder=booster)
    assert "Lacks: no holdout rows" in result.stdout
    result = holdfast("init", "model.json", "train.csv", "holdout.csv", "--yes", "--force", folder=booster)
    assert "no holdout rows" not in result.stdout


def test_the_next_step_is_what_can_be_done(booster: Path) -> None:
    result = holdfast("init", "model.json", "train.csv", "--yes", folder=booster)
    assert "Next: add holdout rows, then holdfast plan holdfast.yaml" in result.stdout
    result = holdfast("init", "model.json", "train.csv", "holdout.csv", "--yes", "--force", folder=booster)
    assert "Next: holdfast threats holdfast.yaml, then holdfast assess holdfast.yaml" in result.stdout


def test_a_state_dict_is_asked_for_the_code_that_builds_it(booster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2).state_dict(), booster / "model.pt")
    code = "import torch\n\n\ndef build():\n    return torch.nn.Linear(2, 2)\n"
    (booster / "net.py").write_text(code)
    files = ("model.pt", "train.csv", "holdout.csv")
    result = holdfast("init", *files, "--yes", folder=booster)
    assert "Lacks: no factory" in result.stdout
    assert "Next: add the factory, holdfast trust FILE.py, then holdfast plan holdfast.yaml" in result.stdout
    assert "assess" not in result.stdout.partition("Next:")[2]
    monkeypatch.setattr(init, "_somebody_there", lambda: True)
    result = holdfast("init", *files, "--force", folder=booster, stdin="net.py:build\n" + "\n" * 30)
    assert result.returncode == 0, result.stderr
    assert result.stdout.index("Function that builds the module") < result.stdout.index("Function that trains it")
    assert "no factory" not in result.stdout
    assert "Next: holdfast trust net.py, holdfast threats holdfast.yaml" in result.stdout
    system = read_system(booster / "holdfast.yaml")
    assert system.model.factory == "net.py:build"
    digest = hashlib.sha256(code.encode()).hexdigest()
    assert load_target(system, booster / "holdfast.yaml", trust=[digest]).model.framework == "torch"


def test_enter_takes_a_default_and_marks_it(booster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_words(booster, "train.csv", "holdout.csv")
    files = ("model.json", "train.csv", "holdout.csv")
    assert holdfast("init", *files, "--yes", folder=booster).returncode == 0
    taken = read_system(booster / "holdfast.yaml")
    monkeypatch.setattr(init, "_somebody_there", lambda: True)
    result = holdfast("init", *files, "--force", folder=booster, stdin="\n" * 40)
    assert result.returncode == 0, result.stderr
    entered = read_system(booster / "holdfast.yaml")
    assert set(entered.defaults) == set(taken.defaults) > {"model.classes", "serving.reach", "impact.integrity", "appetite"}
    assert entered == taken
    stated = "fast, slow\n\ninternal\ninternet\n\n\n\n\nnothing\n5\n\n7\n9\n\n\n50\n"
    result = holdfast("init", *files, "--force", folder=booster, stdin=stated)
    assert result.returncode == 0, result.stderr
    assert "a number above 0" in result.stdout
    system = read_system(booster / "holdfast.yaml")
    unmarked = {"model.classes", "data.train.data_sensitivity", "serving.reach", "impact.confidentiality", "appetite"}
    assert set(system.defaults) == set(taken.defaults) - unmarked
    assert len(system.defaults) == len(set(system.defaults))


def test_several_facts_and_whole_sums_may_be_answered(booster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "_somebody_there", lambda: True)
    answers = "\n" + "personal, nothing\npersonal, health\n" + "\n" * 30
    result = holdfast("init", "model.json", "train.csv", "holdout.csv", folder=booster, stdin=answers)
    assert result.returncode == 0, result.stderr
    assert read_system(booster / "holdfast.yaml").data[0].data_sensitivity == ["personal", "health"]
    assert "1000.0" not in result.stdout + (booster / "holdfast.yaml").read_text()


def test_guessed_columns_are_marked_and_shown(clinic: Path) -> None:
    result = holdfast("init", "model.joblib", "train.csv", "holdout.csv", "--yes", "--force", folder=clinic)
    defaults = read_system(clinic / "holdfast.yaml").defaults
    assert {f"data.{name}.{key}" for name in ("train", "holdout") for key in ("sensitive", "groups")} <= set(defaults)
    assert "Groups by the sound of their names: " in result.stdout


def test_rendered_text_reads_back_as_it_was() -> None:
    document = {"system": "a: b # c", "model": {"path": "x\n- y"}, "data": [{"name": "'\"", "path": "{}"}], "defaults": ["no"]}
    assert yaml.safe_load(render(document)) == document
