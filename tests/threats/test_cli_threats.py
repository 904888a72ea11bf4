"""The commands `threats` and `schema`, as they are run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from holdfast.threats.derivation import derive
from holdfast.threats.reader import read_system
from holdfast.threats.schema import system_schema

HERE = Path(__file__).parent
HOSPITAL = str(HERE / "hospital.yaml")


def run(*arguments: str, cwd: Path | None = None, columns: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "FORCE_COLOR")}
    if columns:
        environment["COLUMNS"] = columns
    command = [sys.executable, "-m", "holdfast.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.mark.claim("loop-3")
def test_the_list_is_in_order_and_fits_100_columns() -> None:
    result = run("threats", HOSPITAL)
    assert result.returncode == 0, result.stderr
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) <= 100
    text = result.stdout
    assert "35 threats apply, 2 are unknown for want of a fact, 18 are excluded" in " ".join(text.split())
    assert text.index("\nApplies") < text.index("T-PRI-01") < text.index("\nUnknown") < text.index("T-EVA-01")
    assert text.index("T-EVA-01") < text.index("\nExcluded") < text.index("T-GEN-01")
    assert text.count("\nT-") == 55
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("columns", ["60", "80"])
def test_narrow_terminals_keep_every_word_of_the_reason(columns: str) -> None:
    result = run("threats", HOSPITAL, columns=columns)
    assert result.returncode == 0, result.stderr
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) <= int(columns)
    shown = Counter(result.stdout.split())
    told = Counter(word for threat in derive(read_system(Path(HOSPITAL))) for word in threat.because.partition(": ")[2].split())
    assert told
    assert not told - shown


def test_everything_about_each_threat() -> None:
    result = run("threats", HOSPITAL, "--all")
    assert result.returncode == 0
    for part in ("An API user searches", "AML.T0043.001", "OWASP ML01:2023", "P-EVA-SCORE", "C-OBSCURE", "AI Exchange"):
        assert part in result.stdout


def test_json_and_default_file(tmp_path: Path) -> None:
    (tmp_path / "holdfast.yaml").write_text(Path(HOSPITAL).read_text())
    result = run("threats", "--json", cwd=tmp_path)
    document = json.loads(result.stdout)
    assert document["system"] == "treatment-recommender"
    assert len(document["threats"]) == 55


def test_files_are_written(tmp_path: Path) -> None:
    for form, begins in (("otm", "{"), ("markdown", "# Threat model"), ("text", "treatment-recommender: 35")):
        path = tmp_path / f"out.{form}"
        result = run("threats", HOSPITAL, "--format", form, "--output", str(path))
        assert result.returncode == 0, result.stderr
        assert result.stdout == ""
        assert path.read_text(encoding="utf-8").startswith(begins)


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"system: caf\xe9\n", "not UTF-8"),
        (b"a: &a [x]\nb: [" + b", ".join([b"*a"] * 50) + b"]\n", "anchors are used more than 20 times"),
        (b"system: s\nmodel: !!python/object/apply:os.system ['touch marker']\n", "tag"),
        (b"system: s\nmodel: {path: m}\nservng: {}\n", "Did you mean serving?"),
        (b"system: '[bold red]x'\nmodel: {path: m}\nservng: '[red]'\n", "unknown key 'servng'"),
    ],
)
def test_hostile_files_end_with_one_clear_message_and_2(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "holdfast.yaml"
    path.write_bytes(content)
    result = run("threats", "holdfast.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("holdfast: holdfast.yaml")
    assert os.listdir(tmp_path) == ["holdfast.yaml"]  # noqa: PTH208


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.yaml"
    path.write_text("system: '[bold red]x[/nonsense]'\nmodel: {path: m}\n")
    result = run("threats", str(path))
    assert result.returncode == 0
    assert result.stdout.startswith("[bold red]x[/nonsense]: ")


def test_atlas_exit_codes(tmp_path: Path) -> None:
    path = tmp_path / "ATLAS.yaml"
    path.write_text("version: 9.9.9\nmatrices: [{techniques: [{id: AML.T0020, name: Training Data Poisoning}]}]\n")
    result = run("threats", "--atlas", str(path), cwd=tmp_path)
    assert result.returncode == 1
    assert "MITRE ATLAS 9.9.9: 1 techniques" in result.stdout
    assert "vanished  AML.T0058 Publish Poisoned Models" in result.stdout
    assert "renamed   AML.T0020 Poison Training Data -> Training Data Poisoning" in result.stdout
    document = json.loads(run("threats", "--atlas", str(path), "--json", cwd=tmp_path).stdout)
    assert document["unchanged"] is False
    assert document["renamed"][0]["id"] == "AML.T0020"
    assert run("threats", "--atlas", "nothing.yaml", cwd=tmp_path).returncode == 2


def test_options_that_exclude_each_other() -> None:
    result = run("threats", HOSPITAL, "--json", "--format", "otm")
    assert result.returncode == 2
    assert "exclude each other" in result.stderr


def test_schemas(tmp_path: Path) -> None:
    assert json.loads(run("schema", "system").stdout) == system_schema()
    written = tmp_path / "s.json"
    assert run("schema", "assessment", "--output", str(written)).returncode == 0
    document = json.loads(written.read_text())
    assert "register" in document["required"]
    assert run("schema", "nothing").returncode == 2
