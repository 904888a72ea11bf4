"""Every mask is called by its mechanism, no honest network is accused, and the number that remains is the network's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from counted import Counted
from masked import MASKS, Masked, masked, network_and_rows
from sklearn.datasets import load_digits

from holdfast.attacks.evasion.diagnosis import EVALUATIONS, diagnose
from holdfast.attacks.evasion.suite import Suite
from holdfast.core.domain import Ball
from holdfast.core.errors import ConfigurationError, Inconclusive, InvalidData
from holdfast.core.oracle import Access
from holdfast.models.answers import Context
from holdfast.models.torch import TorchModel

BALL = Ball(norm="linf", radius=0.25)
SHORT = Suite(queries=300, steps=40)
BRIEF = Suite(seconds=2.0, queries=100, steps=20)
nn = torch.nn


@pytest.mark.claim("evasion-6")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (how == "randomised")) for name, (_, how) in MASKS.items()]
)
def test_every_mask_is_called_by_its_mechanism(name: str) -> None:
    net, x, y = network_and_rows(40)
    mask, mechanism = MASKS[name]
    found = diagnose(masked(net, mask, x), x, y, BALL, seed=0, suite=BRIEF if mechanism == "randomised" else SHORT)
    assert not found.believable
    assert mechanism in found.verdict
    limit = 0.2 if mechanism in ("randomised", "rest of the batch") else 0.06
    assert found.robust_accuracy <= limit
    assert found.low <= found.robust_accuracy <= found.high
    assert found.evaluations == (EVALUATIONS if mechanism == "randomised" else 1)


def honest(kind: str) -> tuple[Any, torch.Tensor, np.ndarray]:
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = torch.tensor(bunch.images[order] / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(bunch.target[order])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = {
            "adversarially trained": lambda: nn.Sequential(
                nn.Conv2d(1, 12, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(192, 32),
                nn.ReLU(),
                nn.Linear(32, 10),
            ),
            "smooth": lambda: nn.Sequential(
                nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10)
            ),
            "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
            "probabilities": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
            "normalised": lambda: nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.SiLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Dropout(0.3),
                nn.Linear(128, 10),
            ),
        }[kind]()
        optimiser = torch.optim.Adam(net.parameters(), 2e-3)
        for _ in range(15):
            for rows in torch.randperm(1300).split(64):
                x, y = images[rows], labels[rows]
                if kind == "adversarially trained":
                    change = (torch.rand_like(x) * 2 - 1) * 0.15
                    for _ in range(5):
                        change.requires_grad_(True)
                        loss = nn.functional.cross_entropy(net((x + change).clamp(0, 1)), y)
                        (slope,) = torch.autograd.grad(loss, change)
                        change = (change.detach() + 0.05 * slope.sign()).clamp(-0.15, 0.15)
                    x = (x + change).clamp(0, 1)
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimiser.step()
    net = (nn.Sequential(net, nn.Softmax(1)) if kind == "probabilities" else net).eval()
    rows = images[1400:1448]
    return (
        TorchModel(net, Context(sample=rows[:8].numpy(), classes=tuple("0123456789"), fixed=True)),
        rows,
        labels[1400:1448].numpy(),
    )


@pytest.mark.claim("evasion-6")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adversarially trained", "smooth", "linear", "probabilities", "normalised"])
@pytest.mark.parametrize("ball", [Ball(norm="linf", radius=0.15), Ball(norm="l2", radius=0.6)], ids=["linf", "l2"])
def test_an_honest_network_is_not_accused(kind: str, ball: Ball) -> None:
    model, x, y = honest(kind)
    found = diagnose(model, x, y, ball, seed=0, suite=Suite(queries=500))
    assert found.verdict == "believable"
    assert found.mechanisms == ()
    assert found.robust_accuracy <= found.claimed + 1e-9
    assert found.evaluations == 1


def test_a_model_whose_backward_pass_crashes_is_attacked_by_its_answers() -> None:
    net, x, y = network_and_rows(20)
    model = Counted(Masked(net, lambda net, x: net(x.detach())))
    found = diagnose(model, x, y, BALL, seed=0, suite=SHORT)
    assert "no gradients" in found.verdict
    assert any("backward pass failed" in note for note in found.notes)
    assert found.robust_accuracy < 0.3


def test_a_model_that_gives_labels_alone_is_said_to() -> None:
    net, x, y = network_and_rows(20)
    found = diagnose(Counted(net, Access.LABELS), x, y, BALL, seed=0, suite=SHORT)
    assert found.verdict == "not believable: no gradients and no scores: labels alone"
    assert math.isnan(found.claimed)


def test_a_model_that_turns_into_another_is_seen() -> None:
    net, x, y = network_and_rows(20)

    class Turning(Counted):
        def scores(self, x: Any) -> Any:
            answer = super().scores(x)
            return answer if len(self.seen) < 60 else answer * 0 + torch.eye(10)[0]

    found = diagnose(Turning(net, Access.SCORES), x, y, BALL.within(0.02), seed=0, suite=Suite(queries=100))
    assert "answers change over time" in found.mechanisms


@pytest.mark.slow
def test_nothing_about_the_model_changes() -> None:
    net, x, y = network_and_rows(16)
    model = masked(net, MASKS["noise"][0], x)
    before, random, inputs = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state(), x.clone()
    diagnose(model, x, y, BALL, seed=0, suite=Suite(seconds=1.0, queries=50, steps=8))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(inputs, x)


def test_wrong_questions_are_refused() -> None:
    net, x, y = network_and_rows(20)
    model = Counted(net)
    with pytest.raises(ConfigurationError):
        diagnose(model, x, y, BALL.within(math.inf), seed=0)
    with pytest.raises(InvalidData, match="outside"):
        diagnose(model, x * 3, y, BALL, seed=0)
    with pytest.raises(Inconclusive, match="right"):
        diagnose(model, x, (y + 1) % 10, BALL, seed=0)
    with pytest.raises(InvalidData, match="torch"):
        diagnose(model, x.numpy(), y, BALL, seed=0)
    with pytest.raises(Inconclusive, match="NaN"):
        diagnose(Counted(lambda x: net(x) * math.nan), x, y, BALL, seed=0)
