"""Exports: valid Open Threat Model, and Markdown and Mermaid that hostile names cannot break."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.threats.catalogue import load_catalogue
from holdfast.threats.derivation import derive
from holdfast.threats.diagram import draw
from holdfast.threats.exports import to_markdown, to_otm
from holdfast.threats.reader import read_system
from holdfast.threats.system import System

HOSPITAL = read_system(Path(__file__).parent / "hospital.yaml")
NASTY = (
    '"]; end\n```\n</script><img src=x onerror=alert(1)> | [x](javascript:alert(1)) `#60;` *b* '
    "https://evil.example www.evil.example"
)


def hostile(name: str) -> System:
    return System.model_validate(
        {
            "system": name,
            "owner": name,
            "model": {"path": name},
            "data": [{"name": name, "path": "a", "labels": "outsourced"}, {"name": name + "2", "path": "b"}],
            "actors": [{"name": name, "access": "scores"}, {"name": name + "2", "access": "training rows"}],
            "impact": {"integrity": {"per_event": {"low": 1, "high": 2, "unit": name}}},
        }
    )


def check_otm(document: dict[str, Any]) -> None:
    """The required fields and types of the standard's schema, and every reference."""
    json.dumps(document, allow_nan=False)
    assert document["otmVersion"] == "0.2.0"
    assert isinstance(document["project"]["name"], str)
    assert re.fullmatch(r"[a-z0-9-]+", document["project"]["id"])
    ids: dict[str, set[str]] = {}
    required = {
        "trustZones": ("id", "name", "type", "risk"),
        "components": ("id", "name", "type", "parent"),
        "dataflows": ("id", "name", "source", "destination"),
        "threats": ("id", "name", "risk"),
        "mitigations": ("id", "name", "riskReduction"),
    }
    for kind, keys in required.items():
        names = [item["id"] for item in document[kind]]
        assert len(names) == len(set(names)), kind
        ids[kind] = set(names)
        for item in document[kind]:
            for key in keys:
                assert item[key] is not None
    every = [name for kind in ids for name in ids[kind]]
    assert len(every) == len(set(every))
    for zone in document["trustZones"]:
        assert 0 <= zone["risk"]["trustRating"] <= 100
    struck = set()
    for component in document["components"]:
        assert set(component["parent"]) == {"trustZone"}
        assert component["parent"]["trustZone"] in ids["trustZones"]
        for instance in component["threats"]:
            struck.add(instance["threat"])
            assert instance["threat"] in ids["threats"]
            assert isinstance(instance["state"], str)
            assert {item["mitigation"] for item in instance["mitigations"]} <= ids["mitigations"]
    assert struck == ids["threats"], "every threat strikes a component"
    for flow in document["dataflows"]:
        assert {flow["source"], flow["destination"]} <= ids["components"]
    for threat in document["threats"]:
        assert threat["risk"]["likelihood"] is None
        assert 0 < threat["risk"]["impact"] <= 100
        assert isinstance(threat["risk"]["impactComment"], str)
    for mitigation in document["mitigations"]:
        assert mitigation["riskReduction"] == 0


def test_otm_of_the_hospital() -> None:
    document = to_otm(HOSPITAL, derive(HOSPITAL))
    check_otm(document)
    assert len(document["threats"]) == 37
    assert len(document["project"]["attributes"]["excludedThreats"]) == 18
    states = {item["threat"]: item["state"] for part in document["components"] for item in part["threats"]}
    assert states["T-EVA-02"] == "exposed"
    assert states["T-EVA-01"] == "unknown"
    declared = {
        item["mitigation"]
        for part in document["components"]
        for threat in part["threats"]
        for item in threat["mitigations"]
        if item["state"] == "declared"
    }
    assert declared == {"C-AUTH", "C-AUDIT"}
    impact = {threat["id"]: threat["risk"]["impact"] for threat in document["threats"]}
    assert impact["T-PRI-01"] == 100
    assert impact["T-EVA-02"] == 10
    assert impact["T-DOS-01"] == 1.5


def test_goals_without_a_declared_loss_count_as_the_largest() -> None:
    system = System.model_validate({"system": "s", "model": {"path": "m"}, "lifecycle": {"genai": "chat"}})
    threat = next(item for item in to_otm(system, derive(system))["threats"] if item["id"] == "T-GEN-01")
    assert threat["risk"]["impact"] == 100
    assert "No loss of abuse is declared" in threat["risk"]["impactComment"]


