from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from report_builders import make_comparison
from typer.testing import CliRunner

from holdfast.assessment.document import Assessment
from holdfast.cli import compare, decide, harden, report
from holdfast.core.errors import ConfigurationError, IntegrityFailure
from holdfast.hardening.retraining import Choice, Tried

RUNNER = CliRunner()


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.callback()(lambda: None)
    report.register(made)
    return made


@pytest.fixture
def file(assessment: Assessment, tmp_path: Path) -> Path:
    path = tmp_path / "assessment.json"
    path.write_text(assessment.model_dump_json(), encoding="utf-8")
    return path


@pytest.mark.claim("loop-9")
def test_each_format_is_written_whole(app: typer.Typer, file: Path, tmp_path: Path) -> None:
    comparison = tmp_path / "comparison.json"
    comparison.write_text(make_comparison().model_dump_json(), encoding="utf-8")
    wanted = {"html": "out/r.html", "sarif": "r.sarif", "junit": "r.xml", "markdown": "r.md"}
    options = [part for name, path in wanted.items() for part in (f"--{name}", str(tmp_path / path))]
    done = RUNNER.invoke(app, ["report", str(file), *options, "--compare", str(comparison), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["written"] == {name: str(tmp_path / path) for name, path in wanted.items()}
    starts = {"html": "<!doctype html>", "sarif": "{", "junit": "<?xml", "markdown": "## Measured risk"}
    for name, path in wanted.items():
        assert (tmp_path / path).read_text(encoding="utf-8").startswith(starts[name])
    assert "Before and after" in (tmp_path / "out/r.html").read_text(encoding="utf-8")
    assert not list(tmp_path.rglob("*.part"))


def test_without_a_format_a_summary_is_printed(app: typer.Typer, file: Path) -> None:
    done = RUNNER.invoke(app, ["report", str(file)])
    assert done.exit_code == 0
    assert "Not measured (41)" in done.output


def test_an_edited_assessment_is_refused(app: typer.Typer, file: Path) -> None:
    file.write_text(file.read_text(encoding="utf-8").replace('"budget":"standard"', '"budget":"thorough"'), encoding="utf-8")
    done = RUNNER.invoke(app, ["report", str(file)])
    assert isinstance(done.exception, IntegrityFailure)


def test_a_system_file_is_recognised(app: typer.Typer, tmp_path: Path) -> None:
    path = tmp_path / "holdfast.yaml"
    path.write_text("system: s\n", encoding="utf-8")
    done = RUNNER.invoke(app, ["report", str(path)])
    assert isinstance(done.exception, ConfigurationError)
    assert "looks like a system file" in str(done.exception)


@pytest.mark.parametrize("named", ["T-EVA-02", "t-eva-02", "T-EVA-02:nobody"])
def test_deciding_by_threat_lists_its_risks(app: typer.Typer, assessment: Assessment, file: Path, named: str) -> None:
    decide.register(app)
    when = ["--who", "me", "--until", "2099-01-01", "--assessment", str(file)]
    done = RUNNER.invoke(app, ["decide", named, "accept", *when])
    assert isinstance(done.exception, ConfigurationError)
    wanted = [risk.id for risk in assessment.register.risks if risk.threat == "T-EVA-02"]
    assert len(wanted) == 2
    assert done.exception.hint is not None
    assert done.exception.hint.endswith(", ".join(wanted))


def test_output_has_a_short_form(app: typer.Typer) -> None:
    compare.register(app)
    harden.register(app)
    for command in (["compare"], ["harden", "answers"], ["harden", "retrain"]):
        assert "-o" in RUNNER.invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).output.split()


def test_the_table_of_strengths_says_what_decided(capsys: pytest.CaptureFixture[str]) -> None:
    tried = tuple(Tried(strength=strength, utility=0.8, spread=0.01, recall=0.7) for strength in (None, 5.0))
    harden._show_choice(Choice(settings={"leaf": 5}, strength=5.0, measure="AUC", tried=tried), 0.005)
    assert "Decided by AUC: the strongest within 0.005 of the best AUC" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("content", ["", "[]", "{}", "\x00", '{"format": "holdfast-assessment/99"}'])
def test_something_else_is_refused(app: typer.Typer, tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content, encoding="utf-8")
    done = RUNNER.invoke(app, ["report", str(path)])
    assert isinstance(done.exception, ConfigurationError)
