"""Square against exhaustive search, its caps, and what scores it can live with."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from counted import Counted, digits_network, linear
from sklearn.ensemble import RandomForestClassifier

from holdfast.attacks.evasion.square import Square, _bump, _Layout
from holdfast.core.domain import Ball
from holdfast.core.errors import ConfigurationError
from holdfast.core.oracle import Access
from holdfast.core.tabular import Table, Tabular


def test_it_finds_an_adversarial_corner_wherever_exhaustive_search_does() -> None:
    features, radius = 7, 0.4
    generator = np.random.default_rng(0)
    network = torch.nn.Sequential(torch.nn.Linear(features, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.as_tensor(generator.normal(size=parameter.shape) * 0.7))
    model = Counted(network)
    x = generator.uniform(-1, 1, size=(60, features))
    y = model.labels(x)
    corners = np.array(list(itertools.product([-radius, radius], repeat=features)))
    exhaustive = np.array([(model.labels(row + corners) != label).any() for row, label in zip(x, y, strict=True)])
    outcome = Square().run(model, x, y, Ball(norm="linf", radius=radius, low=-9, high=9), seed=0, budget=400)
    assert 5 < exhaustive.sum() < 55
    assert not outcome.success[~exhaustive].any()
    assert outcome.success[exhaustive].mean() >= 0.9


@pytest.mark.claim("evasion-3")
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("budget", [1, 2, 50, 301])
def test_no_sample_is_asked_over_its_cap_by_an_outside_count(norm: str, budget: int) -> None:
    model, x, y = linear(classes=4, features=9, samples=8)
    ball = Ball(norm=norm, radius=0.05, low=-1, high=1)
    outcome = Square().run(model, x, y, ball, seed=0, budget=budget)
    judged = len(model.rows) - outcome.cost.forward
    assert (outcome.cost.queries[~outcome.success] == budget).all()
    assert outcome.cost.queries.max() <= budget
    assert judged <= 3 * len(x)
    assert np.abs(model.rows).max() <= 1


@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.15), ("l2", 1.0)])
@pytest.mark.parametrize("layout", ["channels first", "plane", "flat", "channels last"])
def test_it_evades_a_network_whatever_the_layout_and_never_leaves_the_ball(norm: str, radius: float, layout: str) -> None:
    network, x, y = digits_network(30)
    shapes = {"channels first": (1, 8, 8), "plane": (8, 8), "flat": (64,), "channels last": (8, 8, 1)}
    model = Counted(lambda rows: network(rows.reshape(-1, 1, 8, 8)))
    ball = Ball(norm=norm, radius=radius)
    x = x.reshape(-1, *shapes[layout])
    outcome = Square().run(model, x, y, ball, seed=0, budget=300)
    assert outcome.success.sum() > 0.5 * outcome.correct.sum()
    assert ball.contains(x, outcome.adversarial).all()
    rows = torch.as_tensor(model.rows).reshape(-1, 64)
    nearest = torch.cdist(rows, x.reshape(-1, 64), p=math.inf if norm == "linf" else 2.0).min(dim=1).values
    assert nearest.max() <= radius * 1.001


def test_a_result_does_not_depend_on_the_batch() -> None:
    model, x, y = linear(classes=4, features=9, samples=15)
    ball = Ball(norm="linf", radius=0.3, low=-1, high=1)
    together = Square().run(model, x, y, ball, seed=0, budget=100)
    alone = [Square().run(model, x[i : i + 1], y[i : i + 1], ball, seed=0, budget=100, units=[i]) for i in range(15)]
    assert 0 < together.success.sum() < 15
    assert [int(one.queries[0]) for one in alone] == together.queries.tolist()


def test_it_asks_about_many_changes_in_few_calls_and_gets_as_far() -> None:
    model, x, y = linear(classes=4, features=30, samples=60)
    ball = Ball(norm="linf", radius=0.08, low=-1, high=1)
    many = Square().run(model, x, y, ball, seed=0, budget=400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holdfast.attacks.evasion.square.AT_ONCE", 1)
        one = Square().run(model, x, y, ball, seed=0, budget=400)
    assert one.cost.calls == 400
    assert many.cost.calls < 70
    assert 0 < one.success.sum() < 60
    assert many.success.sum() >= 0.9 * one.success.sum()


@pytest.mark.parametrize("layout", ["channels first", "channels last", "plane"])
def test_a_square_lies_where_its_window_says(layout: str) -> None:
    layout_ = _Layout({"channels first": (3, 10, 12), "channels last": (10, 12, 3), "plane": (10, 12)}[layout])
    draws = np.random.default_rng(0).random((50, layout_.draws))
    cells = np.zeros((50, layout_.features), dtype=bool)
    cells[np.arange(50)[:, None], layout_.cells(0.2, draws)] = True
    window = np.broadcast_to(layout_.window(0.2, draws), (50, *layout_.shape))
    assert np.array_equal(cells.reshape(50, *layout_.shape), window)


def test_rounded_scores_do_not_stop_it() -> None:
    model, x, y = linear(classes=4, features=9, samples=100)
    ball = Ball(norm="linf", radius=0.4, low=-9, high=9)
    plain = Square().run(model, x, y, ball, seed=0, budget=300)
    rounded = Counted(lambda rows: torch.log(torch.softmax(model.score(rows), dim=1).round(decimals=1).clamp_min(0.01)))
    outcome = Square().run(rounded, x, y, ball, seed=0, budget=300)
    assert outcome.success[outcome.correct].mean() > 0.7 * plain.success.mean()


def test_infinite_log_probabilities_do_not_stop_it() -> None:
    def score(rows: torch.Tensor) -> torch.Tensor:
        return torch.stack([rows[:, 0], 0.5 - rows[:, 0]], dim=1).clamp(0, 1).log()

    outcome = Square().run(Counted(score), np.full((4, 3), 0.6), np.zeros(4, dtype=int), Ball(norm="linf", radius=0.5), seed=0)
    assert outcome.success.all()


def test_tables_flip_categories_and_numbers() -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"plan": generator.choice(list("abc"), 300), "visits": generator.integers(0, 30, 300)})
    y = ((frame["visits"] > 12) ^ (frame["plan"] == "c")).to_numpy(int)
    codes = {"a": 0, "b": 1, "c": 2}
    forest = RandomForestClassifier(30, random_state=0).fit(frame.assign(plan=frame["plan"].map(codes)), y)

    class Pipeline:
        access = Access.SCORES

        def scores(self, x: pd.DataFrame) -> np.ndarray:
            return np.log(forest.predict_proba(x.assign(plan=x["plan"].map(codes))).clip(1e-9))

        def labels(self, x: pd.DataFrame) -> np.ndarray:
            return self.scores(x).argmax(axis=1)

    def attack(radius: float, immutable=()) -> np.ndarray:
        table = Table.describe(frame, immutable=immutable, costs={"plan": 0.5})
        domain = Tabular(table=table, radius=radius)
        outcome = Square().run(Pipeline(), table.encode(frame), y, domain, seed=0, budget=60, decode=table.decode)
        changed = table.decode(outcome.adversarial)
        assert ((changed["visits"] - frame["visits"]).abs() <= radius * frame["visits"].std(ddof=0) + 1e-6).all()
        return outcome.success

    assert attack(0.5).mean() > 0.97
    assert attack(0.49).mean() < 0.5
    assert attack(0.5, immutable=("plan", "visits")).sum() == 0


def test_windows_have_the_asked_size_and_lie_anywhere() -> None:
    layout = _Layout((3, 10, 12))
    draws = np.random.default_rng(0).random((2000, 2))
    windows = layout.window(0.2, draws)
    assert windows.shape == (2000, 1, 10, 12)
    assert (windows.sum(axis=(1, 2, 3)) == 25).all()
    assert (windows.sum(axis=0) > 0).all()
    assert (_Layout((40,)).window(0.2, np.random.default_rng(0).random((10, 40))).sum(axis=1) == 8).all()


def test_a_bump_has_two_sides_of_opposite_sign() -> None:
    for side in (2, 3, 5, 8):
        bump = _bump(side)
        assert bump.shape == (side, side)
        assert (bump[:, : side // 2] > 0).any()
        assert (bump[:, side // 2 :] <= 0).all()
        assert (bump[:, : side // 2] >= 0).all()


@pytest.mark.parametrize("settings", [{"queries": 0}, {"share": 0.0}, {"share": 1.5}])
def test_settings_that_cannot_be_are_refused(settings) -> None:
    with pytest.raises(ConfigurationError):
        Square(**settings)
