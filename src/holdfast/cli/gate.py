"""gate: hold an assessment against a policy, for continuous integration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.output import Json, emit_json, plain, say

if TYPE_CHECKING:
    from holdfast.assessment.document import Assessment
    from holdfast.assessment.gate import GateResult, Policy


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    from holdfast.cli.main import DECIDE

    app.command("gate", rich_help_panel=DECIDE)(gate)


def gate(
    assessment: Annotated[Path, typer.Argument(help="The assessment to judge.")],
    policy: Annotated[Path, typer.Option(help="The policy file.")],
    system: Annotated[
        Path | None, typer.Option(help="Also check that the model and data are still those that were measured.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report, before exiting.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write a SARIF report, before exiting.")] = None,
    trust: Annotated[
        list[str] | None, typer.Option("--trust", metavar="SHA256", help="As for assess; used with --system.")
    ] = None,
    json: Json = False,
) -> None:
    """Judge an assessment by a policy: exit 0 pass, 1 breached, 2 wrong usage, 3 inconclusive, 4 integrity failure."""
    from holdfast.assessment.files import read_assessment
    from holdfast.assessment.gate import apply_gate, read_policy
    from holdfast.assessment.integrity import check_current
    from holdfast.cli.placing import require_report
    from holdfast.core.files import write_text
    from holdfast.reports.junit import render_junit
    from holdfast.reports.sarif import render_sarif

    for path, kind in ((junit, "JUnit"), (sarif, "SARIF")):
        if path:
            require_report(path, kind, assessment, policy, *([system] if system else []))
    judged = read_assessment(assessment)
    if system:
        check_current(judged, system, trust or ())
    rules = read_policy(policy)
    result = apply_gate(judged, rules)
    if junit:
        breached = [(item.threat or "", item.message) for item in result.findings if item.outcome == "breached"]
        write_text(junit, render_junit(judged, breached))
    if sarif:
        write_text(sarif, render_sarif(judged))
    if json:
        emit_json({**result.model_dump(mode="json"), "verdict": result.verdict})
    else:
        colour = {"pass": "green", "breached": "red", "inconclusive": "yellow"}[result.verdict]
        about = f"{plain(judged.system.name)}, assessed {plain(judged.created)}"
        say(f"[bold {colour}]{result.verdict.upper()}[/bold {colour}]  {about}")
        for finding in result.findings:
            say(f"  {finding.outcome:<13}{plain(finding.rule)}: {plain(finding.message)}")
        for decision in result.lapsed:
            about = f"{decision.id} to {decision.choice} {decision.risk} counts no longer: {decision.lapsed_because}"
            say(f"  lapsed       {plain(about)}")
        say(f"  {_extent(judged, rules, result)}")
        if result.waived:
            say(f"  decided      not judged, because a decision is in force: {plain(', '.join(result.waived))}")
    raise typer.Exit(result.code)


def _extent(assessment: Assessment, policy: Policy, result: GateResult) -> str:
    """How many threats the policy bounds, and how many measured ones it does not."""
    applying = {threat.id for threat in assessment.threats if threat.applicability != "excluded"}
    judged = {threat for threat in policy.threats if threat in applying} - set(result.waived)
    measured = {threat for item in assessment.evidence if item.status == "measured" for threat in item.threats} & applying
    left = measured - judged
    bounded, others = (
        f"{len(each)} {what}threat{'' if len(each) == 1 else 's'}" for each, what in ((judged, ""), (left, "measured "))
    )
    return f"judged {bounded}; {others} not judged by this policy"
