"""FMN and DDN against distances that are known, and what every search for the smallest change keeps."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from counted import Counted, Linear, digits_network, linear
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.ddn import DDN
from holdfast.attacks.evasion.encoded import EncodedDomain, EncodedModel
from holdfast.attacks.evasion.fmn import FMN
from holdfast.core.domain import Ball
from holdfast.core.errors import ConfigurationError
from holdfast.core.table import Table
from holdfast.core.tabular import Tabular

CASES = [(FMN(steps=100), norm) for norm in ("linf", "l2", "l1")] + [(DDN(steps=100), "l2")]
IDS = [f"{type(attack).__name__}-{norm}" for attack, norm in CASES]


def nearest(model: Linear, x: np.ndarray, norm: str) -> np.ndarray:
    """(n,) distances to the boundary of a linear model of two classes."""
    scores = x @ model.weights.T + model.offsets
    slope = np.abs(model.weights[0] - model.weights[1])
    size = {"linf": slope.sum(), "l2": np.sqrt((slope**2).sum()), "l1": slope.max()}[norm]
    return np.abs(scores[:, 0] - scores[:, 1]) / size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1.0, 1000.0])
@pytest.mark.parametrize(("attack", "norm"), CASES, ids=IDS)
def test_it_finds_the_distance_of_a_linear_boundary(attack: Attack, norm: str, factor: float, dtype: torch.dtype) -> None:
    model, x, y = linear(classes=2, features=20, samples=40, factor=factor)
    ball = Ball(norm=norm, radius=math.inf, low=-9, high=9)
    outcome = attack.run(model, torch.as_tensor(x, dtype=dtype), y, ball, seed=0)
    assert outcome.success.all()
    ratio = outcome.distance / nearest(model, x, norm)
    assert ratio.min() >= 1 - 1e-4
    assert ratio.max() <= 1.01


def test_it_finds_the_fewest_features_of_a_linear_model() -> None:
    model, x, y = linear(classes=2, features=12, samples=60)
    slope = model.weights[0] - model.weights[1]
    gap = np.abs(x @ slope + model.offsets[0] - model.offsets[1])
    towards = -np.sign(slope)[None, :] * np.where(y == 0, 1, -1)[:, None]
    gain = np.abs(slope) * np.abs(2 * towards - x)
    needed = 1 + (np.cumsum(-np.sort(-gain, axis=1), axis=1) <= gap[:, None]).sum(axis=1)
    possible = needed <= 12
    outcome = FMN(steps=200).run(model, torch.as_tensor(x), y, Ball(norm="l0", radius=math.inf, low=-2, high=2), seed=0)
    assert outcome.success[possible].all()
    assert (outcome.distance[possible] >= needed[possible]).all()
    assert (outcome.distance[possible] == needed[possible]).mean() >= 0.9


@pytest.mark.parametrize(("attack", "norm"), CASES, ids=IDS)
def test_the_scale_of_the_inputs_does_not_matter(attack: Attack, norm: str) -> None:
    model, x, y = linear(classes=3, features=8, samples=30)
    found = []
    for scale in (1.0, 255.0):
        scaled = Linear(model.weights / scale, model.offsets)
        ball = Ball(norm=norm, radius=math.inf, low=-2 * scale, high=2 * scale)
        outcome = attack.run(scaled, torch.as_tensor(x * scale), y, ball, seed=0)
        found.append(outcome.distance / scale)
    assert np.allclose(found[0], found[1], rtol=0.01, equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    norm=st.sampled_from(["linf", "l2", "l1", "l0"]),
    radius=st.floats(0.0, 3.0),
    steps=st.integers(1, 30),
    budget=st.integers(1, 20),
)
def test_what_it_finds_lies_in_the_domain_within_the_cap(seed: int, norm: str, radius: float, steps: int, budget: int) -> None:
    model, x, y = linear(classes=3, features=5, samples=8, seed=seed)
    ball = Ball(norm=norm, radius=radius, low=-1, high=1)
    outcome = FMN(steps=steps).run(model, torch.as_tensor(x), y, ball, seed=0, budget=budget)
    assert outcome.cost.queries.max(initial=0) <= min(steps, budget)
    assert ball.contains(torch.as_tensor(x), outcome.adversarial).all()
    assert (model.labels(outcome.adversarial)[outcome.success] != y[outcome.success]).all()
    assert (outcome.distance[outcome.success] <= radius * (1 + 1e-4) + 1e-9).all()


@pytest.mark.parametrize(("attack", "norm"), [*CASES, (FMN(steps=100), "l0")], ids=[*IDS, "FMN-l0"])
def test_a_network_falls_closer_than_where_a_fixed_radius_starts_to_break_it(attack: Attack, norm: str) -> None:
    network, x, y = digits_network(24)
    ball = Ball(norm=norm, radius=math.inf)
    outcome = attack.run(Counted(network), x, y, ball, seed=0)
    assert outcome.success[outcome.correct].all()
    usual = {"linf": 0.15, "l2": 0.8, "l1": 4.0, "l0": 10.0}[norm]
    assert np.nanmedian(outcome.distance) < usual
    alone = attack.run(Counted(network), x[:3], y[:3], ball, seed=0)
    assert np.allclose(alone.distance, outcome.distance[:3], rtol=1e-3, equal_nan=True)


def test_ddn_walks_under_l2_only() -> None:
    model, x, y = linear(classes=2, features=4, samples=4)
    with pytest.raises(ConfigurationError, match="FMN"):
        DDN().run(model, torch.as_tensor(x), y, Ball(norm="linf", radius=1.0, low=-9, high=9), seed=0)
    with pytest.raises(ConfigurationError):
        FMN(steps=0)


def test_a_model_without_gradients_is_no_success_and_no_crash() -> None:
    flat = Counted(lambda x: torch.stack([0 * x[:, 0] + 1, 0 * x[:, 0]], dim=1))
    x = torch.full((3, 2), 0.5)
    for attack in (FMN(steps=20), DDN(steps=20)):
        outcome = attack.run(flat, x, np.zeros(3, dtype=int), Ball(norm="l2", radius=math.inf), seed=0)
        assert not outcome.success.any()


def test_a_table_is_searched_by_its_own_costs() -> None:
    frame = pd.DataFrame({"a": np.linspace(-2, 2, 9), "b": np.linspace(0, 8, 9).round().astype(int)})
    table = Table.describe(frame, costs={"a": 2.0})
    domain = EncodedDomain(tabular=Tabular(table=table, norm="l2", radius=math.inf))
    model = Counted(lambda numbers: torch.stack([numbers.sum(dim=1) - 4.1, -(numbers.sum(dim=1) - 4.1)], dim=1))

    class Frames(Counted):
        def labels(self, x):
            return model.labels(x.to_numpy(dtype=float))

    encoded = EncodedModel(Frames(model.score), table)
    x = torch.as_tensor(table.encode(frame))
    y = encoded.labels(x)
    outcome = FMN(steps=60).run(encoded, x, y, domain, seed=0)
    assert outcome.success.mean() >= 0.7
    moved = table.decode(outcome.adversarial.numpy())
    assert (moved["b"] == moved["b"].round()).all()
    assert np.allclose(outcome.distance[outcome.success], domain.distance(x, outcome.adversarial)[outcome.success])
