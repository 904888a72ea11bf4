"""A simulated risk in the register's words: numbers, their sources, and what the reader must know about them."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from holdfast.risk.capability import says_something, spread
from holdfast.risk.defaults import gap_shape
from holdfast.risk.information import Question
from holdfast.risk.losses import Floats, Lognormal, summarise
from holdfast.risk.register import Driver, Risk
from holdfast.risk.simulated import Meeting, Simulated

DRIVER_DRAWS = 4096
FEW = 30


def describe(simulated: Simulated, decision: str | None) -> Risk:
    """The register's entry of a simulated risk."""
    meeting, threat, actor = simulated.meeting, simulated.threat, simulated.actor
    measurement = meeting.measurement
    return Risk(
        id=simulated.id,
        threat=threat.id,
        threat_name=threat.name,
        goal=threat.goal,
        actor=actor.name,
        state=simulated.state,
        probe=measurement.evidence.probe if measurement else None,
        strength=measurement.evidence.strength if measurement else None,
        probability=spread(meeting.probability),
        curve=measurement.curve.points if measurement else (),
        axis=measurement.curve.axis if measurement else "",
        untested=meeting.untested,
        typical=None if meeting.capability is None else float(np.exp(meeting.capability.location)),
        attempts=actor.attempts_source,
        success=meeting.source,
        loss_per_event=simulated.loss_source,
        annual=summarise(simulated.annual),
        drivers=_drivers(simulated),
        decision=decision,
        notes=_notes(simulated),
    )


def question(simulated: Simulated) -> Question:
    """What a further measurement could tell about a risk."""
    actor, measurement = simulated.actor, simulated.meeting.measurement
    candidates = [probe for probe in simulated.threat.probes if actor.may(probe)]
    rate = Lognormal.between(actor.attempts.low, actor.attempts.high).mean
    return Question(
        threat=simulated.threat.id,
        probe=measurement.evidence.probe if measurement else next(iter(candidates), None),
        actor=actor.name,
        at_stake=rate * simulated.loss.mean,
        probability=simulated.meeting.learnable,
        why=_open(simulated.meeting, simulated.state),
    )


def _open(meeting: Meeting, state: str) -> str:
    if meeting.measurement is None:
        return f"P(success) is {state}: any value from 0 to 1 is taken as equally likely"
    curve = meeting.measurement.curve
    if meeting.untested > 0.05:
        return f"{meeting.untested:.0%} of the actor's {curve.axis} lies beyond the {curve.tested:g} that were tested"
    if curve.trials * curve.weight < FEW:
        return f"only {curve.trials} units were attacked, worth {curve.trials * curve.weight:.0f} independent ones"
    if curve.strength in ("weak", "moderate"):
        return f"a stronger attack may add to what this {curve.strength} probe found"
    return f"{curve.trials} units leave an interval"


def _drivers(simulated: Simulated) -> tuple[Driver, ...]:
    annual = rankdata(simulated.annual[:DRIVER_DRAWS])
    drivers = (
        Driver(
            input="attempts per year", correlation=_spearman(simulated.attempts, annual), source=simulated.actor.attempts_source
        ),
        Driver(input="P(success)", correlation=_spearman(simulated.meeting.probability, annual), source=simulated.meeting.source),
        Driver(input="loss per event", correlation=_spearman(simulated.loss_per_event, annual), source=simulated.loss_source),
    )
    return tuple(sorted(drivers, key=lambda driver: -abs(driver.correlation)))


def _spearman(values: Floats, ranks: Floats) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 when one side does not vary."""
    own = rankdata(values[:DRIVER_DRAWS])
    own, other = own - own.mean(), ranks - ranks.mean()
    size = float(np.sqrt((own @ own) * (other @ other)))
    return float(own @ other) / size if size > 0 else 0.0


def _notes(simulated: Simulated) -> tuple[str, ...]:
    threat, actor, meeting = simulated.threat, simulated.actor, simulated.meeting
    notes = []
    if threat.applicability == "unknown":
        notes.append(f"It is unknown whether the threat applies: {threat.because}")
    if meeting.measurement is None:
        notes.append(f"P(success) is {simulated.state}: any value from 0 to 1 is taken as equally likely.")
    else:
        notes += _limits(meeting, actor.name)
    for item in simulated.evidence:
        if item.status != "measured":
            notes.append(f"{item.probe} is {item.status.replace('_', ' ')}: {item.reason}")
        elif not says_something(item):
            why = "chance alone always succeeds" if item.rows else "it has no rows"
            notes.append(f"{item.probe} gives no probability: {why}.")
    if actor.attempts_source == "default":
        span = f"{actor.attempts.low:g} to {actor.attempts.high:g}"
        notes.append(f"Attempts of {actor.name} were not declared: the default of {span} a year stands in.")
    if simulated.loss_source == "default":
        notes.append(f"The loss of an event of {threat.goal} was not declared: a default stands in.")
    return tuple(notes)


def _limits(meeting: Meeting, actor: str) -> list[str]:
    """Conditions of a measured probability."""
    if meeting.measurement is None:
        return []
    curve, notes = meeting.measurement.curve, []
    if curve.axis and meeting.capability is None:
        notes.append(f"No {curve.axis} declared for {actor}: the whole tested budget of {curve.tested:g} is taken.")
    elif meeting.source == "default":
        notes.append(f"The {curve.axis} of {actor} is a default.")
    if meeting.untested >= 0.0005:
        share = f"{meeting.untested:.1%} of the actor's {curve.axis}"
        notes.append(
            f"Untested region: {share} lies beyond the largest tested, {curve.tested:g}; there any probability from the last "
            "measured one to 1 is taken as equally likely."
        )
    if curve.weight < 1:
        notes.append(f"The {curve.trials} units are clustered and count as {curve.trials * curve.weight:.0f} independent ones.")
    if curve.chance > 0:
        notes.append(f"Success above chance only: {curve.chance:.1%} succeed without the model.")
    shape = gap_shape(curve.strength)
    if np.isfinite(shape):
        further = f"{1 / (1 + shape):.0%} of the rest"
        notes.append(f"The probe is {curve.strength}: a stronger attack is taken to win a further {further}, on average.")
    return notes
