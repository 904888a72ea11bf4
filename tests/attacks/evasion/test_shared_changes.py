"""Momentum, universal perturbations and patches: examples that carry over, to other models, samples or places."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from counted import Counted, digits_network, linear
from sklearn.datasets import load_digits

from holdfast.attacks.evasion.directions import sizes
from holdfast.attacks.evasion.momentum import Momentum, _Copies
from holdfast.attacks.evasion.patch import Patch
from holdfast.attacks.evasion.universal import Universal
from holdfast.core.domain import Ball
from holdfast.core.errors import ConfigurationError, InvalidData

WHOLE = Ball(norm="l0", radius=9)


@pytest.fixture(scope="module")
def network():
    """A network, 60 samples to attack and 240 rows of the attacker's own."""
    model, x, y = digits_network(300)
    return model, x[:60], y[:60], x[60:], y[60:]


@pytest.fixture(scope="module")
def other():
    """Another architecture with other weights, trained on the same digits."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images, labels = torch.tensor(bunch.images[order] / 16, dtype=torch.float32), torch.tensor(bunch.target[order])
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 10))
        optimiser = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(30):
            for batch in torch.randperm(1200).split(64):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimiser.step()
    return model


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_momentum_breaks_a_linear_model_beyond_its_boundary(norm: str) -> None:
    model, x, y = linear(classes=2, features=6, samples=20)
    slope = model.weights[0] - model.weights[1]
    gap = np.abs(x @ slope + model.offsets[0] - model.offsets[1])
    size = {"linf": np.abs(slope).sum(), "l2": np.sqrt((slope**2).sum()), "l1": np.abs(slope).max(), "l0": 8 * slope.max()}[norm]
    radius = 6.0 if norm == "l0" else float(1.05 * (gap / size).max())
    ball = Ball(norm=norm, radius=radius, low=-9, high=9)
    outcome = Momentum().run(model, torch.as_tensor(x), y, ball, seed=0)
    assert outcome.success.all()
    assert (outcome.cost.queries == 10).all()
    capped = Momentum().run(model, torch.as_tensor(x), y, ball, seed=0, budget=4)
    assert capped.cost.queries.max() == 4


def test_momentum_adds_normalised_gradients_up() -> None:
    seen = []

    def score(x):
        seen.append(x.detach().clone())
        return torch.stack([-(x[:, 0] ** 2) - 3 * x[:, 1] + 9, 0 * x[:, 0]], dim=1)

    x, ball = torch.tensor([[0.5, 0.5]], dtype=torch.float64), Ball(norm="l2", radius=0.3, low=-9, high=9)
    Momentum(steps=3, loss="margin", decay=0.5).run(Counted(score), x, np.array([0]), ball, seed=0)
    point, total = x.clone(), torch.zeros_like(x)
    for step in range(3):
        assert torch.allclose(seen[1 + step], point)
        gradient = torch.stack([2 * point[:, 0], torch.full((1,), 3.0, dtype=torch.float64)], dim=1)
        total = 0.5 * total + gradient / gradient.abs().mean()
        point = point + 0.1 * total / total.norm()


def test_all_steps_with_momentum_carry_over_more_than_a_stop_at_the_first_error(network, other) -> None:
    model, x, y, *_ = network
    ball = Ball(norm="linf", radius=0.2)
    found = {}
    for name, attack in {
        "one": Momentum(steps=1),
        "all": Momentum(),
        "diverse": Momentum(diversity=0.7),
    }.items():
        outcome = attack.run(Counted(model), x, y, ball, seed=0)
        with torch.no_grad():
            found[name] = float((other(outcome.adversarial).argmax(dim=1).numpy() != y).mean())
    assert min(found["all"], found["diverse"]) >= 0.35
    assert found["all"] >= found["one"]


def test_copies_are_smaller_images_and_the_gradient_comes_back_to_its_pixels() -> None:
    x = torch.rand(6, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    draws = np.random.default_rng(0).random((6, 5))
    draws[:3, 0], draws[3:, 0] = 0.1, 0.9
    copies = _Copies(x, draws, 0.5)
    shown = copies(x)
    assert torch.allclose(shown[3:], x[3:])
    ones = copies(torch.ones_like(x))
    assert (ones[:3].sum(dim=(1, 2, 3)) < 128).all()
    assert (ones[:3].sum(dim=(1, 2, 3)) > 128 * 0.78).all()
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(copies(leaf).sum(), leaf)
    assert float(gradient[3:].sum()) == pytest.approx(3 * 128)
    assert float(gradient[:3].sum()) < 3 * 128


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_change_learned_on_other_rows_breaks_samples_it_never_saw(network, norm: str) -> None:
    model, x, y, rows, labels = network
    ball = Ball(norm=norm, radius={"linf": 0.35, "l2": 2.5}[norm])
    attack = Universal(rows=rows, labels=labels)
    outcome = attack.run(Counted(model), x, y, ball, seed=0)
    change = (outcome.adversarial - x)[np.flatnonzero(outcome.success)]
    random = ball.project(x, x + ball.radius * torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0)).sign())
    with torch.no_grad():
        by_chance = (model(random).argmax(dim=1).numpy() != y)[outcome.correct].mean()
    assert outcome.success.sum() >= max(0.4, by_chance + 0.15) * outcome.correct.sum()
    assert (sizes(change, norm) <= ball.radius * 1.0001).all()
    again = Universal(rows=rows, labels=labels).run(Counted(model), x[:7], y[:7], ball, seed=3)
    assert (again.success == outcome.success[:7]).all()


def test_learning_is_paid_for_by_the_attacked_samples_in_turn(network) -> None:
    model, x, y, rows, labels = network
    counted = Counted(model)
    outcome = Universal(rows=rows[:100], labels=labels[:100], passes=3, batch=30).run(
        counted, x, y, Ball(norm="linf", radius=0.1), seed=0
    )
    attacked = int(outcome.correct.sum())
    assert outcome.cost.forward == 300
    assert outcome.cost.queries.max() - outcome.cost.queries.min() <= 1
    capped = Universal(rows=rows[:100], labels=labels[:100], passes=3, batch=30).run(
        Counted(model), x, y, Ball(norm="linf", radius=0.1), seed=0, budget=2
    )
    assert capped.cost.queries.max() <= 2
    assert capped.cost.forward <= 2 * attacked


def test_samples_that_were_learned_from_are_refused(network) -> None:
    model, x, y, rows, labels = network
    for attack in (Universal(rows=rows, labels=labels), Patch(height=3, width=3, rows=rows, labels=labels)):
        with pytest.raises(InvalidData, match="1 of 5"):
            attack.run(Counted(model), torch.cat([x[:4], rows[:1]]), np.append(y[:4], labels[0]), WHOLE, seed=0)
        with pytest.raises(InvalidData, match="shape"):
            attack.run(Counted(lambda x: model(x[:, None])), x[:4, 0], y[:4], WHOLE, seed=0)
    with pytest.raises(InvalidData, match="labels"):
        Universal(rows=rows, labels=labels[:3])


@pytest.mark.parametrize("layout", ["channels first", "channels last", "no channels"])
def test_a_samples_own_patch_stays_in_its_place(network, layout: str) -> None:
    model, x, y, *_ = network
    turned = {
        "channels first": (x, model),
        "channels last": (x.movedim(1, -1), lambda x: model(x.movedim(-1, 1))),
        "no channels": (x[:, 0], lambda x: model(x[:, None])),
    }
    images, score = turned[layout]
    outcome = Patch(height=3, width=3, place=(2, 3)).run(Counted(score), images, y, WHOLE, seed=0)
    assert outcome.success.sum() >= 0.3 * outcome.correct.sum()
    changed = (outcome.adversarial != images).reshape(60, 8, 8)
    outside = changed.clone()
    outside[:, 2:5, 3:6] = False
    assert not outside.any()
    assert outcome.distance[outcome.success].max() <= 9


def test_random_places_differ_and_do_not_depend_on_the_batch(network) -> None:
    model, x, y, *_ = network
    attack = Patch(height=4, width=4, steps=40)
    ball = Ball(norm="l2", radius=math.inf)
    together = attack.run(Counted(model), x[:10], y[:10], ball, seed=0)
    alone = [attack.run(Counted(model), x[i : i + 1], y[i : i + 1], ball, seed=0, units=[i]) for i in range(10)]
    assert np.mean([one.success[0] == won for one, won in zip(alone, together.success, strict=True)]) >= 0.9
    corners = {tuple((sample != 0).nonzero()[0].tolist()) for sample in (together.adversarial - x[:10])[together.success]}
    assert len(corners) > 2


@pytest.mark.parametrize("place", [(0, 0), None])
def test_one_patch_learned_on_other_rows_breaks_more_than_noise_in_its_place(network, place) -> None:
    model, x, y, rows, labels = network
    ball = Ball(norm="l0", radius=25)
    settings = {"height": 5, "width": 5, "place": place, "rows": rows, "labels": labels}
    noise = Patch(steps=1, **settings).run(Counted(model), x, y, ball, seed=0)
    outcome = Patch(steps=100, **settings).run(Counted(model), x, y, ball, seed=0)
    assert outcome.success.sum() > noise.success.sum()
    assert ball.contains(x, outcome.adversarial).all()
    if place is None:
        often = Patch(steps=100, tries=6, **settings).run(Counted(model), x, y, ball, seed=0)
        assert often.success.sum() > outcome.success.sum()


def test_what_they_cannot_work_on_is_refused(network) -> None:
    model, x, y, rows, labels = network
    for domain in (Ball(norm="l0", radius=8), Ball(norm="linf", radius=0.1)):
        with pytest.raises(ConfigurationError, match="at least 9"):
            Patch(height=3, width=3).run(Counted(model), x, y, domain, seed=0)
    with pytest.raises(ConfigurationError, match="8 x 8"):
        Patch(height=3, width=3, place=(6, 0)).run(Counted(model), x, y, WHOLE, seed=0)
    with pytest.raises(InvalidData, match="no images"):
        Patch(height=3, width=3).run(Counted(lambda x: model(x.reshape(-1, 1, 8, 8))), x.flatten(1), y, WHOLE, seed=0)
    with pytest.raises(InvalidData, match="resized"):
        Momentum(diversity=0.5).run(Counted(lambda x: model(x[:, None])), x[:, 0], y, WHOLE, seed=0)
    for wrong in ({"height": 0, "width": 1}, {"height": 1, "width": 1, "labels": labels}):
        with pytest.raises(ConfigurationError):
            Patch(**wrong)
    for wrong in ({"steps": 0}, {"diversity": 2.0}, {"loss": "targeted"}, {"decay": -1.0}):
        with pytest.raises(ConfigurationError):
            Momentum(**wrong)
    with pytest.raises(ConfigurationError):
        Universal(rows=rows, labels=labels, passes=0)
