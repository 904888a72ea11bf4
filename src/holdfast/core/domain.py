"""What the attacker may change: a norm ball inside a box, or a table's features under constraints.

A domain works on arrays of shape (n, ...): NumPy arrays or torch tensors alike, through array-api-compat. Projection
is idempotent and its result always satisfies `contains`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from holdfast.core.errors import ConfigurationError

Array = Any
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

    def repair(self, x0: Array, x: Array) -> Array:  # noqa: ARG002
        """Into the box."""
        return array_namespace(x).clip(x, _like(x, self.low), _like(x, self.high))

    def project(self, x0: Array, x: Array) -> Array:
        """Into the box, then into the ball by shrinking towards x0, which stays in the box because x0 lies in it."""
        xp = array_namespace(x)
        x = self.repair(x0, x)
        if not np.isfinite(self.radius):
            return x
        delta = x - x0
        if self.norm == "linf":
            return x0 + xp.clip(delta, -self.radius, self.radius)
        flat = xp.reshape(delta, (delta.shape[0], -1))
        if self.norm == "l2":
            flat = flat * _shrink(xp, _norms(xp, flat, "l2"), self.radius)[:, None]
        elif self.norm == "l1":
            flat = _onto_l1(xp, flat, self.radius)
        else:
            flat = _largest(xp, flat, int(self.radius))
        return x0 + xp.reshape(flat, delta.shape)

    def distance(self, x0: Array, x: Array) -> NDArray[np.float64]:
        """(n,) the norm of x - x0."""
        xp = array_namespace(x)
        return _plain(_norms(xp, xp.reshape(x - x0, (x.shape[0], -1)), self.norm))

    def contains(self, x0: Array, x: Array) -> NDArray[np.bool_]:
        """Whether x lies in the box and, up to float rounding, in the ball; an input with NaN lies nowhere."""
        xp = array_namespace(x)
        slack = TOLERANCE
        low, high = _like(x, self.low), _like(x, self.high)
        boxed = xp.reshape((x >= low - slack) & (x <= high + slack), (x.shape[0], -1))
        within = np.asarray(_plain(xp.all(boxed, axis=1)), dtype=bool)
        return within & (self.distance(x0, x) <= self.radius * (1 + TOLERANCE) + 1e-12)

    def sample(self, x0: Array, uniform: NDArray[np.float64]) -> Array:
        """Uniform in the Linf ball, or in the box when the radius is infinite; then projected."""
        xp = array_namespace(x0)
        draw = _like(x0, uniform)
        low, high = _like(x0, self.low), _like(x0, self.high)
        if np.isfinite(self.radius):
            return self.project(x0, x0 + self.radius * (2 * draw - 1))
        return xp.broadcast_to(low, x0.shape) + draw * (high - low)


def _like(x: Array, value: Any) -> Array:
    """`value` as an array of x's library, type and device."""
    xp = array_namespace(x)
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    device = {"device": x.device} if hasattr(x, "detach") else {}
    return xp.asarray(value, dtype=x.dtype, **device)


def _plain(x: Array) -> NDArray[np.float64]:
    return np.asarray(x.detach().cpu().numpy() if hasattr(x, "detach") else x, dtype=np.float64)


def _norms(xp: Any, flat: Array, norm: Norm) -> Array:
    if norm == "linf":
        return xp.max(xp.abs(flat), axis=1)
    if norm == "l2":
        return xp.sqrt(xp.sum(flat * flat, axis=1))
    if norm == "l1":
        return xp.sum(xp.abs(flat), axis=1)
    return xp.sum(xp.astype(flat != 0, flat.dtype), axis=1)


def _shrink(xp: Any, size: Array, radius: float) -> Array:
    return xp.where(size > radius, radius / xp.where(size > 0, size, xp.ones_like(size)), xp.ones_like(size))


def _onto_l1(xp: Any, flat: Array, radius: float) -> Array:
    """Euclidean projection onto the L1 ball. Source: Duchi et al. (2008), figure 1, over the batch at once."""
    magnitude = xp.abs(flat)
    ordered = xp.flip(xp.sort(magnitude, axis=1), axis=1)
    cumulated = xp.cumulative_sum(ordered, axis=1) - radius
    index = _like(flat, np.arange(1, flat.shape[1] + 1))
    active = xp.sum(xp.astype(ordered * index > cumulated, flat.dtype), axis=1)
    count = xp.clip(active, 1, None)
    picked = xp.take_along_axis(cumulated, xp.astype(count - 1, xp.int64)[:, None], axis=1)
    threshold = xp.clip(picked / count[:, None], 0, None)
    inside = xp.sum(magnitude, axis=1) <= radius
    shrunk = xp.sign(flat) * xp.clip(magnitude - threshold, 0, None)
    return xp.where(inside[:, None], flat, shrunk)


def _largest(xp: Any, flat: Array, keep: int) -> Array:
    """Keep the `keep` largest changes of each sample and undo the rest."""
    if keep >= flat.shape[1]:
        return flat
    order = xp.argsort(xp.abs(flat), axis=1, descending=True, stable=True)
    rank = xp.argsort(order, axis=1, stable=True)
    return xp.where(rank < keep, flat, xp.zeros_like(flat))
