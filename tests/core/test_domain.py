"""Norm balls in a box: projection, membership and sampling, on NumPy and torch alike."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

from holdfast.core.domain import Ball, Norm
from holdfast.core.errors import ConfigurationError

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1", "l0")
ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)


@st.composite
def changed(draw, dtype=None):
    """A ball, originals inside its box, and whatever an attack might return."""
    dtype = draw(st.sampled_from([np.float32, np.float64])) if dtype is None else dtype
    shape = (draw(st.integers(1, 4)), *draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)))
    low = draw(st.sampled_from([0.0, -1.0, -255.0, 1e6]))
    high = low + draw(st.sampled_from([1e-3, 1.0, 255.0]))
    radius = draw(st.sampled_from([0.0, 1e-4, 0.1, 1.0, 3.7, 100.0, math.inf]))
    ball = Ball(norm=draw(st.sampled_from(NORMS)), radius=radius, low=low, high=high)
    unit = draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 1)))
    x0 = np.clip((low + unit * (high - low)).astype(dtype), dtype(low), dtype(high))
    near = (x0 + draw(hnp.arrays(np.float64, shape, elements=st.floats(-5, 5))) * min(radius, high - low)).astype(dtype)
    wild = draw(hnp.arrays(dtype, shape, elements=ANY if dtype == np.float32 else st.floats(allow_nan=True)))
    return ball, x0, wild if draw(st.booleans()) else near


@settings(max_examples=300, deadline=None)
@given(changed())
def test_a_projection_is_inside_and_projecting_again_changes_nothing(case) -> None:
    ball, x0, x = case
    once = ball.project(x0, x)
    assert once.shape == x0.shape
    assert once.dtype == x0.dtype
    assert ball.contains(x0, once).all()
    assert np.array_equal(ball.project(x0, once), once)
    assert ((once >= x0.dtype.type(ball.low)) & (once <= x0.dtype.type(ball.high))).all()


@settings(max_examples=150, deadline=None)
@given(changed())
def test_what_is_inside_stays_as_it_is(case) -> None:
    ball, x0, x = case
    inside = ball.contains(x0, x)
    kept = ball.project(x0, x)
    distance = ball.distance(x0, np.where(np.isfinite(x), x, x0))
    strictly = inside & (distance <= ball.radius)
    if ball.norm == "linf":
        step = 4 * np.finfo(x.dtype).eps * max(abs(ball.low), abs(ball.high))
        assert np.allclose(kept[strictly], x[strictly], rtol=0, atol=step)
    else:
        assert np.array_equal(kept[strictly], x[strictly])


@settings(max_examples=150, deadline=None)
@given(changed(dtype=np.float32))
def test_torch_and_numpy_agree(case) -> None:
    ball, x0, x = case
    t0, t = torch.tensor(x0), torch.tensor(x)
    with np.errstate(over="ignore"):
        expected = ball.project(x0, x)
    assert np.allclose(ball.project(t0, t).numpy(), expected, rtol=1e-5, atol=1e-5 * max(abs(ball.low), abs(ball.high)))
    assert ball.contains(t0, ball.project(t0, t)).all()


@settings(max_examples=150, deadline=None)
@given(changed(), st.integers(0, 2**32))
def test_a_sample_is_inside(case, seed: int) -> None:
    ball, x0, _ = case
    assert ball.contains(x0, ball.sample(x0, np.random.default_rng(seed).random(x0.shape))).all()


def test_draws_near_zero_and_one_give_the_corners_of_the_linf_ball() -> None:
    ball = Ball(norm="linf", radius=0.25)
    x0 = np.array([[0.5, 0.1, 0.9]])
    assert np.allclose(ball.sample(x0, np.zeros((1, 3))), [[0.25, 0.0, 0.65]])
    assert np.allclose(ball.sample(x0, np.full((1, 3), 1 - 1e-12)), [[0.75, 0.35, 1.0]])


def test_nan_lies_nowhere_and_is_projected_onto_the_original() -> None:
    x0, x = np.full((1, 2), 0.5), np.array([[np.nan, 0.6]])
    for norm in NORMS:
        ball = Ball(norm=norm, radius=2.0)
        assert not ball.contains(x0, x).any()
        assert np.allclose(ball.project(x0, x), [[0.5, 0.6]])


def test_the_box_has_no_slack() -> None:
    ball = Ball(norm="linf", radius=math.inf, low=0.0, high=1.0)
    assert not ball.contains(np.ones((1, 1)), np.nextafter(np.ones((1, 1)), 2)).any()


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
def test_l1_projection_equals_an_independent_optimiser(dimension: int) -> None:
    generator = np.random.default_rng(dimension)
    ball = Ball(norm="l1", radius=0.7, low=-10.0, high=10.0)
    signs = np.array(list(itertools.product([-1, 1], repeat=dimension)))
    for _ in range(10):
        x0, x = generator.normal(size=(2, 1, dimension))
        found = minimize(
            lambda z, x=x: ((z - x[0]) ** 2).sum(),
            x0[0],
            jac=lambda z, x=x: 2 * (z - x[0]),
            constraints=[{"type": "ineq", "fun": lambda z, x0=x0: 0.7 - signs @ (z - x0[0]), "jac": lambda z: -signs}],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert np.allclose(ball.project(x0, x)[0], found.x, atol=1e-5)


def test_l2_projection_is_radial_and_l0_keeps_the_largest_changes() -> None:
    x0, x = np.zeros((1, 3)), np.array([[3.0, 0.0, 4.0]])
    assert np.allclose(Ball(norm="l2", radius=1.0, low=-9.0, high=9.0).project(x0, x), [[0.6, 0.0, 0.8]])
    assert np.array_equal(Ball(norm="l0", radius=1, low=-9.0, high=9.0).project(x0, x), [[0.0, 0.0, 4.0]])


def test_bounds_may_differ_by_feature() -> None:
    ball = Ball(norm="linf", radius=math.inf, low=np.array([0.0, -1.0]), high=np.array([1.0, 1.0]))
    assert np.array_equal(ball.project(np.zeros((1, 2)), np.full((1, 2), -9.0)), [[0.0, -1.0]])


@pytest.mark.parametrize(("norm", "radius"), [("l3", 1.0), ("l2", -1.0), ("l2", math.nan)])
def test_a_ball_that_is_none_is_refused(norm: str, radius: float) -> None:
    with pytest.raises(ConfigurationError):
        Ball(norm=norm, radius=radius)  # type: ignore[arg-type]


def test_an_infinite_box_cannot_be_sampled() -> None:
    with pytest.raises(ConfigurationError, match="infinite"):
        Ball(norm="l2", radius=math.inf, low=-math.inf, high=math.inf).sample(np.zeros((1, 2)), np.zeros((1, 2)))


def test_within_changes_only_the_radius() -> None:
    ball = Ball(norm="l1", radius=1.0, low=-2.0, high=2.0)
    assert ball.within(0.5) == Ball(norm="l1", radius=0.5, low=-2.0, high=2.0)


@pytest.mark.parametrize("norm", NORMS)
def test_no_rows_are_no_trouble(norm: Norm) -> None:
    ball = Ball(norm=norm, radius=0.5)
    for empty in (np.zeros((0, 1, 2, 2)), torch.zeros((0, 1, 2, 2))):
        assert tuple(ball.project(empty, empty).shape) == (0, 1, 2, 2)
        assert ball.contains(empty, empty).shape == ball.distance(empty, empty).shape == (0,)
        assert tuple(ball.sample(empty, np.zeros((0, 1, 2, 2))).shape) == (0, 1, 2, 2)


def test_an_l1_ball_without_radius_holds_its_centre_alone_however_small_the_change() -> None:
    ball = Ball(norm="l1", radius=0.0, low=0.0, high=0.001)
    x0 = np.zeros((1, 3, 3, 3))
    projected = ball.project(x0, np.full_like(x0, 3.84004784e-42))
    assert not projected.any()
    assert ball.contains(x0, projected).all()
