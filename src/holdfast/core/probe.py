"""What a probe is: a measurement of one threat family on a target.

A probe registers under the entry-point group `holdfast.probes`. `check` says in advance, and without computing, whether
it can run on a target; `work` says what it will cost; `run` measures and returns evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from holdfast.core.evidence import Evidence
from holdfast.core.progress import Progress
from holdfast.core.target import Target


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much a probe may do.

    Attributes:
        level: the name that the user chose.
        rows: inputs that are attacked.
        queries: most rows a black-box attack may ask for one input.
        repeats: training runs of a probe that retrains.
        shadows: shadow models.
    """

    level: str
    rows: int
    queries: int
    repeats: int
    shadows: int


BUDGETS: Mapping[str, Budget] = {
    "quick": Budget(level="quick", rows=64, queries=300, repeats=5, shadows=8),
    "standard": Budget(level="standard", rows=200, queries=1000, repeats=10, shadows=16),
    "thorough": Budget(level="thorough", rows=1000, queries=5000, repeats=30, shadows=64),
}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a probe will cost, in units that the planner can price on the target at hand.

    Attributes:
        predictions: rows passed forward through the model.
        gradients: rows passed backward.
        fits: trainings by the recipe.
        seconds: further CPU seconds that do not depend on the model.
    """

    predictions: int = 0
    gradients: int = 0
    fits: int = 0
    seconds: float = 0.0


@runtime_checkable
class Probe(Protocol):
    """A measurement of one threat family.

    Attributes:
        id: the catalogue's probe id.
        threats: the catalogue's threat ids that its evidence is about.
        access: what the measured attacker has, in the catalogue's words (`white-box`, `scores`, `label`, `training rows`, ...).
    """

    id: str
    threats: tuple[str, ...]
    access: str

    def check(self, target: Target) -> None:
        """Return if the probe can run on the target.

        Raises:
            NotApplicable, Unmeasured: with the reason.
        """

    def work(self, target: Target, budget: Budget) -> Work:
        """The cost of `run`."""

    def run(self, target: Target, budget: Budget, seed: int, progress: Progress) -> Evidence:
        """Measure.

        Raises:
            CannotMeasure: one of its four kinds, with the reason; the caller turns it into evidence of that status.
        """
