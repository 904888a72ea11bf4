"""Auto-PGD against closed forms, under masked gradients, and without a trace in the user's model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from counted import Counted, digits_network, linear

from holdfast.attacks.evasion.apgd import APGD, _checkpoints
from holdfast.core.domain import Ball
from holdfast.core.errors import AccessDenied, ConfigurationError, InvalidData
from holdfast.core.oracle import Access


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("classes", "factor", "attack"),
    [
        (2, 1.0, APGD(losses=("ce",))),
        (2, 1000.0, APGD(losses=("dlr",))),
        (3, 1000.0, APGD()),
        (6, 1.0, APGD(targets=5)),
    ],
)
def test_it_reaches_the_closed_form_optimum_of_a_linear_model(norm: str, classes: int, factor: float, attack: APGD) -> None:
    model, x, y = linear(classes=classes, features=7, samples=15, factor=factor)
    closed = model.distances(x, norm)
    x = torch.as_tensor(x)

    def won(share: float) -> list[bool]:
        found = []
        for row in range(len(x)):
            ball = Ball(norm=norm, radius=closed[row] * share, low=-9, high=9)
            found.append(bool(attack.run(model, x[row : row + 1], y[row : row + 1], ball, seed=0).success[0]))
        return found

    assert all(won(1.02))
    if classes == 2:
        assert not any(won(0.999))


def test_saturated_logits_do_not_look_robust() -> None:
    ball = Ball(norm="linf", radius=0.5, low=-9, high=9)
    won = []
    for factor in (1.0, 1e6):
        model, x, y = linear(classes=4, features=7, samples=60, factor=factor)
        won.append(APGD().run(model, torch.as_tensor(x, dtype=torch.float32), y, ball, seed=0).success)
    assert won[0].sum() > 10
    assert abs(int(won[0].sum()) - int(won[1].sum())) <= 1


def test_gradients_that_are_no_numbers_end_in_no_success_and_no_crash() -> None:
    class Broken(Counted):
        def value_and_gradient(self, x, loss):
            value, gradient = super().value_and_gradient(x, loss)
            return value, torch.full_like(gradient, math.nan)

    model = Broken(lambda x: torch.stack([x[:, 0], -x[:, 0]], dim=1))
    outcome = APGD(steps=5).run(model, torch.full((4, 3), 0.9), np.zeros(4, dtype=int), Ball(norm="linf", radius=0.1), seed=0)
    assert not outcome.success.any()


def test_steps_queries_and_backward_passes_are_counted() -> None:
    model, x, y = linear(classes=3, features=7, samples=5)
    ball = Ball(norm="linf", radius=1e-6, low=-9, high=9)
    outcome = APGD(steps=12, restarts=2).run(model, torch.as_tensor(x), y, ball, seed=0)
    runs, order = 6 * 13, 2
    assert outcome.cost.queries.tolist() == [runs + order - 1] * 5
    assert outcome.cost.backward == (6 * 12 + order) * 5
    capped = APGD(steps=12, restarts=2).run(model, torch.as_tensor(x), y, ball, seed=0, budget=20)
    assert capped.cost.queries.tolist() == [20] * 5


def test_won_samples_are_asked_about_no_more() -> None:
    model, x, y = linear(classes=3, features=7, samples=50)
    outcome = APGD().run(model, torch.as_tensor(x), y, Ball(norm="linf", radius=0.3, low=-9, high=9), seed=0)
    assert outcome.success.any()
    assert (outcome.cost.queries[~outcome.success] == 101 + 2 + 101 + 100).all()
    assert outcome.cost.queries[outcome.success].mean() < 20


def test_a_result_does_not_depend_on_the_batch() -> None:
    network, x, y = digits_network(20)
    model = Counted(network)
    ball = Ball(norm="linf", radius=0.12)
    together = APGD(steps=20).run(model, x, y, ball, seed=0)
    alone = [APGD(steps=20).run(model, x[i : i + 1], y[i : i + 1], ball, seed=0, units=[i]) for i in range(20)]
    assert 0 < together.success.sum() < together.correct.sum()
    assert np.mean([one.success[0] == won for one, won in zip(alone, together.success, strict=True)]) >= 0.95


def test_more_steps_beat_one_step_on_a_network() -> None:
    network, x, y = digits_network(40)
    ball = Ball(norm="linf", radius=0.1)
    one = APGD(steps=1, losses=("ce",)).run(Counted(network), x, y, ball, seed=0)
    many = APGD().run(Counted(network), x, y, ball, seed=0)
    assert many.success.sum() > one.success.sum()
    assert APGD().run(Counted(network), x, y, ball.within(1.0), seed=0).success.sum() == many.correct.sum()
    assert APGD(steps=3).run(Counted(network), x, y, ball.within(0.0), seed=0).success.sum() == 0


@pytest.mark.claim("loop-7")
@pytest.mark.parametrize("attack", [APGD(steps=5)])
def test_the_users_model_is_left_as_it_was(attack) -> None:
    network, x, y = digits_network(6)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copy, state = x.clone(), torch.get_rng_state()
    legacy = np.random.get_state()[1].copy()  # noqa: NPY002
    attack.run(Counted(network), x, y, Ball(norm="linf", radius=0.1), seed=0)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(x, copy)
    assert not x.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002


def test_checkpoints_are_those_of_the_paper() -> None:
    assert _checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_what_it_cannot_work_on_is_refused() -> None:
    model, x, y = linear(classes=3, features=7, samples=5)
    with pytest.raises(InvalidData, match="torch"):
        APGD().run(model, x, y, Ball(norm="linf", radius=0.1, low=-9, high=9), seed=0)
    with pytest.raises(ConfigurationError, match="radius"):
        APGD().run(model, torch.as_tensor(x), y, Ball(norm="linf", radius=math.inf, low=-9, high=9), seed=0)
    model.access = Access.SCORES
    with pytest.raises(AccessDenied):
        APGD().run(model, torch.as_tensor(x), y, Ball(norm="linf", radius=0.1, low=-9, high=9), seed=0)
    for settings in ({"steps": 0}, {"losses": ()}, {"losses": ("cw",)}, {"restarts": 0}, {"targets": 0}):
        with pytest.raises(ConfigurationError):
            APGD(**settings)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_step_sizes_shrink_until_a_small_pocket_is_hit(norm: str) -> None:
    centre = torch.tensor([0.31, -0.17, 0.23], dtype=torch.float64)

    def score(x: torch.Tensor) -> torch.Tensor:
        inside = 0.02**2 - ((x - centre) ** 2).sum(dim=1)
        return torch.stack([torch.zeros_like(inside), inside], dim=1)

    x, y = torch.zeros((5, 3), dtype=torch.float64), np.zeros(5, dtype=int)
    outcome = APGD(losses=("dlr",)).run(Counted(score), x, y, Ball(norm=norm, radius=1.0, low=-9, high=9), seed=0)
    assert outcome.success.all()
