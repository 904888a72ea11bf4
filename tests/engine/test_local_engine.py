"""The engine keeps its promises when workers answer, fail, chatter, die, or cannot start."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.core.progress import Silent
from holdfast.engine.local import LocalEngine, WorkerError

SESSION = """
import os, sys, time

class Session:
    def __init__(self, offset):
        if offset < 0:
            raise ValueError("offset")
        self.offset = offset

    def __call__(self, job, progress):
        print("noise on stdout that must not disturb the conversation")
        progress.advance(job["id"], 1, 1)
        if job["what"] == "die":
            os.kill(os.getpid(), 9)
        if job["what"] == "raise":
            raise RuntimeError("went wrong")
        if job["what"] == "sleep":
            open(job["marker"], "w").write(str(os.getpid()))
            time.sleep(60)
        if job["what"] in ("child, then sleep", "child, then die"):
            child = os.fork() or time.sleep(60)
            open(job["marker"], "w").write(str(child))
            progress.advance("child", 1, 1)
            if job["what"].endswith("die"):
                os.kill(os.getpid(), 9)
            time.sleep(60)
        if job["what"] == "threads":
            return os.environ["OMP_NUM_THREADS"]
        return job["value"] + self.offset
"""


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "engine_session.py").write_text(SESSION)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "engine_session:Session"


def test_every_job_gets_its_own_result(session: str) -> None:
    jobs = [{"id": f"j{n}", "what": "add", "value": n} for n in range(7)]
    results = {result.job: result for result in LocalEngine(session, {"offset": 100}, workers=3).run(jobs, Silent())}
    assert {job: result.result for job, result in results.items()} == {f"j{n}": n + 100 for n in range(7)}


def test_an_error_or_a_death_takes_only_its_own_job(session: str, tmp_path: Path) -> None:
    jobs = [
        {"id": "dies", "what": "die", "value": 0},
        {"id": "raises", "what": "raise", "value": 0},
        {"id": "first", "what": "add", "value": 1},
        {"id": "second", "what": "add", "value": 2},
    ]
    engine = LocalEngine(session, {"offset": 0}, workers=1, log=tmp_path / "log")
    results = {result.job: result for result in engine.run(jobs, Silent())}
    assert results["first"].result == 1
    assert results["second"].result == 2
    assert "SIGKILL" in str(results["dies"].error)
    assert "RuntimeError" in str(results["raises"].error)
    assert "went wrong" not in str(results["raises"].error)
    assert "went wrong" in (tmp_path / "log").read_text()
    assert "noise on stdout" in (tmp_path / "log").read_text()


def test_progress_is_forwarded(session: str) -> None:
    seen: list[tuple[str, int, int]] = []

    class Recorder:
        def advance(self, task: str, done: int, total: int) -> None:
            seen.append((task, done, total))

    list(LocalEngine(session, {"offset": 0}, workers=1).run([{"id": "a", "what": "add", "value": 1}], Recorder()))
    assert seen == [("a: a", 1, 1)]


def test_a_session_that_cannot_start_is_one_clear_error(session: str) -> None:
    with pytest.raises(WorkerError, match="ValueError"):
        list(LocalEngine(session, {"offset": -1}, workers=2).run([{"id": "a", "what": "add", "value": 1}], Silent()))


def test_workers_compute_on_one_thread(session: str) -> None:
    (result,) = LocalEngine(session, {"offset": 0}, workers=1).run([{"id": "a", "what": "threads"}], Silent())
    assert result.result == "1"


def test_nothing_is_imported_from_the_current_folder(session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "json.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom nowhere import nothing\n")
    monkeypatch.chdir(project)
    (result,) = LocalEngine(session, {"offset": 1}, workers=1).run([{"id": "a", "what": "add", "value": 1}], Silent())
    assert result.result == 2
    assert not (tmp_path / "ran").exists()


def test_no_jobs_start_no_workers() -> None:
    assert list(LocalEngine("missing:Session", {}, workers=2).run([], Silent())) == []


class Interrupted:
    """Ends the run as Ctrl-C does, once the job has started a child."""

    def advance(self, task: str, done: int, total: int) -> None:
        if task.endswith("child"):
            raise KeyboardInterrupt


def test_what_a_worker_started_ends_with_an_interrupted_run(session: str, tmp_path: Path) -> None:
    job = {"id": "a", "what": "child, then sleep", "marker": str(tmp_path / "pid")}
    with pytest.raises(KeyboardInterrupt):
        list(LocalEngine(session, {"offset": 0}, workers=1).run([job], Interrupted()))
    child = int((tmp_path / "pid").read_text())
    assert _wait_for(lambda: True if not _alive(child) else None)


def test_a_worker_that_dies_is_noticed_although_what_it_started_holds_its_output_open(session: str, tmp_path: Path) -> None:
    job = {"id": "a", "what": "child, then die", "marker": str(tmp_path / "pid")}
    (result,) = LocalEngine(session, {"offset": 0}, workers=1).run([job], Silent())
    assert "SIGKILL" in str(result.error)
    child = int((tmp_path / "pid").read_text())
    assert _wait_for(lambda: True if not _alive(child) else None)


@pytest.mark.parametrize("what", ["sleep", "child, then sleep"])
def test_a_worker_ends_when_its_parent_is_killed(session: str, tmp_path: Path, what: str) -> None:
    marker = tmp_path / "pid"
    script = (
        "from holdfast.engine.local import LocalEngine\n"
        "from holdfast.core.progress import Silent\n"
        f"job = {json.dumps({'id': 'a', 'what': what, 'value': 0, 'marker': str(marker)})}\n"
        f"list(LocalEngine({session!r}, {{'offset': 0}}, workers=1).run([job], Silent()))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    worker = _wait_for(lambda: int(marker.read_text()) if marker.exists() and marker.read_text() else None)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert _wait_for(lambda: True if not _alive(worker) else None)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(found, attempts: int = 400):
    for _ in range(attempts):
        value = found()
        if value is not None:
            return value
        time.sleep(0.05)
    raise AssertionError("it never happened")


def test_a_workers_own_children_import_nothing_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models start processes of their own, such as joblib's; what keeps them out is in the environment, which is inherited."""
    modules, project = tmp_path / "modules", tmp_path / "project"
    modules.mkdir()
    project.mkdir()
    (modules / "parent_session.py").write_text(
        "import json, subprocess, sys\n"
        "class Session:\n"
        "    def __call__(self, job, progress):\n"
        "        code = 'import json, statistics; print(json.dumps(json.__file__))'\n"
        "        child = [sys.executable, '-c', code]\n"
        "        return json.loads(subprocess.run(child, capture_output=True, text=True, check=True).stdout)\n"
    )
    for name in ("json", "statistics"):
        (project / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom nowhere import nothing\n")
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.chdir(project)
    (result,) = LocalEngine("parent_session:Session", {}, workers=1, log=tmp_path / "log").run([{"id": "a"}], Silent())
    assert result.error is None, (tmp_path / "log").read_text()
    assert not str(result.result).startswith(str(project))
    assert not (tmp_path / "ran").exists()
