"""From threats and evidence to a register of annual losses: FAIR with P(success) measured.

Annual loss = Poisson(attempts x P(success | actor)) events x loss per event, simulated year by year.

1. Each threat that applies, or may, becomes one risk for each actor who can carry it out (`actors`).
2. P(success) comes from the measurement that gives that actor the most (`capability`), or is uniform where there is none.
3. An actor's attempts and capability are drawn once a year and shared by all the actor's risks; what is not known about a
   measurement is drawn once and shared by all actors who meet it.
4. Losses are drawn event by event (`losses`), and risks are added year by year.

Every risk, actor and probe has a random stream of its own, so that another risk changes no number of this one, and a register
after a control differs from the one before only by what was measured.
Source: The Open Group, "Risk Analysis (O-RA)" (2021), for the factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from holdfast.core import seeds
from holdfast.core.errors import ConfigurationError
from holdfast.core.evidence import Evidence
from holdfast.risk.actors import RiskActor, able_actors, actors_of, checked_range, is_default
from holdfast.risk.capability import CapabilityCurve, Luck, says_something, success_probability
from holdfast.risk.defaults import LOSS_PER_EVENT, UNIT
from holdfast.risk.description import describe, question
from holdfast.risk.information import next_probes
from holdfast.risk.losses import Floats, Lognormal, annual_losses, summarise
from holdfast.risk.register import Decision, LeftOut, RiskRegister, RiskState, Source
from holdfast.risk.simulated import Measurement, Meeting, Simulated
from holdfast.threats.derivation import Threat
from holdfast.threats.system import System

__all__ = ["able_actors", "quantify", "simulate", "success_probability"]

LEAST_DRAWS, MOST_DRAWS = 1_000, 1_000_000
LARGEST_LOSS = 1e15


def quantify(
    system: System,
    threats: Sequence[Threat],
    evidence: Sequence[Evidence],
    *,
    seed: int,
    draws: int = 20_000,
    decisions: Sequence[Decision] = (),
) -> RiskRegister:
    """The risk register.

    Args:
        system: declares actors, impacts and appetite.
        threats: as derived; excluded ones become no risk.
        evidence: of every probe, whatever its status.
        seed: decides every draw.
        draws: simulated years, 1,000 to 1,000,000.
        decisions: recorded ones; those in force are named at their risks.

    Raises:
        ConfigurationError: declared ranges are not usable, or draws is out of range.
    """
    in_force = {decision.risk: decision.id for decision in decisions if decision.state == "in force"}
    risks, questions = [], []
    total = np.zeros(_checked(draws))
    for simulated in simulate(system, threats, evidence, seed=seed, draws=draws):
        risks.append(describe(simulated, in_force.get(simulated.id)))
        questions.append(question(simulated))
        total += simulated.annual
    risks.sort(key=lambda risk: (-float(f"{risk.annual.mean:.1e}"), risk.state == "measured", -risk.annual.mean, risk.id))
    appetite = None if system.appetite is None else (system.appetite.annual_loss, system.appetite.at)
    price = float(total.mean()) / max(len(risks), 1) if appetite is None else appetite[0]
    return RiskRegister(
        unit=unit_of(system),
        risks=tuple(risks),
        total=summarise(total),
        appetite=appetite,
        exceeds_appetite=None if appetite is None else float(np.mean(total > appetite[0])),
        draws=draws,
        seed=seed,
        next_probes=next_probes(questions, price),
        left_out=_left_out(threats, evidence),
    )


def simulate(
    system: System, threats: Sequence[Threat], evidence: Sequence[Evidence], *, seed: int, draws: int = 20_000
) -> Iterator[Simulated]:
    """Simulate each risk in turn; the arguments, and the errors, are those of `quantify`."""
    simulation = _Simulation(system, seed, _checked(draws))
    absent = {item.threat for item in _left_out(threats, evidence)}
    for threat in threats:
        if threat.applicability == "excluded" or threat.id in absent:
            continue
        about = [item for item in evidence if threat.id in item.threats]
        for actor in actors_of(system, threat, tuple(item.probe for item in about)):
            yield simulation.risk(threat, actor, tuple(item for item in about if actor.may(item.probe)))


def unit_of(system: System) -> str:
    """The unit that all declared impacts share.

    Raises:
        ConfigurationError: they do not.
    """
    units = {section.per_event.unit for section in system.impact.values()} - {None}
    if len(units) > 1:
        raise ConfigurationError(
            f"impacts are given in {' and '.join(sorted(map(str, units)))}", where="impact", hint="Give all of them in one unit."
        )
    return str(units.pop()) if units else UNIT


class _Simulation:
    """Draws of one register; those of actors and of measurements are made once and shared."""

    def __init__(self, system: System, seed: int, draws: int) -> None:
        unit_of(system)
        self._system, self._seed, self._draws = system, seed, draws
        self._years: dict[str, tuple[Floats, Floats]] = {}
        self._luck: dict[str, Luck] = {}
        self._measurements: dict[int, Measurement] = {}

    def risk(self, threat: Threat, actor: RiskActor, evidence: tuple[Evidence, ...]) -> Simulated:
        """One risk; the evidence is all about attacks that the actor can make."""
        attempts, percentile = self._year(actor)
        met = [self._meet(item, actor, percentile) for item in evidence if says_something(item)]
        unknown = Luck.of(self._draws, self._seed, "unmeasured", threat.id)
        worst = max(met, key=lambda meeting: float(meeting.probability.mean()), default=Meeting.unmeasured(unknown))
        identity = f"{threat.id}.{actor.key}"
        events = seeds.generator(self._seed, "events", identity).poisson(attempts * worst.probability)
        loss, loss_source = self._loss(threat)
        annual, per_event = annual_losses(events, loss, seeds.generator(self._seed, "loss", identity))
        return Simulated(
            id=identity,
            threat=threat,
            actor=actor,
            evidence=evidence,
            state="measured" if worst.measurement else _silence(evidence),
            meeting=worst,
            attempts=attempts,
            loss_per_event=per_event,
            annual=annual,
            loss=loss,
            loss_source=loss_source,
        )

    def _year(self, actor: RiskActor) -> tuple[Floats, Floats]:
        """The actor's attempts, and the percentile of the actor's capability, in each year."""
        if actor.key not in self._years:
            random = seeds.generator(self._seed, "actor", actor.key)
            rate = Lognormal.between(actor.attempts.low, actor.attempts.high)
            self._years[actor.key] = rate.draw(random, self._draws), random.random(self._draws)
        return self._years[actor.key]

    def _meet(self, evidence: Evidence, actor: RiskActor, percentile: Floats) -> Meeting:
        if id(evidence) not in self._measurements:
            if evidence.probe not in self._luck:
                self._luck[evidence.probe] = Luck.of(self._draws, self._seed, evidence.probe)
            self._measurements[id(evidence)] = Measurement(evidence, CapabilityCurve.of(evidence), self._luck[evidence.probe])
        return Meeting.between(self._measurements[id(evidence)], actor, percentile)

    def _loss(self, threat: Threat) -> tuple[Lognormal, Source]:
        section = self._system.impact.get(threat.goal)
        value = LOSS_PER_EVENT if section is None else section.per_event
        where = f"impact.{threat.goal}.per_event"
        if value.high > LARGEST_LOSS:
            raise ConfigurationError(f"a loss of {value.high:g} is more than anybody has", where=where)
        checked_range(value, where)
        declared = section is not None and not is_default(self._system, where)
        return Lognormal.between(value.low, value.high), "declared" if declared else "default"


def _silence(evidence: Sequence[Evidence]) -> RiskState:
    """Why nothing is measured, the worst first; measured evidence that gives no probability is inconclusive."""
    statuses = {"inconclusive" if item.status == "measured" else item.status for item in evidence}
    return "failed" if "failed" in statuses else "inconclusive" if "inconclusive" in statuses else "unmeasured"


def _left_out(threats: Sequence[Threat], evidence: Sequence[Evidence]) -> tuple[LeftOut, ...]:
    """Threats of which every probe says that they cannot occur here; one probe that is silent keeps the threat."""
    found = []
    for threat in threats:
        about = [item for item in evidence if threat.id in item.threats]
        denied = {item.probe: item.reason for item in about if item.status == "not_applicable"}
        unanimous = all(item.status == "not_applicable" for item in about) and set(threat.probes) <= set(denied)
        if threat.applicability != "excluded" and denied and unanimous:
            reason = "; ".join(dict.fromkeys(denied.values()))
            found.append(LeftOut(threat=threat.id, probes=tuple(denied), reason=reason))
    return tuple(found)


def _checked(draws: int) -> int:
    if not LEAST_DRAWS <= draws <= MOST_DRAWS:
        raise ConfigurationError(f"{draws} draws", hint=f"Between {LEAST_DRAWS:,} and {MOST_DRAWS:,}.")
    return draws
