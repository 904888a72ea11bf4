"""Fast minimum-norm attack: the smallest change under l0, l1, l2 or linf, by projected gradients in a ball of changing size.

1. Until a sample is misclassified for the first time, its ball reaches as far as its boundary seems to lie by a linear estimate.
2. From then on the ball shrinks while the sample is misclassified and grows while it is not, by less and less.
3. Each step goes along the gradient of the margin, and back into the box, then into the ball: what the box cuts off takes no part
   of the ball. Step lengths fall along half a cosine.

Source: Pintor, Roli, Brendel and Biggio (2021), "Fast minimum-norm adversarial attacks through adaptive norm constraints",
algorithm 1 and section 2; the step of 10 under linf is that of its section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from holdfast.attacks.evasion.ascent import Ascent
from holdfast.attacks.evasion.directions import column, dual, into_ball, sizes
from holdfast.attacks.evasion.minimal import MinimalChange, annealed
from holdfast.core.arrays import Array

CHANGE, LEAST_CHANGE = 0.05, 0.001
"""By which share the ball grows or shrinks in the first and in the last step."""
LEAST_STEP = 0.01
"""The last step's length as a share of the first one's."""


@dataclass(frozen=True, kw_only=True)
class FMN(MinimalChange):
    """The fast minimum-norm attack under the domain's norm.

    Attributes:
        step: the first step's l2 length in spans of a feature; 10 under linf and 1 else by default.
    """

    step: float | None = None

    def advance(self, run: Ascent, wrong: Array, share: float) -> None:
        """Set the ball's radius, step, and project."""
        state, norm = run.state, run.domain.norm
        rate = annealed(CHANGE, LEAST_CHANGE, share)
        radius, closest, gradient = state["radius"], state["closest"], state["gradient"]
        if norm == "l0":
            shrunk, grown = (radius * (1 - rate)).floor().minimum(radius - 1), (radius * (1 + rate)).floor().maximum(radius + 1)
            unknown = grown
        else:
            shrunk, grown = radius * (1 - rate), radius * (1 + rate)
            slope = sizes(gradient, dual(norm)).clamp_min(1e-30)
            unknown = (sizes(run.now - run.x, norm) + (-state["value"]).clamp_min(0) / slope) * (1 + rate)
        radius = shrunk.minimum(closest).where(wrong, grown.where(closest.isfinite(), unknown))
        features = run.now[0].numel()
        widest = {"linf": 1.0, "l2": math.sqrt(features), "l1": float(features), "l0": math.inf}[norm] * state["span"]
        state["radius"] = radius.clamp_min(0).minimum(widest).clamp_max(run.domain.radius)
        first = (10.0 if norm == "linf" else 1.0) if self.step is None else self.step
        length = state["span"] * annealed(first, first * LEAST_STEP, share)
        ahead = run.domain.repair(run.x, run.now + column(length / sizes(gradient, "l2").clamp_min(1e-30), run.x) * gradient)
        state["now"] = run.domain.repair(run.x, run.x + into_ball(ahead - run.x, state["radius"], norm))
