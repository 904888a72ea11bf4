"""The report on a terminal: the headline, the largest risks, what was not measured, and what to do next.

Tables fit 100 columns; on narrower terminals and in pipes columns share a cell or text is wrapped. No text of the
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
"""Below this width the range of a loss stands under its mean, and the actor under the threat."""
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
    if outline.mostly_assumed:
        console.print(_text(outline.mostly_assumed, "yellow"))
    console.print(_text(outline.usefulness))
    if outline.warning:
        console.print(_text(f"Warning: {outline.warning}", "bold red"))
    console.print(_text(outline.coverage))
    console.print()
    if assessment.register.risks:
        unit, width = assessment.register.unit, console.width
        if outline.measured_risks:
            console.print(_risks("Largest measured risks", outline.measured_risks, LARGEST, outline, unit, width))
            console.print()
        if outline.assumed_risks:
            title = "Largest risks that nothing measured"
            console.print(_risks(title, outline.assumed_risks, LARGEST_ASSUMED, outline, unit, width))
            console.print()
        console.print(_text(outline.parts))
        console.print(_text(SHARED_ESTIMATES, "dim"))
        console.print()
    _print_open(outline, console)
    _print_steps(outline, console)


def _risks(title: str, risks: Sequence[Risk], most: int, outline: Outline, unit: str, width: int) -> Table:
    wide = width >= NARROW
    shown = risks[:most]
    names = [risk.threat_name + (" (may apply)" if outline.may_apply(risk) else "") for risk in shown]
    means = [_text(numbers.money(risk.annual.mean, unit)) for risk in shown]
    ranges = [_text(numbers.money_range(risk.annual.p5, risk.annual.p95, unit)) for risk in shown]
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
        title=title,
        title_justify="left",
        title_style="bold",
    )
    longest_range = max(map(len, ranges))
    columns = [("P(success), 90 %", 17 if width >= 80 else 13)]
    if wide:
        columns += [("Mean a year", max(11, *map(len, means))), ("5–95 %", min(20, longest_range))]
    else:
        columns += [("Mean a year\n5–95 %", max(11, *map(len, means), min(20 if width >= 80 else 11, longest_range)))]
    actor_width = min(20, max(5, *(len(_text(risk.actor)) for risk in shown)))
    left = max(10, width - sum(size + 2 for _, size in columns))
    longest = max(len(_text(risk.id)) for risk in shown)
    apart = wide and left - actor_width - 2 >= longest
    left -= actor_width + 2 if apart else 0
    heading = "Threat, risk id" if apart else "Threat, actor, risk id"
    table.add_column(heading, width=min(left, max(longest, len(heading), *(len(_text(name)) for name in names))), overflow="fold")
    if apart:
        table.add_column("Actor", width=actor_width, overflow="fold")
    for number, (header, size) in enumerate(columns):
        table.add_column(header, width=size, justify="right" if number else "left", overflow="fold")
    for risk, name, mean, between in zip(shown, names, means, ranges, strict=True):
        actor = _text(risk.actor)
        first = Text("\n").join([_text(name), *([] if apart else [actor]), _text(risk.id, "dim")])
        loss = [mean, between] if wide else [Text("\n").join([mean, between])]
        table.add_row(first, *([actor] if apart else []), _success(risk, outline), *loss)
    if len(risks) > most:
        table.caption = f"{len(risks) - most} more in the assessment"
        table.caption_justify = "left"
    return table


def _success(risk: Risk, outline: Outline) -> Text:
    if risk.state != "measured":
        return _text(f"{LABELS[risk.state]}: 0 to 100 %", STYLES[risk.state])
    lines = [_text(numbers.share_interval(*risk.probability), STYLES["measured"])]
    lines += [_text(outline.observation(risk), "dim")] if outline.observation(risk) else []
    lines += [_text("largely assumed", "yellow")] if outline.largely_assumed(risk) else []
    return Text("\n").join(lines)


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
