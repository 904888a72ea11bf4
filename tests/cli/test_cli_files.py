"""A pipe, a folder or a device in the place of a file is one clear error in every command, and none waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = {
    "gate, assessment": "gate PIPE --policy policy.yaml",
    "compare": "compare PIPE PIPE",
    "report": "report PIPE",
    "decisions": "decisions --assessment PIPE --system holdfast.yaml",
    "decisions, beside a system file": "decisions --assessment assessment.json --system folder/holdfast.yaml",
    "assess": "assess PIPE",
    "threats": "threats PIPE",
    "init, model": "init PIPE data.csv --yes --output new.yaml",
    "init, data": "init model.joblib PIPE --yes --output new.yaml",
    "trust, model": "trust PIPE",
    "trust, code": "trust PIPE.py",
    "harden": "harden answers PIPE",
}

FIELDS = ("id", "risk", "who", "model_digest", "data_digest", "made")
DECISION = {**dict.fromkeys(FIELDS, "x"), "choice": "accept", "until": "2999-01-01"}


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_pipe_is_refused_at_once(tmp_path: Path, command: str) -> None:
    for name in ("PIPE", "PIPE.py"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "holdfast-decisions.json")
    (tmp_path / "holdfast-decisions.json").write_text(json.dumps({"decisions": [DECISION]}))
    for name in ("policy.yaml", "assessment.json", "model.joblib", "holdfast.yaml"):
        (tmp_path / name).write_text("")
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    done = subprocess.run(
        [sys.executable, "-m", "holdfast.cli.main", *command.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "not a file" in done.stderr
