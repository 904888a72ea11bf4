"""The risk register: each threat x actor as a distribution of annual loss, with the source of every input."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator

from holdfast.core.evidence import Document, Finite

Source = Literal["measured", "declared", "default"]
RiskState = Literal["measured", "unmeasured", "inconclusive", "failed"]


def _checked_day(text: str) -> str:
    date.fromisoformat(text)
    return text


Day = Annotated[str, AfterValidator(_checked_day)]
"""A date as YYYY-MM-DD."""


class Loss(Document):
    """Annual loss in the system's unit: mean, quantiles, and the exceedance curve as (loss, probability) points."""

    mean: Finite
    p5: Finite
    p50: Finite
    p95: Finite
    exceedance: tuple[tuple[Finite, Finite], ...] = ()


class CurvePoint(Document):
    """P(success within a capability), with its exact 95 % interval and counts."""

    capability: Finite
    value: Finite
    low: Finite
    high: Finite
    successes: int
    trials: int


class Driver(Document):
    """How strongly an input moves the annual loss: Spearman's rank correlation over the Monte Carlo draws."""

    input: Literal["attempts per year", "P(success)", "loss per event"]
    correlation: Finite
    source: Source


class Risk(Document):
    """One threat by one actor.

    Attributes:
        id: stable: threat and actor slug.
        threat, threat_name, goal, actor: whose risk it is.
        state: `measured`, or why P(success) is not: the prior is then uniform on [0, 1].
        probe: the probe whose evidence gave P(success); None without one.
        strength: of the probe.
        probability: P(success | actor): mean and the 5 % and 95 % points.
        curve: the capability curve; empty when success has no capability axis.
        axis, untested: what capability counts, and the share of the actor's capability beyond what was tested.
        typical: the median of the actor's capability on the axis; None where the whole tested budget stands in.
        attempts, success, loss_per_event: where each input came from.
        annual: the annual loss.
        drivers: which input matters most, strongest first.
        decision: id of the decision in force; None without one.
        notes: conditions that the reader must know (untested region, default inputs, probe strength).
    """

    id: str
    threat: str
    threat_name: str
    goal: str
    actor: str
    state: RiskState
    probe: str | None = None
    strength: str | None = None
    probability: tuple[Finite, Finite, Finite]
    curve: tuple[CurvePoint, ...] = ()
    axis: str = ""
    untested: Finite = 0.0
    typical: Finite | None = None
    attempts: Source
    success: Source
    loss_per_event: Source
    annual: Loss
    drivers: tuple[Driver, ...] = ()
    decision: str | None = None
    notes: tuple[str, ...] = ()


class LeftOut(Document):
    """A threat that became no risk, because every measurement of it says that it cannot occur here."""

    threat: str
    probes: tuple[str, ...]
    reason: str


class NextProbe(Document):
    """A measurement that is worth making, by the expected value of knowing P(success) perfectly, in loss a year.

    `value` is over all actors of the threat; `actor` is the one who contributes most to it.
    """

    threat: str
    probe: str | None
    actor: str
    value: Finite
    why: str


class Decision(Document):
    """What the owner decided about a risk, and what it rests on; it lapses when the model, the data or the date move on."""

    id: str
    risk: str
    choice: Literal["accept", "mitigate", "transfer", "avoid"]
    who: str
    until: Day
    reason: str = ""
    model_digest: str
    data_digest: str
    made: str
    state: Literal["in force", "lapsed"] = "in force"
    lapsed_because: str = ""


class RiskRegister(Document):
    """All risks of one assessment.

    Attributes:
        unit: of all losses, such as EUR.
        risks: unmeasured first among equals, then by mean annual loss, largest first.
        total: the sum over risks, drawn together so that risks of one actor move together.
        appetite: (annual loss, at) as declared; None without.
        exceeds_appetite: P(total annual loss > appetite); None without appetite.
        draws, seed: of the Monte Carlo.
        next_probes: most valuable first.
        left_out: threats without a risk, with the reason.
    """

    unit: str
    risks: tuple[Risk, ...]
    total: Loss
    appetite: tuple[Finite, Finite] | None = None
    exceeds_appetite: Finite | None = None
    draws: int
    seed: int
    next_probes: tuple[NextProbe, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
