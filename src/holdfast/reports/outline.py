"""What a report says and in which order, before any format: every rendering takes its sentences and its order from here.

Nothing is estimated. The outline picks, sorts and words what the assessment holds; the one rate it forms, the share of
attacked units on which an attack succeeded, is `core.statistics.rate` over the evidence's own rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from holdfast.assessment.document import Assessment
from holdfast.core.evidence import Evidence, Metric
from holdfast.core.statistics import Rate, rate
from holdfast.reports import numbers
from holdfast.reports.steps import Step, steps_of
from holdfast.reports.text import clean
from holdfast.reports.wordings import WORDINGS
from holdfast.risk.register import Risk
from holdfast.threats.derivation import Threat

State = Literal["measured", "partly", "failed", "inconclusive", "unmeasured", "not_applicable", "excluded"]
Tone = Literal["over", "within", "open", "unknown"]

LABELS: dict[str, str] = {
    "measured": "measured",
    "partly": "partly measured",
    "failed": "probe failed",
    "inconclusive": "inconclusive",
    "unmeasured": "not measured",
    "not_applicable": "not applicable",
    "excluded": "excluded by a fact",
}
"""How each state is called."""

CLEAR_AUC = 0.6
"""From here on a model whose accuracy is that of the commonest class still orders cases clearly better than chance."""

FLAWLESS_ROWS = 50
"""From here on a model that is never wrong on the holdout rows is more likely tested on what it was trained on."""

FEW_ROWS = re.compile(r"(\d{1,12}) holdout rows; this measurement needs at least (\d{1,12})")
"""The reason of a measurement that only lacks rows."""

SWAPPED = Step(
    "Repair",
    "Check the roles of the data: which rows was the model trained on?",
    "A model that is never wrong on its holdout rows has often seen them; every measurement of this report rests on them.",
    "",
)

SHARED_ESTIMATES = (
    "Attempts per year and loss per event are the owner's own estimates, so absolute sums are only as good as those are. "
    "A comparison before and after a change rests on the same estimates on both sides, and holds much better."
)


@dataclass(frozen=True)
class Standing:
    """One threat as it stands after the assessment.

    Attributes:
        threat: of the catalogue.
        state: the worst of its evidence; `partly` when some of it is measured and some of it is not.
        reason: why it is not, or not wholly, measured; for an excluded threat, the fact.
        measured: its measured evidence.
        gaps: its other evidence.
        risks: its risks, in the register's order.
    """

    threat: Threat
    state: State
    reason: str
    measured: tuple[Evidence, ...]
    gaps: tuple[Evidence, ...]
    risks: tuple[Risk, ...]

    @property
    def label(self) -> str:
        """What the state is called."""
        return LABELS[self.state]

    @property
    def may_apply(self) -> bool:
        """Whether a missing fact would decide if the threat applies."""
        return self.threat.applicability == "unknown"

    @property
    def untried(self) -> bool:
        """Whether no probe was even planned for it."""
        return self.state == "unmeasured" and not self.gaps

    @property
    def is_open(self) -> bool:
        """Whether the threat stands without a whole measurement."""
        return self.state in ("partly", "failed", "inconclusive", "unmeasured")


@dataclass(frozen=True)
class Outline:
    """An assessment, arranged to be read."""

    assessment: Assessment

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """Every threat of the assessment, in the catalogue's order."""
        risks: dict[str, list[Risk]] = {}
        for risk in self.assessment.register.risks:
            risks.setdefault(risk.threat, []).append(risk)
        return tuple(_standing(self.assessment, threat, risks.get(threat.id, [])) for threat in self.assessment.threats)

    def having(self, *states: State) -> tuple[Standing, ...]:
        """The threats in any of these states."""
        return tuple(standing for standing in self.standings if standing.state in states)

    @property
    def open(self) -> tuple[Standing, ...]:
        """Threats that are not, or not wholly, measured: those with the largest mean annual loss first."""
        found = [standing for standing in self.standings if standing.is_open]
        return tuple(sorted(found, key=lambda standing: -max((risk.annual.mean for risk in standing.risks), default=0.0)))

    @property
    def measured(self) -> tuple[Standing, ...]:
        """Threats with measured evidence, those with the largest mean annual loss first."""
        found = [standing for standing in self.standings if standing.measured and standing.state != "excluded"]
        return tuple(sorted(found, key=lambda standing: -max((risk.annual.mean for risk in standing.risks), default=0.0)))

    @property
    def worst(self) -> Risk | None:
        """The risk with the largest mean annual loss, measured or not."""
        return max(self.assessment.register.risks, key=lambda risk: risk.annual.mean, default=None)

    @property
    def worst_measured(self) -> Risk | None:
        """The measured risk with the largest mean annual loss."""
        return self.measured_risks[0] if self.measured_risks else None

    @cached_property
    def measured_risks(self) -> tuple[Risk, ...]:
        """Risks that rest on a measurement, the largest mean annual loss first."""
        found = [risk for risk in self.assessment.register.risks if risk.state == "measured"]
        return tuple(sorted(found, key=lambda risk: -risk.annual.mean))

    @cached_property
    def assumed_risks(self) -> tuple[Risk, ...]:
        """Risks that nothing measured, the largest mean annual loss first; those whose threat only may apply come last."""
        found = [risk for risk in self.assessment.register.risks if risk.state != "measured"]
        return tuple(sorted(found, key=lambda risk: (self.may_apply(risk), -risk.annual.mean)))

    def may_apply(self, risk: Risk) -> bool:
        """Whether a missing fact would decide if the risk's threat applies."""
        return risk.threat in self._unknown

    @cached_property
    def _unknown(self) -> frozenset[str]:
        return frozenset(threat.id for threat in self.assessment.threats if threat.applicability == "unknown")

    @property
    def parts(self) -> str:
        """The mean annual loss in two parts: what rests on measurements, and what is assumed for want of them."""
        unit = self.assessment.register.unit
        measured = numbers.money(sum(risk.annual.mean for risk in self.measured_risks), unit)
        assumed = numbers.money(sum(risk.annual.mean for risk in self.assumed_risks), unit)
        return f"Mean loss a year: {measured} measured; {assumed} assumed for want of measurement."

    @property
    def mostly_assumed(self) -> str:
        """How much of the mean annual loss no measurement stands behind, where that is over half; empty otherwise."""
        unit = self.assessment.register.unit
        assumed = sum(risk.annual.mean for risk in self.assumed_risks)
        whole = assumed + sum(risk.annual.mean for risk in self.measured_risks)
        if assumed <= whole / 2:
            return ""
        return f"{numbers.money(assumed, unit)} of {numbers.money(whole, unit)} of the mean is assumed for want of measurement."

    @property
    def usefulness(self) -> str:
        """How well the model does its job, against an answer that needs no model, in one sentence."""
        utility = self.assessment.utility
        if utility is None:
            return "Accuracy on the holdout rows was not measured."
        accuracy = numbers.share_interval(utility.accuracy, utility.accuracy_low, utility.accuracy_high)
        area = f"; AUC {utility.auc:.2f}" if utility.auc is not None else ""
        return (
            f"Accuracy on {numbers.plural(utility.rows, 'holdout row')}: {accuracy}; "
            f"always answering the commonest class: {numbers.share(utility.majority_share)}{area}."
        )

    @property
    def warning(self) -> str:
        """What makes the numbers below doubtful: a model that does no better than none, or too well; empty when neither."""
        utility = self.assessment.utility
        if utility is None:
            return ""
        if self._flawless:
            return (
                f"Every one of {numbers.plural(utility.rows, 'holdout row')} is answered rightly. "
                "Check that train and holdout are not swapped, share no rows, and that no column tells the label."
            )
        if utility.auc is None:
            blind = utility.accuracy <= utility.majority_share
        else:
            blind = utility.accuracy_low <= utility.majority_share and utility.auc < CLEAR_AUC
        if blind:
            return (
                "This model is not shown to do better than always answering the commonest class. "
                "Check scaling, class order and columns before reading any number below."
            )
        if utility.auc is not None and utility.accuracy_high < utility.majority_share:
            return (
                "This model’s labels are worse than always answering the commonest class; "
                f"its ranking is better than chance (AUC {utility.auc:.2f})."
            )
        return ""

    @property
    def _flawless(self) -> bool:
        utility = self.assessment.utility
        return utility is not None and utility.accuracy == 1 > utility.majority_share and utility.rows >= FLAWLESS_ROWS

    @property
    def tone(self) -> Tone:
        """How the headline sounds: `over` the appetite, `within` it, `open` without one, `unknown` with nothing measured."""
        register = self.assessment.register
        if not self.measured:
            return "unknown"
        if register.appetite is None or register.exceeds_appetite is None:
            return "open"
        return "over" if register.exceeds_appetite > 1 - register.appetite[1] else "within"

    @property
    def headline(self) -> str:
        """The verdict in one sentence."""
        register = self.assessment.register
        if self.tone == "unknown":
            return "Nothing was measured: the risks of this system are unknown, not low."
        if register.appetite is None or register.exceeds_appetite is None:
            worst = self.worst_measured
            return f"The largest measured risk is {_named(worst)}." if worst else "No measured threat became a risk."
        limit = f"{numbers.money(register.appetite[0], register.unit)} a year"
        chance = numbers.share(register.exceeds_appetite)
        allowed = numbers.share(1 - register.appetite[1])
        if self.tone == "over":
            return f"Above what you accept: the loss exceeds {limit} with probability {chance}; you accept {allowed}."
        within = "Within what you accept, on these estimates"
        return f"{within}: the loss exceeds {limit} with probability {chance}; you accept {allowed}."

    @property
    def coverage(self) -> str:
        """How much of what applies was measured, in one sentence."""
        concerned = [item for item in self.standings if item.state not in ("excluded", "not_applicable")]
        whole = sum(item.state == "measured" for item in concerned)
        partly = sum(item.state == "partly" for item in concerned)
        without = len(concerned) - whole - partly
        parts = [f"{whole} measured"] + ([f"{partly} partly"] if partly else []) + [f"{without} not measured"]
        return f"Of {numbers.plural(len(concerned), 'threat')} that apply or may apply: {', '.join(parts)}."

    @property
    def certainty(self) -> tuple[str, ...]:
        """How sure the worst measured risk is, or the worst without one: its probability and the source of each input."""
        risk = self.worst_measured or self.worst
        if risk is None:
            return ("There is no risk to be sure of.",)
        beyond: tuple[str, ...] = ()
        if risk.untested > 0:
            reach = numbers.share(risk.untested)
            beyond = (
                f"{reach} of this actor’s capability lies beyond what was tested; there, anything up to certainty is assumed.",
            )
        return (success(risk), *self._allowance(risk), *beyond, *_sources(risk))

    def observation(self, risk: Risk) -> str:
        """What was counted for a measured risk, such as `observed 0 of 5`; empty without rows.

        Where the actor's capability pulls P(success) below what was observed, it says what the successes took and what the
        actor has.
        """
        evidence = self._rows_of(risk)
        if evidence is None:
            return ""
        chance = f", {numbers.share(evidence.chance)} by chance alone" if evidence.chance else ""
        reach = ""
        if risk.typical is not None and risk.probability[0] < _above_chance(evidence):
            took = max(row.capability for row in evidence.rows if row.capability is not None)
            has = numbers.axis_value(evidence.axis, risk.typical)
            reach = f" within {numbers.capability(evidence.axis, took)}; this actor has typically {has}"
        return f"observed {sum(row.success for row in evidence.rows):,} of {len(evidence.rows):,}{chance}{reach}"

    def largely_assumed(self, risk: Risk) -> bool:
        """Whether most of a measured P(success) is the allowance for what was not observed."""
        evidence = self._rows_of(risk)
        return evidence is not None and risk.probability[0] > 2 * _above_chance(evidence)

    def _rows_of(self, risk: Risk) -> Evidence | None:
        if risk.state != "measured":
            return None
        return next((item for item in self.assessment.evidence_for(risk.threat) if item.probe == risk.probe and item.rows), None)

    def _allowance(self, risk: Risk) -> tuple[str, ...]:
        observation, evidence = self.observation(risk), self._rows_of(risk)
        if evidence is None:
            return ()
        stronger = "" if risk.strength in ("strong", "exact") else "a stronger attack and "
        share = numbers.share(risk.probability[0])
        mostly = " Largely assumed." if self.largely_assumed(risk) else ""
        why = f"with the allowance for {stronger}few trials"
        if risk.probability[0] < _above_chance(evidence):
            why = "above chance" if evidence.chance else "" if risk.typical is not None else "after few trials"
        said = f"{observation[0].upper()}{observation[1:]}; {share} for this actor {why}".rstrip() + "."
        return (said + mostly,)

    @property
    def steps(self) -> tuple[Step, ...]:
        """What to do next, the most urgent first."""
        repair = [SWAPPED] if self._flawless else []
        repair += _repairs(self.having("failed", "inconclusive"))
        return steps_of(self.assessment, repair)

    @property
    def first_step(self) -> Step | None:
        """What to do first; None where all that is left needs a probe that is not installed."""
        return next((step for step in self.steps if step.verb != "Install"), None)


