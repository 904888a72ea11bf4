"""decide and decisions: what the owner does about a risk, who says so, and until when."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli.output import DEFAULT_SYSTEM, Json, console, emit_json, plain, say

Assessed = Annotated[Path, typer.Option("--assessment", "-a", help="The assessment that the decision rests on.")]
Beside = Annotated[Path, typer.Option("--system", help="The system file; decisions are kept beside it.")]


class Choice(StrEnum):
    """What can be done about a risk."""

    accept = "accept"
    mitigate = "mitigate"
    transfer = "transfer"
    avoid = "avoid"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    from holdfast.cli.main import DECIDE

    app.command("decide", rich_help_panel=DECIDE)(decide)
    app.command("decisions", rich_help_panel=DECIDE)(decisions)


def decide(
    risk: Annotated[str, typer.Argument(metavar="RISK_ID", help="The risk's id in the register.")],
    choice: Annotated[Choice, typer.Argument(help="What is decided.")],
    who: Annotated[str, typer.Option(help="Who decides.")],
    until: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="The last day on which the decision holds.")],
    reason: Annotated[str, typer.Option(help="Why, for those who come later.")] = "",
    assessment: Assessed = Path("assessment.json"),
    system: Beside = Path(DEFAULT_SYSTEM),
    json: Json = False,
) -> None:
    """Record a decision about a risk. It lapses when the model or the data change, or after its last day."""
    from difflib import get_close_matches

    from holdfast.assessment.files import read_assessment
    from holdfast.core.errors import ConfigurationError
    from holdfast.risk.decisions import decisions_file, record_decision

    judged = read_assessment(assessment)
    known = [item.id for item in judged.register.risks]
    if risk not in known:
        of_threat = [item.id for item in judged.register.risks if risk.upper().startswith(item.threat.upper())]
        close = of_threat or get_close_matches(risk, known, n=3)
        hint = "See the ids: holdfast report ASSESSMENT"
        if of_threat:
            hint = f"The ids of that threat's risks: {', '.join(of_threat)}"
        elif close:
            hint = f"Did you mean {' or '.join(close)}?"
        raise ConfigurationError(f"the register has no risk {risk!r}", where=str(assessment), hint=hint)
    if not system.is_file():
        raise ConfigurationError("there is no such system file", where=str(system), hint="Give it with --system.")
    made = record_decision(
        system,
        risk=risk,
        choice=choice.value,
        who=who,
        until=until,
        reason=reason,
        model_digest=judged.digests.get("served", ""),
        data_digest=judged.digests.get("data", ""),
    )
    if json:
        emit_json(made)
        return
    say(f"{made.id}: [bold]{made.choice}[/bold] {plain(made.risk)}, by {plain(made.who)}, until {made.until}")
    say(f"Recorded in {plain(decisions_file(system))}; it counts from the next assessment on.")


def decisions(assessment: Assessed = Path("assessment.json"), system: Beside = Path(DEFAULT_SYSTEM), json: Json = False) -> None:
    """List all decisions, which are in force for the assessed model and data, and why others have lapsed."""
    from rich.table import Table

    from holdfast.assessment.files import read_assessment
    from holdfast.risk.decisions import decisions_in_force, read_decisions

    recorded = read_decisions(system)
    digests: dict[str, Any] = dict(read_assessment(assessment).digests) if recorded else {}
    marked = decisions_in_force(recorded, digests.get("served", ""), digests.get("data", ""))
    if json:
        emit_json([decision.model_dump(mode="json") for decision in marked])
        return
    if not marked:
        say("No decision is recorded. Record one with: holdfast decide RISK_ID accept --who NAME --until DATE")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("Decision", "Risk", "Choice", "Who", "Until", "State"):
        table.add_column(heading, overflow="fold")
    for decision in marked:
        state = "in force" if decision.state == "in force" else f"lapsed: {decision.lapsed_because}"
        table.add_row(*map(plain, (decision.id, decision.risk, decision.choice, decision.who, decision.until, state)))
    console().print(table)
