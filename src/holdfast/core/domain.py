"""What the attacker may change: a norm ball inside a box, or a table's features under constraints.

A domain works on arrays of shape (n, ...): NumPy arrays or torch tensors alike, through array-api-compat. Projection
is idempotent and its result always satisfies `contains`. An input's box is kept exactly; the ball has a relative slack
of `TOLERANCE` and a few roundings of the array's type. What is not a number is never inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from holdfast.core.arrays import Array, as_like, as_numpy
from holdfast.core.errors import ConfigurationError

Norm = Literal["linf", "l2", "l1", "l0"]
TOLERANCE = 1e-5
"""Relative slack of `contains`, for float32 rounding at the edge of a ball."""


class Domain(Protocol):
    """The set of inputs an attacker may turn x0 into."""

    def repair(self, x0: Array, x: Array) -> Array:
        """The nearest, or a near, valid input to x for each sample, whatever it costs; same shape."""

    def project(self, x0: Array, x: Array) -> Array:
        """The nearest, or a near, valid input to x that the budget allows; same shape."""

    def distance(self, x0: Array, x: Array) -> NDArray[np.float64]:
        """(n,) how much of the attacker's budget the change from x0 to x costs."""

    def contains(self, x0: Array, x: Array) -> NDArray[np.bool_]:
        """(n,) whether x is allowed around x0."""

    def sample(self, x0: Array, uniform: NDArray[np.float64]) -> Array:
        """A random allowed input for each sample.

        Args:
            x0: (n, ...) the originals.
            uniform: draws in [0, 1) of x0's shape, made by the caller one stream a sample.
        """

    def within(self, radius: float) -> Domain:
        """The same domain with another budget; `math.inf` leaves only what makes an input valid."""

    @property
    def norm(self) -> Norm:
        """How changes add up to a distance."""

    @property
    def radius(self) -> float:
        """The budget; infinite when only the box binds."""


@dataclass(frozen=True, kw_only=True)
class Ball:
    """A norm ball around x0, cut by the box in which valid inputs lie.

    Attributes:
        norm: which distance.
        radius: in the units of x; `math.inf` leaves only the box.
        low, high: the box: scalars, or arrays that broadcast against one sample.
    """

    norm: Norm
    radius: float
    low: Any = 0.0
    high: Any = 1.0

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2", "l1", "l0"):
            raise ConfigurationError(f"unknown norm {self.norm!r}", hint="One of linf, l2, l1, l0.")
        if not self.radius >= 0:
            raise ConfigurationError(f"radius {self.radius} is not a number of at least 0")

    def repair(self, x0: Array, x: Array) -> Array:
        """Into the box; what is not a number returns to the original."""
        xp = array_namespace(x)
        with np.errstate(over="ignore", invalid="ignore"):
            finite = bool(xp.isfinite(xp.sum(x)))
        x = x if finite else xp.where(xp.isfinite(x), x, x0)
        return _between(xp, x, as_like(x, self.low), as_like(x, self.high))

    def project(self, x0: Array, x: Array) -> Array:
        """Into the box, then into the ball by shrinking towards x0, which stays in the box because x0 lies in it."""
        xp = array_namespace(x)
        x = self.repair(x0, x)
        if not math.isfinite(self.radius):
            return x
        if self.norm == "linf":
            near = _between(xp, x, x0 - self.radius, x0 + self.radius)
            return _between(xp, near, as_like(x, self.low), as_like(x, self.high))
        flat = _flat(xp, x - x0)
        if self.norm == "l0":
            kept = _largest(xp, flat, int(self.radius))
            return xp.where(xp.reshape(kept, x.shape), x, x0)
        size = _norms(xp, flat, self.norm)
        outside = size > self._allowed(xp, x0, x)
        if self.norm == "l2":
            near = flat * (self.radius / xp.where(outside, size, xp.ones_like(size)))[:, None]
        else:
            near = _onto_l1(xp, flat, self.radius)
        moved = self.repair(x0, x0 + xp.reshape(near, x.shape))
        return xp.where(xp.reshape(outside, (-1, *[1] * (x.ndim - 1))), moved, x)

    def distance(self, x0: Array, x: Array) -> NDArray[np.float64]:
        """(n,) the norm of x - x0."""
        xp = array_namespace(x)
        return as_numpy(_norms(xp, _flat(xp, x - x0), self.norm))

    def contains(self, x0: Array, x: Array) -> NDArray[np.bool_]:
        """Whether x lies in the box and, up to rounding, in the ball; an input with NaN lies nowhere."""
        xp = array_namespace(x)
        boxed = _flat(xp, (x >= as_like(x, self.low)) & (x <= as_like(x, self.high)))
        within = np.asarray(as_numpy(xp.all(boxed, axis=1)), dtype=bool)
        if not math.isfinite(self.radius):
            return within
        return within & (self.distance(x0, x) <= as_numpy(self._allowed(xp, x0, x)))

    def sample(self, x0: Array, uniform: NDArray[np.float64]) -> Array:
        """Uniform in the part of the Linf ball that lies in the box, then projected.

        Raises:
            ConfigurationError: neither the radius nor the box is finite.
        """
        xp = array_namespace(x0)
        low, high = as_like(x0, self.low), as_like(x0, self.high)
        if math.isfinite(self.radius):
            low, high = xp.maximum(low, x0 - self.radius), xp.minimum(high, x0 + self.radius)
        low, high = xp.broadcast_to(low, x0.shape), xp.broadcast_to(high, x0.shape)
        if not bool(xp.all(xp.isfinite(high - low))):
            raise ConfigurationError("inputs cannot be drawn from an infinite box", hint="Declare domain.low and domain.high.")
        return self.project(x0, low + as_like(x0, uniform) * (high - low))

    def within(self, radius: float) -> Ball:
        """The same box with another radius."""
        return replace(self, radius=radius)

    def _allowed(self, xp: Any, x0: Array, x: Array) -> Array:
        """(n,) the largest distance that counts as inside: the radius, its slack and the rounding of x0 and x."""
        largest = xp.maximum(xp.max(xp.abs(_flat(xp, x0)), axis=1), xp.max(xp.abs(_flat(xp, x)), axis=1))
        features = math.prod(x.shape[1:])
        terms = {"linf": 1.0, "l2": math.sqrt(features), "l1": float(features), "l0": 0.0}[self.norm]
        return self.radius * (1 + TOLERANCE) + 4 * float(xp.finfo(x.dtype).eps) * terms * largest