def summary(assessment: Assessment) -> dict[str, Any]:
    """What a reader takes away, as plain data: headline, worst risks, what was not measured, next steps."""
    outline = Outline(assessment)

    def described(risk: Risk | None) -> dict[str, Any] | None:
        if risk is None:
            return None
        return {
            "risk": risk.id,
            "threat": risk.threat,
            "actor": risk.actor,
            "state": risk.state,
            "probability": risk.probability,
            "mean": risk.annual.mean,
            "p5": risk.annual.p5,
            "p95": risk.annual.p95,
        }

    return {
        "headline": outline.headline,
        "tone": outline.tone,
        "coverage": outline.coverage,
        "usefulness": outline.usefulness,
        "warning": outline.warning,
        "parts": outline.parts,
        "unit": assessment.register.unit,
        "worst": described(outline.worst),
        "worst_measured": described(outline.worst_measured),
        "measured": [item.threat.id for item in outline.measured],
        "not_measured": [
            {"threat": item.threat.id, "name": item.threat.name, "state": item.state, "reason": item.reason}
            for item in outline.open
        ],
        "next": [{"verb": step.verb, "what": step.what, "why": step.why, "threat": step.threat} for step in outline.steps],
    }


def success(risk: Risk) -> str:
    """P(success) of a risk in one sentence."""
    mean, low, high = risk.probability
    if risk.state != "measured":
        return f"P(success) is unknown ({LABELS[risk.state]}): anything from 0 to 100 % is taken as equally likely."
    shown = numbers.share_interval(mean, low, high)
    return f"An attempt by this actor succeeds with probability {shown} (90 % interval)."


