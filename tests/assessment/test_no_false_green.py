"""A model that is broken, or data that say nothing, never pass the gate, and no attack on them counts as beaten."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from holdfast.assessment.document import Assessment
from holdfast.assessment.gate import Policy, apply_gate
from holdfast.assessment.plan import probes_by_name
from holdfast.assessment.run import prepare
from holdfast.core.errors import HoldfastError

HEAD = "import os, sys\nimport numpy as np\ncalls = 0\n\n\ndef predict(x):\n    global calls\n    calls += 1\n"
RIGHT = "    p = 0.05 + 0.9 * (0.05 * (x['age'] - 50) + 0.9 * (x['smoker'] == 'yes') > 0.3).to_numpy()\n"
GOOD = f"{RIGHT}    return np.stack([1 - p, p], axis=1)\n"
BROKEN = {
    "constant": "    return np.tile([0.3, 0.7], (len(x), 1))\n",
    "random": "    p = np.random.random(len(x))\n    return np.stack([1 - p, p], axis=1)\n",
    "NaN": "    return np.full((len(x), 2), np.nan)\n",
    "NaN after the third call": f"    if calls > 3:\n        return np.full((len(x), 2), np.nan)\n{GOOD}",
    "crash": "    raise RuntimeError('broken')\n",
    "crash on many rows": f"    if len(x) > 32:\n        raise RuntimeError('broken')\n{GOOD}",
    "crash after the sixth call": f"    if calls > 6:\n        raise RuntimeError('broken')\n{GOOD}",
    "exit in the worker": f"    if len(x) > 32 and 'pytest' not in sys.modules:\n        os._exit(0)\n{GOOD}",
}
AT_LOADING = ("NaN", "crash", "crash on many rows")
"""Broken so that the model cannot even be loaded and timed."""
MODEL_FREE = {"P-DATA-AUDIT", "P-SUP-SCAN"}
"""Checks that do not use the model's answers."""


def assessed(folder: Path, code: str) -> Assessment:
    """A quick assessment of the clinic with a model of such code, and the probes that only ask it."""
    (folder / "bad.py").write_text(HEAD + code)
    system = folder / "holdfast.yaml"
    text = system.read_text()
    line = next(line for line in text.splitlines() if line.startswith("model:"))
    model = 'model: {entry: "bad.py:predict", task: classification, modality: tabular, output: probabilities}'
    system.write_text(text.replace(line, model))
    names = [name for name in probes_by_name() if any(word in name for word in ("membership", "harm", "copying"))]
    assert len(names) >= 2
    digest = hashlib.sha256((folder / "bad.py").read_bytes()).hexdigest()
    started = time.monotonic()
    run = prepare(system, budget="quick", workers=1, only=names, trust=[digest])
    run.measure(workers=1)
    return run.finish(started=started)


def never_green(document: Assessment) -> None:
    measured = [one.probe for one in document.evidence if one.status == "measured" and one.probe not in MODEL_FREE]
    assert measured == [], [(one.probe, one.status, one.reason) for one in document.evidence]
    asked = sorted({threat for one in document.evidence if one.status != "not_applicable" for threat in one.threats})
    known = {threat.id for threat in document.threats if threat.applicability != "excluded"}
    assert apply_gate(document, Policy()).code == 3
    assert apply_gate(document, Policy(require=[threat for threat in asked if threat in known])).code == 3


@pytest.mark.slow
@pytest.mark.claim("loop-2")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_never_passes(clinic: Path, name: str) -> None:
    if name in AT_LOADING:
        with pytest.raises(HoldfastError, match=r"RuntimeError|NaN") as caught:
            assessed(clinic, BROKEN[name])
        said = str(caught.value)
    else:
        document = assessed(clinic, BROKEN[name])
        never_green(document)
        said = document.model_dump_json()
    assert "broken" not in said, "what a model says when it fails may hold a person's data"


@pytest.mark.slow
@pytest.mark.claim("loop-2")
def test_the_same_run_on_a_working_model_does_measure(clinic: Path) -> None:
    document = assessed(clinic, GOOD)
    assert [one.probe for one in document.evidence if one.status == "measured"], [one.reason for one in document.evidence]


@pytest.mark.slow
@pytest.mark.claim("loop-2")
def test_a_header_without_rows_is_refused(clinic: Path) -> None:
    lines = (clinic / "holdout.csv").read_text().splitlines()
    (clinic / "holdout.csv").write_text(lines[0] + "\n")
    with pytest.raises(HoldfastError, match="no rows"):
        assessed(clinic, GOOD)


@pytest.mark.slow
@pytest.mark.claim("loop-2")
def test_holdout_rows_of_one_class_never_pass(clinic: Path) -> None:
    lines = (clinic / "holdout.csv").read_text().splitlines()
    (clinic / "holdout.csv").write_text("\n".join([lines[0], *(line for line in lines[1:] if line.endswith("wait"))]) + "\n")
    document = assessed(clinic, GOOD)
    by_probe = {one.probe: one.status for one in document.evidence}
    assert [probe for probe, status in by_probe.items() if status == "measured"] in ([], ["P-FAIR"]), by_probe
    assert apply_gate(document, Policy()).code == 3
