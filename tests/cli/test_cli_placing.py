"""A report never replaces what it is made from, nor anything that is no report of its kind."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from holdfast.cli.placing import alone_in, require_report, set_aside
from holdfast.core.errors import ConfigurationError
from holdfast.core.files import write_text


@pytest.mark.parametrize("kind", ["HTML", "SARIF", "JUnit", "Markdown", "comparison"])
def test_files_of_other_kinds_are_left_alone(tmp_path: Path, kind: str) -> None:
    rows = tmp_path / "train.csv"
    rows.write_text("age,outcome\n40,1\n")
    with pytest.raises(ConfigurationError, match="left alone"):
        require_report(rows, kind)
    assert rows.read_text() == "age,outcome\n40,1\n"


def test_sources_are_never_replaced_and_earlier_reports_are(tmp_path: Path) -> None:
    page, empty = tmp_path / "report.html", tmp_path / "new.html"
    page.write_text('<!doctype html><meta name="generator" content="Holdfast 0.1.0">')
    empty.touch()
    for path in (page, empty, tmp_path / "not there.html"):
        require_report(path, "HTML")
    with pytest.raises(ConfigurationError, match="never replaced"):
        require_report(page, "HTML", page)
    (tmp_path / "hard.html").hardlink_to(page)
    with pytest.raises(ConfigurationError, match="never replaced"):
        require_report(tmp_path / "hard.html", "HTML", page)
    (tmp_path / "link.html").symlink_to(page)
    with pytest.raises(ConfigurationError, match="never replaced"):
        require_report(tmp_path / "link.html", "HTML", page)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("HTML", "<!doctype html><title>my page</title>"),
        ("SARIF", '{"about": "sarif"}'),
        ("JUnit", '<testsuites><testsuite name="pytest"/></testsuites>'),
        ("Markdown", "# measured risk"),
    ],
)
def test_other_peoples_files_of_the_same_format_are_left_alone(tmp_path: Path, kind: str, content: str) -> None:
    path = tmp_path / "theirs"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="left alone"):
        require_report(path, kind)


def _write_often(folder: Path, name: str) -> None:
    for turn in range(20):
        with alone_in(folder):
            set_aside(folder / "a.json")
            write_text(folder / "a.json", f"{name} {turn}")


@pytest.mark.claim("loop-8")
def test_two_runs_at_once_lose_no_file(tmp_path: Path) -> None:
    runs = [multiprocessing.get_context("spawn").Process(target=_write_often, args=(tmp_path, name)) for name in "ab"]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert {path.read_text() for path in tmp_path.glob("a*.json")} == {f"{name} {turn}" for name in "ab" for turn in range(20)}
