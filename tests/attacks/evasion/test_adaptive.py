"""Attacks that know the defence: through a step without gradients, by a twin's gradients, and over random answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from counted import Counted, digits_network, linear

from holdfast.attacks.evasion.adaptive import BPDA, EOT, Twin
from holdfast.attacks.evasion.apgd import APGD
from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.attacks.evasion.pgd import PGD
from holdfast.attacks.evasion.square import Square
from holdfast.core.domain import Ball
from holdfast.core.errors import AccessDenied, ConfigurationError, InvalidModel
from holdfast.core.oracle import Access, Oracle

BALL = Ball(norm="linf", radius=0.2)


def rounded(x):
    return (x * 4).round() / 4


@pytest.fixture(scope="module")
def network():
    return digits_network(32)


def test_pgd_breaks_rounded_inputs_only_by_a_stand_in_for_the_rounding(network) -> None:
    model, x, y = network
    masked = Counted(lambda inputs: model(rounded(inputs)))
    plain = PGD().run(masked, x, y, BALL, seed=0)
    through = PGD().run(BPDA(Counted(model), rounded), x, y, BALL, seed=0)
    assert plain.correct.sum() == through.correct.sum() >= 28
    assert plain.success.sum() <= 0.2 * plain.correct.sum()
    assert through.success.sum() >= 0.9 * through.correct.sum()
    flipped = masked.labels(through.adversarial[np.flatnonzero(through.success)])
    assert (flipped != y[through.success]).all()


def test_a_stand_in_of_another_kind_gives_its_own_gradient() -> None:
    model, x, _ = linear(classes=2, features=3, samples=4)
    x = torch.as_tensor(x)
    through = BPDA(model, lambda x: x.round(), lambda x: 3 * x)
    _, gradient = through.value_and_gradient(x, lambda logits: logits[:, 0])
    assert torch.allclose(gradient, torch.as_tensor(3 * model.weights[0]).expand(4, 3))
    value, _ = through.value_and_gradient(x, lambda logits: logits[:, 0])
    assert torch.allclose(value, model.scores(x.round())[:, 0])


def test_a_step_that_changes_shapes_needs_a_stand_in(network) -> None:
    model, x, _ = network
    grown = lambda x: x.repeat_interleave(2, dim=2)[:, :, ::2]  # noqa: E731
    through = BPDA(Counted(lambda inputs: model(inputs[:, :, :8])), lambda x: torch.cat([x, x], dim=2))
    with pytest.raises(InvalidModel, match="stand-in"):
        through.value_and_gradient(x, lambda logits: logits[:, 0])
    wrong = BPDA(Counted(lambda inputs: model(inputs[:, :, :8])), lambda x: torch.cat([x, x], dim=2), grown)
    with pytest.raises(InvalidModel, match="stand-in gives"):
        wrong.value_and_gradient(x, lambda logits: logits[:, 0])


@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES])
def test_a_twin_breaks_a_model_that_gives_no_gradients(network, access: Access) -> None:
    model, x, y = network

    def hidden(inputs):
        with torch.no_grad():
            scores = model(rounded(inputs))
        return torch.nn.functional.one_hot(scores.argmax(dim=1), 10).to(inputs.dtype) if access == Access.LABELS else scores

    served = Counted(hidden, access=access)
    outcome = APGD().run(Twin(served, Counted(model)), x, y, BALL, seed=0)
    assert outcome.success.sum() >= 0.9 * outcome.correct.sum()
    assert (served.labels(outcome.adversarial[np.flatnonzero(outcome.success)]) != y[outcome.success]).all()
    with pytest.raises(AccessDenied):
        Twin(served, served)


@dataclass
class Noisy:
    """A linear model of two classes whose offset is drawn anew in each call."""

    noise: float
    access = Access.GRADIENTS

    def __post_init__(self) -> None:
        self.generator, self.calls = torch.Generator().manual_seed(0), 0

    def _logits(self, x):
        self.calls += 1
        drawn = self.noise * torch.randn(len(x), generator=self.generator, dtype=x.dtype)
        return torch.stack([x[:, 0] + drawn, torch.zeros_like(drawn)], dim=1)

    def labels(self, x):
        return self._logits(torch.as_tensor(x)).argmax(dim=1).numpy()

    def scores(self, x):
        answer = self._logits(torch.as_tensor(x))
        return answer if isinstance(x, torch.Tensor) else answer.numpy()

    def value_and_gradient(self, x, loss):
        x = x.detach().requires_grad_(True)
        value = loss(self._logits(x))
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def test_an_average_over_random_answers_is_near_the_expectation_and_paid_for() -> None:
    x = torch.full((50, 2), 0.3, dtype=torch.float64)
    model = Noisy(noise=1.0)
    single = Noisy(noise=1.0).labels(x)
    assert 5 < (single == 1).sum() < 45
    assert (EOT(model, 301).labels(x) == 0).all()
    assert model.calls == 301
    scores = EOT(model, 301).scores(x)
    assert torch.allclose(scores.exp().sum(dim=1), torch.ones(50, dtype=torch.float64))
    assert (EOT(model, 301).scores(x.numpy()).argmax(axis=1) == 0).all()

    expected = torch.sigmoid(0.3 + torch.randn(200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    cross_entropy = lambda logits: torch.nn.functional.cross_entropy(logits, torch.zeros(50).long(), reduction="none")  # noqa: E731
    value, gradient = EOT(model, 301).value_and_gradient(x, cross_entropy)
    assert gradient[:, 0].mean() == pytest.approx(float(expected.mean()) - 1, abs=0.01)
    assert value.mean() == pytest.approx(float(-expected.log().mean()), abs=0.02)

    oracle = Oracle(EOT(model, 10), Access.GRADIENTS, 50, budget=25)
    oracle.value_and_gradient(x, cross_entropy)
    assert (oracle.remaining() == 1).all()
    oracle.scores(x)
    assert (oracle.remaining() == 0).all()
    assert (oracle.cost.queries.tolist(), oracle.cost.backward, oracle.cost.calls) == ([20] * 50, 500, 20)


def test_a_lucky_draw_ends_an_attack_on_one_answer_but_not_on_the_average() -> None:
    x, y = torch.full((40, 2), 1.5, dtype=torch.float64), np.zeros(40, dtype=int)
    ball = Ball(norm="linf", radius=0.5, low=-2, high=2)
    lucky = PGD(steps=10).run(Noisy(noise=0.5), x, y, ball, seed=0)
    steady = PGD(steps=10).run(EOT(Noisy(noise=0.5), 20), x, y, ball, seed=0)
    assert lucky.cost.queries.min() < 10
    assert (steady.cost.queries.tolist(), steady.success.sum()) == ([200] * 40, 0)
    near = PGD(steps=10).run(EOT(Noisy(noise=0.5), 20), x, y, ball.within(3.0), seed=0)
    assert near.success.mean() > 0.9
    assert (near.cost.queries % 20 == 0).all()


@pytest.mark.parametrize("attack", [Square(), HopSkipJump(), PGD(), APGD()])
def test_every_attack_takes_an_average_within_its_cap(attack) -> None:
    x, y = torch.full((6, 2), 0.8, dtype=torch.float64), np.zeros(6, dtype=int)
    ball = Ball(norm="linf", radius=1.5, low=-2, high=2)
    outcome = attack.run(EOT(Noisy(noise=0.2), 5), x, y, ball, seed=0, budget=203)
    assert outcome.success.sum() >= 4
    assert outcome.cost.queries.max() <= 203
    assert (outcome.cost.queries % 5 == 0).all()


def test_an_average_over_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        EOT(Noisy(noise=1.0), 0)
