"""A model file that ends the process which opens it is one clear error of the command, and never its end."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.assessment.rehearsal import rehearse
from holdfast.assessment.surroundings import state_folder
from holdfast.threats.reader import read_system


class Deadly:
    """Opens into the end of the process; a trusted file may do so, and so may a forgery that no check knows."""

    def __reduce__(self) -> Any:
        return os.kill, (0, signal.SIGSEGV)


@pytest.mark.slow
@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("command", [["plan"], ["assess", "--budget", "quick", "-o", "out.json"], ["harden", "retrain"]])
def test_a_file_that_kills_its_reader_is_a_clear_error(clinic: Path, command: list[str]) -> None:
    forged = pickle.dumps(Deadly())
    (clinic / "model.joblib").write_bytes(forged)
    trust = ["--trust", hashlib.sha256(forged).hexdigest()]
    ended = subprocess.run(
        [sys.executable, "-m", "holdfast.cli.main", *command, *trust], cwd=clinic, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2, ended.stderr
    assert "SIGSEGV" in ended.stderr
    assert "model.joblib" in ended.stderr


@pytest.mark.slow
def test_an_honest_file_is_opened_ahead_once(clinic: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    system = clinic / "holdfast.yaml"
    rehearse(read_system(system), system)
    assert len(list((state_folder() / "opened").iterdir())) == 1
    monkeypatch.setattr("holdfast.assessment.rehearsal.LocalEngine", None)
    rehearse(read_system(system), system)


def test_a_file_that_does_not_load_is_left_to_who_says_it_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    broken = tmp_path / "model.pkl"
    broken.write_bytes(pickle.dumps({"no": "model"}))
    system = tmp_path / "holdfast.yaml"
    system.write_text("system: none\nmodel: {path: model.pkl, task: classification}\n")
    rehearse(read_system(system), system)
    assert not (state_folder() / "opened").exists()
