"""The exact search finds what trying every cell finds, within the model's own arithmetic, and its proof is never above it."""

from __future__ import annotations

import itertools
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.attacks.evasion.trees import TreeSearch
from holdfast.certification.trees import CONFIRMED, CONTRADICTED, certify_trees, confirm
from holdfast.core.domain import Ball
from holdfast.core.errors import ConfigurationError
from holdfast.core.tabular import Relation, Table, Tabular
from holdfast.models import tree_search
from holdfast.models.answers import Context
from holdfast.models.ensembles import TreeEnsemble, read_ensemble
from holdfast.models.sklearn import SklearnModel

FOREVER = 2_000_000_000


def classifiers(seed: int, trees: int) -> dict[str, Any]:
    return {
        "forest": RandomForestClassifier(trees, max_depth=3, random_state=seed),
        "grown": RandomForestClassifier(trees, random_state=seed),
        "boosting": GradientBoostingClassifier(n_estimators=trees, max_depth=2, random_state=seed),
        "histogram": HistGradientBoostingClassifier(max_iter=trees, max_depth=2, min_samples_leaf=3, random_state=seed),
        "xgboost": xgboost.XGBClassifier(n_estimators=trees, max_depth=2, n_jobs=1),
        "lightgbm": lightgbm.LGBMClassifier(n_estimators=trees, max_depth=2, min_child_samples=3, verbose=-1, n_jobs=1),
        "single": DecisionTreeClassifier(max_depth=4, random_state=seed),
    }


def problem(seed: int, classes: int, missing: bool = False, dtype: Any = np.float64) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(seed)
    x = random.random((160, 3)).astype(dtype)
    y = np.digitize(x[:, 0] + 0.5 * np.sin(6 * x[:, 1]) + 0.3 * random.random(160), np.linspace(0.4, 1.2, classes - 1))
    y[:classes] = np.arange(classes)
    if missing:
        x[random.random(x.shape) < 0.15] = np.nan
    return x, y, random


def by_trying_all_cells(ensemble: TreeEnsemble, model: Any, x: Any, label: int) -> float:
    """The distance of the nearest cell that the model itself gives another class, over all cells of the grid of thresholds."""
    sides = []
    for feature in range(ensemble.features):
        edges = ensemble.thresholds(feature)
        edges = edges[(edges > 0) & (edges <= 1)]
        if np.isnan(x[feature]):
            sides.append(np.array([np.nan]))
            continue
        lows, highs = np.concatenate([[0.0], edges]), np.concatenate([np.nextafter(edges, -np.inf), [1.0]])
        sides.append(np.clip(x[feature], lows, highs))
    cells = np.array(list(itertools.product(*sides)))
    flips = cells[model.labels(cells) != label]
    return float(np.nanmax(np.abs(flips - x), axis=1).min(initial=np.inf)) if len(flips) else np.inf


