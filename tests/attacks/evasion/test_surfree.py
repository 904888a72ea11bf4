"""SurFree against the closed form of a linear model, its caps, and its independence of the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from counted import Counted, digits_network, linear
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.attacks.evasion.frames import frames
from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.attacks.evasion.surfree import SurFree
from holdfast.core.domain import Ball
from holdfast.core.errors import ConfigurationError
from holdfast.core.oracle import Access
from holdfast.core.seeds import SampleStreams

BOX = Ball(norm="l2", radius=math.inf, low=-9, high=9)


@given(features=st.integers(1, 40), blocks=st.integers(1, 3), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_frames_are_orthonormal_and_each_samples_own(features: int, blocks: int, seed: int) -> None:
    drawn = frames(SampleStreams(seed, range(3)), np.arange(3), blocks * features, features)(np.arange(blocks * features))
    parts = drawn.reshape(3, blocks, features, features)
    assert np.allclose(parts @ parts.swapaxes(2, 3), np.eye(features))
    alone = frames(SampleStreams(seed, range(3)), np.array([1]), blocks * features, features)(np.arange(blocks * features))
    assert np.array_equal(alone[0], drawn[1])
    if features > 8:
        assert not np.allclose(drawn[0], drawn[1])


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_it_comes_close_to_the_closed_form_on_a_linear_model(library: str) -> None:
    model, x, y = linear(classes=3, features=8, samples=24, access=Access.LABELS)
    inputs = torch.as_tensor(x) if library == "torch" else x
    outcome = SurFree().run(model, inputs, y, BOX, seed=1, budget=1000)
    ratio = outcome.distance / model.distances(x, "l2")
    assert outcome.success.all()
    assert (ratio >= 1 - 1e-9).all()
    assert np.median(ratio) < 1.02


@pytest.mark.parametrize("budget", [1, 2, 3, 10, 77])
def test_no_sample_is_asked_over_its_cap_by_an_outside_count(budget: int) -> None:
    model, x, y = linear(classes=4, features=6, samples=9)
    outcome = SurFree().run(model, x, y, Ball(norm="l2", radius=math.inf, low=-1, high=1), seed=0, budget=budget)
    assert outcome.cost.queries.max() <= budget
    assert outcome.cost.queries.sum() == outcome.cost.forward
    assert len(model.rows) - outcome.cost.forward <= 4 * len(x)
    assert np.abs(model.rows).max() <= 1


def test_it_comes_closer_than_hop_skip_jump_in_few_queries() -> None:
    network, x, y = digits_network(40)
    ball = Ball(norm="l2", radius=math.inf)
    walk = HopSkipJump().run(Counted(network), x, y, ball, seed=0, budget=150)
    outcome = SurFree().run(Counted(network), x, y, ball, seed=0, budget=150)
    assert np.nanmedian(outcome.distance) < np.nanmedian(walk.distance)


@pytest.mark.parametrize("attack", [SurFree(), HopSkipJump()])
def test_a_model_that_hides_behind_rounded_inputs_and_bare_labels_falls(attack) -> None:
    network, x, y = digits_network(40)
    masked = Counted(lambda rows: network((rows * 4).round() / 4) * 1000, access=Access.LABELS)
    ball = Ball(norm="l2", radius=1.0)
    plain = attack.run(Counted(network), x, y, ball, seed=0, budget=500)
    hidden = attack.run(masked, x, y, ball, seed=0, budget=500)
    assert hidden.success.sum() > 0.7 * plain.success.sum() > 0.5 * plain.correct.sum()


def test_owned_rows_of_another_class_make_a_closer_start() -> None:
    model, x, y = linear(classes=3, features=30, samples=60, seed=4)
    random = SurFree().run(model, x[:20], y[:20], BOX, seed=0, budget=15)
    owned = SurFree(starts=x[20:], start_labels=y[20:]).run(model, x[:20], y[:20], BOX, seed=0, budget=15)
    assert owned.success.all()
    assert np.median(owned.distance) < np.nanmedian(random.distance)


def test_a_result_does_not_depend_on_the_batch() -> None:
    model, x, y = linear(classes=4, features=20, samples=12)
    together = SurFree().run(model, x, y, BOX, seed=3, budget=150)
    alone = [SurFree().run(model, x[i : i + 1], y[i : i + 1], BOX, seed=3, budget=150, units=[i]) for i in range(12)]
    assert np.allclose([float(one.distance[0]) for one in alone], together.distance, rtol=1e-9)


def test_what_cannot_be_is_refused() -> None:
    model, x, y = linear(classes=3, features=4, samples=5)
    with pytest.raises(ConfigurationError, match="linf"):
        SurFree().run(model, x, y, Ball(norm="linf", radius=1.0, low=-1, high=1), seed=0)
    for wrong in ({"angle": 0.0}, {"angle": 90.0}, {"queries": 0}, {"starts": np.zeros((2, 2))}):
        with pytest.raises(ConfigurationError):
            SurFree(**wrong)
