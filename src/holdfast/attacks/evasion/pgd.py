"""Projected gradient descent: evasion by gradients in steps of one length.

1. Start at a random point of the domain, or at the original.
2. Step up the loss, and project; a sample is done as soon as it is misclassified.
3. Start again as often as asked for, on what is left.

The point after the last step of the last run is judged by whoever runs the attack, so that n steps cost n queries.

Source: Madry, Makelov, Schmidt, Tsipras and Vladu (2018), "Towards deep learning models resistant to adversarial attacks",
section 2.1; the directions of the norms are those of `directions`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.ascent import Ascent, random_start
from holdfast.attacks.evasion.directions import require_radius, require_torch, step
from holdfast.attacks.evasion.losses import LOSSES, Loss
from holdfast.core.arrays import Array
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams

REACH = 2.5
"""How many radii all steps together make by default; the value of the authors' public challenge."""


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Gradient ascent in steps of equal length under linf, l2, l1 or l0. Takes torch tensors.

    Attributes:
        steps: gradient steps of each start.
        step: their length as a share of the domain's radius; `REACH / steps` by default.
        loss: `ce`, `dlr` or `margin`. Cross-entropy alone is blind to a model whose logits are large; `APGD` is not.
        restarts: how many starts.
        random_start: start anywhere in the domain; else at the original, where a second start would find nothing new.
    """

    steps: int = 40
    step: float | None = None
    loss: Loss = "ce"
    restarts: int = 1
    random_start: bool = True
    access = Access.GRADIENTS

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts) < 1 or self.loss not in LOSSES or self.loss == "targeted":
            raise ConfigurationError("PGD needs at least one step and start, and a loss of ce, dlr, margin")
        if self.step is not None and not 0 < self.step < math.inf:
            raise ConfigurationError(f"PGD in steps of {self.step} radii", hint="Give a positive share.")
        if self.restarts > 1 and not self.random_start:
            raise ConfigurationError("starts at the original are all the same", hint="Leave random_start, or restarts, as it is.")

    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams) -> Array:
        """A misclassified input for each sample for which one was seen, else where its last run ended."""
        require_torch(x)
        require_radius(domain, "PGD")
        result, open_ = x.clone(), np.arange(len(x))
        length = (REACH / self.steps if self.step is None else self.step) * domain.radius
        for start in range(self.restarts):
            open_ = open_[oracle.remaining(open_) > 0]
            if not len(open_):
                break
            now = x[open_]
            if self.random_start:
                now = random_start(domain, now, streams.uniform(open_, tuple(x.shape[1:])))
            run = Ascent(oracle, x, y, domain, open_, now, self.loss)
            self._climb(run, result, length, last=start == self.restarts - 1)
            open_ = run.samples
        return result

    def _climb(self, run: Ascent, result: Array, length: float, last: bool) -> None:
        """All steps; what is still in the run afterwards is not broken."""
        for _ in range(self.steps):
            run.settle(run.unaffordable(), result)
            if not len(run.samples):
                return
            run.settle(run.look(), result)
            if not len(run.samples):
                return
            size = run.now.new_full((len(run.samples),), length)
            ahead = step(run.domain, run.x, run.now, run.state["gradient"], size)
            run.state["now"] = run.domain.project(run.x, ahead)
        result[run.samples] = run.now
        if not last:
            run.drop(run.unaffordable())
            run.drop(run.errs())