def observed(evidence: Evidence) -> Rate | None:
    """The share of attacked units on which the attack succeeded; None without rows."""
    if not evidence.rows:
        return None
    clustered = any(row.cluster for row in evidence.rows)
    clusters = [row.cluster or row.unit for row in evidence.rows] if clustered else None
    return rate([row.success for row in evidence.rows], clusters)


def result(evidence: Evidence) -> str:
    """What measured evidence found, in one sentence with interval and counts, in the terms of its probe."""
    worded = WORDINGS.get(evidence.probe)
    return (worded(evidence) if worded else "") or _succeeded(evidence)


def _succeeded(evidence: Evidence) -> str:
    found = observed(evidence)
    if found is None:
        return _listed(evidence.metrics)
    tested = ""
    if evidence.axis and evidence.tested is not None:
        tested = f" within {numbers.capability(evidence.axis, evidence.tested)}"
    chance = f" Chance alone gives {numbers.share(evidence.chance)}." if evidence.chance else ""
    shown = numbers.share_interval(found.value, found.low, found.high)
    return f"Succeeded on {found.successes:,} of {found.trials:,} units{tested}: {shown} (95 % interval).{chance}"


def _repairs(standings: Sequence[Standing]) -> list[Step]:
    """One step for each lever: threats that only lack holdout rows share one, and so do those with the same reason."""
    levers: dict[str, list[Standing]] = {}
    for item in standings:
        short = FEW_ROWS.search(item.reason) and not FEW_ROWS.sub("", item.reason).strip("; .")
        levers.setdefault("" if short else item.reason, []).append(item)
    steps = []
    for reason, items in levers.items():
        counts = [found for item in items for found in FEW_ROWS.findall(item.reason)]
        if reason or not counts:
            steps.append(Step("Repair", f"Make {_names(items)} measurable", reason, items[0].threat.id))
            continue
        now, needed = max(int(have) for have, _ in counts), max(int(need) for _, need in counts)
        what = f"Add holdout rows: {now:,} now, at least {needed:,} needed"
        steps.append(Step("Repair", what, f"Unlocks {_names(items)}.", items[0].threat.id))
    return steps


