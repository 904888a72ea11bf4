"""Decoupled direction and norm: the smallest change under l2, on a sphere whose radius is adapted by itself.

1. Step along the gradient, by less and less.
2. Shrink the sphere by a fixed share if the sample is misclassified, else let it grow.
3. Back onto the sphere and into the box.

Source: Rony, Hafemann, Oliveira, Ben Ayed, Sabourin and Granger (2019), "Decoupling direction and norm for efficient
gradient-based L2 adversarial attacks and defenses", algorithm 1, without its quantization. The margin takes the place of
cross-entropy, whose gradient vanishes where the logits are large, and the first sphere reaches as far as the boundary seems to
lie by a linear estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.attacks.evasion.ascent import Ascent
from holdfast.attacks.evasion.directions import column, sizes
from holdfast.attacks.evasion.minimal import MinimalChange, annealed
from holdfast.core.arrays import Array
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError

CHANGE = 0.05
"""By which share the sphere grows or shrinks."""
LEAST_STEP = 0.01
TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class DDN(MinimalChange):
    """The decoupled direction and norm attack. Steps start at one span of a feature."""

    def check(self, domain: Domain) -> None:
        """Return if the domain's norm is l2.

        Raises:
            ConfigurationError: it is another one.
        """
        if domain.norm != "l2":
            raise ConfigurationError(f"DDN walks on l2 spheres, not {domain.norm} ones", hint="Use FMN.")

    def advance(self, run: Ascent, wrong: Array, share: float) -> None:
        """Step, set the sphere's radius, and project onto it."""
        state, gradient = run.state, run.state["gradient"]
        slope = sizes(gradient, "l2").clamp_min(TINY)
        if share == 0:
            state["radius"] = (-state["value"]).clamp_min(0) / slope
        else:
            state["radius"] = state["radius"] * (1 + CHANGE * (1 - 2 * wrong.to(slope.dtype)))
        state["radius"] = state["radius"].clamp(0, run.domain.radius)
        length = state["span"] * annealed(1, LEAST_STEP, share)
        change = run.now + column(length / slope, run.x) * gradient - run.x
        change = change * column(state["radius"] / sizes(change, "l2").clamp_min(TINY), run.x)
        state["now"] = run.domain.repair(run.x, run.x + change)
