"""The report as one HTML file: no script, no address outside the file, readable on a phone, a dark screen and paper.

The stylesheet is the only style the page allows, by its hash in the content security policy; nothing else can be loaded
but pictures inside the file. All text is escaped by the template engine, and made visible by `text.clean` before that.
A report that would grow beyond `LARGEST` is rendered again with less detail; threats are never left out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from holdfast.assessment.comparison import Comparison
from holdfast.assessment.document import Assessment
from holdfast.core.evidence import ChangedCell, Evidence, Example, Spent
from holdfast.reports import charts, numbers
from holdfast.reports.outline import LABELS, SHARED_ESTIMATES, Outline, Standing, result, success
from holdfast.reports.steps import control
from holdfast.reports.text import LONGEST, clean
from holdfast.risk.register import CurvePoint, Risk

LARGEST = 2_000_000
"""Bytes of the largest report."""
LARGEST_PICTURE = 60_000
"""Characters of the largest picture that is shown, in base64."""
TOP = 8
"""Measured risks beside the exceedance curve."""
TOP_ASSUMED = 5
"""Risks that nothing measured, below them."""
NARROW = 12
"""Numbers of one piece of evidence that still fit beside its method; more get a table of the full width."""

ICONS = {
    "measured": "●",
    "partly": "◐",
    "failed": "✕",
    "inconclusive": "?",
    "unmeasured": "○",
    "not_applicable": "–",
    "excluded": "–",
}
STRENGTHS = {
    "exact": "Exact: it counts all there is, so no stronger attacker would find more.",
    "strong": "Strong: close to the best attack that is published.",
    "moderate": "Moderate: a stronger attacker may succeed noticeably more often.",
    "weak": "Weak: a lower bound only; a stronger attacker may succeed far more often.",
}


@dataclass(frozen=True)
class Detail:
    """How much of each list is shown."""

    text: int = LONGEST
    risks: int = 200
    actors: int = 12
    findings: int = 20
    metrics: int = 40
    curve: int = 10
    examples: int = 6
    cells: int = 10
    pictures: bool = True
    charts: bool = True


FULL = Detail()
BRIEFER = (
    replace(FULL, pictures=False, examples=3),
    replace(FULL, pictures=False, examples=0, text=120, findings=5, metrics=8, curve=0, risks=40, actors=4),
    Detail(text=60, risks=10, actors=2, findings=1, metrics=2, curve=0, examples=0, cells=0, pictures=False, charts=False),
)


def render_html(assessment: Assessment, comparison: Comparison | None = None) -> str:
    """The report of an assessment, with the effect of a change where a comparison is given."""
    page = _render(assessment, comparison, FULL)
    for detail in BRIEFER:
        if len(page.encode("utf-8")) <= LARGEST:
            break
        page = _render(assessment, comparison, detail)
    return page


def style_hash(style: str) -> str:
    """The source expression by which a content security policy allows exactly this stylesheet."""
    return f"sha256-{base64.b64encode(hashlib.sha256(style.encode('utf-8')).digest()).decode()}"


def _render(assessment: Assessment, comparison: Comparison | None, detail: Detail) -> str:
    outline = Outline(assessment)
    register = assessment.register
    edges = _edges(register.risks)
    style = _style()
    return (
        _environment()
        .get_template("report.html")
        .render(
            it=assessment,
            outline=outline,
            register=register,
            unit=register.unit,
            comparison=comparison,
            detail=detail,
            style=Markup(style),  # noqa: S704
            style_hash=style_hash(style),
            icons=ICONS,
            labels=LABELS,
            strengths=STRENGTHS,
            shared_estimates=SHARED_ESTIMATES,
            worst=outline.worst,
            measured_worst=outline.worst_measured,
            top=outline.measured_risks[:TOP],
            assumed=outline.assumed_risks[:TOP_ASSUMED],
            rest=(*outline.measured_risks[TOP:], *outline.assumed_risks[TOP_ASSUMED:]),
            narrow=NARROW,
            facts=_facts(assessment),
            estimates=_estimates(assessment),
            exceedance=_exceedance(assessment) if detail.charts else "",
            views=_views(outline, detail),
            loop_key=lambda item, index: (item.threat.id, index),
            span=lambda risk: _span(risk, edges, register.unit) if detail.charts else "",
            tornado=lambda risk: _tornado(risk) if detail.charts else "",
            dumbbells=_dumbbells(comparison) if comparison and detail.charts else "",
            worst_range=lambda risks: _worst_range(risks, register.unit),
            money_range=numbers.money_range,
            share_interval=lambda triple: numbers.share_interval(*triple),
            axis_value=lambda axis, value: numbers.axis_value(axis, value),
            spent=_spent,
            control=control,
            success=success,
        )
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("holdfast.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "clean": clean,
        "moment": numbers.moment,
        "money": numbers.money,
        "share": numbers.share,
        "quantity": numbers.quantity,
        "duration": numbers.duration,
        "metric": numbers.metric,
        "signed_share": numbers.signed_share,
    }
    return environment


@lru_cache(maxsize=1)
def _style() -> str:
    return (files("holdfast.reports") / "templates" / "report.css").read_text(encoding="utf-8")


def _edges(risks: Sequence[Risk]) -> tuple[float, float]:
    """The ends of the logarithmic scale on which the table's losses are drawn."""
    positive = [value for risk in risks for value in (risk.annual.mean, risk.annual.p95) if value > 0]
    if not positive:
        return 1.0, 10.0
    high = max(positive)
    return max(min(positive) / 3, high / 1e5), high


