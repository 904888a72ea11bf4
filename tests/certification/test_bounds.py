"""Interval and linear bounds against dense matrices, against attacks, and against rounding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from dense import box, crown, ibp, least_l2, least_linf, pieces
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.attacks.evasion.apgd import APGD
from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.certification.bounds import certified_radii, logit_bounds, margin_bounds
from holdfast.core.domain import Ball
from holdfast.core.errors import ConfigurationError, InvalidData, InvalidModel
from holdfast.models.answers import Context
from holdfast.models.torch import TorchModel

nn = torch.nn
SHAPE = (1, 6, 6)


def network(seed: int, pool: bool = False) -> nn.Sequential:
    """A small convolutional network with lively weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1, stride=1 if pool else 2),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.MaxPool2d(2) if pool else nn.Identity(),
            nn.AvgPool2d(2, stride=1),
            nn.Conv2d(3, 4, 2),
            nn.ReLU(),
            nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 6), nn.ReLU()),
            nn.Linear(6, 4),
        )
        for parameter in net.parameters():
            parameter.data.mul_(2)
        net[1].running_mean.normal_(0, 0.1)
        net[1].running_var.uniform_(0.5, 2)
        net[1].bias.data.normal_()
    return net.eval()


def inputs(seed: int, samples: int) -> Any:
    return torch.rand(samples, *SHAPE, generator=torch.Generator().manual_seed(seed))


def flat(net: nn.Sequential) -> nn.Sequential:
    """Without nesting, and with layers that only the dense computation need not know left out."""
    found = []
    for layer in net:
        found += flat(layer) if isinstance(layer, nn.Sequential) else [layer]
    return nn.Sequential(*[layer for layer in found if not isinstance(layer, (nn.Identity, nn.Dropout))])


@pytest.mark.claim("evasion-10")
@pytest.mark.parametrize("radius", [0.01, 0.1, 0.5])
def test_intervals_agree_with_dense_matrices(radius: float) -> None:
    for seed in range(4):
        net, x = network(seed), inputs(seed, 3)
        low, high = logit_bounds(net, x, Ball(norm="linf", radius=radius), "ibp")
        for row in range(3):
            other = ibp(pieces(flat(net), SHAPE), box(x[row].double().numpy().ravel(), radius, 0, 1))[-1]
            np.testing.assert_allclose([low[row], high[row]], other, atol=1e-5)


@pytest.mark.claim("evasion-10")
@pytest.mark.parametrize(
    ("norm", "radius"), [("linf", 0.01), ("linf", 0.1), ("linf", 0.5), ("l2", 0.1), ("l2", 0.6), ("l2", 2.0)]
)
def test_crown_agrees_with_the_textbook_recursion_on_dense_matrices(norm: Any, radius: float) -> None:
    for seed in range(2):
        net, x = network(seed), inputs(seed, 2)
        low, high = logit_bounds(net, x, Ball(norm=norm, radius=radius))
        least = least_linf if norm == "linf" else least_l2
        for row in range(2):
            flat_x = x[row].double().numpy().ravel()
            dense = pieces(flat(net), SHAPE)
            np.testing.assert_allclose(low[row], crown(dense, flat_x, radius, 0, 1, np.eye(4), least), atol=1e-4)
            np.testing.assert_allclose(-high[row], crown(dense, flat_x, radius, 0, 1, -np.eye(4), least), atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    radius=st.floats(0.001, 1.0),
    norm=st.sampled_from(["linf", "l2"]),
    pool=st.booleans(),
    method=st.sampled_from(["ibp", "crown"]),
)
def test_no_allowed_input_leaves_the_bounds(seed: int, radius: float, norm: Any, pool: bool, method: Any) -> None:
    net, x, ball = network(seed, pool), inputs(seed, 2), Ball(norm=norm, radius=radius)
    low, high = logit_bounds(net, x, ball, method)
    generator = np.random.default_rng(seed)
    many = x.repeat_interleave(200, dim=0)
    directions = torch.from_numpy(generator.choice([-1.0, 1.0, 0.2], size=tuple(many.shape)).astype(np.float32))
    moved = ball.project(many, many + radius * directions)
    with torch.no_grad():
        found = net(moved).reshape(2, 200, -1).numpy()
    assert (found >= low[:, None] - 1e-4).all()
    assert (found <= high[:, None] + 1e-4).all()
    with torch.no_grad():
        y = net(x).argmax(1).numpy()
        own = np.take_along_axis(found, y[:, None, None], axis=2)
        rest = np.where(np.arange(4) == y[:, None, None], -np.inf, found).max(axis=2)
    assert (margin_bounds(net, x, y, ball, method) <= (own[:, :, 0] - rest).min(axis=1)).all()


