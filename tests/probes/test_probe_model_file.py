from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from holdfast.artifacts import checking
from holdfast.assessment.gate import upper_bound
from holdfast.core.errors import NotApplicable
from holdfast.core.evidence import Evidence
from holdfast.core.probe import BUDGETS, Probe
from holdfast.core.progress import Silent
from holdfast.core.target import Target
from holdfast.probes import model_file
from holdfast.probes.file_zoo import malicious_files
from holdfast.probes.model_file import OWN, UnsafeModelFile


def run(path: Path | None) -> Evidence:
    target = Target(name="t", model=None, modality="tabular", holdout=None, model_path=path)  # type: ignore[arg-type]
    return UnsafeModelFile().run(target, BUDGETS["quick"], 0, Silent())


class Touch:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def clean(tmp_path):
    path = tmp_path / "model.joblib"
    joblib.dump(LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True)), path)
    return path


@pytest.mark.claim("loop-10")
def test_no_malicious_file_passes_and_no_benign_file_is_refused(clean):
    assert isinstance(UnsafeModelFile(), Probe)
    evidence = run(clean)
    assert [row.unit for row in evidence.rows if row.success] == []
    assert evidence.metric("malicious files refused").trials >= 90
    assert evidence.metric("false alarms on benign files").successes == 0
    assert evidence.metric("false alarms on benign files").trials >= 80
    assert any("LogisticRegression" in line for line in evidence.findings)
    assert evidence == run(clean)


@pytest.mark.claim("loop-10")
def test_an_own_file_that_runs_unlisted_code_decides_alone(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(Touch(marker)))
    evidence = run(path)
    (own,) = evidence.rows
    assert (own.unit, own.capability) == (OWN, 1.0)
    assert upper_bound(evidence) == 1.0
    assert evidence.metric("malicious files refused").trials >= 90
    assert "posix.system" in evidence.findings[0]
    assert not marker.exists()


def test_a_check_that_lets_everything_pass_turns_the_probe_red(clean, monkeypatch):
    monkeypatch.setattr(checking, "_judge", lambda kind, data, source: ((), ()))
    evidence = run(clean)
    assert sum(row.success for row in evidence.rows) == len(evidence.rows) - 1
    assert any("let a malicious file pass" in line for line in evidence.findings)


def test_a_check_that_refuses_everything_shows_as_false_alarms(clean, monkeypatch):
    real = checking.check_file
    monkeypatch.setattr(
        model_file, "check_file", lambda path, trusted=(): real(clean if path == clean else clean.parent / "none")
    )
    assert run(clean).metric("false alarms on benign files").value == 1.0


def test_a_check_that_opens_files_is_caught_by_the_marker(clean, monkeypatch):
    benign = list(model_file.benign_files())

    def opening(path, trusted=()):
        try:
            with path.open("rb") as file:
                pickle.load(file)
        except Exception:
            pass
        return checking.check_file(path, trusted)

    monkeypatch.setattr(model_file, "check_file", opening)
    monkeypatch.setattr(
        model_file, "malicious_files", lambda marker: [f for f in malicious_files(marker) if "posix.system" in f.technique]
    )
    monkeypatch.setattr(model_file, "benign_files", lambda: benign[:1])
    assert [row.unit for row in run(clean).rows if row.success] == ["calls posix.system"]


def test_a_model_without_a_file_is_not_applicable():
    with pytest.raises(NotApplicable):
        run(None)


OPEN_ALL = """
import joblib, json, numpy, pathlib, subprocess, sys, warnings
warnings.simplefilter("ignore")
folder, marker = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
fired = {}
for path in sorted(folder.iterdir()):
    try:
        numpy.load(path, allow_pickle=True) if path.suffix == ".npy" else joblib.load(path)
    except BaseException:
        pass
    for process in subprocess._active + []:
        process.wait()
    fired[path.stem] = marker.exists()
    marker.unlink(missing_ok=True)
print(json.dumps(fired))
"""


@pytest.mark.slow
def test_the_payloads_would_work_where_nothing_checks(tmp_path):
    """An attack that does not work proves nothing: in a process of their own, opened by the ordinary loaders, payloads fire."""
    marker, folder = tmp_path / "marker", tmp_path / "zoo"
    folder.mkdir()
    wanted = ("posix.system", "builtins.eval", "opcodes", "gzip", "bz2", "attribute", "object array", "rubbish", "end is missing")
    techniques = {}
    for place, file in enumerate(malicious_files(marker)):
        if any(word in file.technique for word in wanted) and "two gzip" not in file.technique:
            techniques[f"{place:03d}"] = file.technique
            (folder / f"{place:03d}{Path(file.name).suffix}").write_bytes(file.content)
    command = [sys.executable, "-c", OPEN_ALL, str(folder), str(marker)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    fired = {techniques[place]: hit for place, hit in json.loads(done.stdout.splitlines()[-1]).items()}
    assert sum(fired.values()) >= 0.6 * len(fired) >= 12, fired