def _span(risk: Risk, edges: tuple[float, float], unit: str) -> Markup:
    sums = numbers.money_range(risk.annual.p5, risk.annual.p95, unit)
    title = f"annual loss {sums}, mean {numbers.money(risk.annual.mean, unit)}"
    return charts.span(risk.annual.p5, risk.annual.mean, risk.annual.p95, edges, sure=risk.state == "measured", title=title)


def _worst_range(risks: Sequence[Risk], unit: str) -> str:
    worst = max(risks, key=lambda risk: risk.annual.mean)
    return f"{numbers.money_range(worst.annual.p5, worst.annual.p95, unit)}, by {clean(worst.actor, 80)}"


def _exceedance(assessment: Assessment) -> Markup:
    register = assessment.register
    total = register.total
    description = (
        f"Mean {numbers.money(total.mean, register.unit)}; 5, 50 and 95 % points {numbers.money(total.p5, register.unit)}, "
        f"{numbers.money(total.p50, register.unit)} and {numbers.money(total.p95, register.unit)}."
    )
    title = "Probability that the annual loss of all risks exceeds a sum"
    return charts.exceedance(total.exceedance, register.unit, register.appetite, title, description)


def _tornado(risk: Risk) -> Markup:
    bars = [(driver.input, driver.correlation, driver.source) for driver in risk.drivers]
    described = "; ".join(f"{label} ({source}) {numbers.correlation(value)}" for label, value, source in bars)
    return charts.tornado(bars, "Rank correlation of each input with the annual loss", described)


def _dumbbells(comparison: Comparison) -> Markup:
    changes = [
        charts.Change(change.name, change.before, change.after, max(0.0, change.before - change.high), change.before - change.low)
        for change in comparison.changes
        if change.before is not None and change.after is not None and change.low is not None and change.high is not None
    ]
    described = "; ".join(
        f"{clean(change.label, 60)}: {numbers.share(change.before)} before, {numbers.share(change.after)} after"
        for change in changes
    )
    return charts.dumbbells(changes[:16], "Attack success before and after the change", described)


@dataclass(frozen=True)
class View:
    """How one piece of evidence is shown under one threat."""

    result: str = ""
    same_as: tuple[str, str] | None = None
    chart: Markup | str = ""
    caption: str = ""
    curve: tuple[CurvePoint, ...] = ()
    limits: tuple[str, ...] = ()
    examples: tuple[ShownExample, ...] = ()


@dataclass(frozen=True)
class ShownExample:
    """An example with what may be shown of it."""

    unit: str
    label_before: str
    label_after: str
    distance: float | None
    changed: tuple[ChangedCell, ...]
    more: int
    pictures: tuple[str, str] | None


def _views(outline: Outline, detail: Detail) -> dict[tuple[str, int], View]:
    """What is shown of each piece of evidence: in full under the first threat it is about, as a reference under the others."""
    views: dict[tuple[str, int], View] = {}
    first: dict[int, tuple[str, str]] = {}
    for number, standing in enumerate(outline.measured, start=1):
        for index, evidence in enumerate(standing.measured):
            if id(evidence) in first:
                views[standing.threat.id, index] = View(same_as=first[id(evidence)])
                continue
            first[id(evidence)] = (f"m{number}", standing.threat.name)
            views[standing.threat.id, index] = _view(standing, evidence, detail, outline.assessment.personal_values)
    return views