def test_crown_is_tighter_than_intervals_and_both_vanish_with_the_radius() -> None:
    net, x = network(0, pool=True), inputs(0, 5)
    y = net(x).argmax(1).numpy()
    ball = Ball(norm="linf", radius=0.05)
    assert (margin_bounds(net, x, y, ball) >= margin_bounds(net, x, y, ball, "ibp")).all()
    low, high = logit_bounds(net, x, Ball(norm="linf", radius=0.0))
    np.testing.assert_allclose(low, high, atol=1e-8)
    np.testing.assert_allclose(low, net(x).detach().numpy(), atol=1e-4)


@pytest.mark.claim("evasion-5")
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.slow
def test_no_attack_comes_closer_than_certified(norm: Any) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(bunch.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96, 24),
            nn.ReLU(),
            nn.Linear(24, 10),
        )
        optimiser = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(40):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(images[:1200]), labels[:1200]).backward()
            optimiser.step()
    net.eval()
    x, y = images[1200:1330], labels[1200:1330].numpy()
    ball = Ball(norm=norm, radius=0.5 if norm == "linf" else 2.0)
    radii = certified_radii(net, x, y, ball)
    assert np.median(radii) > 0
    model = TorchModel(net, Context(sample=x[:2], classes=tuple("0123456789"), fixed=True))
    walk = HopSkipJump().run(model, x, y, ball.within(math.inf), seed=0, budget=1000)
    assert walk.success.sum() > 100
    assert (radii[walk.success] < distance(norm, x, walk.adversarial)[walk.success]).all()
    assert (radii[~walk.correct] == 0).all()
    for radius in np.quantile(radii[radii > 0], [0.25, 0.5, 0.9]):
        step = APGD(steps=30).run(model, x, y, ball.within(float(radius)), seed=0)
        assert (radii[step.success] < distance(norm, x, step.adversarial)[step.success]).all()


def distance(norm: str, x: Any, other: Any) -> np.ndarray:
    change = (other.double() - x.double()).flatten(1)
    return np.asarray(change.abs().amax(1) if norm == "linf" else change.norm(dim=1))


def test_a_margin_is_taken_for_the_users_own_rounding() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False))
    net[0].weight.data = torch.tensor([[1000.0, 0.0], [1000.0, 1e-5]])
    x = torch.tensor([[1.0, 1.0]])
    exact, single = Ball(norm="linf", radius=0.0), margin_bounds(net, x, np.array([1]), Ball(norm="linf", radius=0.0))
    assert single[0] < 0
    double = margin_bounds(net.double(), x.double(), np.array([1]), exact)
    assert double[0] == pytest.approx(1e-5, rel=1e-3)


def test_a_single_logit_decides_between_two_classes() -> None:
    net = nn.Sequential(nn.Linear(2, 1))
    net[0].weight.data, net[0].bias.data = torch.tensor([[3.0, 4.0]]), torch.tensor([-2.0])
    x = torch.tensor([[0.8, 0.9], [0.1, 0.1]])
    radii = certified_radii(net, x, np.array([1, 0]), Ball(norm="l2", radius=2.0, low=-9, high=9), precision=1e-6)
    np.testing.assert_allclose(radii, [(2.4 + 3.6 - 2) / 5, (2 - 0.7) / 5], atol=1e-4)


