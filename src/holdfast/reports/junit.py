"""The report as JUnit XML: one case for each threat of the catalogue.

A threat that was not measured, does not apply or is excluded is skipped, one whose probe failed or could not tell is an
error, and one is a failure only when a gate says that it is breached. A measured threat without a breach passes, which
says that it was measured, not that the number is low; the number is in its output.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from holdfast.assessment.document import Assessment
from holdfast.reports.outline import Outline, Standing, result
from holdfast.reports.text import clean


def render_junit(assessment: Assessment, breached: Sequence[tuple[str, str]] = ()) -> str:
    """The assessment as a JUnit document.

    Args:
        assessment: the assessment.
        breached: (threat id, message) of each rule that a gate found breached. One whose threat the assessment does not
            have, or that is about no threat, becomes a case of its own.
    """
    outline = Outline(assessment)
    messages: dict[str, list[str]] = {}
    for threat, message in breached:
        messages.setdefault(threat, []).append(message)
    known = {standing.threat.id for standing in outline.standings}
    suite = ET.Element("testsuite")
    properties = ET.SubElement(suite, "properties")
    for name, value in (("headline", outline.headline), ("coverage", outline.coverage), ("seal", assessment.seal)):
        ET.SubElement(properties, "property", name=name, value=clean(value))
    for standing in outline.standings:
        _case(suite, standing, messages.get(standing.threat.id, []))
    for threat in messages:
        if threat not in known:
            case = ET.SubElement(suite, "testcase", name=clean(threat or "the whole system", 160), classname="holdfast.gate")
            _outcome(case, "failure", "breached", "; ".join(messages[threat]))
    counts = {kind: len(suite.findall(f"testcase/{tag}")) for kind, tag in _COUNTED}
    suite.attrib.update(
        {
            "name": clean(f"holdfast {assessment.system.name}", 160),
            "tests": str(len(suite.findall("testcase"))),
            **{kind: str(count) for kind, count in counts.items()},
            "time": f"{max(0.0, assessment.seconds):.3f}",
            "timestamp": clean(assessment.created, 40),
        }
    )
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


_COUNTED = (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))


def _case(suite: ET.Element, standing: Standing, messages: Sequence[str]) -> None:
    threat = standing.threat
    name = f"{clean(threat.id, 40)} {clean(threat.name, 120)}"
    stage = re.sub(r"[^a-z_]", "_", threat.stage)[:40] or "other"
    case = ET.SubElement(suite, "testcase", name=name, classname=f"holdfast.{stage}")
    if messages:
        _outcome(case, "failure", "breached", "; ".join(messages))
    elif (
        standing.gaps
        and any(item.status in ("failed", "inconclusive") for item in standing.gaps)
        and standing.state != "excluded"
    ):
        _outcome(case, "error", standing.state, f"{standing.label}: {standing.reason}")
    elif standing.state != "measured":
        _outcome(case, "skipped", standing.state, f"{standing.label}: {standing.reason}")
    if standing.measured:
        lines = [f"{clean(item.probe, 40)}: {result(item)}" for item in standing.measured]
        ET.SubElement(case, "system-out").text = "\n".join(lines)


def _outcome(case: ET.Element, tag: str, kind: str, message: str) -> None:
    ET.SubElement(case, tag, type=kind, message=clean(message, 800))