def _view(standing: Standing, evidence: Evidence, detail: Detail, personal_values: bool) -> View:
    risks = [risk for risk in standing.risks if risk.probe == evidence.probe]
    curve = next((risk.curve for risk in risks if risk.curve), ())
    beyond = any(risk.untested > 0 for risk in risks)
    limits = ([evidence.reason] if evidence.reason else []) + _notes(risks)
    found = result(evidence)
    chart: Markup | str = ""
    if curve and detail.charts and len(curve) > 1:
        title = f"{standing.threat.name}: success within a capability"
        chart = charts.capability(curve, evidence.axis, clean(title), found, reaches_beyond=beyond, chance=evidence.chance)
    caption = "Steps: share of units on which the attack succeeded. Band: exact 95 % interval at each step."
    if beyond:
        caption += " Grey: within an actor’s reach but not tested; there the risk takes anything up to certainty."
    return View(
        result=found,
        chart=chart,
        caption=caption,
        curve=_thinned(curve, detail.curve) if len(curve) > 1 else (),
        limits=tuple(limits[:12]),
        examples=tuple(_shown(example, detail, personal_values) for example in evidence.examples[: detail.examples]),
    )


def _notes(risks: Sequence[Risk]) -> list[str]:
    """The notes of all risks, once each; one that is not true of every actor names those it is about."""
    actors: dict[str, list[str]] = {}
    for risk in risks:
        for note in dict.fromkeys(risk.notes):
            actors.setdefault(note, []).append(risk.actor)
    return [note if len(named) == len(risks) else f"For {', '.join(named)}: {note}" for note, named in actors.items()]


def _shown(example: Example, detail: Detail, personal_values: bool) -> ShownExample:
    withheld = "withheld"
    cells = [
        ChangedCell(
            feature=cell.feature,
            before=clean(cell.before, 60) if personal_values and cell.before is not None else withheld,
            after=clean(cell.after, 60) if personal_values and cell.after is not None else withheld,
        )
        for cell in example.changed[: detail.cells]
    ]
    before, after = _picture(example.image_before), _picture(example.image_after)
    return ShownExample(
        unit=example.unit,
        label_before=example.label_before,
        label_after=example.label_after,
        distance=example.distance,
        changed=tuple(cells),
        more=len(example.changed) - len(cells),
        pictures=(before, after) if before and after and personal_values and detail.pictures else None,
    )


def _picture(encoded: str | None) -> str | None:
    """The base64 of a PNG, or None for what is too large or something else."""
    if not encoded or len(encoded) > LARGEST_PICTURE:
        return None
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(content).decode() if content.startswith(b"\x89PNG\r\n\x1a\n") else None


def _thinned(curve: Sequence[CurvePoint], most: int) -> tuple[CurvePoint, ...]:
    """At most `most` points of a curve, the first and last among them."""
    if len(curve) <= most:
        return tuple(curve)
    if most < 2:
        return ()
    return tuple(curve[round(index * (len(curve) - 1) / (most - 1))] for index in range(most))


def _facts(assessment: Assessment) -> Iterator[dict[str, Any]]:
    assumed = {name.rsplit(".", 1)[-1] for name in assessment.system.defaults}
    for name, values in assessment.system.facts.items():
        yield {"name": name, "stated": values, "source": "default" if name in assumed else "declared"}


def _estimates(assessment: Assessment) -> list[dict[str, str]]:
    """Where the attempts of each actor, the losses of each goal and each threat's success probability come from, once each."""
    found: dict[tuple[str, str], str] = {}
    for risk in assessment.register.risks:
        found.setdefault(("attempts per year", risk.actor), risk.attempts)
        found.setdefault(("loss per event", risk.goal), risk.loss_per_event)
    successes = [risk.success for risk in assessment.register.risks]
    rows = [{"what": what, "whose": whose, "source": source} for (what, whose), source in sorted(found.items())]
    for source in ("measured", "declared", "default"):
        if source in successes:
            rows.append({"what": "P(success)", "whose": numbers.plural(successes.count(source), "risk"), "source": source})
    return rows


def _spent(spent: Spent) -> str:
    parts = [numbers.plural(spent.queries, "query", "queries")] if spent.queries else []
    if spent.backward:
        parts.append(numbers.plural(spent.backward, "backward pass", "backward passes"))
    return ", ".join([*parts, f"{numbers.duration(spent.cpu_seconds)} of CPU"])
