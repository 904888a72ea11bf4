"""The ensemble: worst case per sample, only what stands goes on, budgets, and a curve that tests itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from counted import Counted, linear
from masked import MASKS, masked, network_and_rows

from holdfast.attacks.evasion.suite import Suite
from holdfast.core.domain import Ball
from holdfast.core.errors import ConfigurationError, InvalidData
from holdfast.core.oracle import Access
from holdfast.core.statistics import wilson

LINF = Ball(norm="linf", radius=0.15)


def test_it_finds_what_there_is_and_no_more_on_a_linear_model() -> None:
    model, x, y = linear(classes=4, features=6, samples=80)
    closed = model.distances(x, "linf")
    ball = Ball(norm="linf", radius=float(np.median(closed)), low=-9, high=9)
    found = Suite(queries=300).run(model, torch.as_tensor(x), y, ball, seed=0)
    assert not found.success[closed > ball.radius * 1.0001].any()
    assert found.success[closed < ball.radius * 0.98].all()
    assert found.robust_accuracy == pytest.approx(0.5, abs=0.05)
    assert found.interval == wilson(int(found.robust.sum()), 80)


def test_only_samples_that_stand_go_on_and_each_success_is_verified() -> None:
    net, x, y = network_and_rows(40)
    y = y.copy()
    y[:3] = (y[:3] + 1) % 10
    found = Suite(queries=200, steps=20).run(masked(net, MASKS["backward random"][0], x), x, y, LINF, seed=0)
    standing = 37
    for result in found.stages:
        assert result.attacked == standing
        standing -= result.broken
    assert not found.correct[:3].any()
    assert not found.success[:3].any()
    assert found.robust.sum() == standing
    with torch.no_grad():
        wrong = (net(found.adversarial).argmax(1).numpy() != y) & LINF.contains(x, found.adversarial)
    assert wrong[found.success].all()
    assert (found.by >= 0).tolist() == found.success.tolist()
    assert found.standing_after(("model",)).sum() > found.robust.sum()


@pytest.mark.slow
def test_results_do_not_depend_on_the_batch() -> None:
    net, x, y = network_and_rows(12)
    model = masked(net, lambda net, x: net(x), x)
    ball = LINF.within(0.08)
    together = Suite(queries=100, steps=15).run(model, x, y, ball, seed=3)
    for rows in (np.arange(5), np.arange(5, 12)):
        part = Suite(queries=100, steps=15).run(model, x[rows], y[rows], ball, seed=3, units=list(rows))
        alone = together.success[rows]
        assert (part.success != alone).sum() <= 1


def test_a_model_of_labels_alone_in_numpy_is_attacked_by_labels() -> None:
    model, x, y = linear(classes=3, features=5, samples=20, access=Access.LABELS)
    found = Suite(queries=400).run(model, x, y, Ball(norm="l2", radius=2.0, low=-9, high=9), seed=0)
    assert [result.stage.door for result in found.stages] == ["labels"]
    assert isinstance(found.adversarial, np.ndarray)
    assert found.success.mean() > 0.8


@pytest.mark.slow
def test_a_budget_shortens_stages_and_a_larger_one_begins_again() -> None:
    net, x, y = network_and_rows(16)
    model = masked(net, lambda net, x: net(x), x)
    ball = LINF.within(0.01)
    small = Suite(seconds=0.05).run(model, x, y, ball, seed=0)
    assert all(result.skipped or result.rows < 16 * 1000 for result in small.stages)
    large = Suite(seconds=4.0, queries=20, steps=8).run(model, x, y, ball, seed=0)
    assert len(large.stages) > len(Suite(queries=20, steps=8).run(model, x, y, ball, seed=0).stages)
    assert large.robust.sum() <= small.robust.sum()


@pytest.mark.slow
def test_the_curve_starts_at_clean_accuracy_and_falls_to_zero() -> None:
    net, x, y = network_and_rows(24)
    y = y.copy()
    y[0] = (y[0] + 1) % 10
    curve = Suite(queries=200, steps=20).curve(masked(net, lambda net, x: net(x), x), x, y, LINF, [0.05, 0.1], seed=0)
    assert curve.radii == (0.0, 0.05, 0.1, 1.0)
    assert curve.sound
    assert curve.robust[0] == pytest.approx(23 / 24)
    assert curve.robust[-1] == 0
    assert list(curve.robust) == sorted(curve.robust, reverse=True)


@pytest.mark.slow
def test_the_curve_finds_answers_that_cannot_be_robust() -> None:
    class Remembers(Counted):
        """Right on the rows that it knows and constant elsewhere: no attack moves it far, and a copy is called broken."""

        def scores(self, x: Any) -> Any:
            answer = np.zeros((len(x), 3))
            answer[:, 1] = 1
            return torch.as_tensor(answer) if isinstance(x, torch.Tensor) else answer

    model = Remembers(lambda x: x, Access.SCORES)
    x, y = np.random.default_rng(0).uniform(size=(10, 4)), np.ones(10, dtype=np.int64)
    curve = Suite(queries=50).curve(model, x, y, Ball(norm="linf", radius=0.1), [0.1], seed=0)
    assert curve.clean_at_zero
    assert not curve.falls_to_zero
    assert not curve.sound


def test_wrong_questions_are_refused() -> None:
    model, x, y = linear(classes=3, features=5, samples=4)
    with pytest.raises(ConfigurationError):
        Suite(queries=0)
    with pytest.raises(ConfigurationError):
        Suite(seconds=0.0)
    with pytest.raises(InvalidData):
        Suite().run(model, x[:0], y[:0], LINF, seed=0)
    with pytest.raises(ConfigurationError):
        Suite().curve(model, x, y, Ball(norm="linf", radius=0.1, low=-math.inf, high=math.inf), [0.1], seed=0)
