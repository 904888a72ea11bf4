"""The gate: a policy over an assessment, for continuous integration.

Exit codes: 0 pass, 1 breached, 2 usage or configuration error, 3 inconclusive, 4 integrity failure. What was not measured
never passes: a rule about a threat without a measurement is inconclusive, and so is a policy that requires a measurement
which is not there. A known breach outranks an inconclusive rule. A decision counts only as long as it holds on the day of
the gate: one that lapsed since the assessment leaves its risk to be judged like any other.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holdfast.assessment.document import Assessment
from holdfast.core.errors import ConfigurationError
from holdfast.core.evidence import Document, Evidence
from holdfast.core.statistics import rate
from holdfast.risk.decisions import decisions_in_force
from holdfast.risk.register import Decision
from holdfast.threats.yamlfile import read_yaml

PASS, BREACHED, INCONCLUSIVE = 0, 1, 3
Share = Annotated[float, Field(ge=0, le=1)]
MostLoss = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ThreatRule(BaseModel):
    """Bounds for one threat.

    Attributes:
        max_success: the upper end of the 95 % interval of the success rate may not exceed it; 1 still asks for a measurement.
        max_excess: as `max_success`, for the success above what chance alone gives.
        max_annual_loss_p95: the largest 95 % point of annual loss over the threat's risks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_success: Share | None = None
    max_excess: Share | None = None
    max_annual_loss_p95: MostLoss | None = None


class Policy(BaseModel):
    """What must hold.

    Attributes:
        require: threats that must be measured; `measurable` (the default) stands for all that some installed probe is about.
        threats: rules by threat id.
        max_exceeds_appetite: the largest allowed probability that the total annual loss exceeds the appetite.
        max_annual_loss_p95: of the total.
        min_accuracy: the lower end of the holdout accuracy's interval must reach it.
        max_findings: by severity, how many findings the data audit may have.
        accept_decided: leave out risks on which a decision to accept or transfer is in force.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    require: list[str] | Literal["measurable"] = "measurable"
    threats: dict[str, ThreatRule] = {}
    max_exceeds_appetite: Annotated[float, Field(ge=0, lt=1)] | None = None
    max_annual_loss_p95: MostLoss | None = None
    min_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    max_findings: dict[Literal["high", "medium", "low"], Annotated[int, Field(ge=0)]] = {}
    accept_decided: bool = True


class Finding(Document):
    """One rule that does not hold, or that cannot be judged."""

    outcome: Literal["breached", "inconclusive"]
    rule: str
    threat: str | None
    message: str


class GateResult(Document):
    """The outcome of a gate and every rule that did not simply pass.

    Attributes:
        code: 0 pass, 1 breached, 3 inconclusive.
        findings: the rules that do not hold, or cannot be judged.
        judged_on: the day, in UTC, on which decisions had to be in force.
        waived: threats that were not judged, because decisions about all of their risks are in force.
        lapsed: decisions that were in force at the assessment and are no longer, with the reason.
    """

    code: Literal[0, 1, 3]
    findings: tuple[Finding, ...]
    judged_on: str
    waived: tuple[str, ...] = ()
    lapsed: tuple[Decision, ...] = ()

    @property
    def verdict(self) -> str:
        """`pass`, `breached` or `inconclusive`."""
        return {PASS: "pass", BREACHED: "breached", INCONCLUSIVE: "inconclusive"}[self.code]


def read_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        ConfigurationError: it is missing, no YAML mapping, or has unknown keys or wrong values.
    """
    content = read_yaml(path)
    try:
        return Policy.model_validate(content.unwrap())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        hint = None
        if first["type"] == "extra_forbidden":
            allowed = ThreatRule.model_fields if first["loc"][0] == "threats" else Policy.model_fields
            close = get_close_matches(str(first["loc"][-1]), allowed, 1)
            hint = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(allowed)}"
        message = "there is no such field" if first["type"] == "extra_forbidden" else first["msg"]
        raise ConfigurationError(f"{field}: {message}", where=f"{path}:{content.line_of(first['loc'])}", hint=hint) from error


