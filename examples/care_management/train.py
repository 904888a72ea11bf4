"""Prepare the RAND Health Insurance Experiment and train the model that recommends who gets a care-management programme.

20,190 person-years (Newhouse and the Insurance Experiment Group 1993), public domain, as bundled with statsmodels. The
label is whether outpatient visits exceed their 75th percentile. The years of one person carry the same covariates, so rows
with equal covariates are kept on one side of the split and share a `person_key`; without that, a model would be tested on
people it was trained on.
"""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

TARGET = "high_use"
CATEGORIES = ["physical_limitation", "self_rated_health"]
NUMBERS = ["log_coinsurance", "log_participation_incentive", "log_max_expenditure", "chronic_disease_score"]


def load() -> pd.DataFrame:
    """The person-years with readable columns, the label and the person key."""
    from statsmodels.datasets import randhie

    raw = randhie.load_pandas().data
    covariates = [name for name in raw.columns if name != "mdvis"]
    return pd.DataFrame(
        {
            "person_key": [f"p{number:04d}" for number in raw.groupby(covariates).ngroup()],
            "log_coinsurance": raw["lncoins"],
            "individual_deductible": raw["idp"],
            "log_participation_incentive": raw["lpi"],
            "log_max_expenditure": raw["fmde"],
            "physical_limitation": raw["physlm"].map({0.0: "no", 1.0: "yes"}).fillna("not asked"),
            "chronic_disease_score": raw["disea"],
            "self_rated_health": np.select(
                [raw["hlthg"] == 1, raw["hlthf"] == 1, raw["hlthp"] == 1], ["good", "fair", "poor"], default="excellent"
            ),
            TARGET: np.where(raw["mdvis"] > raw["mdvis"].quantile(0.75), "recommend", "usual care"),
        }
    )


def split(rows: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Half of the people for training, half for holdout."""
    people = rows["person_key"].unique()
    chosen = np.random.default_rng(seed).random(len(people)) < 0.5
    inside = rows["person_key"].isin(people[chosen])
    return rows[inside], rows[~inside]


def untrained() -> Pipeline:
    """The model as many would first write it: trees grown until their leaves are pure."""
    prepare = ColumnTransformer([("categories", OneHotEncoder(handle_unknown="ignore"), CATEGORIES)], remainder="passthrough")
    forest = RandomForestClassifier(n_estimators=100, class_weight="balanced", random_state=0)
    return Pipeline([("prepare", prepare), ("forest", forest)])


def write(folder: Path) -> None:
    """Write `train.csv`, `holdout.csv` and `model.joblib`."""
    folder.mkdir(parents=True, exist_ok=True)
    train, holdout = split(load())
    train.to_csv(folder / "train.csv", index=False)
    holdout.to_csv(folder / "holdout.csv", index=False)
    model = untrained().fit(train.drop(columns=[TARGET, "person_key"]), train[TARGET])
    joblib.dump(model, folder / "model.joblib")
