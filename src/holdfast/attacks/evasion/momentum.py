"""Momentum iterative attack: examples that carry over to models that nobody can ask for gradients.

1. Add each gradient, by its size, to a decaying sum of those before.
2. Step along that sum, and project.
3. Optionally take the gradient at a randomly resized and padded copy of each image, so that the step suits more than one model.

All steps are made, past the first error too: what is deeper in the wrong class carries over more often. The point after the last
step is what it returns.

Source: Dong, Liao, Pang, Su, Zhu, Hu and Li (2018), "Boosting adversarial attacks with momentum", algorithm 1; Xie, Zhang, Zhou,
Bai, Wang, Ren and Yuille (2019), "Improving transferability of adversarial examples with input diversity", section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.ascent import Ascent
from holdfast.attacks.evasion.directions import column, require_radius, require_torch, sizes, step
from holdfast.attacks.evasion.losses import LOSSES, Loss
from holdfast.core.arrays import Array
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError, InvalidData
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams

SMALLEST = 0.9
"""The smallest side of a resized image, as a share of its own."""


@dataclass(frozen=True, kw_only=True)
class Momentum(Attack):
    """Momentum iterative ascent under linf, l2, l1 or l0. Takes torch tensors.

    Attributes:
        steps: gradient steps; each has the radius over `steps` as its length.
        decay: of the sum of gradients; 0 leaves plain iterative ascent.
        diversity: the share of gradients taken at resized copies; inputs must then be images (n, channels, height, width).
        loss: what is raised; `targeted` has no target here.
    """

    steps: int = 10
    decay: float = 1.0
    diversity: float = 0.0
    loss: Loss = "ce"
    access = Access.GRADIENTS

    def __post_init__(self) -> None:
        if self.steps < 1 or self.decay < 0 or not 0 <= self.diversity <= 1 or self.loss not in LOSSES or self.loss == "targeted":
            raise ConfigurationError("momentum needs a step, a decay of at least 0, diversity in [0, 1] and an untargeted loss")

    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams) -> Array:
        """Where each sample's ascent ended.

        Raises:
            InvalidData: resizing was asked for, and inputs are no images.
        """
        require_torch(x)
        require_radius(domain, "the momentum attack")
        if self.diversity and x.ndim != 4:
            raise InvalidData(
                f"inputs of shape {tuple(x.shape[1:])} cannot be resized",
                hint="Images have channels, height and width; or diversity=0.",
            )
        result = x.clone()
        run = Ascent(oracle, x, y, domain, np.arange(len(x)), x.clone(), self.loss)
        run.state["sum"] = x.new_zeros(x.shape)
        for _ in range(self.steps):
            run.settle(run.unaffordable(), result)
            if not len(run.samples):
                return result
            run.look(_Copies(run.now, streams.uniform(run.samples, (5,)), self.diversity) if self.diversity else None)
            state, gradient = run.state, run.state["gradient"]
            mean = sizes(gradient, "l1") / gradient[0].numel()
            state["sum"] = self.decay * state["sum"] + gradient / column(mean, gradient).clamp_min(1e-30)
            length = state["value"].new_full((len(run.samples),), max(domain.radius / self.steps, float(domain.norm == "l0")))
            ahead = step(run.domain, run.x, run.now, state["sum"], length.to(x.dtype))
            state["now"] = run.domain.project(run.x, ahead)
        result[run.samples] = run.now
        return result


class _Copies:
    """Images at random sizes and places on a blank one of their own size, by bilinear sampling, so that gradients come back.

    Args:
        x: (m, channels, height, width).
        uniform: (m, 5) draws: whether at all, height, width, and place.
        share: of the images that are resized.
    """

    def __init__(self, x: Array, uniform: NDArray[np.float64], share: float) -> None:
        import torch

        draws = torch.as_tensor(uniform, dtype=x.dtype, device=x.device)
        resized = draws[:, 0] < share
        scale = torch.where(resized[:, None], SMALLEST + (1 - SMALLEST) * draws[:, 1:3], torch.ones_like(draws[:, 1:3]))
        room = 1 - scale
        self._turn = torch.zeros(len(x), 2, 3, dtype=x.dtype, device=x.device)
        for axis in (0, 1):
            self._turn[:, axis, axis] = 1 / scale[:, axis]
            self._turn[:, axis, 2] = room[:, axis] * (2 * draws[:, 3 + axis] - 1) / scale[:, axis]

    def __call__(self, x: Array) -> Array:
        """(m, channels, height, width) the copies."""
        import torch

        grid = torch.nn.functional.affine_grid(self._turn, list(x.shape), align_corners=False)
        return torch.nn.functional.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
