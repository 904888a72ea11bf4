"""One risk, simulated: an actor meets a measurement, and years pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.evidence import Evidence
from holdfast.risk.actors import RiskActor
from holdfast.risk.capability import CapabilityCurve, Luck
from holdfast.risk.losses import Floats, Lognormal
from holdfast.risk.register import RiskState, Source
from holdfast.threats.derivation import Threat

LEARNING_DRAWS = 1024


@dataclass(frozen=True)
class Measurement:
    """One piece of measured evidence, its curve, and what is not known about it."""

    evidence: Evidence
    curve: CapabilityCurve
    luck: Luck


@dataclass(frozen=True)
class Meeting:
    """P(success) of an actor.

    Attributes:
        probability: (draws,) with the actor's capability of each year.
        measurement: that it rests on; None when any probability is as likely.
        capability: the actor's on the measurement's axis; None stands for the whole tested budget.
        source: `measured`, or `default` where the actor's capability had to be assumed or nothing was measured.
    """

    probability: Floats
    measurement: Measurement | None
    capability: Lognormal | None
    source: Source

    @classmethod
    def between(cls, measurement: Measurement, actor: RiskActor, percentile: Floats) -> Meeting:
        """An actor whose capability has that percentile in each year meets a measured attack."""
        curve = measurement.curve
        declared = actor.capability.get(curve.axis)
        if declared is None:
            probability = curve.draw(np.inf, measurement.luck)
            return cls(probability, measurement, None, "default" if curve.axis else "measured")
        capability = Lognormal.typical(declared.typical, declared.high)
        probability = curve.draw(capability.quantiles(percentile), measurement.luck)
        source: Source = "default" if actor.capability_source[curve.axis] == "default" else "measured"
        return cls(probability, measurement, capability, source)

    @classmethod
    def unmeasured(cls, luck: Luck) -> Meeting:
        """Nobody measured: uniform on [0, 1]."""
        return cls(luck.curve, None, None, "default")

    @property
    def learnable(self) -> Floats:
        """P(success) averaged over the actor's capability, for some draws of what a measurement could tell."""
        if self.measurement is None:
            return self.probability[:LEARNING_DRAWS]
        return self.measurement.curve.average(self.capability, self.measurement.luck.head(LEARNING_DRAWS))

    @property
    def untested(self) -> float:
        """The share of the actor's capability beyond what was tested."""
        return 0.0 if self.measurement is None else self.measurement.curve.untested(self.capability)


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """One risk; arrays have shape (draws,).

    Attributes:
        id, threat, actor: whose.
        evidence: of every attack that the actor can make, whatever its status.
        state: of P(success).
        meeting: P(success) and what it rests on.
        attempts: the actor's yearly rate.
        loss_per_event: the mean loss of the year's events.
        annual: what the year's events cost together.
        loss, loss_source: of one event.
    """

    id: str
    threat: Threat
    actor: RiskActor
    evidence: tuple[Evidence, ...]
    state: RiskState
    meeting: Meeting
    attempts: Floats
    loss_per_event: Floats
    annual: Floats
    loss: Lognormal
    loss_source: Source
