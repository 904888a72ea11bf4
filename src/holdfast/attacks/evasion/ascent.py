"""The samples that one run of a gradient attack still works on: where each stands, and what the model says there.

A sample leaves as soon as it is misclassified or has no queries left, and with it go its rows of all of the run's tensors, so
that the model is asked about nothing that is settled and no step copies more than it must.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.evasion.encoded import EncodedDomain
from holdfast.attacks.evasion.losses import LOSSES, Loss
from holdfast.core.arrays import Array, as_like
from holdfast.core.domain import Ball, Domain
from holdfast.core.oracle import Oracle

Index = NDArray[np.int64]


def searched(domain: Domain) -> Domain:
    """The domain that steps move in: a table's over the real numbers, any other as it is."""
    return domain.relaxed if isinstance(domain, EncodedDomain) else domain


def random_start(domain: Domain, x: Array, uniform: NDArray[np.float64]) -> Array:
    """Points anywhere in the ball around each original, brought into the box; in other domains, its own draws.

    Unlike a draw from the part of the ball that lies in the box, this leaves features at the box's edge there half of the time.
    """
    moved = searched(domain)
    if not isinstance(moved, Ball) or moved.norm == "l0":
        return moved.sample(x, uniform)
    return moved.project(x, x + moved.radius * as_like(x, 2 * uniform - 1))


class Ascent:
    """One run on some samples.

    Args:
        start: (m, ...) where they begin.
        target: (m,) classes, for the loss that reads them.

    Attributes:
        samples: (m,) those that are still open.
        domain: what the points move in; the model is asked at the valid input next to each.
        state: tensors (m, ...) by name, whose rows leave with their samples; originals, labels and points are among them.
    """

    def __init__(
        self,
        oracle: Oracle,
        x: Array,
        y: NDArray[np.int64],
        domain: Domain,
        samples: Index,
        start: Array,
        loss: Loss,
        target: Array | None = None,
    ) -> None:
        import torch

        self.oracle, self.samples, self.loss = oracle, samples, LOSSES[loss]
        self.valid, self.domain = domain, searched(domain)
        labels = torch.as_tensor(y[samples], device=x.device)
        whole = len(samples) == len(x)
        self.state: dict[str, Array] = {
            "x": x if whole else x[samples],
            "y": labels,
            "target": labels if target is None else target,
            "now": start,
        }

    @property
    def x(self) -> Array:
        """(m, ...) the originals."""
        return self.state["x"]

    @property
    def now(self) -> Array:
        """(m, ...) the points."""
        return self.state["now"]

    def look(self, view: Callable[[Array], Array] | None = None) -> NDArray[np.bool_]:
        """Where the model errs; the state then has what was `asked`, and the loss and its gradient there, `value` and `gradient`.

        What is no number becomes the smallest value and no gradient.

        Args:
            view: what the model is shown instead of the points, differentiable; the gradient comes back through it.
        """
        wrong: list[Array] = []
        y, target = self.state["y"], self.state["target"]

        def loss(logits: Array) -> Array:
            wrong.append(logits.detach().argmax(dim=1) != y)
            return self.loss(logits, y, target)

        self.state["asked"] = asked = self._asked()
        if view is None:
            value, gradient = self.oracle.value_and_gradient(asked, loss, self.samples)
        else:
            value, gradient = self._through(view, asked, loss)
        if not bool(gradient.sum().isfinite()):
            gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        self.state["value"], self.state["gradient"] = value.nan_to_num(-math.inf), gradient
        return np.asarray(wrong[-1].cpu().numpy())

    def errs(self) -> NDArray[np.bool_]:
        """Where the model errs, by one query and no gradient for each sample."""
        if not len(self.samples):
            return np.zeros(0, dtype=bool)
        scores = self.oracle.scores(self._asked(), self.samples)
        return np.asarray((scores.argmax(dim=1).to(self.now.device) != self.state["y"]).cpu().numpy())

    def unaffordable(self) -> NDArray[np.bool_]:
        """Which samples have no query left."""
        return self.oracle.remaining(self.samples) <= 0

    def settle(self, gone: NDArray[np.bool_], result: Array, name: str = "now") -> None:
        """Write down where all stand, or another of the state's tensors, and let some go."""
        if gone.any():
            result[self.samples] = self.state[name]
            self.drop(gone)

    def drop(self, gone: NDArray[np.bool_]) -> None:
        """Let samples go."""
        if gone.any():
            kept: Any = np.flatnonzero(~gone)
            self.samples = self.samples[kept]
            self.state = {name: value[kept] for name, value in self.state.items()}

    def _through(self, view: Callable[[Array], Array], asked: Array, loss: Callable[[Array], Array]) -> tuple[Array, Array]:
        import torch

        leaf = asked.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            seen = view(leaf)
        value, slope = self.oracle.value_and_gradient(seen.detach(), loss, self.samples)
        (gradient,) = torch.autograd.grad(seen, leaf, grad_outputs=slope.to(seen.dtype))
        return value, gradient

    def _asked(self) -> Array:
        return self.now if self.valid is self.domain else self.valid.project(self.x, self.now)
