"""Rows of one person are no independent witnesses: a clean split by person raises few alarms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from holdfast.core.target import Dataset
from holdfast.probes.data_audit import _resplit
from holdfast.validation.audit import audit


def by_person(seed: int) -> tuple[Dataset, Dataset]:
    """60 people of 15 rows each, split by person; what a person has, all of his rows have."""
    draw = np.random.default_rng(seed)
    person = np.repeat(np.arange(60), 15)
    own = draw.standard_t(2, size=(60, 4))
    x = pd.DataFrame(own[person] + 0.1 * draw.normal(size=(900, 4)), columns=list("abcd"))
    x["e"] = np.where(draw.random(60)[person] < 0.05, np.nan, draw.normal(size=900))
    y = (own[person, 0] + draw.normal(size=900) > 0).astype(np.int64)
    inside = draw.permutation(60)[person] < 40

    def part(name: str, rows: np.ndarray) -> Dataset:
        names = np.array([f"cluster-{one}" for one in person[rows]])
        ids = np.flatnonzero(rows).astype(str)
        return Dataset(name=name, x=x[rows].reset_index(drop=True), y=y[rows], classes=("n", "y"), ids=ids, clusters=names)

    return part("train", inside), part("holdout", ~inside)


@pytest.mark.slow
def test_a_clean_split_by_person_raises_few_alarms() -> None:
    alarmed = [seed for seed in range(20) if any(one.severity != "low" for one in audit(*by_person(seed), seed=seed))]
    assert len(alarmed) <= 2


def test_people_are_dealt_whole() -> None:
    train, holdout = _resplit(*by_person(0), 0, 0)
    assert train.clusters is not None
    assert holdout.clusters is not None
    assert len(train) == 600
    assert not set(train.clusters) & set(holdout.clusters)
