"""The example package: its probe is found through the entry point of an installed distribution, runs, and can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "examples" / "probe_package"


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which the package is installed the way pip records it: metadata with entry points on the path."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"]
    lines = [
        line
        for group, points in groups.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(info.parent), str(PACKAGE / "src")]), "CI": "1"}


@pytest.mark.slow
def test_the_probe_is_planned_run_and_counted(clinic: Path, installed: dict[str, str]) -> None:
    command = [sys.executable, "-m", "holdfast.cli.main", "assess", "--only", "over-reliance", "--budget", "quick", "--json"]
    done = subprocess.run(command, cwd=clinic, env=installed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assessment = json.loads(done.stdout)
    (evidence,) = assessment["evidence"]
    assert evidence["status"] == "measured"
    share = evidence["metrics"][0]
    assert share["trials"] == len(evidence["rows"]) >= 20
    assert share["successes"] == sum(row["capability"] is not None for row in evidence["rows"])
    assert 0 < share["low"] < share["value"] < share["high"] <= 1
    assert "T-ETH-02" in assessment["measurable"]
    assert {risk["state"] for risk in assessment["register"]["risks"] if risk["threat"] == "T-ETH-02"} == {"measured"}


def test_without_the_package_the_probe_is_unknown(clinic: Path) -> None:
    command = [sys.executable, "-m", "holdfast.cli.main", "assess", "--only", "over-reliance"]
    done = subprocess.run(command, cwd=clinic, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "over-reliance" in done.stderr