@pytest.mark.claim("evasion-4")
@pytest.mark.claim("evasion-5")
@given(
    seed=st.integers(0, 10_000),
    classes=st.sampled_from([2, 2, 3]),
    kind=st.sampled_from(sorted(classifiers(0, 1))),
    missing=st.booleans(),
    trees=st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_the_distance_is_that_of_the_nearest_of_all_cells(seed: int, classes: int, kind: str, missing: bool, trees: int) -> None:
    missing = missing and kind != "boosting"
    x, y, _ = problem(seed, classes, missing)
    model = SklearnModel(classifiers(seed, trees)[kind].fit(x, y), Context(sample=x[:2]))
    ensemble = read_ensemble(model, x)
    rows = x[-6:]
    labels = model.labels(rows)
    reach = tree_search.Reach(low=np.zeros_like(rows), high=np.ones_like(rows), weight=np.ones(3))
    found = tree_search.nearest(
        ensemble, rows, labels, reach, ask=lambda points, owner: model.labels(points) != labels[owner], effort=FOREVER
    )
    for row in range(len(rows)):
        truth = by_trying_all_cells(ensemble, model, rows[row], int(labels[row]))
        assert found.distance[row] == pytest.approx(truth, abs=1e-12)
        assert found.proven[row] <= found.distance[row] <= found.proven[row] + 1e-9 or np.isinf(truth)


@pytest.mark.claim("evasion-5")
@given(seed=st.integers(0, 10_000), effort=st.sampled_from([0, 10_000, 200_000, 1_000_000]))
@settings(max_examples=10, deadline=None)
def test_less_effort_never_proves_too_much(seed: int, effort: int) -> None:
    x, y, _ = problem(seed, 3)
    model = RandomForestClassifier(6, random_state=seed).fit(x, y)
    ensemble, rows = read_ensemble(model, x), x[:5]
    ball = Ball(norm="linf", radius=np.inf)
    exact = certify_trees(ensemble, rows, model.predict(rows), ball, effort=FOREVER)
    assert (certify_trees(ensemble, rows, model.predict(rows), ball, effort=effort) <= exact).all()


@pytest.mark.claim("evasion-5")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", sorted(classifiers(0, 1)))
def test_certified_exact_and_black_box_distances_are_in_order(kind: str, dtype: Any) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.min(axis=0)) / np.ptp(x, axis=0)).astype(dtype)
    model = SklearnModel(classifiers(0, 20)[kind].fit(x[::2], y[::2]), Context(sample=x[:2]))
    rows, labels = x[1:40:2], y[1:40:2]
    ensemble, ball = read_ensemble(model, x), Ball(norm="linf", radius=np.inf)
    exact = TreeSearch(ensemble=ensemble).run(model, rows, labels, ball, seed=0)
    walk = HopSkipJump(starts=x[::2], start_labels=model.labels(x[::2])).run(model, rows, labels, ball, seed=0, budget=200)
    certified = certify_trees(ensemble, rows, labels, ball)
    assert exact.success[exact.correct].all()
    assert (model.labels(exact.adversarial[exact.success]) != labels[exact.success]).all()
    assert exact.adversarial.dtype == dtype
    both = exact.success & walk.success
    assert (certified[exact.correct] <= exact.distance[exact.correct]).all()
    assert (exact.distance[both] <= walk.distance[both]).all()
    assert np.median(exact.distance[exact.correct] - certified[exact.correct]) < 1e-6


@pytest.mark.claim("evasion-5")
@pytest.mark.slow
def test_another_solver_confirms_the_radii_and_contradicts_larger_ones() -> None:
    pytest.importorskip("veritas")
    x, y = load_iris(return_X_y=True)
    for kind in ("boosting", "xgboost", "lightgbm", "single"):
        model = classifiers(0, 10)[kind].fit(x, y)
        ensemble, rows = read_ensemble(model, x), x[::15]
        labels = model.predict(rows)
        radius = certify_trees(ensemble, rows, labels, Ball(norm="linf", radius=np.inf, low=0.0, high=10.0))
        assert (confirm(ensemble, rows, labels, radius, low=0.0, high=10.0) == CONFIRMED).all()
        assert (confirm(ensemble, rows, labels, radius * 1.001, low=0.0, high=10.0) == CONTRADICTED).any()


def test_a_bound_that_forgets_a_tree_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = problem(3, 2)
    model = GradientBoostingClassifier(n_estimators=5, max_depth=2, random_state=0).fit(x, y)
    ensemble, rows = read_ensemble(model, x), x[:20]
    labels = model.predict(rows)
    ball = Ball(norm="linf", radius=np.inf)
    honest = certify_trees(ensemble, rows, labels, ball)
    real = tree_search._Leaves.__init__

    def forgetful(leaves: Any, *given: Any) -> None:
        real(leaves, *given)
        leaves.lead[leaves.tree == 0] -= 0.5

    monkeypatch.setattr(tree_search._Leaves, "__init__", forgetful)
    assert (certify_trees(ensemble, rows, labels, ball) > honest).any()


