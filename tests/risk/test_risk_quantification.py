"""The register against an independent simulation, and the promises it must keep: sources, states, seeds, no false green."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import ConfigurationError
from holdfast.core.evidence import Evidence, Row
from holdfast.risk.defaults import ATTACKER, UNIT
from holdfast.risk.quantification import quantify, simulate
from holdfast.risk.register import Decision
from holdfast.threats.catalogue import load_catalogue
from holdfast.threats.derivation import Threat
from holdfast.threats.system import System

CAPABILITIES = [float(3 * at) if at < 100 else None for at in range(300)]


def risk_of(register: Any, name: str) -> Any:
    return next(risk for risk in register.risks if risk.id == name)


def test_the_register_equals_a_simulation_written_plainly(system: Any, threat: Any, evidence: Any) -> None:
    made = quantify(system(), [threat()], [evidence(CAPABILITIES)], seed=1, draws=100_000)
    risk = risk_of(made, "T-EVA-02.curious-clinician")
    draw = np.random.default_rng(99)
    years = 100_000
    z = 1.6448536269514722
    attempts = np.exp(draw.normal((np.log(1) + np.log(8)) / 2, np.log(8) / 2 / z, years))
    queries = np.exp(draw.normal(np.log(20), np.log(100 / 20) / z, years))
    fell = np.array([c for c in CAPABILITIES if c is not None])
    k = (fell[None, :] <= queries[:, None]).sum(axis=1)
    p = draw.beta(k + 0.5, 300 - k + 0.5)
    p = np.where(queries > 1000, p + (1 - p) * draw.random(years), p)
    events = draw.poisson(attempts * p)
    loss = np.zeros(years)
    for year in np.flatnonzero(events):
        severity = np.exp(draw.normal(np.log(5_000 * 400_000) / 2, np.log(400_000 / 5_000) / 2 / z, events[year]))
        loss[year] = severity.sum()
    assert risk.probability[0] == pytest.approx(p.mean(), rel=0.02)
    assert risk.probability[1:] == pytest.approx(np.quantile(p, (0.05, 0.95)), rel=0.05)
    assert risk.annual.mean == pytest.approx(loss.mean(), rel=0.06)
    assert risk.annual.p50 == pytest.approx(np.quantile(loss, 0.5), abs=200)
    assert risk.annual.exceedance[0][1] == pytest.approx(np.mean(loss > 0), abs=0.01)
    ours = next(one for one in simulate(system(), [threat()], [evidence(CAPABILITIES)], seed=1, draws=100_000)).annual
    for share in (0.05, 0.01):
        assert float(np.mean(ours > np.quantile(loss, 1 - share))) == pytest.approx(share, rel=0.08)
    assert made.exceeds_appetite == pytest.approx(float(np.mean(loss > 250_000)), abs=0.01)


@pytest.mark.claim("loop-6")
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(system: Any, threat: Any, evidence: Any) -> None:
    arguments = (system(), [threat()], [evidence(CAPABILITIES)])
    first = quantify(*arguments, seed=4, draws=5000)
    assert first.model_dump_json() == quantify(*arguments, seed=4, draws=5000).model_dump_json()
    assert first.total != quantify(*arguments, seed=5, draws=5000).total


def test_another_risk_or_actor_changes_no_number(system: Any, threat: Any, evidence: Any) -> None:
    few = quantify(system(), [threat()], [evidence(CAPABILITIES)], seed=1, draws=2000)
    clerk = {"name": "clerk", "access": "scores"}
    more_actors = [clerk, *(actor.model_dump(exclude_none=True) for actor in system().actors)]
    more = quantify(
        system(*more_actors),
        [threat("T-EVA-03", ("P-EVA-LABEL",)), threat()],
        [evidence(CAPABILITIES, probe="P-EVA-LABEL", threats=("T-EVA-03",)), evidence(CAPABILITIES)],
        seed=1,
        draws=2000,
    )
    assert len(more.risks) == 5
    for risk in few.risks:
        assert risk_of(more, risk.id) == risk


def test_a_register_after_a_control_differs_only_by_what_was_measured(system: Any, threat: Any, evidence: Any) -> None:
    before = evidence(CAPABILITIES, method="as served")
    capped = [value if value is not None and value <= 30 else None for value in CAPABILITIES]
    after = evidence(capped, method="behind a limit of 30 queries")
    old, same, new = (quantify(system(), [threat()], [found], seed=1) for found in (before, evidence(CAPABILITIES), after))
    assert old.total == same.total
    assert new.total.mean < old.total.mean
    first, second = (next(simulate(system(), [threat()], [found], seed=1)) for found in (before, after))
    assert np.array_equal(first.attempts, second.attempts)
    assert np.all(second.meeting.probability <= first.meeting.probability)


def test_risks_of_one_actor_move_together(system: Any, threat: Any, evidence: Any) -> None:
    threats = [threat("T-EVA-02"), threat("T-EVA-03", ("P-EVA-LABEL",))]
    found = [evidence(CAPABILITIES), evidence(CAPABILITIES, probe="P-EVA-LABEL", threats=("T-EVA-03",))]
    one, other, broker = simulate(system(), threats, found, seed=1)
    assert np.array_equal(one.attempts, other.attempts)
    assert np.corrcoef(one.meeting.probability, other.meeting.probability)[0, 1] > 0.8
    assert np.corrcoef(one.annual, other.annual)[0, 1] > 0.02
    assert not np.array_equal(broker.attempts, one.attempts)
    shared = quantify(system(), threats, found, seed=1)
    assert shared.total.mean == pytest.approx(sum(risk.annual.mean for risk in shared.risks))
    assert np.var(one.annual + other.annual) > np.var(one.annual) + np.var(other.annual)


def test_stronger_actors_and_more_successes_never_lower_the_probability(system: Any, threat: Any, evidence: Any) -> None:
    register = quantify(system(), [threat("T-EVA-03", ("P-EVA-LABEL",))], [
        evidence(CAPABILITIES, probe="P-EVA-LABEL", threats=("T-EVA-03",)),
    ], seed=1)  # fmt: skip
    by_actor = {risk.actor: risk for risk in register.risks}
    assert by_actor["data broker"].probability[0] > by_actor["curious clinician"].probability[0]
    assert by_actor["data broker"].untested > 0.3
    assert any("Untested region" in note for note in by_actor["data broker"].notes)
    capped = [value if value is not None and value <= 50 else None for value in CAPABILITIES]
    fewer = quantify(system(), [threat()], [evidence(capped)], seed=1)
    assert fewer.risks[0].probability[0] < by_actor["curious clinician"].probability[0]


@given(st.lists(st.one_of(st.none(), st.floats(0, 200)), min_size=1, max_size=40), st.integers(0, 39))
@settings(max_examples=25, deadline=None)
def test_a_further_success_never_lowers_a_mean(capabilities: list[float | None], at: int) -> None:
    def mean(values: list[float | None]) -> float:
        rows = tuple(Row(unit=str(index), capability=value) for index, value in enumerate(values))
        found = Evidence(probe="P-EVA-SCORE", threats=("T-EVA-02",), status="measured", axis="queries", tested=200, rows=rows)
        made = Threat(
            id="T-EVA-02", name="x", stage="inference", goal="integrity", what="x", applicability="applies", because="x",
            probes=("P-EVA-SCORE",),
        )  # fmt: skip
        plain = System.model_validate({"system": "s", "model": {"path": "m"}})
        return quantify(plain, [made], [found], seed=1, draws=1000).risks[0].probability[0]

    more = list(capabilities)
    more[at % len(more)] = 0.0
    assert mean(more) >= mean(capabilities) - 1e-12


@pytest.mark.claim("loop-2")
@pytest.mark.parametrize("status", ["unmeasured", "inconclusive", "failed"])
def test_what_was_not_measured_is_never_low(status: str, system: Any, threat: Any, evidence: Any) -> None:
    measured = evidence([None] * 1000, threats=("T-EVA-02",))
    silent = evidence(probe="P-EVA-LABEL", threats=("T-EVA-03",), status=status, reason="the model returned NaN")
    register = quantify(system(), [threat(), threat("T-EVA-03", ("P-EVA-LABEL",))], [measured, silent], seed=1)
    risk = risk_of(register, "T-EVA-03.curious-clinician")
    assert risk.state == status
    assert risk.success == "default"
    assert risk.probability == pytest.approx((0.5, 0.05, 0.95), abs=0.01)
    assert any("returned NaN" in note for note in risk.notes)
    assert register.risks.index(risk) < register.risks.index(risk_of(register, "T-EVA-02.curious-clinician"))


def test_measured_evidence_that_says_nothing_is_inconclusive(system: Any, threat: Any, evidence: Any) -> None:
    certain_chance = evidence([1.0] * 50, chance=1.0)
    assert quantify(system(), [threat()], [certain_chance], seed=1, draws=1000).risks[0].state == "inconclusive"
    rowless = Evidence(probe="P-EVA-SCORE", threats=("T-EVA-02",), status="measured", metrics=({"name": "AUC", "value": 0.5},))
    assert quantify(system(), [threat()], [rowless], seed=1, draws=1000).risks[0].state == "inconclusive"
    assert quantify(system(), [threat()], [], seed=1, draws=1000).risks[0].state == "unmeasured"


def test_no_success_is_a_risk_and_not_zero(system: Any, threat: Any, evidence: Any) -> None:
    risk = quantify(system(), [threat()], [evidence([None] * 40)], seed=1).risks[0]
    assert risk.probability[0] > 0.005
    assert risk.annual.mean > 0
    assert risk.curve[-1].successes == 0
    assert risk.curve[-1].high > 0.08


def test_only_a_unanimous_reason_removes_a_threat(system: Any, threat: Any, evidence: Any) -> None:
    both = threat("T-POI-08", ("P-POI-FLIP", "P-DATA-AUDIT"))
    flip = evidence(probe="P-POI-FLIP", threats=("T-POI-08",), status="not_applicable", reason="never retrained")
    audit = evidence(probe="P-DATA-AUDIT", threats=("T-POI-08",), status="not_applicable", reason="no labels from outside")
    kept = quantify(system(), [both], [flip], seed=1, draws=1000)
    assert [risk.state for risk in kept.risks] == ["unmeasured"]
    assert kept.left_out == ()
    removed = quantify(system(), [both], [flip, audit], seed=1, draws=1000)
    assert removed.risks == ()
    assert (removed.left_out[0].threat, removed.left_out[0].reason) == ("T-POI-08", "never retrained; no labels from outside")
    assert removed.total.mean == 0


def test_excluded_threats_are_no_risks_and_unknown_ones_are(system: Any, threat: Any) -> None:
    threats = [
        threat("T-EVA-02", applicability="excluded"),
        threat("T-EVA-03", ("P-EVA-LABEL",), applicability="unknown", because="reach is not stated"),
    ]
    register = quantify(system(), threats, [], seed=1, draws=1000)
    assert {risk.threat for risk in register.risks} == {"T-EVA-03"}
    assert any("reach is not stated" in note for note in register.risks[0].notes)


def test_the_strongest_measurement_counts_for_each_actor(system: Any, threat: Any, evidence: Any) -> None:
    both = threat("T-POI-08", ("P-POI-FLIP", "P-DATA-AUDIT"))
    weak = evidence([None] * 100, probe="P-POI-FLIP", threats=("T-POI-08",), axis="poison fraction", tested=0.2)
    strong = evidence([1.0] * 50 + [None] * 50, probe="P-DATA-AUDIT", threats=("T-POI-08",), axis="")
    risk = quantify(system(), [both], [weak, strong], seed=1, draws=2000).risks[0]
    assert (risk.probe, risk.actor, risk.success) == ("P-DATA-AUDIT", "row supplier", "measured")
    assert risk.curve == ()
    assert quantify(system(), [both], [weak], seed=1, draws=2000).risks[0].probe == "P-POI-FLIP"


def test_an_actor_without_a_capability_uses_all_that_was_tested(system: Any, threat: Any, evidence: Any) -> None:
    clerk = {"name": "clerk", "access": "scores", "attempts_per_year": {"low": 1, "high": 2}}
    risk = quantify(system(clerk), [threat()], [evidence(CAPABILITIES)], seed=1).risks[0]
    assert risk.probability[0] == pytest.approx(100.5 / 301, abs=0.005)
    assert risk.success == "default"
    assert risk.untested == 0
    assert any("whole tested budget" in note for note in risk.notes)


def test_sources_say_whose_word_each_input_is(system: Any, threat: Any, evidence: Any) -> None:
    declared = quantify(system(), [threat()], [evidence(CAPABILITIES)], seed=1, draws=1000).risks[0]
    assert (declared.attempts, declared.success, declared.loss_per_event) == ("declared", "measured", "declared")
    assert {driver.input: driver.source for driver in declared.drivers}["P(success)"] == "measured"
    bare = System.model_validate({"system": "s", "model": {"path": "m"}})
    register = quantify(bare, [threat()], [], seed=1, draws=1000)
    assert register.unit == UNIT
    assert (register.appetite, register.exceeds_appetite) == (None, None)
    risk = register.risks[0]
    assert (risk.actor, risk.attempts, risk.success, risk.loss_per_event) == (ATTACKER, "default", "default", "default")
    assert sum("default" in note for note in risk.notes) == 2
    marked = system(defaults=["impact.integrity", "actors.curious clinician.queries"])
    risk = quantify(marked, [threat()], [evidence(CAPABILITIES)], seed=1, draws=1000).risks[0]
    assert (risk.attempts, risk.success, risk.loss_per_event) == ("declared", "default", "default")


def test_drivers_name_the_input_that_matters(system: Any, threat: Any, evidence: Any) -> None:
    def drivers(attempts: tuple[float, float], loss: tuple[float, float], found: list[Any]) -> dict[str, float]:
        actor = {"name": "clerk", "access": "scores", "attempts_per_year": {"low": attempts[0], "high": attempts[1]}}
        impact = {"integrity": {"per_event": {"low": loss[0], "high": loss[1]}}}
        risk = quantify(system(actor, impact=impact), [threat()], found, seed=1).risks[0]
        return {driver.input: driver.correlation for driver in risk.drivers}

    certain = [evidence([1.0] * 400)]
    assert next(iter(drivers((0.5, 100), (9, 9), certain))) == "attempts per year"
    costly = drivers((2, 2), (1, 1e5), certain)
    assert next(iter(costly)) == "loss per event"
    assert costly["attempts per year"] == 0
    unknown = drivers((30, 30), (9, 9), [])
    assert next(iter(unknown)) == "P(success)"
    assert unknown["P(success)"] > 0.9


def test_decisions_in_force_are_named_and_lapsed_ones_not(system: Any, threat: Any) -> None:
    fields = {"risk": "T-EVA-02.curious-clinician", "choice": "accept", "who": "owner", "until": "2030-01-01", "made": "x"}
    digests = {"model_digest": "m", "data_digest": "d"}
    old = Decision(id="D-1", state="lapsed", **fields, **digests)
    new = Decision(id="D-2", **fields, **digests)
    assert quantify(system(), [threat()], [], seed=1, draws=1000, decisions=[new, old]).risks[0].decision == "D-2"
    assert quantify(system(), [threat()], [], seed=1, draws=1000, decisions=[old]).risks[0].decision is None


def test_declarations_beyond_use_are_refused(system: Any, threat: Any) -> None:
    euro_and_dollar = {
        "integrity": {"per_event": {"low": 1, "high": 2, "unit": "EUR"}},
        "confidentiality": {"per_event": {"low": 1, "high": 2, "unit": "USD"}},
    }
    with pytest.raises(ConfigurationError, match="EUR and USD"):
        quantify(system(impact=euro_and_dollar), [threat()], [], seed=1)
    for low, high in ((1e-300, 1), (1e20, 1e21)):
        with pytest.raises(ConfigurationError):
            quantify(system(impact={"integrity": {"per_event": {"low": low, "high": high}}}), [threat()], [], seed=1)
    with pytest.raises(ConfigurationError):
        quantify(system(), [threat()], [], seed=1, draws=10)


def test_extreme_but_allowed_declarations_give_finite_numbers(system: Any, threat: Any) -> None:
    bot = {"name": "bot", "access": "scores", "attempts_per_year": {"low": 1e5, "high": 1e9}}
    register = quantify(
        system(bot, impact={"integrity": {"per_event": {"low": 1e9, "high": 1e15}}}), [threat()], [], seed=1, draws=1000
    )
    assert np.isfinite(register.total.mean)
    assert register.total.p5 > 0


def test_the_whole_catalogue_becomes_a_register(system: Any) -> None:
    threats = [
        Threat(
            id=entry.id, name=entry.name, stage=entry.stage, goal=entry.goal, what=entry.what, applicability="applies",
            because="x", probes=entry.probes,
        )
        for entry in load_catalogue().threats
    ]  # fmt: skip
    register = quantify(system(), threats, [], seed=1, draws=1000)
    assert {risk.threat for risk in register.risks} == {threat.id for threat in threats}
    assert len({risk.id for risk in register.risks}) == len(register.risks)
    assert {risk.state for risk in register.risks} == {"unmeasured"}
    means = [float(f"{risk.annual.mean:.1e}") for risk in register.risks]
    assert means == sorted(means, reverse=True)
