"""Cheap changes under any norm: never below the exact distance, close to it, valid in tables and through the user's pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.attacks.evasion.thresholds import ThresholdDescent
from holdfast.attacks.evasion.trees import TreeSearch
from holdfast.core.domain import Ball
from holdfast.core.errors import ConfigurationError
from holdfast.core.tabular import Relation, Table, Tabular
from holdfast.models.answers import Context
from holdfast.models.ensembles import read_ensemble
from holdfast.models.sklearn import SklearnModel


@pytest.fixture(scope="module")
def cancer() -> tuple[Any, ...]:
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.min(axis=0)) / np.ptp(x, axis=0)
    model = SklearnModel(xgboost.XGBClassifier(n_estimators=30, n_jobs=1).fit(x[::2], y[::2]), Context(sample=x[:2]))
    return model, x[::2], model.labels(x[::2]), x[1:40:2], y[1:40:2]


@pytest.mark.claim("evasion-4")
def test_it_is_never_below_the_exact_distance_and_close_to_it(cancer: tuple[Any, ...]) -> None:
    model, starts, labels, x, y = cancer
    ensemble, ball = read_ensemble(model, starts), Ball(norm="linf", radius=np.inf)
    exact = TreeSearch(ensemble=ensemble).run(model, x, y, ball, seed=0)
    walk = ThresholdDescent(starts=starts, start_labels=labels, ensemble=ensemble).run(model, x, y, ball, seed=0)
    won = walk.success
    assert won[walk.correct].all()
    assert (walk.distance[won] >= exact.distance[won]).all()
    assert np.median(walk.distance[won]) <= 1.1 * np.median(exact.distance[won])


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l0", "l1", "l2"])
def test_it_needs_less_change_than_the_walk_it_starts_from(norm: Any, cancer: tuple[Any, ...]) -> None:
    model, starts, labels, x, y = cancer
    ball = Ball(norm=norm, radius=np.inf)
    known = ThresholdDescent(starts=starts, start_labels=labels, ensemble=read_ensemble(model, starts))
    unknown = ThresholdDescent(starts=starts, start_labels=labels)
    walk = HopSkipJump(starts=starts, start_labels=labels).run(model, x, y, ball, seed=0, budget=3000)
    for attack in (known, unknown):
        found = attack.run(model, x, y, ball, seed=0, budget=3000)
        assert found.cost.queries.max() <= 3000
        assert np.median(found.distance[found.success]) < np.median(walk.distance[walk.success])


def test_results_do_not_depend_on_the_batch(cancer: tuple[Any, ...]) -> None:
    model, starts, labels, x, y = cancer
    attack, ball = ThresholdDescent(starts=starts, start_labels=labels), Ball(norm="l1", radius=np.inf)
    whole = attack.run(model, x[:6], y[:6], ball, seed=1, budget=600)
    parts = [attack.run(model, x[i : i + 1], y[i : i + 1], ball, seed=1, units=[i], budget=600) for i in range(6)]
    assert (whole.adversarial == np.concatenate([part.adversarial for part in parts])).all()


@pytest.mark.slow
@pytest.mark.claim("evasion-4")
def test_rows_through_a_pipeline_are_valid_and_cheaper_than_the_black_box_leaves_them() -> None:
    random = np.random.default_rng(0)
    count = 600
    frame = pd.DataFrame(
        {
            "income": random.normal(50, 15, count).round(2),
            "debt": random.normal(20, 8, count).round(2),
            "loans": random.integers(0, 9, count),
            "job": random.choice(["none", "clerk", "owner"], count),
            "sex": random.choice(["f", "m"], count),
        }
    )
    score = frame["income"] - frame["debt"] - 3 * frame["loans"] + 10 * (frame["job"] == "owner") + random.normal(0, 5, count)
    y = (score > score.median()).to_numpy(dtype=int)
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["income", "debt", "loans"]), ("words", OneHotEncoder(), ["job", "sex"])]
    )
    own = make_pipeline(columns, RandomForestClassifier(30, min_samples_leaf=3, random_state=0))
    model = SklearnModel(own.fit(frame[:400], y[:400]), Context(sample=frame[:2]))
    table = Table.describe(frame, immutable=["sex"])
    relation = Relation(weights={"debt": 1.0, "income": -1.0}, bound=20.0)
    domain = Tabular(table=table, norm="l1", relations=(relation,))
    starts = table.encode(frame[:200])
    x, labels = table.encode(frame[400:430]), y[400:430]
    attack = ThresholdDescent(starts=starts, start_labels=model.labels(frame[:200]))
    found = attack.run(model, x, labels, domain, seed=0, decode=table.decode, budget=1000)
    after, before = table.decode(found.adversarial), frame[400:430].reset_index(drop=True)
    assert found.success[found.correct].all()
    assert (after["sex"] == before["sex"]).all()
    assert (after["loans"] == after["loans"].round()).all()
    assert set(after["job"]) <= set(frame["job"])
    kept = (before["debt"] - before["income"]) <= 20
    assert ((after["debt"] - after["income"])[kept] <= 20 + 1e-6).all()
    assert (model.labels(after)[found.success] != labels[found.success]).all()
    walk = HopSkipJump(starts=starts, start_labels=attack.start_labels).run(
        model, x, labels, domain, seed=0, decode=table.decode, budget=1000
    )
    both = found.success & walk.success
    assert found.distance[both].mean() < walk.distance[both].mean()


def test_starts_need_labels() -> None:
    with pytest.raises(ConfigurationError):
        ThresholdDescent(starts=np.zeros((3, 2)), start_labels=np.zeros(2, dtype=np.int64))
