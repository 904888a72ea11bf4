"""threats and schema: what threatens the described system, and the forms of Holdfast's documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.output import DEFAULT_SYSTEM, PIPED_WIDTH, Json, Terminal, console, emit_json, plain_text, say_lines

if TYPE_CHECKING:
    from rich.table import Table

    from holdfast.threats.atlas import AtlasReport
    from holdfast.threats.derivation import Threat


WIDE = 90
"""Below this width the table leaves out what a threat harms; `--all` tells it."""


class Form(StrEnum):
    """How the threat model is written."""

    text = "text"
    otm = "otm"
    markdown = "markdown"


class Described(StrEnum):
    """The documents that have a schema."""

    system = "system"
    assessment = "assessment"


Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file instead of the terminal.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    from holdfast.cli.main import DESCRIBE, SERVICE

    app.command("threats", rich_help_panel=DESCRIBE)(threats)
    app.command("schema", rich_help_panel=SERVICE)(schema)


def threats(
    system: Annotated[Path, typer.Argument(metavar="SYSTEM", help="The system file.")] = Path(DEFAULT_SYSTEM),
    everything: Annotated[
        bool, typer.Option("--all", help="Also say what each threat is, its identifiers, probes and controls.")
    ] = False,
    atlas: Annotated[
        Path | None,
        typer.Option(metavar="ATLAS.yaml", help="Check the catalogue against this release of MITRE ATLAS; exit 1 if it differs."),
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="Open Threat Model JSON, Markdown with a diagram, or text.")] = Form.text,
    output: Output = None,
    json: Json = False,
) -> None:
    """List the threats that apply to the system, those unknown for want of a fact, and those that a fact excludes."""
    from holdfast.core.errors import ConfigurationError

    if json and form is not Form.text:
        raise ConfigurationError(f"--json and --format {form} exclude each other")
    if atlas:
        _check_atlas(atlas, output, json)
        return

    from holdfast.threats.derivation import derive
    from holdfast.threats.exports import to_markdown, to_otm
    from holdfast.threats.reader import read_system

    described = read_system(system)
    derived = derive(described)
    if json:
        _document({"system": described.system, "threats": [threat.model_dump(mode="json") for threat in derived]}, output)
    elif form is Form.otm:
        _document(to_otm(described, derived), output)
    elif form is Form.markdown:
        _text(to_markdown(described, derived), output)
    else:
        _print(lambda out: _list(out, described.system, derived, everything), output)


def schema(
    document: Annotated[Described, typer.Argument(help="Which document.")],
    output: Output = None,
    json: Json = False,  # noqa: ARG001
) -> None:
    """Print the JSON Schema of the system file or of an assessment, for editors and validators: JSON with or without `--json`."""
    if document is Described.system:
        from holdfast.threats.schema import system_schema

        _document(system_schema(), output)
    else:
        from holdfast.assessment.document import Assessment

        _document(Assessment.model_json_schema(), output)


def _check_atlas(path: Path, output: Path | None, json: bool) -> None:
    from holdfast.threats.atlas import check_atlas

    report = check_atlas(path)
    if json:
        _document({**report.model_dump(mode="json"), "unchanged": report.unchanged}, output)
    else:
        _print(lambda out: _report(out, report), output)
    raise typer.Exit(0 if report.unchanged else 1)


def _list(out: Terminal, name: str, derived: Sequence[Threat], everything: bool) -> None:
    groups = {
        state: [threat for threat in derived if threat.applicability == state] for state in ("applies", "unknown", "excluded")
    }
    out.print(
        plain_text(
            f"{name}: {len(groups['applies'])} threats apply, {len(groups['unknown'])} are unknown for want of a fact, "
            f"{len(groups['excluded'])} are excluded by a stated fact."
        )
    )
    out.print("Nothing is measured yet: `holdfast plan` says what can be.", style="dim")
    for heading, state in (("Applies", "applies"), ("Unknown", "unknown"), ("Excluded", "excluded")):
        out.print(f"\n[bold]{heading}[/bold]" + ("" if groups[state] else ": none"))
        if everything and state != "excluded":
            for threat in groups[state]:
                _details(out, threat)
        elif groups[state]:
            out.print(_table(groups[state], harms=state != "excluded" and out.width >= WIDE))


def _table(rows: Sequence[Threat], *, harms: bool) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("id", no_wrap=True)
    table.add_column("threat", overflow="fold")
    if harms:
        table.add_column("harms", no_wrap=True)
    table.add_column("because", overflow="fold")
    for threat in rows:
        table.add_row(
            threat.id, plain_text(threat.name), *([plain_text(threat.goal)] if harms else []), plain_text(_reason(threat))
        )
    return table


def _details(out: Terminal, threat: Threat) -> None:
    from rich.padding import Padding

    identifiers = [
        *threat.atlas,
        *threat.nist,
        *(f"OWASP {name}:2023" for name in threat.owasp_ml),
        *(f"OWASP {name}:2025" for name in threat.owasp_llm_2025),
        f"AI Exchange {threat.ai_exchange}",
    ]
    lines = (
        threat.what,
        f"{_reason(threat)}; harms {threat.goal}",
        f"known as  {', '.join(identifiers)}",
        f"probes    {', '.join(threat.probes)}",
        f"controls  {', '.join(threat.controls)}",
    )
    out.print(plain_text(f"{threat.id}  {threat.name}", "bold"))
    for line in lines:
        out.print(Padding(plain_text(line), (0, 0, 0, 2)))


def _report(out: Terminal, report: AtlasReport) -> None:
    out.print(
        plain_text(
            f"MITRE ATLAS {report.version}: {report.techniques} techniques, {report.mitigations} mitigations, "
            f"{report.case_studies} case studies. {report.checked} identifiers checked, written against {report.checked_against}."
        )
    )
    for change in report.vanished:
        out.print(plain_text(f"  vanished  {change.id} {change.name}  ({', '.join(change.used_by)})"))
    for change in report.renamed:
        out.print(plain_text(f"  renamed   {change.id} {change.name} -> {change.new_name}  ({', '.join(change.used_by)})"))
    for link in report.lost_links:
        out.print(plain_text(f"  unlinked  {link.mitigation} from {link.threat}"))
    if report.unchanged:
        out.print("  All are there under their names.")


def _reason(threat: Threat) -> str:
    return threat.because.partition(": ")[2] or threat.because


def _print(draw: Callable[[Terminal], None], output: Path | None) -> None:
    """Draw on the terminal, as wide as it is; into a file or a pipe, 100 columns wide."""
    if output:
        import io

        page = io.StringIO()
        draw(Terminal(file=page, width=PIPED_WIDTH, highlight=False, emoji=False, color_system=None))
        _text(page.getvalue(), output)
        return
    draw(console())


def _document(content: dict[str, Any], output: Path | None) -> None:
    if output:
        import json

        _text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", output)
    else:
        emit_json(content)


def _text(text: str, output: Path | None) -> None:
    if output:
        from holdfast.cli.placing import require_placeable, set_aside
        from holdfast.core.files import write_text

        require_placeable(output, (), assessment=False)
        set_aside(output)
        write_text(output, text)
    else:
        say_lines(text)
