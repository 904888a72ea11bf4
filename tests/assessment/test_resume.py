"""A run that is killed in the middle of each probe, and resumed each time, gives the same assessment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.assessment.plan import probes_by_name
from holdfast.assessment.run import assess, prepare
from holdfast.core import registry

KILLED_RUN = """
import os, signal, sys, threading
from pathlib import Path
from holdfast.assessment.run import prepare

wanted = int(sys.argv[2])
run = prepare(Path(sys.argv[1]), budget="quick", seed=7, workers=1)
already = sum(planned.state != "runs" for planned in run.plan.probes)


class Watcher:
    def advance(self, task, done, total):
        pass


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def done(name, evidence):
    if len(run.evidence) - already == wanted:
        threading.Timer(0.05, kill).start()


if wanted == 0:
    threading.Timer(1.0, kill).start()
run.measure(resume=True, workers=1, progress=Watcher(), on_done=done)
"""

TIMES = {"created", "seconds", "seal", "cpu_seconds"}


def without_times(value):
    """The document without what may differ between two runs."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.claim("loop-8")
def test_killed_in_the_middle_of_each_probe_and_resumed(clinic: Path) -> None:
    system = clinic / "holdfast.yaml"
    script = clinic / "killed_run.py"
    script.write_text(KILLED_RUN)
    run = prepare(system, budget="quick", seed=7, workers=1)
    running = [planned.name for planned in run.plan.probes if planned.state == "runs"]
    assert len(running) >= 8
    for finished in range(len(running)):
        killed = subprocess.run([sys.executable, str(script), str(system), str(finished)], check=False, env={**os.environ})
        assert killed.returncode == -signal.SIGKILL
        kept = len(list(run.folder.glob("*.json")))
        assert finished <= kept <= finished + 1, f"{kept} kept after a kill in the middle of probe {finished + 1}"
    resumed = assess(system, budget="quick", seed=7, workers=1, resume=True)
    fresh = assess(system, budget="quick", seed=7, workers=2)
    assert {item.probe for item in fresh.evidence} == {probe.id for probe in probes_by_name().values()}
    assert without_times(json.loads(resumed.model_dump_json())) == without_times(json.loads(fresh.model_dump_json()))


@pytest.mark.slow
def test_evidence_of_other_data_is_never_taken_up(clinic: Path) -> None:
    system = clinic / "holdfast.yaml"
    first = prepare(system, budget="quick", only=["data-audit"])
    first.measure()
    holdout = clinic / "holdout.csv"
    holdout.write_text(holdout.read_text().replace(",yes,", ",no,", 1))
    assert prepare(system, budget="quick", only=["data-audit"]).folder != first.folder


@pytest.mark.slow
def test_evidence_of_another_system_file_or_plug_in_is_never_taken_up(clinic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = clinic / "holdfast.yaml"
    described = system.read_text()

    def folder() -> Path:
        return prepare(system, budget="quick", only=["data-audit"]).folder

    first = folder()
    for old, new in (("high: 100}", "high: 101}"), ("retrain: scheduled", "retrain: never"), ("affects_people: direct, ", "")):
        assert old in described
        system.write_text(described.replace(old, new))
        assert folder() != first
    system.write_text(described)
    assert folder() == first
    monkeypatch.setattr(registry, "distributions", lambda _: {"data-audit": "holdfast 999"})
    assert folder() != first


def _heed_ctrl_c() -> None:
    """A shell's background job ignores SIGINT, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_measured_and_says_how_to_go_on(clinic: Path) -> None:
    command = [sys.executable, "-m", "holdfast.cli.main", "assess", "--budget", "quick", "--workers", "1"]
    process = subprocess.Popen(
        command,
        cwd=clinic,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CI": "1"},
        preexec_fn=_heed_ctrl_c,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "[3/" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait() == 130
    assert "--resume" in rest
    resumed = subprocess.run(
        [*command, "--resume"], cwd=clinic, capture_output=True, text=True, check=False, env={**os.environ, "CI": "1"}
    )
    assert resumed.returncode == 0, resumed.stderr
    assert (clinic / "assessment.json").exists()
