"""What attacks for the smallest change share: they walk along the decision boundary, and keep the closest error they saw.

They need no radius: a domain without one lets them go anywhere in its box, a domain with one keeps them within it. Torch tensors.
Steps have lengths in units of how far a feature can vary, so that the scale of the inputs does not matter. In a table's domain
they walk over the real numbers and judge the valid row next to each point by its cost.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.ascent import Ascent
from holdfast.attacks.evasion.directions import column, require_torch, span
from holdfast.core.arrays import Array, as_like
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams


@dataclass(frozen=True, kw_only=True)
class MinimalChange(Attack):
    """A search for the closest misclassified input of each sample.

    Attributes:
        steps: questions for each sample, fewer where the run's budget is smaller.
    """

    steps: int = 200
    access = Access.GRADIENTS

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigurationError(f"{type(self).__name__} in {self.steps} steps")

    @final
    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, _: SampleStreams) -> Array:
        """The closest misclassified input that was seen for each sample, else the original."""
        require_torch(x)
        self.check(domain)
        import torch

        result, everyone = x.clone(), np.arange(len(x))
        run = Ascent(oracle, x, y, domain, everyone, x.clone(), "margin")
        state = run.state
        state["best"], state["closest"] = x.clone(), x.new_full((len(x),), math.inf)
        state["radius"], state["span"] = x.new_zeros(len(x)), span(run.domain, x)
        steps = int(min(self.steps, oracle.remaining().max(initial=0)))
        for turn in range(steps):
            run.settle(run.unaffordable(), result, "best")
            if not len(run.samples):
                return result
            wrong = torch.as_tensor(run.look(), device=x.device)
            state = run.state
            distance = as_like(state["closest"], domain.distance(run.x, state["asked"]))
            closer = wrong & (distance < state["closest"])
            state["best"] = state["asked"].where(column(closer, x), state["best"])
            state["closest"] = distance.where(closer, state["closest"])
            self.advance(run, wrong, turn / steps)
        result[run.samples] = run.state["best"]
        return result

    def check(self, domain: Domain) -> None:
        """Return if the attack knows the domain's norm.

        Raises:
            ConfigurationError: it does not.
        """

    @abstractmethod
    def advance(self, run: Ascent, wrong: Array, share: float) -> None:
        """Move each point.

        Args:
            run: its state has the loss and gradient of the margin, the `radius` last used (0 at first), the `closest` distance of
                an error so far, and the `span` of each sample.
            wrong: (m,) where the model errs now.
            share: of the steps that are over, in [0, 1).
        """


def annealed(first: float, last: float, share: float) -> float:
    """From one value to another along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