def apply_gate(assessment: Assessment, policy: Policy, today: date | None = None) -> GateResult:
    """Judge an assessment by a policy.

    Args:
        assessment: the document.
        policy: what must hold.
        today: decides which decisions have lapsed since the assessment; the current date in UTC by default.

    Raises:
        ConfigurationError: the policy names a threat that the catalogue does not have.
    """
    bounds = policy.model_dump(exclude_defaults=True, exclude={"accept_decided", "require"})
    empty = [threat for threat, rule in bounds.get("threats", {}).items() if not rule]
    if empty:
        raise ConfigurationError(
            f"the rule for {empty[0]} has no bound", hint=f"Give one of {', '.join(ThreatRule.model_fields)}."
        )
    if not bounds and policy.require == []:
        raise ConfigurationError("the policy requires nothing and bounds nothing, so it would pass anything")
    known = {threat.id: threat for threat in assessment.threats}
    required = policy.require if isinstance(policy.require, list) else []
    for threat in [*policy.threats, *required]:
        if threat not in known:
            raise ConfigurationError(
                f"the policy names {threat!r}, which the catalogue does not have", hint="See: holdfast threats --all"
            )
    day = today or datetime.now(UTC).date()
    in_force, lapsed = _decisions(assessment, day)
    waived = _waived(assessment, in_force) if policy.accept_decided else frozenset()
    findings: list[Finding] = []
    if policy.require == "measurable" and not assessment.measurable:
        findings.append(_inconclusive("require", None, "no installed probe measures any threat of this system"))
    required_now = _required(assessment, policy)
    applicable = [threat for threat in policy.threats if known[threat].applicability != "excluded"]
    bounded = set(bounds) - {"threats"}
    if not (bounded or set(required_now) | set(applicable)):
        findings.append(_inconclusive("require", None, "the system's facts exclude every threat that the policy is about"))
    for threat in required_now:
        state = _state(assessment, threat)
        if threat not in waived and state not in ("measured", "not applicable"):
            findings.append(_inconclusive("require", threat, f"{known[threat].name} is {state}: {_reason(assessment, threat)}"))
    for threat in applicable:
        if threat not in waived:
            findings += _judge_threat(assessment, threat, policy.threats[threat])
    findings += _judge_totals(assessment, policy)
    outcomes = {finding.outcome for finding in findings}
    code: Literal[0, 1, 3] = 1 if "breached" in outcomes else 3 if "inconclusive" in outcomes else 0
    return GateResult(code=code, findings=tuple(findings), judged_on=day.isoformat(), waived=tuple(sorted(waived)), lapsed=lapsed)


def _required(assessment: Assessment, policy: Policy) -> list[str]:
    wanted = policy.require if isinstance(policy.require, list) else tuple(assessment.measurable)
    return [threat for threat in wanted if _applicability(assessment, threat) != "excluded"]


def _applicability(assessment: Assessment, threat: str) -> str:
    return next(item.applicability for item in assessment.threats if item.id == threat)


def _state(assessment: Assessment, threat: str) -> str:
    """`measured` if some evidence is, and none could have said something and did not.

    A probe's `not_applicable` rests on a verified fact of the target; alone it leaves the threat `not applicable`.
    """
    evidence = assessment.evidence_for(threat)
    states = {item.status for item in evidence}
    if set(assessment.measurable.get(threat, ())) - {item.probe for item in evidence}:
        states.add("unmeasured")
    for state in ("failed", "inconclusive", "unmeasured"):
        if state in states:
            return state
    return "measured" if "measured" in states else "not applicable" if states else "unmeasured"


def _reason(assessment: Assessment, threat: str) -> str:
    reasons = [item.reason for item in assessment.evidence_for(threat) if item.status != "measured"]
    return reasons[0].splitlines()[0] if reasons else "no probe measured it"


def _decisions(assessment: Assessment, day: date) -> tuple[tuple[Decision, ...], tuple[Decision, ...]]:
    """Decisions that were in force at the assessment: those that still are on a day, and those that have lapsed since."""
    digests = assessment.digests
    marked = decisions_in_force(assessment.decisions, digests.get("served", ""), digests.get("data", ""), day)
    standing = [now for then, now in zip(assessment.decisions, marked, strict=True) if then.state == "in force"]
    return tuple(one for one in standing if one.state == "in force"), tuple(one for one in standing if one.state == "lapsed")


def _waived(assessment: Assessment, in_force: tuple[Decision, ...]) -> frozenset[str]:
    """Threats all of whose risks are accepted or transferred by a decision in force."""
    decided = {decision.risk for decision in in_force if decision.choice in ("accept", "transfer")}
    risks: dict[str, list[bool]] = {}
    for risk in assessment.register.risks:
        risks.setdefault(risk.threat, []).append(risk.id in decided)
    return frozenset(threat for threat, states in risks.items() if all(states))