def _between(xp: Any, x: Array, low: Array, high: Array) -> Array:
    return xp.minimum(xp.maximum(x, low), high)


def _flat(xp: Any, x: Array) -> Array:
    return xp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))


def _norms(xp: Any, flat: Array, norm: Norm) -> Array:
    if norm == "linf":
        return xp.max(xp.abs(flat), axis=1)
    if norm == "l2":
        return xp.sqrt(xp.sum(flat * flat, axis=1))
    if norm == "l1":
        return xp.sum(xp.abs(flat), axis=1)
    return xp.sum(xp.astype(flat != 0, flat.dtype), axis=1)


def _onto_l1(xp: Any, flat: Array, radius: float) -> Array:
    """Euclidean projection onto the L1 ball. Source: Duchi et al. (2008), figure 1, over the batch at once."""
    magnitude = xp.abs(flat)
    ordered = xp.flip(xp.sort(magnitude, axis=1), axis=1)
    cumulated = xp.cumulative_sum(ordered, axis=1) - radius
    index = as_like(flat, np.arange(1, flat.shape[1] + 1))
    active = xp.sum(xp.astype(ordered * index > cumulated, flat.dtype), axis=1)
    count = xp.clip(active, 1, None)
    picked = xp.take_along_axis(cumulated, xp.astype(count - 1, xp.int64)[:, None], axis=1)
    threshold = xp.clip(picked / count[:, None], 0, None)
    inside = xp.sum(magnitude, axis=1) <= radius
    shrunk = xp.sign(flat) * xp.clip(magnitude - threshold, 0, None)
    left = xp.sum(xp.abs(shrunk), axis=1)
    rounding = radius / xp.clip(left, radius if radius > 0 else float(xp.finfo(flat.dtype).smallest_normal), None)
    return xp.where(inside[:, None], flat, shrunk * rounding[:, None])


def _largest(xp: Any, flat: Array, keep: int) -> Array:
    """Where the `keep` largest changes of each sample are."""
    order = xp.argsort(xp.abs(flat), axis=1, descending=True, stable=True)
    return xp.argsort(order, axis=1, stable=True) < keep
