"""Small targets on made-up data, for the probes that ask the model or train it again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from holdfast.core.target import Dataset, Target
from holdfast.models.answers import Context
from holdfast.models.sklearn import SklearnModel

CLASSES = ("no", "yes")


def people(rows: int, seed: int, *, noise: float = 0.25) -> Dataset:
    """A table whose label follows from two columns and is wrong in `noise` of the rows, which only memory can know."""
    random = np.random.default_rng(seed)
    x = pd.DataFrame(
        {
            "age": random.integers(18, 90, rows),
            "income": random.normal(50, 15, rows).round(3),
            "ward": random.choice(["north", "south", "east"], rows),
            "smoker": random.random(rows) < 0.3,
            "pressure": random.normal(120, 10, rows).round(3),
        }
    )
    y = ((x["age"] + 20 * x["smoker"] > 60) ^ (random.random(rows) < noise)).to_numpy().astype(np.int64)
    return Dataset(
        name="people", x=x, y=y, classes=CLASSES, ids=np.char.add("p", np.arange(rows).astype(str)), sensitive=("smoker",)
    )


def forest(leaf: int = 1, trees: int = 30) -> Any:
    """A pipeline on the raw columns; leaf=1 memorises."""
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include=["object", "string"])),
        remainder="passthrough",
    )
    return make_pipeline(encode, RandomForestClassifier(trees, min_samples_leaf=leaf, random_state=0))


@dataclass
class Retrain:
    """A recipe that clones an estimator, and counts how often it was asked to."""

    estimator: Any
    fits: int = 0
    digest: str = "made"

    def fit(self, data: Dataset, seed: int) -> SklearnModel:
        self.fits += 1
        estimator = clone(self.estimator)
        for name in estimator.get_params():
            if name.endswith("random_state"):
                estimator.set_params(**{name: seed})
        return as_model(estimator.fit(data.x, data.y), data)


def as_model(fitted: Any, data: Dataset) -> SklearnModel:
    names = tuple(str(index) for index in range(len(data.classes)))
    return SklearnModel(fitted, Context(sample=data.x[:2], classes=names, fixed=True))


def made_target(estimator: Any, data: Dataset, *, train: int, recipe: bool = True) -> Target:
    """A target trained on the first rows of the data, with the others as holdout."""
    inside, outside = (data.take(np.arange(train)), data.take(np.arange(train, len(data))))
    made = Retrain(estimator)
    return Target(
        name="made",
        model=made.fit(inside, 1),
        modality="tabular" if data.is_table else "image",
        train=replace(inside, name="train"),
        holdout=replace(outside, name="holdout"),
        recipe=made if recipe else None,
    )
