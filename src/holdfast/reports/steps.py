"""What to do next: give an installed probe what it lacks, lower what was measured, measure more closely; nothing absent first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from holdfast.assessment.document import Assessment
from holdfast.reports import numbers
from holdfast.reports.text import clean
from holdfast.risk.register import NextProbe
from holdfast.threats.catalogue import load_catalogue

RECIPE = "model.recipe"
BY_RECIPE = "P-PRI-MIA"
"""The probe that also runs without a training recipe, but measures a weaker attack then."""
LARGER = {"quick": "standard", "standard": "thorough", "thorough": ""}
"""The budget above each; a time is followed by the largest."""


@dataclass(frozen=True)
class Step:
    """Something worth doing next.

    Attributes:
        verb: `Measure`, `Repair`, `Lower`, or `Install` where no probe is installed that could measure it.
        what: what to do, in one sentence.
        why: what it is worth.
        threat: the threat it is about.
    """

    verb: Literal["Measure", "Repair", "Lower", "Install"]
    what: str
    why: str
    threat: str


def steps_of(assessment: Assessment, repair: Sequence[Step]) -> tuple[Step, ...]:
    """Repairs, then inputs that installed probes lack, then measuring and lowering in turn, then what no probe here measures."""
    missing = _inputs(assessment)
    lower = _controls(assessment)
    closer = [step for probe in assessment.register.next_probes if (step := _closer(assessment, probe))]
    worst = max(assessment.register.risks, key=lambda risk: risk.annual.mean, default=None)
    first, second = (lower, closer) if worst and worst.state == "measured" else (closer, lower)
    absent = [_absent(assessment, probe) for probe in assessment.register.next_probes if _is_absent(assessment, probe)]
    return (*repair, *missing, *_alternating(first[:4], second[:4]), *absent[:4])


def control(identifier: str) -> str:
    """A control's name and id."""
    name = control_name(identifier)
    return f"{name} ({clean(identifier)})" if name else clean(identifier)


def control_name(identifier: str) -> str:
    """What the catalogue calls a control; empty for one that it does not know."""
    known = load_catalogue().controls.get(identifier)
    return known.name if known else ""


def _inputs(assessment: Assessment) -> list[Step]:
    """What installed probes lack, each with what it lets them measure."""
    worth = {probe.threat: probe.value for probe in assessment.register.next_probes}
    wanted: dict[str, list[str]] = {}
    for item in assessment.evidence:
        if item.status == "unmeasured" and "\n" in item.reason:
            wanted.setdefault(item.reason.partition("\n")[2].strip(), []).extend(item.threats)
    steps = []
    for hint, about in wanted.items():
        concerned = [threat for threat in assessment.threats if threat.id in about and threat.applicability != "excluded"]
        if not concerned:
            continue
        lets = f"Lets installed probes measure {_listed([clean(threat.name) for threat in concerned])}"
        if RECIPE in hint and any(item.probe == BY_RECIPE and item.status == "measured" for item in assessment.evidence):
            lets += ", and membership inference by its strongest attack, with shadow models"
        value = sum(worth.get(threat.id, 0.0) for threat in concerned)
        knowing = f" Knowing it is worth up to {numbers.money(value, assessment.register.unit)} a year." if value > 0 else ""
        steps.append(Step("Measure", clean(hint).rstrip("."), f"{lets}.{knowing}", concerned[0].id))
    return steps


def _closer(assessment: Assessment, probe: NextProbe) -> Step | None:
    """How an installed probe would tell more; None where nothing that the user can change would make it."""
    installed = assessment.measurable.get(probe.threat, ())
    evidence = [item for item in assessment.evidence_for(probe.threat) if item.probe in installed or not installed]
    name, actor = clean(_name(assessment, probe.threat)), clean(probe.actor)
    idle = [each for each in installed if each not in {item.probe for item in evidence}]
    if any(risk.threat == probe.threat and risk.state == "measured" for risk in assessment.register.risks):
        larger = LARGER.get(assessment.budget, "thorough")
        levers = [f"holdfast assess --budget {larger}"] if larger else []
        if probe.probe == BY_RECIPE and "recipe" not in assessment.digests:
            levers.insert(0, f"name how the model is trained ({RECIPE})")
        if not levers:
            return None
        return Step(
            "Measure",
            f"Measure more closely: {name} by {actor}: {', then '.join(levers)}",
            _worth(assessment, probe),
            probe.threat,
        )
    if idle and not evidence:
        probes = _listed([clean(each, 60) for each in idle])
        what = f"Measure: {name} by {actor}: run {probes} too, by holdfast assess without --only"
        return Step("Measure", what, _worth(assessment, probe), probe.threat)
    return None


def _is_absent(assessment: Assessment, probe: NextProbe) -> bool:
    return probe.threat not in assessment.measurable and not assessment.evidence_for(probe.threat)


def _absent(assessment: Assessment, probe: NextProbe) -> Step:
    what = f"Not measurable here: {clean(_name(assessment, probe.threat))} by {clean(probe.actor)}; no probe for it is installed"
    return Step("Install", what, _worth(assessment, probe), probe.threat)


def _worth(assessment: Assessment, probe: NextProbe) -> str:
    worth = numbers.money(probe.value, assessment.register.unit)
    why = clean(probe.why).rstrip(".")
    reason = f" {why[0].upper()}{why[1:]}." if why else ""
    return f"Knowing it is worth up to {worth} a year to the decision.{reason}"


def _controls(assessment: Assessment) -> list[Step]:
    """For each of the largest measured risks, the catalogue's controls that the system does not state yet."""
    steps = []
    threats = {threat.id: threat for threat in assessment.threats}
    seen: set[str] = set()
    for risk in sorted(assessment.register.risks, key=lambda risk: -risk.annual.mean):
        if risk.state != "measured" or risk.threat in seen or risk.threat not in threats:
            continue
        seen.add(risk.threat)
        candidates = [item for item in threats[risk.threat].controls if item not in assessment.system.controls][:3]
        if candidates:
            what = f"Lower the risk of {clean(risk.threat_name)} with: {'; '.join(control(item) for item in candidates)}"
            steps.append(Step("Lower", what, "Measure again after the change: only that shows whether it helps.", risk.threat))
    return steps


def _name(assessment: Assessment, threat: str) -> str:
    return next((item.name for item in assessment.threats if item.id == threat), threat)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _alternating(first: Sequence[Step], second: Sequence[Step]) -> Iterable[Step]:
    return (step for pair in zip_longest(first, second) for step in pair if step)