def test_a_box_makes_an_l2_ball_smaller() -> None:
    net = nn.Sequential(nn.Linear(2, 1))
    net[0].weight.data, net[0].bias.data = torch.tensor([[3.0, 4.0]]), torch.tensor([-2.0])
    low, _ = logit_bounds(net.double(), torch.tensor([[0.8, 0.9]]).double(), Ball(norm="l2", radius=1.0, low=0.5, high=1.0))
    assert low[0, 0] == pytest.approx(3 * 0.5 + 4 * 0.5 - 2, abs=1e-6)
    low, _ = logit_bounds(net.double(), torch.tensor([[0.8, 0.9]]).double(), Ball(norm="l2", radius=0.5, low=0.0, high=1.0))
    assert low[0, 0] == pytest.approx(4 - 5 * 0.5, abs=1e-6)


def test_results_do_not_depend_on_the_batch_and_the_network_is_left_as_it_was() -> None:
    net, x = network(0, pool=True).train(), inputs(0, 5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    y = np.zeros(5, dtype=np.int64)
    ball = Ball(norm="l2", radius=0.2)
    together = margin_bounds(net, x, y, ball)
    alone = np.concatenate([margin_bounds(net, x[i : i + 1], y[i : i + 1], ball) for i in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-9)
    assert all(part.training for part in net.modules())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(random, torch.get_rng_state())


class Odd(nn.Linear):
    def forward(self, x: Any) -> Any:
        return -super().forward(x)


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Tanh()), "Tanh"),
        (nn.Sequential(nn.Flatten(), Odd(36, 4)), "Odd"),
        (nn.Sequential(nn.Linear(36, 4)), "Flatten"),
        (nn.Sequential(nn.Flatten(), nn.Linear(35, 4)), "does not take"),
        (nn.Sequential(nn.Conv2d(1, 4, 3, padding=1)), "one row of logits"),
        (nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(36, 4)), "by the batch"),
    ],
)
def test_what_has_no_known_bounds_is_refused(net: Any, said: str) -> None:
    with pytest.raises(InvalidModel, match=said):
        margin_bounds(net, inputs(0, 2), np.zeros(2, dtype=np.int64), Ball(norm="linf", radius=0.1))


def test_a_hook_that_changes_the_answers_is_seen() -> None:
    net = network(0)
    net[0].register_forward_hook(lambda _, __, out: out * 2)
    with pytest.raises(InvalidModel, match="does not answer as its layers say"):
        margin_bounds(net, inputs(0, 2), np.zeros(2, dtype=np.int64), Ball(norm="linf", radius=0.1))


def test_wrong_questions_are_refused() -> None:
    net, x, y = network(0), inputs(0, 2), np.zeros(2, dtype=np.int64)
    with pytest.raises(ConfigurationError):
        margin_bounds(net, x, y, Ball(norm="l1", radius=0.1))
    with pytest.raises(ConfigurationError):
        margin_bounds(net, x, y, Ball(norm="l2", radius=math.inf))
    with pytest.raises(InvalidData, match="outside"):
        margin_bounds(net, x * 2 + 1, y, Ball(norm="linf", radius=0.1))
    with pytest.raises(InvalidData, match="finite"):
        margin_bounds(net, x * math.nan, y, Ball(norm="linf", radius=0.1))
    with pytest.raises(InvalidData, match="labels"):
        margin_bounds(net, x, y + 4, Ball(norm="linf", radius=0.1))


def test_a_softmax_at_the_end_changes_no_certificate() -> None:
    net, x = network(0), inputs(0, 3)
    y = net(x).argmax(1).numpy()
    ball = Ball(norm="linf", radius=0.02)
    np.testing.assert_allclose(margin_bounds(nn.Sequential(net, nn.Softmax(dim=1)), x, y, ball), margin_bounds(net, x, y, ball))
