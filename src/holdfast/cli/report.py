"""`holdfast report`: an assessment as something to read or to feed to other tools."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.output import Json, console, emit_json, plain, say


def register(app: typer.Typer) -> None:
    """Add the command `report`."""
    from holdfast.cli.main import DECIDE

    app.command("report", rich_help_panel=DECIDE)(report)


def report(
    assessment: Annotated[str, typer.Argument(metavar="ASSESSMENT", help="The assessment file.")],
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write one HTML file that opens anywhere, offline.")] = None,
    sarif: Annotated[str | None, typer.Option(metavar="FILE", help="Write SARIF 2.1.0 for code scanning.")] = None,
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="Write JUnit XML, one case for each threat.")] = None,
    markdown: Annotated[str | None, typer.Option(metavar="FILE", help="Write Markdown for a pull request.")] = None,
    pdf: Annotated[str | None, typer.Option(metavar="FILE", help="Write PDF; needs the extra pdf.")] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="FILE", help="A comparison to show beside it, as written by holdfast compare.")
    ] = None,
    json: Json = False,
) -> None:
    """Show an assessment, or write it as HTML, SARIF, JUnit, Markdown or PDF.

    Without a format, a summary is printed.
    """
    from pathlib import Path

    from holdfast.assessment.comparison import Comparison
    from holdfast.assessment.files import read_assessment
    from holdfast.cli.placing import require_placeable, require_report, set_aside
    from holdfast.core.errors import ConfigurationError
    from holdfast.core.files import read_document, write_bytes, write_text
    from holdfast.reports.outline import summary

    if Path(assessment).suffix.lower() in (".yaml", ".yml"):
        raise ConfigurationError(
            "this looks like a system file, not an assessment",
            where=assessment,
            hint=f"Make one: holdfast assess {assessment}; then: holdfast report assessment.json",
        )
    document = read_assessment(Path(assessment))
    comparison = read_document(Path(compare), Comparison, "a comparison of format holdfast-comparison/1") if compare else None
    made_from = [Path(assessment), *([Path(compare)] if compare else [])]
    for kind, path in (("HTML", html), ("SARIF", sarif), ("JUnit", junit), ("Markdown", markdown)):
        if path:
            require_report(Path(path), kind, *made_from)
    if pdf:
        require_placeable(Path(pdf), tuple(made_from), assessment=False)
    written: dict[str, str] = {}
    if html:
        from holdfast.reports.html import render_html

        write_text(Path(html), render_html(document, comparison))
        written["html"] = html
    if sarif:
        from holdfast.reports.sarif import render_sarif

        write_text(Path(sarif), render_sarif(document))
        written["sarif"] = sarif
    if junit:
        from holdfast.reports.junit import render_junit

        write_text(Path(junit), render_junit(document))
        written["junit"] = junit
    if markdown:
        from holdfast.reports.markdown import render_markdown

        write_text(Path(markdown), render_markdown(document, comparison))
        written["markdown"] = markdown
    if pdf:
        from holdfast.reports.pdf import render_pdf

        page = render_pdf(document, comparison)
        set_aside(Path(pdf))
        write_bytes(Path(pdf), page)
        written["pdf"] = pdf
    if json:
        emit_json({**summary(document), "written": written})
    elif written:
        for kind, path in written.items():
            say(f"{kind}: {plain(path)}")
    else:
        from holdfast.reports.terminal import print_summary

        print_summary(document, console())
