"""Every exit code of the gate, through the real command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest


def holdfast(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "holdfast.cli.main", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def assessed(made_clinic: Path) -> Path:
    """The clinic, assessed with two probes."""
    done = holdfast(
        made_clinic, "assess", "--budget", "quick", "--only", "evasion-labels", "--only", "data-audit", "--workers", "1"
    )
    assert done.returncode == 0, done.stderr
    return made_clinic


POLICIES = {
    0: "require: [T-EVA-03]\nthreats:\n  T-EVA-03: {max_success: 1.0}\n",
    1: "require: [T-EVA-03]\nthreats:\n  T-EVA-03: {max_success: 0.0}\n",
    2: "treats: {}\n",
    3: "require: measurable\n",
}


@pytest.mark.slow
@pytest.mark.claim("loop-9")
@pytest.mark.parametrize("code", POLICIES)
def test_exit_codes_of_policies(assessed: Path, code: int) -> None:
    policy = assessed / f"policy{code}.yaml"
    policy.write_text(POLICIES[code])
    done = holdfast(
        assessed,
        "gate",
        "assessment.json",
        "--policy",
        policy.name,
        "--junit",
        f"{code}.xml",
        "--sarif",
        f"{code}.sarif",
        "--json",
    )
    assert done.returncode == code, done.stdout + done.stderr
    if code != 2:
        assert json.loads(done.stdout)["code"] == code
        ET.parse(assessed / f"{code}.xml")
        assert json.loads((assessed / f"{code}.sarif").read_text())["version"] == "2.1.0"
    else:
        assert "threats" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_pass_says_what_it_did_not_judge(assessed: Path) -> None:
    (assessed / "narrow.yaml").write_text(POLICIES[0])
    done = holdfast(assessed, "gate", "assessment.json", "--policy", "narrow.yaml")
    document = json.loads((assessed / "assessment.json").read_text())
    applying = {threat["id"] for threat in document["threats"] if threat["applicability"] != "excluded"}
    measured = {name for item in document["evidence"] if item["status"] == "measured" for name in item["threats"]}
    others = len(measured & applying - {"T-EVA-03"})
    assert others > 1
    assert f"judged 1 threat; {others} measured threats not judged by this policy" in done.stdout


@pytest.mark.slow
@pytest.mark.claim("loop-9")
def test_integrity_failures_exit_with_4(assessed: Path) -> None:
    (assessed / "ok.yaml").write_text(POLICIES[0])
    text = (assessed / "assessment.json").read_text()
    (assessed / "edited.json").write_text(text.replace('"seed": 0', '"seed": 1', 1))
    assert holdfast(assessed, "gate", "edited.json", "--policy", "ok.yaml").returncode == 4
    assert holdfast(assessed, "gate", "assessment.json", "--policy", "ok.yaml", "--system", "holdfast.yaml").returncode == 0
    holdout = (assessed / "holdout.csv").read_text()
    try:
        (assessed / "holdout.csv").write_text(holdout.replace("yes", "no", 1))
        done = holdfast(assessed, "gate", "assessment.json", "--policy", "ok.yaml", "--system", "holdfast.yaml")
    finally:
        (assessed / "holdout.csv").write_text(holdout)
    assert done.returncode == 4
    assert "holdout" in done.stderr


@pytest.mark.slow
def test_history_knows_the_assessment(assessed: Path) -> None:
    entries = json.loads(holdfast(assessed, "history", "--json").stdout)
    assert entries[0]["system"] == "clinic"


def test_missing_files_are_usage_errors(tmp_path: Path) -> None:
    done = holdfast(tmp_path, "gate", "nowhere.json", "--policy", "nowhere.yaml")
    assert done.returncode == 2
    assert "nowhere.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_command_and_needs_no_heavy_library(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom holdfast.cli.main import build\nbuild()\n"
        "heavy = {'numpy', 'pandas', 'scipy', 'sklearn', 'torch', 'pydantic', 'sqlalchemy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
