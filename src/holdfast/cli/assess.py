"""plan, assess and history: what will be measured, measuring it, and what was measured before."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli.output import DEFAULT_SYSTEM, Json, SystemFile, console, emit_json, plain, say

Budget = Annotated[str, typer.Option(help="quick, standard, thorough, or a time such as 90s, 10m or 2h.")]
Seed = Annotated[int, typer.Option(help="Decides everything random; the same seed gives the same evidence.")]
Only = Annotated[list[str] | None, typer.Option("--only", metavar="PROBE", help="Run only this probe; may be repeated.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes; the number of cores by default.")]
Trust = Annotated[
    list[str] | None, typer.Option("--trust", metavar="SHA256", help="Digest of a file that may run code; may be repeated.")
]
ShowValues = Annotated[
    bool, typer.Option("--show-values", help="Put personal values into examples; without it only row ids appear.")
]
STORE_VARIABLE = "HOLDFAST_STORE"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    from holdfast.cli.main import DECIDE, MEASURE

    app.command("plan", rich_help_panel=MEASURE)(plan)
    app.command("assess", rich_help_panel=MEASURE)(assess)
    app.command("history", rich_help_panel=DECIDE)(history)


def plan(
    system: SystemFile = DEFAULT_SYSTEM,
    budget: Budget = "standard",
    only: Only = None,
    workers: Workers = None,
    trust: Trust = None,
    everything: Annotated[bool, typer.Option("--all", help="Also list the threats that no installed probe measures.")] = False,
    json: Json = False,
) -> None:
    """Show which probes will run for which threat and actor, their time, and what stays unmeasured and why."""
    from holdfast.assessment.run import prepare

    made = prepare(Path(system), budget=budget, only=only, workers=workers, trust=trust or ()).plan
    if json:
        emit_json(made)
    else:
        _print_plan(made, everything)


def assess(
    system: SystemFile = DEFAULT_SYSTEM,
    budget: Budget = "standard",
    seed: Seed = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the assessment.")] = Path("assessment.json"),
    html: Annotated[Path | None, typer.Option(help="Also write the HTML report.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Take up an interrupted run.")] = False,
    only: Only = None,
    workers: Workers = None,
    trust: Trust = None,
    show_values: ShowValues = False,
    json: Json = False,
) -> None:
    """Attack the model, quantify the risks, and write the assessment."""
    from holdfast.assessment.run import prepare
    from holdfast.cli.placing import alone_in, require_placeable, set_aside, sources
    from holdfast.cli.progress import Watcher
    from holdfast.core.errors import ConfigurationError
    from holdfast.core.files import write_document, write_text

    started = time.monotonic()
    run = prepare(Path(system), budget=budget, seed=seed, only=only, workers=workers, trust=trust or (), show_values=show_values)
    made_from = sources(run.system, Path(system))
    require_placeable(output, made_from, assessment=True)
    if html:
        require_placeable(html, made_from, assessment=False)
        if html.resolve() == output.resolve():
            raise ConfigurationError(
                "the assessment and its report need two files", where=str(html), hint="Choose another --html."
            )
    with Watcher(len(run.plan.probes), run.plan.seconds) as watcher:
        try:
            run.measure(
                resume=resume,
                workers=run.plan.workers,
                progress=watcher,
                on_done=lambda name, evidence: watcher.finished(name, evidence.status.replace("_", " "), _headline(evidence)),
            )
        except KeyboardInterrupt:
            kept = len(run.evidence)
            sys.stderr.write(
                f"\nInterrupted. {kept} of {len(run.plan.probes)} probes are kept. Repeat the command with --resume.\n"
            )
            raise
    assessment = run.finish(started=started)
    require_placeable(output, made_from, assessment=True)
    with alone_in(output.parent):
        replaced = set_aside(output)
        write_document(output, assessment)
    run.discard()
    if html:
        from holdfast.reports.html import render_html

        require_placeable(html, made_from, assessment=False)
        page = render_html(assessment)
        with alone_in(html.parent):
            set_aside(html)
            write_text(html, page)
    _try_to_record(assessment, Path(system))
    if json:
        emit_json(assessment)
        return
    from holdfast.reports.terminal import print_summary

    print_summary(assessment, console())
    say(f"\nAssessment: {plain(output)}" + (f" (the one it replaces is now {plain(replaced)})" if replaced else ""))
    say(f"Report:     {plain(html)}" if html else f"Report:     holdfast report {plain(output)} --html report.html")


def _try_to_record(assessment: Any, system: Path) -> None:
    """Add the assessment to the history; it is complete without, so that a history that fails is a warning."""
    from holdfast.core.errors import HoldfastError
    from holdfast.reports.text import clean

    try:
        record(assessment, system)
    except HoldfastError as error:
        reason = " ".join(clean(line.strip()) for line in str(error).splitlines())
        sys.stderr.write(f"warning: the assessment is not in the history: {reason}\n")


def history(
    system: SystemFile = DEFAULT_SYSTEM,
    limit: Annotated[int, typer.Option(min=1, help="How many of the latest.")] = 20,
    json: Json = False,
) -> None:
    """List earlier assessments of this project, newest first."""
    from rich.table import Table

    from holdfast.reports.numbers import money

    store = _store(Path(system))
    try:
        entries = store.entries(limit=limit)
    finally:
        store.close()
    if json:
        emit_json([{key: value for key, value in vars(entry).items() if key != "document"} for entry in entries])
        return
    if not entries:
        say("No assessment has been recorded here yet. Run: holdfast assess")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("made (UTC)", "system", "budget", "model", "data"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "made (UTC)")
    for heading in ("mean loss/year", "95 % point", "measured", "not measured"):
        table.add_column(heading, justify="right")
    for entry in entries:
        table.add_row(
            plain(entry.created.replace("T", " ").rstrip("Z")),
            plain(entry.system),
            plain(entry.budget),
            plain(entry.model_digest[:8]),
            plain(entry.data_digest[:8]),
            plain(money(entry.mean_loss, entry.unit)),
            plain(money(entry.p95_loss, entry.unit)),
            str(entry.measured),
            str(entry.unmeasured),
        )
    console().print(table)


def record(assessment: Any, system: Path) -> None:
    """Add an assessment to the history of the system file's project."""
    from holdfast.store.history import Entry

    states = [risk.state for risk in assessment.register.risks]
    store = _store(system)
    try:
        store.record(
            Entry(
                seal=assessment.seal,
                created=assessment.created,
                system=assessment.system.name,
                budget=assessment.budget,
                model_digest=assessment.digests.get("model", ""),
                data_digest=assessment.digests.get("holdout", ""),
                unit=assessment.register.unit,
                mean_loss=assessment.register.total.mean,
                p95_loss=assessment.register.total.p95,
                measured=states.count("measured"),
                unmeasured=len(states) - states.count("measured"),
                document=assessment.model_dump_json(),
            )
        )
    finally:
        store.close()


