"""The report as SARIF 2.1.0, for code scanning.

One rule for each threat that applies or may apply, one result for each of its risks, and at least one for each threat
that was not measured, by name. A result keeps its fingerprint as long as threat, asset and actor stay the same: a new
rate is the same alert. Results that are not problems of this kind (`notApplicable`) carry level none, as the standard asks;
what is open carries no level of its own, so that viewers which know no `kind` show the rule's `note`.

Severity is an export of the register for tools that sort by it: 9 when the mean annual loss equals the accepted one, and 3
less for each power of ten below; without an accepted loss, ten times the mean P(success).

Source: OASIS SARIF 2.1.0, sections 3.27.9 (kind), 3.27.10 (level), 3.27.17 (partialFingerprints).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from holdfast.assessment.document import Assessment
from holdfast.reports import numbers
from holdfast.reports.outline import LABELS, Outline, Standing, result, success
from holdfast.reports.steps import control
from holdfast.reports.text import clean
from holdfast.risk.register import Risk, RiskRegister

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
FINGERPRINT = "holdfastRisk/v1"
ERROR, WARNING = 7.0, 4.0
"""Severities from which a measured risk is an error, or a warning."""


def render_sarif(assessment: Assessment) -> str:
    """The assessment as a SARIF log, in JSON."""
    outline = Outline(assessment)
    shown = [standing for standing in outline.standings if standing.state != "excluded"]
    location = _location(assessment)
    results = [entry for index, standing in enumerate(shown) for entry in _results(assessment, standing, index, location)]
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "Holdfast",
                        "version": clean(assessment.holdfast, 40),
                        "rules": [_rule(standing, assessment.register) for standing in shown],
                    }
                },
                "automationDetails": {"id": f"holdfast/{clean(assessment.system.name, 80)}/"},
                "columnKind": "unicodeCodePoints",
                "invocations": [_invocation(assessment)],
                "artifacts": _artifacts(assessment),
                "results": results,
                "properties": {"headline": outline.headline, "coverage": outline.coverage},
            }
        ],
    }
    return json.dumps(log, indent=1, ensure_ascii=True) + "\n"


def fingerprint(threat: str, asset: str, actor: str) -> str:
    """What stays the same of a result from run to run: threat, asset and actor, never a rate."""
    return hashlib.sha256("\x1f".join((threat, asset, actor)).encode("utf-8", "surrogatepass")).hexdigest()


def severity(risks: Sequence[Risk], register: RiskRegister) -> float | None:
    """The severity of a threat in [0.1, 10], by its largest risk; None without a risk."""
    if not risks:
        return None
    if register.appetite is None:
        score = 10 * max(risk.probability[0] for risk in risks)
    else:
        ratio = max(risk.annual.mean for risk in risks) / register.appetite[0] if register.appetite[0] > 0 else math.inf
        score = 9 + 3 * math.log10(ratio) if ratio > 0 else 0.0
    return round(min(10.0, max(0.1, score)), 1)


def _rule(standing: Standing, register: RiskRegister) -> dict[str, Any]:
    threat = standing.threat
    worst = severity(standing.risks, register)
    tags = ["security", "machine-learning", threat.goal, *threat.atlas[:4], *threat.owasp_ml[:2]]
    properties: dict[str, Any] = {"tags": [clean(tag, 60) for tag in dict.fromkeys(tags)]}
    if worst is not None:
        properties["security-severity"] = f"{worst:.1f}"
    controls = "; ".join(control(item) for item in threat.controls)
    return {
        "id": clean(threat.id, 80),
        "name": clean(threat.name, 120),
        "shortDescription": {"text": _plain(clean(threat.name, 120))},
        "fullDescription": {"text": _plain(clean(threat.what, 900) or clean(threat.name, 120))},
        "help": {"text": _plain(f"Controls of the catalogue: {controls or 'none'}. {clean(threat.because, 400)}")},
        "defaultConfiguration": {"level": "note"},
        "properties": properties,
    }


def _results(assessment: Assessment, standing: Standing, rule: int, location: dict[str, Any]) -> list[dict[str, Any]]:
    if standing.risks and standing.state != "not_applicable":
        return [_risk(assessment, standing, risk, rule, location) for risk in standing.risks]
    entry = _result(assessment, standing, "", rule, location)
    if standing.state == "not_applicable":
        return [entry | _said("notApplicable", f"Not applicable: {clean(standing.reason)}") | {"level": "none"}]
    if standing.state == "measured":
        return [entry | _said("informational", _measured(standing)) | {"level": "none"}]
    return [entry | _said("open", f"{standing.label.capitalize()}: {clean(standing.reason)}")]


def _risk(assessment: Assessment, standing: Standing, risk: Risk, rule: int, location: dict[str, Any]) -> dict[str, Any]:
    unit = assessment.register.unit
    loss = (
        f"{numbers.money(risk.annual.mean, unit)} a year ({numbers.money_range(risk.annual.p5, risk.annual.p95, unit)}, 5–95 %)"
    )
    entry = _result(assessment, standing, risk.actor, rule, location)
    entry["properties"]["state"] = risk.state
    if risk.state != "measured":
        reason = clean(standing.reason) or "no measurement speaks about this actor"
        text = f"{LABELS[risk.state].capitalize()}, by {clean(risk.actor, 80)}: {reason}. It may cost {loss}."
        return entry | _said("open", text)
    score = severity([risk], assessment.register) or 0.0
    level = "error" if score >= ERROR else "warning" if score >= WARNING else "note"
    partly = f" Only partly measured: {clean(standing.reason)}." if standing.state == "partly" else ""
    text = f"{clean(risk.threat_name, 120)} by {clean(risk.actor, 80)}: {loss}. {success(risk)} {_measured(standing)}{partly}"
    return entry | _said("fail", text) | {"level": level}


def _measured(standing: Standing) -> str:
    return " ".join(f"{clean(item.probe, 40)}: {result(item)}" for item in standing.measured[:3])


def _result(assessment: Assessment, standing: Standing, actor: str, rule: int, location: dict[str, Any]) -> dict[str, Any]:
    threat = standing.threat
    return {
        "ruleId": clean(threat.id, 80),
        "ruleIndex": rule,
        "locations": [location],
        "partialFingerprints": {FINGERPRINT: fingerprint(threat.id, assessment.system.name, actor)},
        "properties": {"state": standing.state, "actor": clean(actor, 80), "applicability": threat.applicability},
    }


def _said(kind: str, text: str) -> dict[str, Any]:
    return {"kind": kind, "message": {"text": _plain(text)}}


def _plain(text: str) -> str:
    """Text in which a viewer sees neither a placeholder nor an embedded link (section 3.11)."""
    return text.replace("{", "{{").replace("}", "}}").replace("](", "] (")


def _location(assessment: Assessment) -> dict[str, Any]:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": relative(assessment.system.file), "index": 0},
            "region": {"startLine": 1},
        }
    }


def _artifacts(assessment: Assessment) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"location": {"uri": relative(assessment.system.file)}}]
    if assessment.system.model_path:
        model: dict[str, Any] = {"location": {"uri": relative(assessment.system.model_path, "model")}}
        digest = assessment.digests.get("model", "").removeprefix("sha256:")
        if re.fullmatch(r"[0-9a-f]{64}", digest):
            model["hashes"] = {"sha-256": digest}
        found.append(model)
    return found


def relative(path: str, otherwise: str = "holdfast.yaml") -> str:
    """A relative URI for a path: absolute paths and those that climb out keep their last part only."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    if path.startswith(("/", "\\")) or ".." in parts or any(":" in part for part in parts[:1]):
        parts = [part for part in parts[-1:] if part != ".."]
    return quote("/".join(parts)[:1000], safe="/-_.~", errors="replace") or otherwise


def _invocation(assessment: Assessment) -> dict[str, Any]:
    notes = [
        {
            "level": "error" if item.status == "failed" else "warning",
            "message": {"text": _plain(f"{clean(item.probe, 40)}: {clean(item.reason)}")},
        }
        for item in assessment.evidence
        if item.status in ("failed", "inconclusive")
    ]
    successful = not any(item.status == "failed" for item in assessment.evidence)
    return {"executionSuccessful": successful, "toolExecutionNotifications": notes}
