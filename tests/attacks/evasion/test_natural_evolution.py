"""Natural evolution: each half of a pair is a query, its gradients are the model's, and hidden gradients do not stop it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from counted import Counted, digits_network, linear
from sklearn.linear_model import LogisticRegression

from holdfast.attacks.evasion.natural_evolution import NaturalEvolution, _Descent
from holdfast.attacks.evasion.pgd import PGD
from holdfast.core.domain import Ball
from holdfast.core.errors import AccessDenied, ConfigurationError
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams
from holdfast.core.tabular import Table, Tabular


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("budget", [1, 2, 3, 50])
def test_no_sample_is_asked_over_its_cap_by_an_outside_count(norm: str, budget: int) -> None:
    model, x, y = linear(classes=4, features=9, samples=8)
    outcome = NaturalEvolution().run(model, x, y, Ball(norm=norm, radius=0.02, low=-1, high=1), seed=0, budget=budget)
    assert (outcome.cost.queries[~outcome.success] == budget).all()
    assert outcome.cost.queries.max() <= budget
    assert len(model.rows) - outcome.cost.forward <= 4 * len(x)
    assert np.abs(model.rows).max() <= 1


@pytest.mark.parametrize("features", [9, 40])
def test_a_whole_frame_of_pairs_gives_the_gradient_of_a_linear_margin_exactly(features: int) -> None:
    model, x, y = linear(classes=2, features=features, samples=5)
    ball = Ball(norm="l2", radius=0.5, low=-9, high=9)
    oracle = Oracle(model, Access.SCORES, 5)
    descent = _Descent(NaturalEvolution(pairs=features), oracle, x, y, ball, SampleStreams(0, range(5)))
    descent._estimate(np.arange(5), features)
    slope = model.weights[y] - model.weights[1 - y]
    assert np.allclose(descent.evidence, slope, atol=1e-8)
    assert oracle.cost.queries.tolist() == [2 * features] * 5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_succeeds_wherever_the_closed_form_says_so(norm: str) -> None:
    model, x, y = linear(classes=3, features=20, samples=60)
    closed = model.distances(x, norm)
    radius = float(np.median(closed))
    outcome = NaturalEvolution().run(model, x, y, Ball(norm=norm, radius=radius, low=-9, high=9), seed=0, budget=1000)
    assert not outcome.success[closed > radius * (1 + 1e-6)].any()
    assert outcome.success[closed < 0.8 * radius].all()


def test_zero_gradients_stop_pgd_and_not_it() -> None:
    class Flat(Counted):
        def value_and_gradient(self, x, loss):
            value, gradient = super().value_and_gradient(x, loss)
            return value, torch.zeros_like(gradient)

    network, x, y = digits_network(40)
    ball = Ball(norm="linf", radius=0.15)
    by_gradient = PGD(steps=10).run(Flat(network), x, y, ball, seed=0)
    outcome = NaturalEvolution().run(Flat(network), x, y, ball, seed=0, budget=1000)
    assert outcome.success.sum() > 0.5 * outcome.correct.sum() > 2 * by_gradient.success.sum()
    assert ball.contains(x, outcome.adversarial).all()


def test_a_result_does_not_depend_on_the_batch() -> None:
    model, x, y = linear(classes=4, features=30, samples=12)
    ball = Ball(norm="l2", radius=0.3, low=-1, high=1)
    together = NaturalEvolution().run(model, x, y, ball, seed=0, budget=200)
    alone = [NaturalEvolution().run(model, x[i : i + 1], y[i : i + 1], ball, seed=0, budget=200, units=[i]) for i in range(12)]
    assert 0 < together.success.sum() < 12
    assert [int(one.queries[0]) for one in alone] == together.queries.tolist()


def test_tables_keep_their_immutable_cells() -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"a": generator.normal(size=200), "b": generator.normal(size=200), "c": generator.integers(0, 9, 200)})
    y = ((frame["a"] + frame["b"] + 0.3 * frame["c"]) > 1.2).to_numpy(int)
    fitted = LogisticRegression().fit(frame, y)

    class Pipeline:
        access = Access.SCORES

        def scores(self, x: pd.DataFrame) -> np.ndarray:
            return fitted.predict_log_proba(x)

        def labels(self, x: pd.DataFrame) -> np.ndarray:
            return self.scores(x).argmax(axis=1)

    table = Table.describe(frame, immutable=["b"])
    outcome = NaturalEvolution().run(
        Pipeline(), table.encode(frame), y, Tabular(table=table, radius=0.5), seed=0, budget=200, decode=table.decode
    )
    after = table.decode(outcome.adversarial)
    assert outcome.success.mean() > 0.2
    assert (after["b"] == frame["b"]).all()
    assert (after["c"] == after["c"].round()).all()


def test_what_cannot_be_is_refused() -> None:
    model, x, y = linear(classes=3, features=4, samples=5)
    with pytest.raises(ConfigurationError):
        NaturalEvolution().run(model, x, y, Ball(norm="l2", radius=math.inf, low=-1, high=1), seed=0)
    model.access = Access.LABELS
    with pytest.raises(AccessDenied):
        NaturalEvolution().run(model, x, y, Ball(norm="l2", radius=1.0, low=-1, high=1), seed=0)
    for wrong in ({"queries": 0}, {"pairs": 0}, {"reach": 0.0}, {"step": -1.0}, {"carried": 1.0}):
        with pytest.raises(ConfigurationError):
            NaturalEvolution(**wrong)
