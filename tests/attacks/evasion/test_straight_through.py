"""The straight-through twin finds the gradients that a model hides, and changes nothing about the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from counted import Counted
from masked import MASKS, Masked, masked, network_and_rows

from holdfast.attacks.evasion.apgd import APGD
from holdfast.attacks.evasion.straight_through import straight_through
from holdfast.core.domain import Ball
from holdfast.core.oracle import Access

BALL = Ball(norm="linf", radius=0.25)
STEADY = [name for name in MASKS if name not in ("noise", "dropout", "by the batch")]


@pytest.mark.parametrize("name", [name for name in STEADY if name != "shattered"])
def test_a_mask_does_not_hide_the_network(name: str) -> None:
    net, x, y = network_and_rows(30)
    model = masked(net, MASKS[name][0], x)
    twin = straight_through(model, x, 10)
    assert twin is not None
    assert (twin.labels(x) == model.labels(x)).all()
    found = APGD(steps=40).run(twin, x, y, BALL, seed=0)
    assert (model.labels(found.adversarial) != y)[found.success].all()
    assert (found.correct & ~found.success).sum() <= 1


def test_gradients_are_those_of_the_network_behind_a_rounded_input() -> None:
    net, x, _ = network_and_rows(9)
    twin = straight_through(masked(net, MASKS["five input levels"][0], x), x, 10)
    assert twin is not None

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, 3] - logits[:, 1]

    value, gradient = twin.value_and_gradient(x, loss)
    rounded = ((x * 4).round() / 4).requires_grad_(True)
    (expected,) = torch.autograd.grad(loss(net(rounded)).sum(), rounded)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(value, loss(net(rounded)).detach())


def test_a_plain_network_is_its_own_twin_at_any_batch_size() -> None:
    net, x, _ = network_and_rows(20)
    twin = straight_through(masked(net, lambda net, x: net(x), x), x, 10)
    assert twin is not None
    for rows in (1, 7, 8, 13, 20):
        torch.testing.assert_close(twin.scores(x[:rows]), net(x[:rows]).detach())


def test_the_model_is_left_as_it_was() -> None:
    net, x, _ = network_and_rows(10)
    model = masked(net, MASKS["noise"][0], x)
    model.module.train()
    random = torch.get_rng_state()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    twin = straight_through(model, x, 10)
    assert twin is not None
    twin.value_and_gradient(x, lambda logits: logits[:, 0])
    assert model.module.training
    assert all(part.training for part in model.module.modules())
    assert all(torch.equal(before[name], value) for name, value in model.module.state_dict().items())
    assert all(parameter.grad is None for parameter in model.module.parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_two_classes_by_a_single_number() -> None:
    weights = torch.tensor([[3.0, -4.0]])

    class Single(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (50 * ((x @ weights.T).round())).sigmoid()

    class Answers(Counted):
        def labels(self, x: torch.Tensor) -> np.ndarray:
            return (np.asarray(self.score(x))[:, 0] > 0.5).astype(np.int64)

    model = Answers(Single(), Access.SCORES)
    model.module = Single()  # type: ignore[attr-defined]
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)) * 3
    twin = straight_through(model, x, 2)
    assert twin is not None
    _, gradient = twin.value_and_gradient(x, lambda logits: logits[:, 1] - logits[:, 0])
    torch.testing.assert_close(gradient, weights.expand(40, 2))


def test_a_predictor_without_a_module_is_recorded_through_its_gradients() -> None:
    net, x, y = network_and_rows(20)
    model = Counted(Masked(net, MASKS["backward random"][0]))
    twin = straight_through(model, x, 10)
    assert twin is not None
    assert APGD(steps=40).run(twin, x, y, BALL, seed=0).success.mean() > 0.9


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: torch.from_numpy(net(x).detach().numpy().copy()),
        lambda net, x: net(x) if float(x.sum()) > 0 else net(-x),
        lambda net, x: 1 / 0,
    ],
    ids=["through NumPy", "by its data", "crash"],
)
def test_what_cannot_be_recorded_has_no_twin_and_does_no_harm(forward) -> None:
    net, x, _ = network_and_rows(10)
    model = Counted(net, Access.SCORES)
    model.module = Masked(net, forward)  # type: ignore[attr-defined]
    found = straight_through(model, x, 10)
    assert found is None or (found.scores(x).argmax(1).numpy() == model.labels(x)).all()
