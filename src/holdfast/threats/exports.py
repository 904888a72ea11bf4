"""The threat model in the forms of others: Open Threat Model 0.2.0 (JSON), and Markdown with a Mermaid data-flow diagram.

Names come from the system file, which is hostile: in Mermaid everything but plain characters becomes a character entity, and
in Markdown everything that Markdown or HTML would take for markup is escaped.

Sources: Open Threat Model standard 0.2.0 (iriusrisk/OpenThreatModel, `otm_schema.json`); Mermaid, "Entity codes to escape
characters"; CommonMark 0.31, sections 2.4 and 2.5.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import holdfast
from holdfast.threats.catalogue import load_catalogue
from holdfast.threats.derivation import Threat
from holdfast.threats.diagram import Component, Diagram, draw
from holdfast.threats.system import System

OTM_VERSION = "0.2.0"
_STATES = {"applies": "exposed", "unknown": "unknown"}
_SHAPES = {"store": ('[("', '")]'), "process": ('("', '")'), "person": ('[["', '"]]'), "actor": ('{{"', '"}}')}


def to_otm(system: System, threats: Sequence[Threat]) -> dict[str, Any]:
    """Open Threat Model JSON.

    A threat that applies is `exposed` and one of unknown applicability is `unknown`; excluded ones are listed in the
    project's attributes with the fact that excludes them. Likelihood is null and risk reduction 0, because a threat model
    measures nothing. Impact is the declared loss of one event, scaled so that the largest declared loss is 100.
    """
    diagram = draw(system)
    present = [threat for threat in threats if threat.applicability != "excluded"]
    struck: dict[str, list[dict[str, Any]]] = {}
    for threat in present:
        instance = {
            "threat": threat.id,
            "state": _STATES[threat.applicability],
            "mitigations": [
                {"mitigation": control, "state": "declared" if control in system.controls else "recommended"}
                for control in threat.controls
            ],
        }
        for place in diagram.places(threat):
            struck.setdefault(place, []).append(instance)
    return {
        "otmVersion": OTM_VERSION,
        "project": {
            "name": system.system,
            "id": _slug(system.system),
            "description": f"Derived by Holdfast {holdfast.__version__} from the system file. Nothing in it is measured.",
            "owner": system.owner,
            "attributes": {
                "facts": {name: list(values) for name, values in system.facts().items()},
                "excludedThreats": {item.id: item.because for item in threats if item.applicability == "excluded"},
            },
        },
        "trustZones": [
            {"id": zone.id, "name": zone.name, "type": zone.id.removeprefix("zone-"), "risk": {"trustRating": zone.trust}}
            for zone in diagram.zones
        ],
        "components": [
            {
                "id": component.id,
                "name": component.name,
                "type": component.kind,
                "parent": {"trustZone": component.zone},
                "threats": struck.get(component.id, []),
            }
            for component in diagram.components
        ],
        "dataflows": [
            {
                "id": flow.id,
                "name": flow.name,
                "source": flow.source,
                "destination": flow.destination,
                "bidirectional": False,
                "attributes": {"hostile": flow.hostile},
            }
            for flow in diagram.flows
        ],
        "threats": [_otm_threat(threat, system) for threat in present],
        "mitigations": list(_otm_mitigations(present, system)),
    }


def _otm_threat(threat: Threat, system: System) -> dict[str, Any]:
    impact, comment = _impact(threat.goal, system)
    return {
        "id": threat.id,
        "name": threat.name,
        "description": threat.what,
        "categories": [threat.goal],
        "cwes": [],
        "risk": {
            "likelihood": None,
            "likelihoodComment": f"{threat.because}. Not measured by a threat model.",
            "impact": impact,
            "impactComment": comment,
        },
        "tags": [*threat.atlas, *threat.nist, *(f"{name}:2023" for name in threat.owasp_ml), *threat.owasp_llm_2025],
        "attributes": {"missingFacts": list(threat.missing_facts), "probes": list(threat.probes)},
    }


def _impact(goal: str, system: System) -> tuple[float, str]:
    losses = {name: section.per_event for name, section in system.impact.items()}
    declared = next((loss for name, loss in losses.items() if name == goal), None)
    if declared is None:
        return 100, f"No loss of {goal} is declared; taken as the largest."
    unit = f" {declared.unit}" if declared.unit else ""
    scaled = 100 * declared.high / max(loss.high for loss in losses.values())
    return round(
        scaled, 2
    ), f"Declared loss of one event: {declared.low:,g} to {declared.high:,g}{unit}; the largest declared loss is 100."


def _otm_mitigations(threats: Iterable[Threat], system: System) -> Iterable[dict[str, Any]]:
    catalogue = load_catalogue()
    for name in dict.fromkeys(control for threat in threats for control in threat.controls):
        known = catalogue.controls.get(name)
        yield {
            "id": name,
            "name": known.name if known else name,
            "description": "Declared, not verified." if name in system.controls else "Recommended.",
            "riskReduction": 0,
            "attributes": {"riskReduction": "0 until a control is measured before and after"},
        }


def to_markdown(system: System, threats: Sequence[Threat]) -> str:
    """A page of Markdown (GitHub's dialect): the diagram, and a table of threats for each applicability."""
    groups = {state: [item for item in threats if item.applicability == state] for state in ("applies", "unknown", "excluded")}
    owner = f" Owner: {_markdown(system.owner)}." if system.owner else ""
    lines = [
        f"# Threat model: {_markdown(system.system)}",
        "",
        f"Derived by Holdfast {holdfast.__version__} from the system file.{owner} Nothing here is measured: a threat that "
        f"applies is a question, which an assessment answers. {len(groups['applies'])} threats apply, "
        f"{len(groups['unknown'])} are unknown for want of a fact, {len(groups['excluded'])} are excluded by a stated fact.",
        "",
        "## Data flow",
        "",
        "```mermaid",
        *_mermaid(draw(system)),
        "```",
        "",
        "Boxes are zones of trust; dashed arrows are an actor's way in.",
        "",
        "## Threats that apply",
        "",
        *_table(
            ("Threat", "Harms", "Why", "ATLAS", "Probes", "Controls"),
            [
                (
                    f"{item.id} {item.name}",
                    item.goal,
                    _reason(item),
                    *(", ".join(ids) for ids in (item.atlas, item.probes, item.controls)),
                )
                for item in groups["applies"]
            ],
        ),
        "",
        "## Unknown",
        "",
        *_table(
            ("Threat", "Harms", "Deciding fact", "Why"),
            [(f"{item.id} {item.name}", item.goal, ", ".join(item.missing_facts), _reason(item)) for item in groups["unknown"]],
        ),
        "",
        "## Excluded",
        "",
        *_table(("Threat", "Excluded because"), [(f"{item.id} {item.name}", _reason(item)) for item in groups["excluded"]]),
    ]
    return "\n".join(lines) + "\n"


def _reason(threat: Threat) -> str:
    return threat.because.partition(": ")[2] or threat.because


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return ["None."]
    lines = [header, ["---"] * len(header), *([_markdown(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _mermaid(diagram: Diagram) -> list[str]:
    lines = ["flowchart LR"]
    for zone in diagram.zones:
        lines.append(f'  subgraph {zone.id}["{_entities(zone.name)}"]')
        lines += [f"    {_node(component)}" for component in diagram.components if component.zone == zone.id]
        lines.append("  end")
    for flow in diagram.flows:
        arrow = "-.->" if flow.hostile else "-->"
        lines.append(f'  {flow.source} {arrow}|"{_entities(flow.name)}"| {flow.destination}')
    return lines


def _node(component: Component) -> str:
    before, after = _SHAPES[component.kind]
    return f"{component.id}{before}{_entities(component.name)}{after}"


def _entities(text: str) -> str:
    """For a quoted Mermaid label: letters, digits and harmless marks stay; all else is a decimal entity."""
    return "".join(char if char.isalnum() or char in " ,.-()" else f"#{ord(char)};" for char in _line(text))


def _markdown(text: str) -> str:
    """For a line or a cell of Markdown: no markup, no HTML, no link that text alone would become."""
    escaped = re.sub(r"([\\`*_{}\[\]()#+!~|$^=\"'])", r"\\\1", _line(text).replace("&", "&amp;").replace("<", "&lt;"))
    escaped = escaped.replace(">", "&gt;").replace("@", "&#64;").replace("://", "&#58;//")
    return re.sub(r"(?i)\bwww\.", lambda match: match[0][:-1] + "&#46;", escaped)


def _line(text: str) -> str:
    """One line, without characters that control a terminal, hide, or turn the direction of text."""
    flat = " ".join(text.split())
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(char).startswith("C") else char for char in flat)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "system"