def _store(system: Path) -> Any:
    from holdfast.store.history import History

    url = os.environ.get(STORE_VARIABLE)
    return History(url) if url else History.in_folder(system.resolve().parent / ".holdfast")


def _headline(evidence: Any) -> str:
    from holdfast.reports.outline import result

    return str(result(evidence) if evidence.status == "measured" else evidence.reason).splitlines()[0]


def _print_plan(made: Any, everything: bool) -> None:
    from rich.table import Table

    from holdfast.cli.progress import duration

    say(
        f"[bold]{sum(probe.state == 'runs' for probe in made.probes)} probes will run[/bold], about {duration(made.seconds)} "
        f"with {made.workers} workers (budget {plain(made.budget)}: {made.rows} rows, {made.queries} queries a row, "
        f"{made.repeats} trainings, {made.shadows} shadow models)\n"
    )
    table = Table(box=None, pad_edge=False)
    for heading in ("probe", "measures", "as an attacker with", "by", "time"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("probe", "time"))
    for probe in made.probes:
        who = ", ".join(probe.actors) or "nobody declared"
        state = duration(probe.seconds) if probe.state == "runs" else probe.state.replace("_", " ")
        table.add_row(plain(probe.name), plain(" ".join(probe.threats)), plain(probe.access), plain(who), state)
    console().print(table)
    refused = [probe for probe in made.probes if probe.state != "runs"]
    if refused:
        say("\n[bold]These will not run:[/bold]")
        for probe in refused:
            say(f"  {plain(probe.name)}: {plain('. '.join(line.strip() for line in probe.reason.splitlines()))}")
    if made.unmeasured:
        sure = sum(threat.applicability == "applies" for threat in made.unmeasured)
        say(
            f"\n[bold]{len(made.unmeasured)} threats will stay unmeasured[/bold], because no installed probe measures them: "
            f"{sure} apply, {len(made.unmeasured) - sure} may apply." + ("" if everything else " List them: holdfast plan --all")
        )
        for threat in made.unmeasured if everything else ():
            needed = f"{threat.applicability}; would need {', '.join(threat.wanted_probes)}"
            say(f"  {threat.threat}  {plain(threat.name)} ({plain(needed)})")
