"""The gate never gets greener with less evidence, and each exit code has one meaning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast.assessment.document import Assessment, SystemSummary, Utility
from holdfast.assessment.files import read_assessment
from holdfast.assessment.gate import Policy, ThreatRule, apply_gate, read_policy
from holdfast.core.errors import ConfigurationError, IntegrityFailure
from holdfast.core.evidence import Evidence, Metric, Row
from holdfast.core.files import write_document
from holdfast.risk.register import Decision, Loss, Risk, RiskRegister
from holdfast.threats.derivation import Threat

STATES = ("not_applicable", "unmeasured", "inconclusive", "failed")


def threat(identifier: str, applicability: str = "applies") -> Threat:
    return Threat(
        id=identifier,
        name=f"name of {identifier}",
        stage="inference",
        goal="integrity",
        what="what",
        applicability=applicability,
        because="because",
    )


def measured(identifier: str, successes: int, trials: int, clusters: int | None = None) -> Evidence:
    rows = tuple(
        Row(unit=f"r{n}", cluster=f"c{n % clusters}" if clusters else None, capability=1.0 if n < successes else None)
        for n in range(trials)
    )
    return Evidence(probe=f"P-{identifier}", threats=(identifier,), status="measured", rows=rows, tested=1.0, axis="queries")


def refused(identifier: str, state: str) -> Evidence:
    return Evidence(probe=f"P-{identifier}", threats=(identifier,), status=state, reason=f"it is {state}")


def risk(identifier: str, state: str = "measured", p95: float = 10.0) -> Risk:
    return Risk(
        id=f"{identifier}-somebody",
        threat=identifier,
        threat_name=identifier,
        goal="integrity",
        actor="somebody",
        state=state,
        probability=(0.1, 0.0, 0.2),
        attempts="declared",
        success="measured" if state == "measured" else "default",
        loss_per_event="declared",
        annual=Loss(mean=5, p5=0, p50=4, p95=p95),
    )


def assessment(evidence: tuple[Evidence, ...], threats=("T-A", "T-B"), **fields) -> Assessment:
    register = RiskRegister(
        unit="EUR",
        risks=tuple(risk(identifier) for identifier in threats),
        total=Loss(mean=10, p5=0, p50=8, p95=20),
        appetite=(15.0, 0.95),
        exceeds_appetite=0.2,
        draws=10,
        seed=0,
    )
    values = {
        "created": "2026-01-01T00:00:00Z",
        "seconds": 1.0,
        "holdfast": "0",
        "versions": {},
        "system": SystemSummary(name="s", file="holdfast.yaml", framework="python", modality="tabular", facts={}),
        "data": (),
        "utility": Utility(rows=100, accuracy=0.9, accuracy_low=0.82, accuracy_high=0.95, majority_share=0.5),
        "digests": {"model": "m", "holdout": "h", "served": "m", "data": "d"},
        "seed": 0,
        "budget": "quick",
        "threats": tuple(threat(identifier) for identifier in threats),
        "evidence": evidence,
        "measurable": {identifier: (f"P-{identifier}",) for identifier in threats},
        "register": register,
    }
    return Assessment(**{**values, **fields}).sealed()


def code(document: Assessment, **policy) -> int:
    return apply_gate(document, Policy(**policy)).code


def test_measured_and_within_bounds_passes() -> None:
    document = assessment((measured("T-A", 0, 400), measured("T-B", 3, 400)))
    assert code(document, threats={"T-A": ThreatRule(max_success=0.01), "T-B": ThreatRule(max_success=0.05)}) == 0


def test_the_upper_bound_counts_and_not_the_estimate() -> None:
    document = assessment((measured("T-A", 0, 40), measured("T-B", 0, 40)))
    assert code(document, threats={"T-A": ThreatRule(max_success=0.05)}) == 1


def test_clustered_rows_widen_the_bound() -> None:
    rule = {"T-A": ThreatRule(max_success=0.02)}
    assert code(assessment((measured("T-A", 0, 400), measured("T-B", 0, 400))), threats=rule) == 0
    assert code(assessment((measured("T-A", 0, 400, clusters=10), measured("T-B", 0, 400))), threats=rule) == 1


def test_a_wider_interval_of_the_probe_itself_counts() -> None:
    """A probe knows of a threshold that it chose, or of repetitions, which its rows do not show."""
    rule = {"T-A": ThreatRule(max_success=0.05)}
    plain = measured("T-A", 4, 400)
    wider = Metric(name="TPR at 1 % FPR", value=0.01, low=0.0, high=0.09, successes=4, trials=400)
    narrower, other = wider.model_copy(update={"high": 0.011}), wider.model_copy(update={"trials": 200})
    for metrics, expected in (((), 0), ((wider,), 1), ((narrower,), 0), ((other,), 0)):
        evidence = plain.model_copy(update={"metrics": metrics})
        assert code(assessment((evidence, measured("T-B", 0, 400))), threats=rule) == expected


@pytest.mark.claim("loop-2")
@pytest.mark.parametrize("state", ["unmeasured", "inconclusive", "failed"])
def test_what_was_not_measured_is_inconclusive(state: str) -> None:
    document = assessment((refused("T-A", state), measured("T-B", 0, 400)))
    assert code(document) == 3
    assert code(document, require=["T-B"], threats={"T-A": ThreatRule(max_success=1.0)}) == 3


@pytest.mark.claim("loop-2")
def test_a_threat_whose_evidence_vanished_is_inconclusive() -> None:
    assert code(assessment((measured("T-B", 0, 400),))) == 3


def test_a_verified_fact_that_rules_the_threat_out_is_enough() -> None:
    assert code(assessment((refused("T-A", "not_applicable"), measured("T-B", 0, 400)))) == 0


def test_a_breach_outranks_an_inconclusive_rule() -> None:
    document = assessment((refused("T-A", "failed"), measured("T-B", 300, 400)))
    assert code(document, threats={"T-B": ThreatRule(max_success=0.1)}) == 1


def test_totals_and_utility() -> None:
    document = assessment((measured("T-A", 0, 40), measured("T-B", 0, 40)))
    assert code(document, max_exceeds_appetite=0.3, max_annual_loss_p95=25, min_accuracy=0.8) == 0
    assert code(document, max_exceeds_appetite=0.1) == 1
    assert code(document, max_annual_loss_p95=19) == 1
    assert code(document, min_accuracy=0.85) == 1
    assert code(document.model_copy(update={"utility": None}), min_accuracy=0.1) == 3


@pytest.mark.claim("loop-2")
def test_what_the_data_audit_finds_can_breach() -> None:
    counts = {"high": 1, "medium": 3, "low": 0}
    metrics = tuple(Metric(name=f"findings of {severity} severity", value=count) for severity, count in counts.items())
    audit = Evidence(probe="P-DATA-AUDIT", threats=("T-A",), status="measured", metrics=metrics)
    document = assessment((audit, measured("T-A", 0, 400), measured("T-B", 0, 400)))
    assert code(document, max_findings={"high": 0}) == 1
    assert code(document, max_findings={"high": 1, "medium": 3, "low": 0}) == 0
    assert code(document, max_findings={"high": 1, "medium": 2}) == 1
    assert code(assessment((measured("T-A", 0, 400), measured("T-B", 0, 400))), max_findings={"high": 0}) == 3
    with pytest.raises(ValidationError):
        Policy(max_findings={"severe": 0})


def decision(state: str = "in force", until: str = "9999-12-31", **fields) -> Decision:
    values = {
        "id": "d1",
        "risk": "T-A-somebody",
        "choice": "accept",
        "who": "owner",
        "until": until,
        "model_digest": "m",
        "data_digest": "d",
        "made": "2026-01-01",
        "state": state,
        "lapsed_because": "" if state == "in force" else "the model changed",
    }
    return Decision(**{**values, **fields})


def test_a_decision_in_force_waives_and_a_lapsed_one_does_not() -> None:
    evidence = (measured("T-A", 300, 400), measured("T-B", 0, 400))
    rule = {"T-A": ThreatRule(max_success=0.1)}
    assert code(assessment(evidence, decisions=(decision("in force"),)), threats=rule) == 0
    assert code(assessment(evidence, decisions=(decision("in force"),)), threats=rule, accept_decided=False) == 1
    assert code(assessment(evidence, decisions=(decision("lapsed"),)), threats=rule) == 1


@pytest.mark.claim("loop-2")
def test_a_decision_counts_until_its_last_day_and_not_a_day_longer() -> None:
    document = assessment((refused("T-A", "failed"), measured("T-B", 0, 400)), decisions=(decision(until="2026-03-31"),))
    kept = apply_gate(document, Policy(), today=date(2026, 3, 31))
    assert (kept.code, kept.waived, kept.lapsed, kept.judged_on) == (0, ("T-A",), (), "2026-03-31")
    gone = apply_gate(document, Policy(), today=date(2026, 4, 1))
    assert (gone.code, gone.waived, gone.judged_on) == (3, (), "2026-04-01")
    assert [(one.id, one.lapsed_because) for one in gone.lapsed] == [("d1", "it held until 2026-03-31")]


def test_without_a_day_today_counts() -> None:
    evidence = (refused("T-A", "failed"), measured("T-B", 0, 400))
    assert code(assessment(evidence, decisions=(decision(until="2026-01-02"),))) == 3
    assert code(assessment(evidence, decisions=(decision(until="9999-12-31"),))) == 0


def test_a_decision_waives_what_must_be_measured_and_never_another_threat() -> None:
    evidence = (refused("T-A", "failed"), measured("T-B", 0, 400))
    accepted = assessment(evidence, decisions=(decision(),))
    assert code(accepted, require=["T-A"]) == 0
    assert code(accepted, require="measurable") == 0
    assert code(accepted, require=["T-A"], accept_decided=False) == 3
    assert code(assessment(evidence, decisions=(decision(choice="mitigate"),)), require=["T-A"]) == 3
    assert code(assessment(evidence, decisions=(decision(risk="T-B-somebody"),)), require=["T-A"]) == 3


@pytest.mark.parametrize("forged", [{"model_digest": "other"}, {"data_digest": "other"}, {"state": "lapsed"}])
def test_a_decision_about_other_things_or_lapsed_at_the_assessment_never_waives(forged: dict[str, str]) -> None:
    evidence = (refused("T-A", "failed"), measured("T-B", 0, 400))
    assert code(assessment(evidence, decisions=(decision(**forged),))) == 3


@pytest.mark.claim("loop-2")
def test_a_decision_that_lapsed_since_the_assessment_waives_nothing(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("require: [T-A]\n")
    judged = {}
    command = [sys.executable, "-m", "holdfast.cli.main", "gate"]
    for name, until in (("standing", "9999-12-31"), ("lapsed", "2026-01-02")):
        document = assessment((refused("T-A", "failed"), measured("T-B", 0, 400)), decisions=(decision(until=until),))
        write_document(tmp_path / f"{name}.json", document)
        judged[name] = [
            subprocess.run(
                [*command, f"{name}.json", "--policy", "policy.yaml", *more],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            for more in ((), ("--json",))
        ]
    assert [done.returncode for done in judged["standing"]] == [0, 0], judged["standing"][0].stderr
    assert "a decision is in force: T-A" in judged["standing"][0].stdout
    assert [done.returncode for done in judged["lapsed"]] == [3, 3]
    assert "d1 to accept T-A-somebody counts no longer: it held until 2026-01-02" in judged["lapsed"][0].stdout
    assert [one["id"] for one in json.loads(judged["lapsed"][1].stdout)["lapsed"]] == ["d1"]


GREENER = {0: 0, 3: 1, 1: 2}
"""How far each code is from green."""


@given(
    successes=st.integers(0, 60),
    trials=st.integers(60, 120),
    bound=st.floats(0, 1),
    state=st.sampled_from(["unmeasured", "inconclusive", "failed", "gone"]),
)
def test_less_evidence_is_never_a_pass(successes: int, trials: int, bound: float, state: str) -> None:
    policy = {"threats": {"T-A": ThreatRule(max_success=bound)}}
    other = measured("T-B", 0, 400)
    less = (other,) if state == "gone" else (refused("T-A", state), other)
    assert code(assessment((measured("T-A", successes, trials), other)), **policy) in (0, 1)
    assert code(assessment(less), **policy) == 3


@given(st.integers(0, 30), st.integers(30, 200), st.integers(1, 4), st.floats(0, 1))
def test_fewer_rows_of_the_same_share_never_turn_a_breach_into_a_pass(won: int, rows: int, times: int, bound: float) -> None:
    policy = {"threats": {"T-A": ThreatRule(max_success=bound)}}
    other = measured("T-B", 0, 400)
    few = code(assessment((measured("T-A", won, rows), other)), **policy)
    many = code(assessment((measured("T-A", won * times, rows * times), other)), **policy)
    assert GREENER[few] >= GREENER[many]


@pytest.mark.claim("loop-2")
def test_a_threat_that_two_probes_measure_needs_both() -> None:
    probes = {"T-A": ("P-T-A", "P-OTHER"), "T-B": ("P-T-B",)}
    document = assessment((measured("T-A", 0, 400), measured("T-B", 0, 400)), measurable=probes)
    assert code(document) == 3


@pytest.mark.claim("loop-2")
def test_policies_that_judge_nothing_are_refused() -> None:
    document = assessment((measured("T-A", 0, 400), measured("T-B", 0, 400)))
    with pytest.raises(ConfigurationError, match="pass anything"):
        apply_gate(document, Policy(require=[]))
    with pytest.raises(ConfigurationError, match="no bound"):
        apply_gate(document, Policy(require=[], threats={"T-A": ThreatRule()}))
    assert code(assessment((), measurable={})) == 3


def test_a_policy_about_an_unknown_threat_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="T-NOPE"):
        apply_gate(assessment(()), Policy(threats={"T-NOPE": ThreatRule(max_success=0.1)}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("treats: {}", "treats"),
        ("max_exceeds_appetite: 2", "less than 1"),
        ("- a list", "mapping"),
        ("a: [", "policy.yaml"),
        ("!!python/object/apply:os.system ['true']", "policy.yaml"),
        ("a: " + "[" * 100_000, "policy.yaml"),
    ],
)
@pytest.mark.claim("loop-10")
def test_hostile_or_wrong_policies_are_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_policy(path)


def test_a_pipe_in_the_place_of_a_policy_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "policy.yaml")
    with pytest.raises(ConfigurationError, match="not a file"):
        read_policy(tmp_path / "policy.yaml")


def test_an_edited_assessment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_document(path, assessment((measured("T-A", 3, 40),)))
    assert read_assessment(path).seal
    path.write_text(path.read_text().replace('"accuracy": 0.9', '"accuracy": 0.99'))
    with pytest.raises(IntegrityFailure):
        read_assessment(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1]", b'{"format": "holdfast-assessment/2"}', b"[" * 100_000])
def test_what_is_no_assessment_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="not an assessment"):
        read_assessment(path)


@pytest.mark.claim("loop-2")
@pytest.mark.parametrize(
    "rule",
    [
        "max_annual_loss_p95: .inf",
        "max_exceeds_appetite: 1",
        "min_accuracy: 0",
        "threats: {T-A: {max_annual_loss_p95: .inf}}",
    ],
)
def test_a_bound_that_bounds_nothing_is_refused(tmp_path: Path, rule: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(f"require: []\n{rule}\n")
    with pytest.raises(ConfigurationError):
        read_policy(path)


@pytest.mark.claim("loop-2")
def test_a_policy_about_excluded_threats_alone_judges_nothing() -> None:
    document = assessment(())
    out = document.threats[0].model_copy(update={"applicability": "excluded"})
    document = document.model_copy(update={"threats": (out, *document.threats[1:])})
    assert code(document, require=[out.id], threats={out.id: ThreatRule(max_success=0.0)}) == 3


@pytest.mark.claim("loop-2")
def test_nothing_exceeds_a_chance_that_always_succeeds() -> None:
    rows = tuple(Row(unit=str(at), capability=1.0) for at in range(400))
    certain = Evidence(probe="P-A", threats=("T-A",), status="measured", rows=rows, chance=1.0)
    assert code(assessment((certain,)), require=[], threats={"T-A": ThreatRule(max_excess=0.01)}) == 3
