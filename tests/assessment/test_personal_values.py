"""No value of a person's row leaves the data by any report, unless the user opted in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import Pipeline

PROBES = ("natural-shift", "unequal-harm", "data-audit", "evasion-labels")
FORMS = ("html", "sarif", "junit", "markdown")


def with_canaries(folder: Path) -> None:
    """Put telling values into columns and a rare one among the groups; the model does badly where the first is."""
    for name in ("train", "holdout"):
        rows = pd.read_csv(folder / f"{name}.csv").iloc[:600]
        random = np.random.default_rng(0)
        rows["smoker"] = rows["smoker"].replace("yes", "canary-smoker")
        rows.loc[rows.index[:3], "sex"] = "canary-sex"
        wrong = (rows["smoker"] == "canary-smoker") & (random.random(len(rows)) < 0.35)
        rows.loc[wrong, "outcome"] = np.where(rows.loc[wrong, "outcome"] == "treat", "wait", "treat")
        rows.to_csv(folder / f"{name}.csv", index=False)
    train = pd.read_csv(folder / "train.csv")
    model: Pipeline = joblib.load(folder / "model.joblib")
    joblib.dump(model.fit(train.drop(columns="outcome"), train["outcome"]), folder / "model.joblib")


def holdfast(folder: Path, *arguments: str) -> None:
    """Run the command as a user would."""
    command = [sys.executable, "-m", "holdfast.cli.main", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("opted_in", [False, True])
def test_a_canary_among_the_values_is_in_no_report_unless_the_user_opted_in(clinic: Path, opted_in: bool) -> None:
    with_canaries(clinic)
    only = [word for probe in PROBES for word in ("--only", probe)]
    holdfast(clinic, "assess", "--budget", "quick", "--workers", "1", *only, *(["--show-values"] if opted_in else []))
    holdfast(clinic, "report", "assessment.json", *[word for form in FORMS for word in (f"--{form}", f"report.{form}")])
    written = {path.name: path.read_text() for path in (clinic / "assessment.json", *clinic.glob("report.*"))}
    assert len(written) == 1 + len(FORMS)
    assert '"P-ROB-SHIFT"' in written["assessment.json"]
    assert ("smoker, value 2 of 2 by frequency" in written["report.html"]) is not opted_in
    assert ("smoker = canary-smoker" in written["report.html"]) is opted_in
    if not opted_in:
        assert [name for name, text in written.items() if "canary" in text] == []