def _above_chance(evidence: Evidence) -> float:
    """The share of attacked units on which the attack succeeded, above what chance alone gives."""
    share = sum(row.success for row in evidence.rows) / len(evidence.rows)
    return max(0.0, share - evidence.chance) / (1 - evidence.chance) if evidence.chance < 1 else 0.0


def _standing(assessment: Assessment, threat: Threat, risks: Sequence[Risk]) -> Standing:
    evidence = assessment.evidence_for(threat.id)
    measured = tuple(item for item in evidence if item.status == "measured")
    gaps = tuple(item for item in evidence if item.status not in ("measured", "not_applicable"))
    ruled_out = tuple(item for item in evidence if item.status == "not_applicable")
    unmeasured_risks = [risk for risk in risks if risk.state != "measured"]
    if threat.applicability == "excluded":
        return Standing(threat, "excluded", threat.because, measured, gaps, tuple(risks))
    if measured and (gaps or unmeasured_risks):
        actors = ", ".join(dict.fromkeys(clean(risk.actor) for risk in unmeasured_risks))
        reason = "; ".join(f"{item.probe} {LABELS[item.status]}: {item.reason}" for item in gaps)
        return Standing(threat, "partly", reason or f"no measurement speaks about {actors}", measured, gaps, tuple(risks))
    if measured:
        return Standing(threat, "measured", "", measured, gaps, tuple(risks))
    for state in ("failed", "inconclusive", "unmeasured"):
        found = [item for item in gaps if item.status == state]
        if found:
            reason = "; ".join(item.reason for item in found)
            return Standing(threat, state, reason, measured, gaps, tuple(risks))
    if ruled_out:
        return Standing(threat, "not_applicable", "; ".join(item.reason for item in ruled_out), measured, ruled_out, tuple(risks))
    probes = ", ".join(threat.probes)
    reason = f"no probe ran for it (the catalogue names {probes})" if probes else "no probe ran for it"
    return Standing(threat, "unmeasured", reason, measured, gaps, tuple(risks))


def _listed(metrics: Sequence[Metric]) -> str:
    """The first three metrics, each with its group."""
    shown = []
    for item in metrics[:3]:
        group = f" ({clean(item.group, 60)})" if item.group else ""
        shown.append(f"{clean(item.name)}{group}: {numbers.metric(item)}")
    return "; ".join([*shown, "…"] if len(metrics) > 3 else shown)


def _named(risk: Risk) -> str:
    return f"{clean(risk.threat_name)} by {clean(risk.actor)}"


def _names(standings: Iterable[Standing]) -> str:
    return ", ".join(clean(item.threat.name) for item in standings)


def _sources(risk: Risk) -> tuple[str, ...]:
    shown = []
    for name, source in (("Attempts per year", risk.attempts), ("Loss per event", risk.loss_per_event)):
        shown.append(f"{name}: {'a default of Holdfast, not the owner’s estimate' if source == 'default' else source}.")
    return tuple(shown)
