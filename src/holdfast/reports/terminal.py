"""The report on a terminal: the headline, the largest risks, what was not measured, and what to do next.

Tables fit 100 columns; on narrower terminals and in pipes columns are left out or text is wrapped. No text of the
assessment is read as markup, and control characters are shown, not sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.assessment.document import Assessment
from holdfast.reports import numbers
from holdfast.reports.outline import LABELS, SHARED_ESTIMATES, Outline, Standing, Tone
from holdfast.reports.text import clean
from holdfast.risk.register import Risk

NARROW = 96
"""Below this width the tables drop what can be looked up elsewhere."""
LARGEST = 8
"""Measured risks that are listed."""
LARGEST_ASSUMED = 5
"""Risks that nothing measured that are listed."""

STYLES = {
    "measured": "blue",
    "partly": "yellow",
    "failed": "red",
    "inconclusive": "yellow",
    "unmeasured": "yellow",
    "not_applicable": "dim",
}
_TONES: dict[Tone, str] = {"over": "bold red", "within": "bold", "open": "bold", "unknown": "bold yellow"}


def print_summary(assessment: Assessment, console: Console) -> None:
    """Print the summary of an assessment."""
    outline = Outline(assessment)
    console.print(_text(outline.headline, _TONES[outline.tone]))
    console.print(_text(outline.usefulness))
    if outline.useless:
        console.print(_text(f"Warning: {outline.useless}", "bold red"))
    console.print(_text(outline.coverage))
    console.print()
    if assessment.register.risks:
        unit, width = assessment.register.unit, console.width
        if outline.measured_risks:
            console.print(_risks("Largest measured risks", outline.measured_risks, LARGEST, outline, unit, width))
        if outline.assumed_risks:
            title = "Largest risks that nothing measured"
            console.print(_risks(title, outline.assumed_risks, LARGEST_ASSUMED, outline, unit, width))
        console.print(_text(outline.parts))
        console.print(_text(SHARED_ESTIMATES, "dim"))
        console.print()
    _print_open(outline, console)
    _print_steps(outline, console)


def _risks(title: str, risks: Sequence[Risk], most: int, outline: Outline, unit: str, width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    table.add_column("Threat, risk id", ratio=4, overflow="fold")
    table.add_column("Actor", ratio=2, overflow="fold")
    table.add_column("P(success), 90 %", overflow="fold", max_width=17)
    table.add_column("Mean a year", justify="right", no_wrap=True)
    if width >= NARROW:
        table.add_column("5–95 %", justify="right", overflow="fold")
    for risk in risks[:most]:
        name = _text(risk.threat_name + (" (may apply)" if outline.may_apply(risk) else ""))
        cells = [
            Text("\n").join([name, _text(risk.id, "dim")]),
            _text(risk.actor),
            _success(risk),
            _text(numbers.money(risk.annual.mean, unit)),
        ]
        if width >= NARROW:
            cells.append(_text(numbers.money_range(risk.annual.p5, risk.annual.p95, unit)))
        table.add_row(*cells)
    if len(risks) > most:
        table.caption = f"{len(risks) - most} more in the assessment"
        table.caption_justify = "left"
    return table


def _success(risk: Risk) -> Text:
    if risk.state != "measured":
        return _text(f"{LABELS[risk.state]}: 0 to 100 %", STYLES[risk.state])
    return _text(numbers.share_interval(*risk.probability), STYLES["measured"])


def _print_open(outline: Outline, console: Console) -> None:
    if not outline.open:
        console.print(_text("Every threat that applies or may apply was measured."))
        console.print()
        return
    tried = [standing for standing in outline.open if not standing.untried]
    untried = [standing for standing in outline.open if standing.untried]
    console.print(_text(f"Not measured ({len(outline.open)})", "bold yellow"))
    if tried:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("Threat", ratio=2, overflow="fold")
        table.add_column("State", no_wrap=True)
        table.add_column("Why", ratio=3, overflow="fold")
        for standing in tried:
            state = _text(standing.label, STYLES[standing.state])
            table.add_row(_text(_name(standing)), state, _text(standing.reason, longest=160))
        console.print(table)
    if untried:
        console.print(_text(f"No probe is there, or was chosen, for {len(untried)}:", "yellow"))
        console.print(Text(", ").join(_text(_name(standing)) for standing in untried))
    console.print()


def _name(standing: Standing) -> str:
    return f"{standing.threat.name} ({standing.threat.id}{', may apply' if standing.may_apply else ''})"


def _print_steps(outline: Outline, console: Console) -> None:
    if not outline.steps:
        return
    console.print(_text("Next", "bold"))
    for number, step in enumerate(outline.steps[:5], start=1):
        console.print(_text(f"{number}. {step.what}"))
        console.print(_text(f"   {step.why}", "dim"))


def _text(content: str, style: str = "", longest: int = 400) -> Text:
    return Text(clean(content, longest).replace(numbers.SPACE, " "), style=style)