def _judge_threat(assessment: Assessment, threat: str, rule: ThreatRule) -> list[Finding]:
    findings = []
    measured = [item for item in assessment.evidence_for(threat) if item.status == "measured"]
    state = _state(assessment, threat)
    for name, bound in (("max_success", rule.max_success), ("max_excess", rule.max_excess)):
        if bound is None:
            continue
        where = f"threats.{threat}.{name}"
        telling = [item for item in measured if item.rows and (name == "max_success" or item.chance < 1)]
        rates = [(item, upper_bound(item, item.chance if name == "max_excess" else 0.0)) for item in telling]
        findings += [
            _inconclusive(where, threat, f"{item.probe}: chance alone always succeeds, so that nothing can exceed it")
            for item in measured
            if item.rows and item not in telling
        ]
        for item, upper in rates:
            if upper > bound:
                message = f"{item.probe}: success may be up to {_percent(upper)} (95 % upper bound), above {_percent(bound)}"
                findings.append(Finding(outcome="breached", rule=where, threat=threat, message=message))
        if state != "not applicable" and (not rates or state != "measured"):
            findings.append(_inconclusive(where, threat, f"{threat} is {state}: {_reason(assessment, threat)}"))
    if rule.max_annual_loss_p95 is not None:
        where = f"threats.{threat}.max_annual_loss_p95"
        losses = [risk.annual.p95 for risk in assessment.register.risks if risk.threat == threat]
        if losses and max(losses) > rule.max_annual_loss_p95:
            loss = f"{max(losses):,.0f} {assessment.register.unit}"
            message = f"annual loss may reach {loss} (95 % point), above {rule.max_annual_loss_p95:,.0f}"
            findings.append(Finding(outcome="breached", rule=where, threat=threat, message=message))
        elif state != "not applicable" and (not losses or state != "measured"):
            findings.append(_inconclusive(where, threat, f"{threat} is {state}: its loss rests on no measurement"))
    return findings


def upper_bound(evidence: Evidence, chance: float = 0.0) -> float:
    """The upper end of the 95 % interval of the success rate, above what chance alone gives (less than 1), in [0, 1].

    Where the probe's own interval of the same counts is wider, because it knows of more than the rows show, that one counts.
    """
    clusters = [row.cluster or row.unit for row in evidence.rows] if any(row.cluster for row in evidence.rows) else None
    upper = rate([row.success for row in evidence.rows], clusters).high
    counts = sum(row.success for row in evidence.rows), len(evidence.rows)
    own = [metric.high for metric in evidence.metrics if (metric.successes, metric.trials) == counts and metric.high is not None]
    upper = max([upper, *own])
    return max(0.0, (upper - chance) / (1 - chance))


def _judge_totals(assessment: Assessment, policy: Policy) -> list[Finding]:
    findings = []
    register = assessment.register
    if policy.max_exceeds_appetite is not None:
        if register.exceeds_appetite is None:
            findings.append(_inconclusive("max_exceeds_appetite", None, "the system file declares no appetite"))
        elif register.exceeds_appetite > policy.max_exceeds_appetite:
            bound = _percent(policy.max_exceeds_appetite)
            message = f"P(annual loss > appetite) is {_percent(register.exceeds_appetite)}, above {bound}"
            findings.append(Finding(outcome="breached", rule="max_exceeds_appetite", threat=None, message=message))
    if policy.max_annual_loss_p95 is not None and register.total.p95 > policy.max_annual_loss_p95:
        loss = f"{register.total.p95:,.0f} {register.unit}"
        message = f"total annual loss may reach {loss} (95 % point), above {policy.max_annual_loss_p95:,.0f}"
        findings.append(Finding(outcome="breached", rule="max_annual_loss_p95", threat=None, message=message))
    if policy.min_accuracy is not None:
        if assessment.utility is None:
            findings.append(_inconclusive("min_accuracy", None, "the model's accuracy was not measured"))
        elif assessment.utility.accuracy_low < policy.min_accuracy:
            bound = _percent(policy.min_accuracy)
            message = f"accuracy may be as low as {_percent(assessment.utility.accuracy_low)}, below {bound}"
            findings.append(Finding(outcome="breached", rule="min_accuracy", threat=None, message=message))
    for severity, most in policy.max_findings.items():
        findings += _judge_audit(assessment, severity, most)
    return findings


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _judge_audit(assessment: Assessment, severity: str, most: int) -> list[Finding]:
    rule, name = f"max_findings.{severity}", f"findings of {severity} severity"
    audits = [item for item in assessment.evidence if item.probe == "P-DATA-AUDIT"]
    counts = [metric.value for item in audits if item.status == "measured" for metric in item.metrics if metric.name == name]
    if not counts:
        reason = audits[0].reason.splitlines()[0] if audits and audits[0].reason else "the probe was not run"
        return [_inconclusive(rule, None, f"the data were not audited: {reason}")]
    if max(counts) <= most:
        return []
    message = f"the data audit has {max(counts):.0f} {name}, above {most}; the report lists them"
    return [Finding(outcome="breached", rule=rule, threat=None, message=message)]


def _inconclusive(rule: str, threat: str | None, message: str) -> Finding:
    return Finding(outcome="inconclusive", rule=rule, threat=threat, message=message)
