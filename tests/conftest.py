"""A small project of every kind of file, made once for the whole test session."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

SYSTEM = """
system: clinic
owner: security office
model: {path: model.joblib, task: classification, artifact_format: joblib, base_model: none, modality: tabular, recipe: clone}
data:
  - {name: train, path: train.csv, role: train, target: outcome, sensitive: [smoker], groups: [sex],
     data_sensitivity: health, data_sources: [internal, partner], labels: internal}
  - {name: holdout, path: holdout.csv, role: holdout, target: outcome, sensitive: [smoker], groups: [sex]}
serving: {deploy: server, reach: internal, auth: key, returns: scores, explanations: none, weights_known_to: insider}
lifecycle: {retrain: scheduled, registry: unsigned, federated: none, genai: none}
people: {affects_people: direct, decision: human_confirmed}
actors:
  - {name: clinician, access: scores, queries: {typical: 20, high: 100}, attempts_per_year: {low: 1, high: 8}}
  - {name: supplier, access: training rows, poison_share: {typical: 0.005, high: 0.03}, attempts_per_year: {low: 0.02, high: 0.3}}
impact:
  integrity: {per_event: {low: 5000, high: 400000, unit: EUR}}
  confidentiality: {per_event: {low: 50000, high: 4000000, unit: EUR}}
  availability: {per_event: {low: 1000, high: 60000, unit: EUR}}
appetite: {annual_loss: 250000, at: 0.95}
controls: [C-AUTH]
"""


def clinic_rows(count: int, seed: int) -> pd.DataFrame:
    """People with numbers, categories and a label that depends on both, with noise."""
    random = np.random.default_rng(seed)
    age = random.integers(18, 90, count)
    pressure = random.normal(120 + 0.3 * (age - 50), 12)
    smoker = random.choice(["no", "yes"], count, p=[0.7, 0.3])
    sex = random.choice(["f", "m"], count)
    score = 0.05 * (age - 50) + 0.04 * (pressure - 120) + 0.9 * (smoker == "yes") + random.normal(0, 0.8, count)
    return pd.DataFrame(
        {
            "age": age,
            "pressure": pressure.round(2),
            "weight": random.normal(75, 14, count).round(2),
            "smoker": smoker,
            "sex": sex,
            "outcome": np.where(score > 0.3, "treat", "wait"),
        }
    )


@pytest.fixture(autouse=True, scope="session")
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs and trust of the tests are not those of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def made_clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `clinic` copies."""
    folder = tmp_path_factory.mktemp("made") / "clinic"
    folder.mkdir()
    train, holdout = clinic_rows(1500, 1), clinic_rows(1500, 2)
    train.to_csv(folder / "train.csv", index=False)
    holdout.to_csv(folder / "holdout.csv", index=False)
    encode = ColumnTransformer([("one-hot", OneHotEncoder(handle_unknown="ignore"), ["smoker", "sex"])], remainder="passthrough")
    model = Pipeline([("encode", encode), ("forest", RandomForestClassifier(20, random_state=0))])
    joblib.dump(model.fit(train.drop(columns="outcome"), train["outcome"]), folder / "model.joblib")
    (folder / "holdfast.yaml").write_text(SYSTEM)
    return folder


@pytest.fixture
def clinic(made_clinic: Path, tmp_path: Path) -> Path:
    """A fresh copy of a project with an overfitted forest on a table; the system file is `holdfast.yaml` in it."""
    return Path(shutil.copytree(made_clinic, tmp_path / "clinic"))
