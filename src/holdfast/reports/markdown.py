"""The report as Markdown, for a pull request: the headline, the largest risks, what was not measured and what to do next.

All text that came from the assessment is escaped so that it cannot make a table cell, a link, a picture, a mention, a
reference or HTML.
"""

from __future__ import annotations

import re

from holdfast.assessment.comparison import Change, Comparison
from holdfast.assessment.document import Assessment
from holdfast.reports import numbers
from holdfast.reports.outline import SHARED_ESTIMATES, Outline, Standing
from holdfast.reports.text import clean
from holdfast.risk.register import Risk

LARGEST = 60_000
"""Characters of the longest report; comments of most forges hold a little more."""

MARKS = {
    "measured": "●",
    "partly": "◐",
    "failed": "✕",
    "inconclusive": "?",
    "unmeasured": "○",
}

_ESCAPED = re.compile(r"[\\`*_\[\]|~$]")
_AT_START = re.compile(r"^(\d*)([-+=#.)])")
_MENTION = re.compile(r"([@#])(?=\S)")


def render_markdown(assessment: Assessment, comparison: Comparison | None = None) -> str:
    """The assessment as GitHub-flavoured Markdown."""
    for longest in (300, 60, 0):
        text = _render(assessment, comparison, longest)
        if len(text) <= LARGEST:
            break
    return text


def escape(text: str, longest: int = 200) -> str:
    """Text as Markdown that shows it and nothing else."""
    shown = clean(text, longest).strip()
    shown = _ESCAPED.sub(lambda match: f"\\{match.group()}", shown)
    shown = _AT_START.sub(r"\1\\\2", shown)
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = _MENTION.sub(r"\1<!-- -->", shown)
    shown = shown.replace("://", "\\://")
    return re.sub(r"(?i)www\.", lambda match: match.group()[:3] + "<!-- -->.", shown)


def _render(assessment: Assessment, comparison: Comparison | None, longest: int) -> str:
    outline = Outline(assessment)
    unit = assessment.register.unit
    lines = [
        f"## Measured risk of {escape(assessment.system.name, 80)}",
        "",
        f"**{escape(outline.headline, 400)}**",
        "",
        escape(outline.usefulness, 400),
        "",
        *([f"**{escape(f'Warning: {outline.warning}', 400)}**", ""] if outline.warning else []),
        escape(outline.coverage, 400),
        "",
    ]
    for title, risks, most in (
        ("Largest measured risks", outline.measured_risks, 8),
        ("Largest risks that nothing measured", outline.assumed_risks, 5),
    ):
        if risks:
            lines += [
                f"### {title}",
                "",
                "| Risk | Actor | P(success), 90 % | Annual loss, mean | 5–95 % | Attempts, loss |",
                "| :--- | :--- | :--- | ---: | ---: | :--- |",
                *(_risk(risk, unit, outline) for risk in risks[:most]),
                "",
            ]
    if assessment.register.risks:
        lines += [
            escape(outline.parts, 400),
            "",
            f"<sub>{SHARED_ESTIMATES}</sub>",
            "",
        ]
    if comparison:
        lines += _comparison(comparison)
    lines += [f"### Not measured ({len(outline.open)})", ""]
    lines += [_open(standing, longest) for standing in outline.open] or ["Every threat that applies or may apply was measured."]
    lines += ["", "### Next", ""]
    lines += [f"1. **{escape(step.what, 300)}** {escape(step.why, longest or 60)}" for step in outline.steps[:5]] or [
        "Nothing to propose."
    ]
    lines += [
        "",
        f"<sub>Holdfast {escape(assessment.holdfast, 40)}, budget {escape(assessment.budget, 40)}, seed {assessment.seed}</sub>",
        "",
    ]
    return "\n".join(lines)


def _risk(risk: Risk, unit: str, outline: Outline) -> str:
    mean, low, high = risk.probability
    success = numbers.share_interval(mean, low, high) if risk.state == "measured" else "assumed 0 to 100 %"
    told = [success, outline.observation(risk), "largely assumed" if outline.largely_assumed(risk) else ""]
    cells = (
        f"{escape(risk.threat_name, 100)} ({escape(risk.id, 120)}{', may apply' if outline.may_apply(risk) else ''})",
        escape(risk.actor, 80),
        f"{MARKS[risk.state]} {risk.state}: {escape('; '.join(filter(None, told)))}",
        escape(numbers.money(risk.annual.mean, unit)),
        escape(numbers.money_range(risk.annual.p5, risk.annual.p95, unit)),
        f"{risk.attempts}, {risk.loss_per_event}",
    )
    return f"| {' | '.join(cells)} |"


def _open(standing: Standing, longest: int) -> str:
    why = f": {escape(standing.reason, longest)}" if longest else ""
    name = f"**{escape(standing.threat.name, 100)}** ({escape(standing.threat.id, 40)})"
    return f"- {MARKS[standing.state]} {name}, {standing.label}{why}"


def _comparison(comparison: Comparison) -> list[str]:
    lines = [
        "### Before and after",
        "",
        "| Attack | Verdict | Before | After | Difference, 95 % |",
        "| :--- | :--- | ---: | ---: | :--- |",
        *(_change(change) for change in comparison.changes[:20]),
        "",
    ]
    utility = comparison.utility
    if utility:
        before, after = numbers.share(utility.accuracy_before), numbers.share(utility.accuracy_after)
        interval = f"[{numbers.signed_share(utility.low)}, {numbers.signed_share(utility.high)}]"
        cost = f"{numbers.signed_share(utility.accuracy_difference)} points {interval}"
        lines += [f"Accuracy: {escape(f'{before} before, {after} after, {cost}')}", ""]
    return lines


def _change(change: Change) -> str:
    if change.before is None or change.after is None or change.difference is None or change.low is None or change.high is None:
        return f"| {escape(change.name, 100)} | {change.verdict} | | | {escape(change.reason, 200)} |"
    interval = f"[{numbers.signed_share(-change.high)}, {numbers.signed_share(-change.low)}]"
    cells = (
        escape(change.name, 100),
        change.verdict,
        numbers.share(change.before),
        numbers.share(change.after),
        escape(f"{numbers.signed_share(-change.difference)} points {interval}, {change.pairing}, n = {change.trials}"),
    )
    return f"| {' | '.join(cells)} |"