def stated(*names: str) -> st.SearchStrategy[dict[str, str]]:
    facts = load_catalogue().facts
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(facts[name]) for name in names})


@settings(max_examples=60, deadline=None)
@given(
    stated("deploy", "reach", "auth", "returns", "explanations"),
    stated("federated", "genai", "retrain"),
    st.lists(stated("data_sources", "labels"), max_size=3),
)
def test_every_system_gives_a_whole_diagram(
    serving: dict[str, str], lifecycle: dict[str, str], data: list[dict[str, str]]
) -> None:
    accesses = ("labels", "feedback", "host", "updates", "none")
    actors = [{"name": f"a{number}", "access": access} for number, access in enumerate(accesses)]
    system = System.model_validate(
        {
            "system": "s",
            "model": {"path": "m"},
            "serving": serving,
            "lifecycle": lifecycle,
            "data": [{"name": f"d{number}", "path": "d", **item} for number, item in enumerate(data)],
            "actors": actors,
        }
    )
    check_otm(to_otm(system, derive(system)))
    diagram = draw(system)
    assert {component.zone for component in diagram.components} <= {zone.id for zone in diagram.zones}


def test_what_is_not_stated_is_drawn_and_trusted_least() -> None:
    diagram = draw(System.model_validate({"system": "s", "model": {"path": "m"}}))
    trust = {zone.id: zone.trust for zone in diagram.zones}
    assert trust["zone-callers"] == trust["zone-serving"] == 0
    names = " ".join(zone.name for zone in diagram.zones) + " ".join(component.name for component in diagram.components)
    assert names.count("not stated") >= 8
    data = [{"name": "a", "path": "a", "labels": "internal"}, {"name": "b", "path": "b"}]
    half = System.model_validate({"system": "s", "model": {"path": "m"}, "data": data})
    assert "Suppliers of labels: not stated" in {component.name for component in draw(half).components}


def mermaid(page: str) -> list[str]:
    parts = page.split("```")
    assert len(parts) == 3, "the page holds one fence, opened and closed"
    return parts[1].removeprefix("mermaid\n").strip("\n").splitlines()


SYNTAX = [
    re.compile(r"flowchart LR"),
    re.compile(r'  subgraph [a-z-]+\["[^"\n]*"\]'),
    re.compile(r"  end"),
    re.compile(r'    [a-z0-9-]+(\[\("[^"]*"\)\]|\("[^"]*"\)|\[\["[^"]*"\]\]|\{\{"[^"]*"\}\})'),
    re.compile(r'  [a-z0-9-]+ (-->|-\.->)\|"[^"]*"\| [a-z0-9-]+'),
]


def labels(lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield from re.findall(r'"([^"]*)"', line)


def check_page(system: System) -> None:
    page = to_markdown(system, derive(system))
    lines = mermaid(page)
    for line in lines:
        assert any(form.fullmatch(line) for form in SYNTAX), line
    for label in labels(lines):
        assert re.fullmatch(r"(?:[^\W_]|[ ,.\-()]|#\d+;|�)*", label), label
    prose = page.split("```")[0] + page.split("```")[2]
    assert "<" not in prose
    assert not re.search(r"(?<!\\)[`\[\]]", prose)
    assert "://" not in prose
    assert not re.search(r"(?i)\bwww\.", prose)
    for row in prose.splitlines():
        if row.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", row)) in (3, 5, 7), row


def test_markdown_of_the_hospital() -> None:
    check_page(HOSPITAL)
    page = to_markdown(HOSPITAL, derive(HOSPITAL))
    assert "35 threats apply, 2 are unknown for want of a fact, 18 are excluded" in page
    assert page.count("\n| T-") == 55
    assert 'actor-3 -.->|"attacks with training rows"| data-1' in page


@pytest.mark.claim("loop-10")
def test_hostile_names_break_neither_markdown_nor_mermaid() -> None:
    check_page(hostile(NASTY))
    lines = mermaid(to_markdown(hostile(NASTY), derive(hostile(NASTY))))
    shown = [html.unescape(re.sub(r"#(\d+);", r"&#\1;", label)) for label in labels(lines)]
    assert any(" ".join(NASTY.split()) in label for label in shown), "the name is shown as written"


@pytest.mark.claim("loop-10")
@settings(max_examples=80, deadline=None)
@given(st.text(min_size=1, max_size=60))
def test_no_name_at_all_breaks_them(name: str) -> None:
    check_page(hostile(name))
    json.loads(json.dumps(to_otm(hostile(name), derive(hostile(name)))))