@pytest.mark.claim("evasion-5")
def test_missing_cells_stay_and_whole_numbers_and_flags_move_in_steps() -> None:
    x, y, random = problem(1, 2)
    frame = pd.DataFrame({"a": x[:, 0], "b": np.rint(30 * x[:, 1]), "flag": x[:, 2] > 0.5, "held": random.random(len(x))})
    frame.loc[random.random(len(x)) < 0.2, "a"] = np.nan
    y = (np.nan_to_num(frame["a"], nan=0.5) + frame["b"] / 30 + 0.4 * frame["flag"] + 0.2 * frame["held"] > 1.1).astype(int)
    own = HistGradientBoostingClassifier(max_iter=15, min_samples_leaf=3, random_state=0).fit(frame.astype(float), y)
    model = SklearnModel(own, Context(sample=frame[:2]))
    table = Table.describe(frame, immutable=["held"], integer=["b"])
    domain = Tabular(table=table, norm="linf")
    encoded, ensemble = table.encode(frame), read_ensemble(model, frame.to_numpy(dtype=float))
    outcome = TreeSearch(ensemble=ensemble).run(model, encoded, y.to_numpy(), domain, seed=0, decode=table.decode)
    changed = table.decode(outcome.adversarial[outcome.success])
    before = frame[outcome.success].reset_index(drop=True)
    assert outcome.success.sum() > 0.5 * outcome.correct.sum()
    assert (changed["a"].isna() == before["a"].isna()).all()
    assert (changed["held"] == before["held"]).all()
    assert (changed["b"] % 1 == 0).all()
    certified = certify_trees(ensemble, encoded, y.to_numpy(), domain)
    assert (certified[outcome.success] <= outcome.distance[outcome.success]).all()
    assert not outcome.success[np.isinf(certified)].any()
    for radius in (0.05, 0.2, 0.5, 1.0):
        rows = np.flatnonzero((certified > radius) & outcome.correct)
        for _ in range(20):
            drawn = domain.within(radius).sample(encoded[rows], random.random((len(rows), encoded.shape[1])))
            assert (model.labels(table.decode(drawn)) == y.to_numpy()[rows]).all()


def test_only_the_radius_is_looked_at() -> None:
    x, y, _ = problem(5, 2)
    model = SklearnModel(RandomForestClassifier(10, random_state=0).fit(x, y), Context(sample=x[:2]))
    ensemble, ball = read_ensemble(model, x), Ball(norm="linf", radius=np.inf)
    free = TreeSearch(ensemble=ensemble).run(model, x[:30], y[:30], ball, seed=0)
    tight = TreeSearch(ensemble=ensemble).run(model, x[:30], y[:30], ball.within(0.05), seed=0)
    assert (tight.success == (free.success & (free.distance <= 0.05))).all()
    certified = certify_trees(ensemble, x[:30], y[:30], ball.within(0.05))
    assert (np.isinf(certified[tight.correct]) == ~tight.success[tight.correct]).all()


def test_results_do_not_depend_on_the_batch() -> None:
    x, y, _ = problem(6, 3)
    model = SklearnModel(RandomForestClassifier(10, random_state=0).fit(x, y), Context(sample=x[:2]))
    attack, ball = TreeSearch(ensemble=read_ensemble(model, x)), Ball(norm="linf", radius=np.inf)
    whole = attack.run(model, x[:9], y[:9], ball, seed=0).adversarial
    parts = [attack.run(model, x[i : i + 1], y[i : i + 1], ball, seed=0).adversarial for i in range(9)]
    assert (whole == np.concatenate(parts)).all()


def test_domains_that_the_search_does_not_know_are_refused() -> None:
    x, y, _ = problem(7, 2)
    model = SklearnModel(RandomForestClassifier(3, random_state=0).fit(x, y), Context(sample=x[:2]))
    attack = TreeSearch(ensemble=read_ensemble(model, x))
    with pytest.raises(ConfigurationError, match="linf"):
        attack.run(model, x[:5], y[:5], Ball(norm="l2", radius=1.0), seed=0)
    table = Table.describe(pd.DataFrame(x, columns=["a", "b", "c"]))
    domain = Tabular(table=table, relations=(Relation(weights={"a": 1.0, "b": -1.0}),))
    with pytest.raises(ConfigurationError, match="relations"):
        attack.run(model, table.encode(pd.DataFrame(x, columns=["a", "b", "c"])), y, domain, seed=0, decode=table.decode)
    with pytest.raises(ConfigurationError, match="pipeline"):
        certify_trees(attack.ensemble, x[:, :2], y, Tabular(table=Table.describe(pd.DataFrame(x[:, :2], columns=["a", "b"]))))
