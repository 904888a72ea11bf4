"""compare: what a change to a system did, from the assessments before and after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.output import Json, console, emit_json, plain, say

if TYPE_CHECKING:
    from holdfast.assessment.comparison import Change, Comparison

WORST_RISKS = 8
"""Risks that the terminal shows; the document has all of them."""


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    from holdfast.cli.main import LOWER

    app.command("compare", rich_help_panel=LOWER)(compare)


def compare(
    before: Annotated[Path, typer.Argument(help="The assessment before the change.")],
    after: Annotated[Path, typer.Argument(help="The assessment after it.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the comparison as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the HTML report of the second, with the comparison in it.")] = None,
    json: Json = False,
) -> None:
    """Compare two assessments on the same rows: what a control really did, what it cost, and what it did to the risk."""
    from holdfast.assessment import compare as comparing
    from holdfast.assessment.files import read_assessment
    from holdfast.cli.placing import require_report
    from holdfast.core.errors import ConfigurationError
    from holdfast.core.files import write_document, write_text

    if output and output.suffix.lower() in (".html", ".htm"):
        raise ConfigurationError("--output writes JSON", where=str(output), hint="For a page: --html FILE.")
    for path, kind in ((output, "comparison"), (html, "HTML")):
        if path:
            require_report(path, kind, before, after)
    second = read_assessment(after)
    comparison = comparing.compare(read_assessment(before), second)
    if output:
        write_document(output, comparison)
    if html:
        from holdfast.reports.html import render_html

        write_text(html, render_html(second, comparison))
    if json:
        emit_json(comparison)
        return
    _show(comparison)
    for written in filter(None, (output, html)):
        say(f"Written to {plain(written)}.")


def _show(comparison: Comparison) -> None:
    from holdfast.reports.text import short

    say(f"[bold]{plain(comparison.before.system)}[/bold]")
    for name, side in (("before", comparison.before), ("after", comparison.after)):
        controls = ", ".join(side.controls) or "none"
        say(
            f"  {name:<7} {plain(side.file)}, assessed {plain(side.created)}; model {plain(short(side.model_digest))}; "
            f"answers {plain(side.answers)}; controls {plain(controls)}"
        )
    say()
    _show_changes(comparison.changes)
    _show_utility(comparison)
    _show_losses(comparison)
    for note in comparison.notes:
        say(f"[dim]{plain(note)}[/dim]")


def _show_changes(changes: tuple[Change, ...]) -> None:
    from rich.table import Table

    from holdfast.reports.numbers import share

    compared = [change for change in changes if change.verdict != "not comparable"]
    if compared:
        table = Table(title="Success of each attack, before and after", title_justify="left", box=None, pad_edge=False)
        table.add_column("attack", ratio=3)
        for heading in ("before", "after", "points [95 %]", "P(helps)", "rows"):
            table.add_column(heading, justify="right")
        table.add_column("verdict")
        for change in compared:
            colour = {"helps": "green", "harms": "red"}.get(change.verdict, "yellow")
            verdict = change.verdict + (", unpaired" if change.pairing == "unpaired" else "")
            table.add_row(
                plain(change.name) + (" (adaptive)" if change.adaptive else ""),
                share(change.before or 0.0),
                share(change.after or 0.0),
                _points(change.difference, change.low, change.high),
                "" if change.probability_helps is None else f"{change.probability_helps:.2f}",
                str(change.trials),
                f"[{colour}]{verdict}[/{colour}]",
            )
        console().print(table)
        for change in compared:
            dropped = [
                f"{count} attacked {side} only"
                for side, count in (("before", change.only_before), ("after", change.only_after))
                if count
            ]
            remarks = " ".join([change.reason, *([f"Rows left out: {', '.join(dropped)}."] if dropped else [])]).strip()
            if remarks:
                say(f"  {plain(change.name)}: {plain(remarks)}")
        say()
    lost = [change for change in changes if change.verdict == "not comparable"]
    if lost:
        say("[bold]Not comparable, so nothing is claimed[/bold]")
        for change in lost:
            reason = change.reason.replace("\n  ", ". ")
            say(f"  {plain(change.name)}: {plain(reason)}")
        say()


def _points(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return ""
    change, least, most = (round(-100 * number, 1) + 0.0 for number in (value, high, low))
    return f"{change:+.1f} [{least:+.1f}, {most:+.1f}]"


def _show_utility(comparison: Comparison) -> None:
    from holdfast.reports.numbers import share

    cost = comparison.utility
    say("[bold]What it cost[/bold]")
    if cost is None:
        say("  not measured: a side has no utility")
    else:
        say(
            f"  accuracy {share(cost.accuracy_before)} -> {share(cost.accuracy_after)}, "
            f"{100 * cost.accuracy_difference:+.1f} points [{100 * cost.low:+.1f}, {100 * cost.high:+.1f}]"
        )
        if cost.auc_before is not None and cost.auc_after is not None:
            known = cost.auc_low is not None and cost.auc_high is not None
            interval = f" [{cost.auc_low:+.3f}, {cost.auc_high:+.3f}]" if known else ""
            say(f"  AUC {cost.auc_before:.3f} -> {cost.auc_after:.3f}, {cost.auc_after - cost.auc_before:+.3f}{interval}")
        elif cost.auc_before is not None:
            say("  AUC cannot be told after the change: the answers carry no scores")
    say()


def _show_losses(comparison: Comparison) -> None:
    from rich.table import Table

    from holdfast.reports.numbers import money, share

    unit = comparison.unit
    table = Table(title="Annual loss: mean (95th percentile)", title_justify="left", box=None, pad_edge=False)
    table.add_column("risk", ratio=3)
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")

    def cell(mean: float | None, p95: float | None, state: str | None) -> str:
        if mean is None or p95 is None:
            return "not in the register"
        said = f"{money(mean, unit)} ({money(p95, unit)})"
        return said if state in (None, "measured") else f"{said}, {state}"

    total = comparison.total
    table.add_row("all risks", cell(total.mean_before, total.p95_before, None), cell(total.mean_after, total.p95_after, None))
    old, new = comparison.measured_total
    table.add_row("mean of those measured on both sides", money(old, unit), money(new, unit))
    for risk in comparison.risks[:WORST_RISKS]:
        table.add_row(
            plain(f"{risk.name}, {risk.actor}"),
            cell(risk.mean_before, risk.p95_before, risk.state_before),
            cell(risk.mean_after, risk.p95_after, risk.state_after),
        )
    console().print(table)
    if len(comparison.risks) > WORST_RISKS:
        say(f"  and {len(comparison.risks) - WORST_RISKS} more with smaller changes")
    if comparison.exceeds_appetite:
        first, second = comparison.exceeds_appetite
        say(f"  P(annual loss above the appetite) {share(first)} -> {share(second)}")
    say()
