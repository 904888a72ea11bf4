"""What stands where `assess` is to write: nothing of the user's is moved, and that is said before anything is measured."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli.placing import set_aside


def assess(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["assess", "--budget", "quick", "--only", "data-audit", "--workers", "1", *arguments]
    return subprocess.run(
        [sys.executable, "-m", "holdfast.cli.main", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def listing(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every path with its kind, and the content of files."""
    return {
        str(path.relative_to(folder)): (stat.S_IFMT(path.lstat().st_mode), path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


@pytest.fixture
def crowded(clinic: Path) -> Path:
    """A project with all that can be in the way."""
    (clinic / "outdir").mkdir()
    os.mkfifo(clinic / "pipe")
    (clinic / "notes.txt").write_text("mine")
    (clinic / "other.json").write_text('{"format": "mine"}')
    os.link(clinic / "holdfast.yaml", clinic / "same.yaml")
    (clinic / "holdfast-decisions.json").write_text('{"decisions": []}')
    return clinic


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--output", "--html"])
@pytest.mark.parametrize(
    "path", [".", "outdir", "pipe", "/dev/null", "model.joblib", "holdfast.yaml", "train.csv", "notes.txt/a.json", "a" * 300]
)
def test_what_is_in_the_way_is_left_alone_and_told_at_once(crowded: Path, option: str, path: str) -> None:
    before = listing(crowded)
    done = assess(crowded, option, path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert listing(crowded) == before
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["notes.txt", "other.json", "same.yaml", "holdfast-decisions.json"])
def test_only_an_assessment_gives_way_to_an_assessment(crowded: Path, path: str) -> None:
    before = listing(crowded)
    done = assess(crowded, "--output", path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert listing(crowded) == before


@pytest.mark.slow
def test_an_earlier_assessment_and_report_are_kept(clinic: Path) -> None:
    for _ in range(2):
        done = assess(clinic, "--output", "a.json", "--html", "a.html")
        assert done.returncode == 0, done.stdout + done.stderr
    assert {"a.json", "a.1.json", "a.html", "a.1.html"} <= {path.name for path in clinic.iterdir()}
    done = assess(clinic, "--output", "b.out", "--html", "b.out")
    assert done.returncode == 2
    assert not (clinic / "b.out").exists()


def test_a_file_is_set_aside_under_the_next_free_name(tmp_path: Path) -> None:
    path = tmp_path / "assessment.json"
    assert set_aside(path) is None
    for content in ("first", "second"):
        path.write_text(content)
        set_aside(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["assessment.1.json", "assessment.2.json"]
    assert (tmp_path / "assessment.1.json").read_text() == "first"


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite:////nonexistent/x.db", "postgresql://somebody:hidden-word@localhost:1/x", "nonsense"])
def test_a_history_that_fails_is_a_warning(clinic: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    monkeypatch.setenv("HOLDFAST_STORE", store)
    done = assess(clinic, "--output", "a.json", "--html", "a.html")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning: the assessment is not in the history" in done.stderr
    assert "hidden-word" not in done.stdout + done.stderr
    assert "Assessment: a.json" in done.stdout
    assert (clinic / "a.json").exists()
    assert (clinic / "a.html").exists()
