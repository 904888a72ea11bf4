from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_classification
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from holdfast.assessment.loading import load_target
from holdfast.core.oracle import Access
from holdfast.threats.reader import read_system

SYSTEM = """# a ward's model
system: triage
model: {path: model.joblib, task: classification, artifact_format: joblib, recipe: clone}   # from May
data:
  - {name: train, path: train.csv, role: train, target: y}
  - {name: holdout, path: holdout.csv, role: holdout, target: y}
serving: {reach: internal, returns: scores}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ward")
    x, y = make_classification(500, 6, n_informative=4, flip_y=0.3, random_state=0)
    frame = pd.DataFrame(x, columns=list("abcdef")).assign(y=np.array(["home", "stay"])[y])
    frame[:300].to_csv(folder / "train.csv", index=False)
    frame[300:].to_csv(folder / "holdout.csv", index=False)
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)).fit(
        frame[:300][list("abcdef")], frame[:300].y
    )
    joblib.dump(model, folder / "model.joblib")
    (folder / "holdfast.yaml").write_text(SYSTEM)
    return folder


def holdfast(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from holdfast.cli import harden; import typer; from holdfast.cli import main as m\n" + (
        "app = typer.Typer(); app.callback()(lambda: None); harden.register(app)\nm.build = lambda: app\nm.main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "harden", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_answers_are_hardened_in_a_file_beside_the_old_one(folder):
    done = holdfast(folder, "answers", "--mode", "label", "--output", "label.yaml")
    assert done.returncode == 0, done.stderr
    text = (folder / "label.yaml").read_text()
    assert text.startswith("# Written by holdfast harden")
    assert "# from May" in text
    system = read_system(folder / "label.yaml")
    assert (system.serving.answers, system.controls) == ("label", ["C-OBSCURE"])
    target = load_target(system, folder / "label.yaml")
    assert (target.model.access, target.weights.access) == (Access.LABELS, Access.SCORES)
    assert (folder / "holdfast.yaml").read_text() == SYSTEM
    again = holdfast(folder, "answers", "--mode", "round=2", "--output", "label.yaml", "--json")
    assert json.loads(again.stdout)["answers"] == {"round": 2}


def test_retraining_writes_a_model_and_a_system_that_load(folder):
    before = (folder / "model.joblib").read_bytes()
    done = holdfast(folder, "retrain", "holdfast.yaml", "--output", "small.yaml", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    system = read_system(folder / "small.yaml")
    assert system.model.path == "model-small.joblib"
    assert system.controls == ["C-SMALL"]
    target = load_target(system, folder / "small.yaml")
    leaf = target.model.estimator.get_params()["decisiontreeclassifier__min_samples_leaf"]
    assert leaf == said["strength"] > 1
    assert said["settings"] == {"decisiontreeclassifier__min_samples_leaf": leaf}
    old = load_target(read_system(folder / "holdfast.yaml"), folder / "holdfast.yaml")
    assert old.digests["holdout"] == target.digests["holdout"]
    assert old.digests["model"] != target.digests["model"]
    assert (folder / "model.joblib").read_bytes() == before
    given = holdfast(folder, "retrain", "--leaf", "30", "--output", "thirty.yaml", "--json")
    assert json.loads(given.stdout)["strength"] == 30


def test_a_model_that_retraining_did_not_write_is_left_alone(folder):
    mine = folder / "model-mine.joblib"
    mine.write_bytes(b"mine")
    done = holdfast(folder, "retrain", "--leaf", "30", "--output", "mine.yaml")
    assert (done.returncode, mine.read_bytes()) == (2, b"mine")
    assert "did not write it" in done.stderr
    assert not (folder / "mine.yaml").exists()
    for arguments in (("--force",), ()):
        done = holdfast(folder, "retrain", "--leaf", "30", "--output", "mine.yaml", *arguments)
        assert done.returncode == 0, done.stderr
        assert mine.read_bytes() != b"mine"


def test_nothing_is_written_before_the_new_system_file_reads(folder, monkeypatch):
    from holdfast.cli import harden
    from holdfast.core.errors import ConfigurationError

    monkeypatch.setattr(harden, "_revised", lambda *_: f"{harden.MARK}\nno: system\n")
    files = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(ConfigurationError):
        harden.retrain(folder / "holdfast.yaml", strength="30", output=folder / "broken.yaml")
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == files


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("answers", "--mode", "labels"), "unknown mode"),
        (("answers", "--mode", "round=0"), "between 1 and"),
        (("answers", "--output", "holdfast.yaml"), "never overwritten"),
        (("answers", "--output", "../out.yaml"), "beside the old one"),
        (("answers", "--output", "train.csv"), "did not write it"),
        (("answers", "absent.yaml"), "absent.yaml"),
        (("retrain", "--leaf", "many"), "neither a number"),
        (("retrain", "--leaf", "-3"), "not positive"),
    ],
)
def test_mistakes_end_with_one_clear_message(folder, arguments, words):
    files = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    done = holdfast(folder, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == files
