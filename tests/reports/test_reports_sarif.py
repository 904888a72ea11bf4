from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator
from report_builders import make_assessment, make_evidence, make_threats

from holdfast.assessment.document import Assessment
from holdfast.reports import sarif
from holdfast.reports.outline import Outline
from holdfast.reports.sarif import render_sarif

VALIDATOR = Draft4Validator(json.loads((Path(__file__).parent / "data" / "sarif-2.1.0.json").read_text(encoding="utf-8")))


def run_of(assessment: Assessment) -> dict[str, Any]:
    log = json.loads(render_sarif(assessment))
    assert [error.message for error in VALIDATOR.iter_errors(log)] == []
    return dict(log["runs"][0])


def fingerprints(run: dict[str, Any]) -> list[str]:
    return [result["partialFingerprints"][sarif.FINGERPRINT] for result in run["results"]]


@pytest.mark.claim("loop-9")
def test_the_log_is_valid_by_the_published_schema(assessment: Assessment, nothing_measured: Assessment) -> None:
    assert run_of(assessment)["tool"]["driver"]["name"] == "Holdfast"
    run_of(nothing_measured)
    run_of(make_assessment(threats=(), evidence=(), register=assessment.register.model_copy(update={"risks": ()})))


@pytest.mark.claim("loop-9")
def test_the_validator_sees_what_is_wrong(assessment: Assessment) -> None:
    log = json.loads(render_sarif(assessment))
    log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]["startLine"] = 0
    assert list(VALIDATOR.iter_errors(log))


@pytest.mark.claim("loop-9")
def test_a_second_run_has_the_same_fingerprints_whatever_it_measured(assessment: Assessment) -> None:
    again = make_assessment(created="2026-04-01T00:00:00Z", seconds=3.0)
    assert fingerprints(run_of(again)) == fingerprints(run_of(assessment))
    risks = tuple(
        risk.model_copy(update={"probability": (0.9, 0.8, 1.0), "annual": risk.annual.model_copy(update={"mean": 1.0})})
        for risk in assessment.register.risks
    )
    moved = make_assessment(register=assessment.register.model_copy(update={"risks": risks}))
    assert fingerprints(run_of(moved)) == fingerprints(run_of(assessment))


@pytest.mark.claim("loop-9")
def test_fingerprints_tell_threats_actors_and_systems_apart(assessment: Assessment) -> None:
    found = fingerprints(run_of(assessment))
    assert len(found) == len(set(found))
    renamed = make_assessment(system=assessment.system.model_copy(update={"name": "another"}))
    assert not set(fingerprints(run_of(renamed))) & set(found)


def test_rules_are_the_threats_and_stay_put(assessment: Assessment) -> None:
    run = run_of(assessment)
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [
        item.threat.id for item in Outline(assessment).standings if item.state != "excluded"
    ]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    for rule in rules:
        severity = rule["properties"].get("security-severity")
        assert severity is None or (isinstance(severity, str) and 0 < float(severity) <= 10)
        assert len(rule["properties"]["tags"]) <= 10


@pytest.mark.claim("loop-2")
def test_what_was_not_measured_is_open_by_name_and_what_does_not_apply_is_said_so(assessment: Assessment) -> None:
    run = run_of(assessment)
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for result in run["results"]:
        by_rule.setdefault(result["ruleId"], []).append(result)
    for standing in Outline(assessment).open:
        if standing.state != "partly":
            assert {result["kind"] for result in by_rule[standing.threat.id]} == {"open"}
            assert all("level" not in result for result in by_rule[standing.threat.id])
    (ruled_out,) = by_rule["T-PRI-03"]
    assert (ruled_out["kind"], ruled_out["level"]) == ("notApplicable", "none")
    assert {result["kind"] for result in by_rule["T-EVA-02"]} == {"fail"}
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert [note["level"] for note in notes] == ["warning", "error"]
    assert run["invocations"][0]["executionSuccessful"] is False


@pytest.mark.claim("loop-2")
def test_nothing_measured_gives_no_result_that_looks_judged(nothing_measured: Assessment) -> None:
    assert {result["kind"] for result in run_of(nothing_measured)["results"]} == {"open", "notApplicable"}


def test_severity_follows_the_accepted_loss() -> None:
    register = make_assessment().register
    risk = register.risks[0]

    def severity(mean: float) -> float | None:
        return sarif.severity([risk.model_copy(update={"annual": risk.annual.model_copy(update={"mean": mean})})], register)

    assert [severity(mean) for mean in (250_000, 25_000, 2_500, 0, 1e12)] == [9.0, 6.0, 3.0, 0.1, 10.0]
    unbounded = register.model_copy(update={"appetite": None})
    assert sarif.severity([risk.model_copy(update={"probability": (0.34, 0.3, 0.4)})], unbounded) == 3.4
    assert sarif.severity([], register) is None


@pytest.mark.claim("loop-10")
def test_hostile_text_neither_breaks_the_log_nor_makes_links(hostile: Assessment) -> None:
    text = render_sarif(hostile)
    assert text.isascii()
    run = run_of(hostile)
    for result in run["results"]:
        message = result["message"]["text"]
        assert "](" not in message
        assert "{" not in message.replace("{{", "")
        assert "\x1b" not in message
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert not urlsplit(uri).scheme
        assert not uri.startswith("/")


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("holdfast.yaml", "holdfast.yaml"),
        ("./models/a b.joblib", "models/a%20b.joblib"),
        ("/etc/passwd", "passwd"),
        ("../../secret/x.yaml", "x.yaml"),
        ("C:\\models\\m.onnx", "m.onnx"),
        ("file:///root/m.onnx", "m.onnx"),
        ("", "holdfast.yaml"),
        ("..", "holdfast.yaml"),
        ("a\x00b\ud800", "a%00b%3F"),
    ],
)
def test_locations_are_relative(path: str, uri: str) -> None:
    assert sarif.relative(path) == uri


@given(st.text())
def test_no_path_becomes_absolute_or_climbs(path: str) -> None:
    uri = sarif.relative(path)
    parts = urlsplit(uri)
    assert uri
    assert (parts.scheme, parts.netloc) == ("", "")
    assert not uri.startswith("/")
    assert ".." not in unquote(uri).split("/")


def test_a_threat_measured_without_risk_is_informational(assessment: Assessment) -> None:
    bare = make_assessment(
        threats=make_threats(), evidence=make_evidence(), register=assessment.register.model_copy(update={"risks": ()})
    )
    kinds = {result["ruleId"]: (result["kind"], result.get("level")) for result in run_of(bare)["results"]}
    assert kinds["T-EVA-02"] == ("informational", "none")
    assert kinds["T-SUP-01"] == ("open", None)
