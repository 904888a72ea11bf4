"""The tutorial's own commands, run in order in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()


def blocks(language: str) -> list[str]:
    """The page's code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_every_command_of_the_tutorial_works(tmp_path: Path) -> None:
    (script,) = blocks("python")
    (policy,) = blocks("yaml")
    (tmp_path / "train.py").write_text(script)
    (tmp_path / "policy.yaml").write_text(policy)
    environment = {**os.environ, "CI": "1", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True)
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("holdfast ")]
    assert len(commands) >= 12
    for command in commands:
        arguments = [sys.executable, "-m", "holdfast.cli.main", *shlex.split(command)[1:]]
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
