"""PGD, its losses and its steps, against closed forms and what gradients cannot hide."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from counted import Counted, Linear, digits_network, linear
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.attacks.evasion.apgd import APGD
from holdfast.attacks.evasion.directions import dual, into_ball, largest, sizes, span, step
from holdfast.attacks.evasion.losses import LOSSES
from holdfast.attacks.evasion.pgd import PGD
from holdfast.core.domain import Ball
from holdfast.core.errors import ConfigurationError, InvalidData

NORMS = ["linf", "l2", "l1", "l0"]


def nearest(model, x: np.ndarray, norm: str) -> np.ndarray:
    """(n,) the distance to the boundary of a linear model of two classes; under l0, how many features must change in [-2, 2]."""
    slope = model.weights[0] - model.weights[1]
    gap = x @ slope + model.offsets[0] - model.offsets[1]
    if norm == "l0":
        gain = np.abs(slope) * np.abs(-2 * np.sign(slope) * np.sign(gap)[:, None] - x)
        return 1 + (np.cumsum(-np.sort(-gain, axis=1), axis=1) <= np.abs(gap)[:, None]).sum(axis=1)
    size = {"linf": np.abs(slope).sum(), "l2": np.sqrt((slope**2).sum()), "l1": np.abs(slope).max()}[norm]
    return np.abs(gap) / size


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "attack", [PGD(), PGD(loss="margin", random_start=False), APGD(losses=("ce",)), APGD(losses=("margin",))]
)
def test_a_linear_boundary_is_reached_where_it_lies_and_not_before(attack, norm: str) -> None:
    model, x, y = linear(classes=2, features=9, samples=20)
    exact = nearest(model, x, norm)
    low = -2 if norm == "l0" else -9
    x = torch.as_tensor(x)
    for row in np.flatnonzero(exact <= 9):
        far = exact[row] if norm == "l0" else 1.03 * exact[row]
        near = exact[row] - 1 if norm == "l0" else 0.999 * exact[row]
        for radius, falls in ((far, True), (near, False)):
            ball = Ball(norm=norm, radius=float(radius), low=low, high=-low)
            outcome = attack.run(model, x[row : row + 1], y[row : row + 1], ball, seed=0)
            assert bool(outcome.success[0]) is falls


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    norm=st.sampled_from(NORMS),
    radius=st.floats(0.0, 4.0),
    steps=st.integers(1, 12),
    restarts=st.integers(1, 3),
    budget=st.one_of(st.none(), st.integers(1, 30)),
    auto=st.booleans(),
)
def test_what_it_finds_lies_in_the_domain_within_the_cap(seed, norm, radius, steps, restarts, budget, auto) -> None:
    model, x, y = linear(classes=4, features=6, samples=9, seed=seed)
    attack = APGD(steps=steps, restarts=restarts) if auto else PGD(steps=steps, restarts=restarts)
    ball = Ball(norm=norm, radius=radius, low=-1, high=1)
    outcome = attack.run(model, torch.as_tensor(x), y, ball, seed=0, budget=budget)
    most = (1 + 3) * restarts * (steps + 1) - 1 + 3 if auto else restarts * (steps + 1) - 1
    assert outcome.cost.queries.max(initial=0) <= min(most, budget or most)
    assert ball.contains(torch.as_tensor(x), outcome.adversarial).all()
    assert (model.labels(outcome.adversarial)[outcome.success] != y[outcome.success]).all()


@pytest.mark.claim("evasion-1")
@pytest.mark.parametrize("attack", [PGD(), APGD(losses=("ce",)), APGD(losses=("dlr",))])
def test_one_loss_asks_no_more_often_than_it_steps_and_twice(attack) -> None:
    network, x, y = digits_network(40)
    outcome = attack.run(Counted(network), x, y, Ball(norm="linf", radius=0.05), seed=0)
    assert 0 < outcome.success.sum() < outcome.correct.sum()
    assert outcome.cost.queries.max() <= attack.steps + 2
    won = outcome.success[outcome.correct]
    assert (outcome.cost.queries[won] == outcome.queries[outcome.success]).all()


def test_restarts_find_more_and_a_result_does_not_depend_on_the_batch() -> None:
    network, x, y = digits_network(40)
    ball = Ball(norm="linf", radius=0.06)
    once, often = (PGD(steps=8, restarts=n).run(Counted(network), x, y, ball, seed=0) for n in (1, 6))
    assert often.success.sum() >= once.success.sum()
    assert (often.success | ~once.success).all()
    alone = [PGD(steps=8).run(Counted(network), x[i : i + 1], y[i : i + 1], ball, seed=0, units=[i]) for i in range(40)]
    assert np.mean([one.success[0] == won for one, won in zip(alone, once.success, strict=True)]) >= 0.95


@pytest.mark.parametrize("norm", NORMS)
def test_the_users_model_is_left_as_it_was(norm: str) -> None:
    network, x, y = digits_network(6)
    network.train()
    before, copy, state = {k: v.clone() for k, v in network.state_dict().items()}, x.clone(), torch.get_rng_state()
    network.eval()
    PGD(steps=4).run(Counted(network), x, y, Ball(norm=norm, radius=2.0), seed=0)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(x, copy)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["dlr", "targeted"])
def test_ratios_do_not_change_with_the_scale_of_the_logits(name: str) -> None:
    logits = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, target = torch.arange(20) % 6, (torch.arange(20) + 2) % 6
    assert torch.allclose(LOSSES[name](logits, y, target), LOSSES[name](1e4 * logits + 3, y, target))


@pytest.mark.parametrize("name", ["dlr", "margin"])
def test_the_sign_of_a_loss_tells_errors(name: str) -> None:
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    y = torch.arange(50) % 5
    assert ((LOSSES[name](logits, y, y) > 0) == (logits.argmax(dim=1) != y)).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), norm=st.sampled_from(["linf", "l2", "l1"]), size=st.floats(0.01, 3.0))
def test_no_step_of_that_length_gains_more_in_a_free_box(seed: int, norm: str, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    x, lengths = torch.zeros(4, 7, dtype=torch.float64), torch.full((4,), size, dtype=torch.float64)
    ball = Ball(norm=norm, radius=size, low=-99, high=99)
    taken = step(ball, x, x, gradient, lengths, torch.full((4,), 1 / 7, dtype=torch.float64))
    assert torch.allclose(sizes(taken, norm), lengths)
    assert torch.allclose((gradient * taken).sum(dim=1), size * sizes(gradient, dual(norm)))


def test_under_l1_only_features_that_can_move_are_stepped_along() -> None:
    x = torch.tensor([[1.0, 0.5, 0.0]])
    taken = step(Ball(norm="l1", radius=1.0), x, x, torch.tensor([[9.0, 1.0, -5.0]]), torch.tensor([0.2]), torch.tensor([1 / 3]))
    assert torch.allclose(taken, torch.tensor([[1.0, 0.7, 0.0]]))


def test_under_l0_the_best_features_take_the_place_of_the_worst() -> None:
    x, ball = torch.full((1, 4), 0.5), Ball(norm="l0", radius=2.0)
    now = torch.tensor([[1.0, 0.0, 0.5, 0.5]])
    gradient = torch.tensor([[1.0, 0.1, 5.0, 4.0]])
    one = step(ball, x, now, gradient, torch.tensor([1.0]))
    assert torch.equal(one, torch.tensor([[1.0, 0.5, 1.0, 0.5]]))
    both = step(ball, x, now, gradient, torch.tensor([2.0]))
    assert torch.equal(both, torch.tensor([[0.5, 0.5, 1.0, 1.0]]))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), norm=st.sampled_from(NORMS), radius=st.floats(0.0, 6.0))
def test_projecting_into_a_ball_agrees_with_the_domain(seed: int, norm: str, radius: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    change = 3 * torch.randn(5, 6, generator=generator, dtype=torch.float64)
    near = into_ball(change, torch.full((5,), radius, dtype=torch.float64), norm)
    free = Ball(norm=norm, radius=radius, low=-99, high=99)
    assert torch.allclose(near, free.project(torch.zeros_like(change), change), atol=1e-9)


def test_the_largest_values_and_the_span_of_a_box() -> None:
    values = torch.tensor([[3.0, 0.0, 2.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    assert largest(values, torch.tensor([1.0, 2.0])).tolist() == [[True, False, False, False], [False] * 4]
    assert largest(values, torch.tensor([9.0, 0.0])).tolist() == [[True, False, True, False], [False] * 4]
    x = torch.tensor([[0.2, 0.9]])
    assert span(Ball(norm="l2", radius=1.0, low=-1, high=3), x).tolist() == [4.0]
    assert span(Ball(norm="l2", radius=1.0, low=-math.inf, high=math.inf), x).tolist() == pytest.approx([3.8])


def test_what_it_cannot_work_on_is_refused() -> None:
    model, x, y = linear(classes=3, features=7, samples=5)
    with pytest.raises(InvalidData, match="torch"):
        PGD().run(model, x, y, Ball(norm="linf", radius=0.1, low=-9, high=9), seed=0)
    with pytest.raises(ConfigurationError, match="radius"):
        PGD().run(model, torch.as_tensor(x), y, Ball(norm="linf", radius=math.inf, low=-9, high=9), seed=0)
    for setting in ({"steps": 0}, {"loss": "targeted"}, {"restarts": 0}, {"step": 0.0}, {"restarts": 2, "random_start": False}):
        with pytest.raises(ConfigurationError):
            PGD(**setting)


def test_targets_are_tried_nearest_first() -> None:
    weights = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 2.0]])
    offsets = np.array([0.0, -1.0, -1.8, -1.5])
    seen: list[int] = []

    class Watched(APGD):
        def _climb(self, run, result, last):
            seen.extend(run.state["target"].tolist())
            super()._climb(run, result, last)

    x = torch.zeros(1, 3, dtype=torch.float64)
    attack = Watched(losses=("targeted",), targets=3, steps=2)
    attack.run(Linear(weights, offsets), x, np.array([0]), Ball(norm="l2", radius=0.01, low=-9, high=9), seed=0)
    assert seen == [2, 3, 1]
