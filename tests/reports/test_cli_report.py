from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from report_builders import make_comparison
from typer.testing import CliRunner

from holdfast.assessment.document import Assessment
from holdfast.cli import report
from holdfast.core.errors import ConfigurationError, IntegrityFailure

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


@pytest.mark.parametrize("content", ["", "[]", "{}", "\x00", '{"format": "holdfast-assessment/99"}'])
def test_something_else_is_refused(app: typer.Typer, tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content, encoding="utf-8")
    done = RUNNER.invoke(app, ["report", str(path)])
    assert isinstance(done.exception, ConfigurationError)
