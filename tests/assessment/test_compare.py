from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from holdfast.assessment.compare import Comparison, compare
from holdfast.assessment.document import Assessment, SystemSummary, Utility
from holdfast.assessment.utility import measure_utility
from holdfast.core.errors import ConfigurationError, HoldfastError
from holdfast.core.evidence import Evidence, Metric, Row
from holdfast.core.oracle import Access
from holdfast.core.statistics import paired_change
from holdfast.core.target import Dataset
from holdfast.risk.register import Loss, Risk, RiskRegister
from holdfast.threats.derivation import Threat

THREATS = tuple(
    Threat(id=key, name=name, stage="inference", goal="integrity", what=name, applicability="applies", because="always")
    for key, name in [("T-EVA-02", "Score-guided evasion"), ("T-EVA-03", "Label-only evasion")]
)


def rows(capabilities: dict[str, float | None], cluster: dict[str, str] | None = None) -> tuple[Row, ...]:
    return tuple(
        Row(unit=unit, capability=value, cluster=cluster[unit] if cluster else None) for unit, value in capabilities.items()
    )


def evidence(probe: str, capabilities: dict[str, float | None] | None = None, **fields: Any) -> Evidence:
    threats = {"P-EVA-SCORE": ("T-EVA-02",), "P-EVA-LABEL": ("T-EVA-03",)}.get(probe, ("T-PRI-01",))
    given = {
        "probe": probe,
        "threats": threats,
        "status": "measured",
        "axis": "queries",
        "tested": 100.0,
        "rows": rows(capabilities or {}),
        "seed": 7,
        "method": "attack",
    }
    return Evidence.model_validate(given | fields)


def loss(mean: float) -> Loss:
    return Loss(mean=mean, p5=0.0, p50=mean, p95=3 * mean)


def risk(key: str, mean: float, state: str = "measured") -> Risk:
    return Risk.model_validate(
        {
            "id": key,
            "threat": "T-EVA-03",
            "threat_name": "Label-only evasion",
            "goal": "integrity",
            "actor": "broker",
            "state": state,
            "probability": (0.5, 0.1, 0.9),
            "attempts": "declared",
            "success": "measured",
            "loss_per_event": "declared",
            "annual": loss(mean),
        }
    )


def assessment(*items: Evidence, risks: tuple[Risk, ...] = (), accuracy: float = 0.9, **fields: Any) -> Assessment:
    given = {
        "created": "2030-01-01T00:00:00Z",
        "seconds": 1.0,
        "holdfast": "0",
        "versions": {"numpy": "2"},
        "system": SystemSummary(name="triage", file="holdfast.yaml", framework="python", modality="tabular", facts={}),
        "data": (),
        "utility": Utility(
            rows=200, accuracy=accuracy, accuracy_low=0.8, accuracy_high=0.95, majority_share=0.6, auc=accuracy + 0.05
        ),
        "digests": {"model": "m", "holdout": "h", "train": "t"},
        "seed": 0,
        "budget": "quick",
        "threats": THREATS,
        "evidence": items,
        "register": RiskRegister(
            unit="EUR",
            risks=risks,
            total=loss(sum(one.annual.mean for one in risks)),
            appetite=(100.0, 0.95),
            exceeds_appetite=0.5,
            draws=100,
            seed=0,
        ),
    }
    return Assessment.model_validate(given | fields).sealed()


def only(comparison: Comparison, probe: str) -> Any:
    (found,) = [change for change in comparison.changes if change.probes == (probe,)]
    return found


def family(comparison: Comparison) -> Any:
    (found,) = [change for change in comparison.changes if len(change.probes) > 1]
    return found


def outcomes(count: int, lost: int, start: int = 0) -> dict[str, float | None]:
    return {f"r{start + i}": 10.0 if i < lost else None for i in range(count)}


def test_rows_are_paired_by_unit_and_the_rest_is_counted():
    before = evidence("P-EVA-GRAD", outcomes(40, 30) | {"gone": 1.0})
    after = evidence("P-EVA-GRAD", dict(reversed(outcomes(40, 5).items())) | {"new1": None, "new2": None})
    change = only(compare(assessment(before), assessment(after)), "P-EVA-GRAD")
    assert (change.pairing, change.verdict, change.trials) == ("paired", "helps", 40)
    assert (change.fixed, change.broken) == (25, 0)
    assert (change.before, change.after) == (30 / 40, 5 / 40)
    assert (change.only_before, change.only_after) == (1, 2)
    assert change.difference == pytest.approx(25 / 40)
    assert change.probability_helps > 0.999


def test_a_change_that_makes_it_worse_harms():
    change = only(
        compare(assessment(evidence("P-EVA-GRAD", outcomes(60, 5))), assessment(evidence("P-EVA-GRAD", outcomes(60, 25)))),
        "P-EVA-GRAD",
    )
    assert change.verdict == "harms"
    assert change.high < 0


@pytest.mark.claim("loop-5")
@pytest.mark.parametrize("lost", [0, 20, 60])
def test_identical_evidence_is_no_evidence_of_help(lost):
    same = evidence("P-EVA-GRAD", outcomes(60, lost))
    change = only(compare(assessment(same), assessment(same)), "P-EVA-GRAD")
    assert change.verdict == "no evidence of help"
    assert change.probability_helps == pytest.approx(0.5)
    assert change.low < 0 < change.high


@pytest.mark.claim("loop-5")
def test_a_control_without_effect_is_called_helpful_in_at_most_one_in_forty_comparisons():
    generator = np.random.default_rng(0)
    verdicts = []
    for _ in range(400):
        drawn = generator.random((2, 80)) < 0.3
        sides = [
            assessment(evidence("P-EVA-GRAD", {f"r{i}": 1.0 if hit else None for i, hit in enumerate(side)})) for side in drawn
        ]
        verdicts.append(only(compare(*sides), "P-EVA-GRAD").verdict)
    assert verdicts.count("helps") <= 400 / 40 + 2.33 * np.sqrt(400 / 40)
    assert "no evidence of help" in verdicts


def test_success_counts_only_up_to_the_capability_tested_on_both_sides():
    before = evidence("P-EVA-GRAD", dict.fromkeys(outcomes(30, 0), 80.0), tested=100.0)
    after = evidence("P-EVA-GRAD", outcomes(30, 0), tested=50.0)
    change = only(compare(assessment(before), assessment(after)), "P-EVA-GRAD")
    assert change.capability == 50.0
    assert (change.before, change.after) == (0.0, 0.0)
    assert change.verdict == "no evidence of help"
    assert "50" in change.reason


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"digests": {"model": "m", "holdout": "other", "train": "t"}}, "holdout"),
        ({"seed": 1}, "seed"),
        ({"budget": "standard"}, "budget"),
    ],
)
def test_other_rows_seeds_or_budgets_are_compared_unpaired_and_said_so(fields, word):
    before, after = evidence("P-EVA-GRAD", outcomes(60, 40)), evidence("P-EVA-GRAD", outcomes(60, 10))
    comparison = compare(assessment(before), assessment(after, **fields))
    change = only(comparison, "P-EVA-GRAD")
    assert not comparison.paired
    assert any(word in note for note in comparison.notes)
    assert change.pairing == "unpaired"
    assert (change.fixed, change.broken) == (None, None)
    assert (change.probability_helps > 0.975) == (change.low > 0)
    assert change.low < 0.5 < change.high
    paired = only(compare(assessment(before), assessment(after)), "P-EVA-GRAD")
    assert paired.high - paired.low < change.high - change.low


def test_another_probe_seed_or_repeated_units_are_not_paired():
    before = evidence("P-EVA-GRAD", outcomes(30, 20))
    other = evidence("P-EVA-GRAD", outcomes(30, 20), seed=8)
    doubled = evidence("P-EVA-GRAD", rows=rows(outcomes(30, 20)) * 2)
    for after in (other, doubled):
        assert only(compare(assessment(before), assessment(after)), "P-EVA-GRAD").pairing == "unpaired"


@pytest.mark.claim("loop-2")
@pytest.mark.parametrize("status", ["failed", "inconclusive", "unmeasured", "not_applicable"])
def test_losing_the_measurement_is_never_help(status):
    before = evidence("P-EVA-GRAD", outcomes(30, 30))
    after = evidence("P-EVA-GRAD", status=status, reason="the model answered <b>NaN</b>")
    for change in (
        only(compare(assessment(before), assessment(after)), "P-EVA-GRAD"),
        only(compare(assessment(before), assessment()), "P-EVA-GRAD"),
    ):
        assert change.verdict == "not comparable"
        assert change.pairing == "none"
        assert change.difference is None
        assert change.reason


def test_disjoint_rows_are_compared_unpaired_and_other_axes_not_at_all():
    before = evidence("P-EVA-GRAD", outcomes(30, 20))
    elsewhere = only(compare(assessment(before), assessment(evidence("P-EVA-GRAD", outcomes(30, 0, start=100)))), "P-EVA-GRAD")
    assert (elsewhere.pairing, elsewhere.fixed) == ("unpaired", None)
    assert "no row was attacked on both sides" in elsewhere.reason
    other = only(compare(assessment(before), assessment(evidence("P-EVA-GRAD", outcomes(30, 0), axis="severity"))), "P-EVA-GRAD")
    assert other.verdict == "not comparable"


def estimated(probe: str, metric: str, value: float, low: float, high: float, **fields: Any) -> Evidence:
    group = fields.get("subject")
    made = Metric(name=metric, value=value, low=low, high=high, group=group)
    return evidence(probe, **{"rows": rows(outcomes(100, 50)), "axis": "", "tested": None, "metrics": (made,)} | fields)


@pytest.mark.claim("loop-5")
def test_a_gap_that_grows_while_everybody_errs_less_is_harm():
    """40 % against 30 % before, 30 % against 10 % after."""
    gap = "gap in error rate"
    before = estimated("P-FAIR", gap, 0.1, 0.06, 0.14, subject="sex = F", chance=0.3, rows=rows(outcomes(1000, 400)))
    after = estimated("P-FAIR", gap, 0.2, 0.16, 0.24, subject="sex = F", chance=0.1, rows=rows(outcomes(1000, 300)))
    change = only(compare(assessment(before), assessment(after)), "P-FAIR")
    assert (change.verdict, change.pairing) == ("harms", "unpaired")
    assert (change.before, change.after) == (0.1, 0.2)
    assert (change.low, change.high) == pytest.approx((-0.1 - np.hypot(0.04, 0.04), -0.1 + np.hypot(0.04, 0.04)))
    assert change.probability_helps < 0.001
    assert only(compare(assessment(before), assessment(before)), "P-FAIR").probability_helps == 0.5
    turned = only(compare(assessment(after), assessment(before)), "P-FAIR")
    assert (turned.verdict, turned.probability_helps) == ("helps", pytest.approx(1 - change.probability_helps))


def gaps(worst: str, **values: float) -> Evidence:
    """Evidence of unequal harm with the error gap of each group, 4 points to either side."""
    metrics = tuple(
        Metric(name="gap in error rate", group=group, value=value, low=value - 0.04, high=value + 0.04)
        for group, value in values.items()
    )
    return evidence("P-FAIR", outcomes(100, 40), metrics=metrics, subject=worst, axis="", tested=None)


@pytest.mark.claim("loop-5")
def test_where_another_group_is_worst_off_both_are_looked_at():
    before = gaps("F", F=0.2, M=0.0)
    helped = only(compare(assessment(before), assessment(gaps("M", F=-0.02, M=0.03))), "P-FAIR")
    assert (helped.verdict, helped.before, helped.after) == ("helps", 0.2, -0.02)
    assert helped.reason.startswith("What came out worst is not the same: F before, M after. Judged by gap in error rate of F")
    turned = only(compare(assessment(before), assessment(gaps("M", F=0.0, M=0.2))), "P-FAIR")
    assert (turned.verdict, turned.before, turned.after) == ("harms", 0.0, 0.2)
    known = only(compare(assessment(gaps("F", F=0.2)), assessment(gaps("M", F=0.1, M=0.2))), "P-FAIR")
    assert (known.verdict, known.before, known.after) == ("no evidence of help", 0.2, 0.1)
    nothing = only(compare(assessment(gaps("F", F=0.2)), assessment(gaps("M", M=0.2))), "P-FAIR")
    assert (nothing.verdict, nothing.probability_helps) == ("not comparable", None)


@pytest.mark.claim("loop-5")
def test_rows_about_different_things_are_not_paired():
    sides = [evidence("P-OTHER", outcomes(100, lost), subject=subject) for lost, subject in ((60, "income"), (10, "age"))]
    change = only(compare(*map(assessment, sides)), "P-OTHER")
    assert (change.verdict, change.pairing) == ("not comparable", "none")
    assert "income before, age after" in change.reason


@pytest.mark.claim("loop-5")
def test_a_field_is_judged_by_the_gain_over_the_imputer():
    """Fewer fields are guessed, but more of them thanks to the model."""
    name = "gain over imputer"
    before = estimated("P-PRI-ATTR", name, 0.05, 0.01, 0.09, subject="smoker", chance=0.85, rows=rows(outcomes(1000, 900)))
    after = estimated("P-PRI-ATTR", name, 0.2, 0.15, 0.25, subject="smoker", chance=0.5, rows=rows(outcomes(1000, 700)))
    assert only(compare(assessment(before), assessment(after)), "P-PRI-ATTR").verdict == "harms"
    column = estimated("P-PRI-ATTR", name, 0.2, 0.15, 0.25, subject="income", chance=0.5, rows=rows(outcomes(1000, 700)))
    assert only(compare(assessment(before), assessment(column)), "P-PRI-ATTR").verdict == "not comparable"
    unnamed = before.model_copy(update={"subject": ""})
    assert only(compare(assessment(unnamed), assessment(unnamed)), "P-PRI-ATTR").verdict == "not comparable"


@pytest.mark.claim("loop-5")
def test_success_counts_beyond_chance_where_chance_differs():
    before = evidence("P-POI-FLIP", outcomes(1000, 600), chance=0.55)
    after = evidence("P-POI-FLIP", outcomes(1000, 500), chance=0.2)
    change = only(compare(assessment(before), assessment(after)), "P-POI-FLIP")
    assert change.verdict == "harms"
    assert (change.before, change.after) == pytest.approx((0.05, 0.3))
    assert "Success by chance differs" in change.reason


@pytest.mark.claim("loop-5")
def test_equally_leaky_models_are_told_apart_in_at_most_one_in_ten_comparisons():
    """Each side chooses its own threshold, so that many rows change sides at once; the true rate is the same."""
    draw = np.random.default_rng(0)
    verdicts = []
    for _ in range(200):
        sides = []
        for _ in range(2):
            signal = draw.normal(size=1000) + 0.5
            named = signal > np.quantile(draw.normal(size=100), 0.9)
            band = np.quantile([np.mean(signal > np.quantile(draw.normal(size=100), 0.9)) for _ in range(60)], [0.025, 0.975])
            value, low, high = float(named.mean()), float(min(band[0], named.mean())), float(max(band[1], named.mean()))
            hits = {f"r{i}": 1.0 if hit else None for i, hit in enumerate(named)}
            sides.append(assessment(estimated("P-PRI-MIA", "TPR at 10 % FPR", value, low, high, rows=rows(hits), chance=0.1)))
        verdicts.append(only(compare(*sides), "P-PRI-MIA").verdict)
    assert verdicts.count("no evidence of help") >= 0.9 * len(verdicts)


def test_members_are_compared_at_the_lowest_rate_that_both_sides_resolve():
    at = {
        level: Metric(name=f"TPR at {level} % FPR", value=v, low=v - 0.05, high=v + 0.05)
        for level, v in (("10", 0.3), ("1", 0.2))
    }
    finer = evidence("P-PRI-MIA", outcomes(100, 20), metrics=(at["10"], at["1"]), chance=0.01)
    coarse = evidence("P-PRI-MIA", outcomes(100, 30), metrics=(at["10"],), chance=0.1)
    finest = evidence("P-PRI-MIA", outcomes(100, 20), metrics=(at["1"],), chance=0.01)
    assert only(compare(assessment(finer), assessment(finer)), "P-PRI-MIA").before == 0.2
    change = only(compare(assessment(finer), assessment(coarse)), "P-PRI-MIA")
    assert (change.before, change.after, change.verdict) == (0.3, 0.3, "no evidence of help")
    assert "TPR at 10 % FPR" in change.reason
    assert only(compare(assessment(coarse), assessment(finest)), "P-PRI-MIA").verdict == "not comparable"


def test_the_name_tells_every_threat_that_applies():
    item = evidence("P-DATA-AUDIT", outcomes(10, 1), threats=("T-EVA-02", "T-EVA-03", "T-POI-05"))
    assert only(compare(assessment(item), assessment(item)), "P-DATA-AUDIT").name == "Score-guided evasion, Label-only evasion"


@pytest.mark.claim("loop-5")
def test_withheld_scores_are_judged_by_the_label_attack():
    before = (evidence("P-EVA-SCORE", outcomes(40, 30)), evidence("P-EVA-LABEL", outcomes(40, 28)))
    withheld = evidence("P-EVA-SCORE", status="not_applicable", reason="the service answers labels only")
    comparison = compare(assessment(*before), assessment(withheld, evidence("P-EVA-LABEL", outcomes(40, 28))))
    assert only(comparison, "P-EVA-SCORE").verdict == "not comparable"
    worst = family(comparison)
    assert worst.adaptive
    assert (worst.before, worst.after) == (30 / 40, 28 / 40)
    assert worst.verdict == "no evidence of help"
    assert "labels only" in worst.reason


def test_words_of_a_reason_do_not_make_a_comparison_adaptive():
    withheld = evidence("P-EVA-SCORE", status="not_applicable", reason="asked before and after: labels only")
    label = evidence("P-EVA-LABEL", outcomes(40, 20))
    worst = family(compare(assessment(withheld, label), assessment(evidence("P-EVA-SCORE", outcomes(40, 30)), label)))
    assert not worst.adaptive
    assert family(compare(assessment(evidence("P-EVA-SCORE", outcomes(40, 30)), label), assessment(withheld, label))).adaptive


@pytest.mark.claim("loop-5")
def test_the_worst_case_over_the_family_counts_row_by_row():
    before = (evidence("P-EVA-SCORE", outcomes(40, 20)), evidence("P-EVA-LABEL", outcomes(40, 0)))
    hit = {f"r{i}": 5.0 if i >= 30 else None for i in range(40)}
    after = (evidence("P-EVA-SCORE", outcomes(40, 0)), evidence("P-EVA-LABEL", hit))
    worst = family(compare(assessment(*before), assessment(*after)))
    assert not worst.adaptive
    assert (worst.fixed, worst.broken) == (20, 10)


@pytest.mark.claim("loop-5")
@pytest.mark.parametrize("status", [None, "failed", "unmeasured", "inconclusive"])
def test_without_the_adaptive_attack_nothing_is_claimed(status):
    before = (evidence("P-EVA-SCORE", outcomes(40, 30)), evidence("P-EVA-LABEL", outcomes(40, 28)))
    after = [evidence("P-EVA-SCORE", status="not_applicable", reason="labels only")]
    if status:
        after.append(evidence("P-EVA-LABEL", status=status, reason="crashed"))
    worst = family(compare(assessment(*before), assessment(*after)))
    assert worst.verdict == "not comparable"
    assert "P-EVA-LABEL" in worst.reason


def test_clustered_rows_widen_the_interval():
    units = [f"r{i}" for i in range(60)]
    patients = {unit: f"p{i // 10}" for i, unit in enumerate(units)}
    hit = {unit: 1.0 if i < 20 else None for i, unit in enumerate(units)}
    none = dict.fromkeys(units)
    plain = only(compare(assessment(evidence("P-EVA-GRAD", hit)), assessment(evidence("P-EVA-GRAD", none))), "P-EVA-GRAD")
    clustered = only(
        compare(
            assessment(evidence("P-EVA-GRAD", rows=rows(hit, patients))),
            assessment(evidence("P-EVA-GRAD", rows=rows(none, patients))),
        ),
        "P-EVA-GRAD",
    )
    assert plain.verdict == "helps"
    assert clustered.low < plain.low
    assert clustered.verdict == "no evidence of help"


def test_utility_and_losses_stand_beside():
    before = assessment(risks=(risk("a", 100.0), risk("b", 40.0), risk("c", 5.0, "unmeasured")), accuracy=0.9)
    after = assessment(risks=(risk("a", 30.0), risk("c", 5.0, "unmeasured"), risk("d", 1.0)), accuracy=0.8)
    got = compare(before, after)
    assert got.utility is not None
    assert got.utility.accuracy_difference == pytest.approx(-0.1)
    assert got.utility.auc_difference == pytest.approx(-0.1)
    assert got.utility.low < -0.1 < got.utility.high
    assert (got.total.mean_before, got.total.mean_after) == (145.0, 36.0)
    assert got.measured_total == (100.0, 30.0)
    assert [one.id for one in got.risks] == ["a", "b", "d", "c"]
    assert got.risks[1].mean_after is None
    assert got.exceeds_appetite == (0.5, 0.5)
    assert any("same draws" in note for note in got.notes)
    assert Comparison.model_validate_json(got.model_dump_json()) == got


def useful(right: Any, clusters: Any = None, inputs: Any = None) -> Utility:
    from types import SimpleNamespace

    right = np.asarray(right)
    data = Dataset(
        name="holdout",
        x=np.stack([right, np.arange(len(right)) if inputs is None else inputs], axis=1).astype(float),
        y=right.astype(np.int64) * 0,
        classes=("no", "yes"),
        ids=np.arange(len(right)).astype(str),
        clusters=clusters,
    )
    model = SimpleNamespace(access=Access.LABELS, labels=lambda x: (x[:, 0] == 0).astype(np.int64))
    return measure_utility(SimpleNamespace(holdout=data, model=model))


def test_the_cost_is_told_from_the_same_rows():
    draw = np.random.default_rng(0)
    right = draw.random(1003) < 0.8
    changed = right ^ (draw.random(1003) < 0.03)
    before, after = assessment(utility=useful(right)), assessment(utility=useful(changed))
    assert (before.utility.correct_rows() == right).all()
    assert len(before.utility.correct) == 2 * 126
    got = compare(before, after).utility
    expected = paired_change(changed, right)
    assert (got.pairing, got.low, got.high) == ("paired", expected.low, expected.high)
    assert got.accuracy_difference == pytest.approx(expected.difference)
    elsewhere = compare(before, assessment(utility=useful(changed), digests={"holdout": "other"})).utility
    assert elsewhere.pairing == "unpaired"
    assert elsewhere.high - elsewhere.low > 2 * (got.high - got.low)


def test_the_cost_counts_clusters():
    """Whole patients are lost, so twenty rows of each say little more than one."""
    patients = np.repeat(np.arange(40), 20).astype(str)
    right = np.ones(800, dtype=bool)
    lost = right & (np.repeat(np.random.default_rng(0).random(40), 20) > 0.2)
    sides = [assessment(utility=useful(side, patients)) for side in (right, lost)]
    got, naive = compare(*sides).utility, paired_change(lost, right)
    assert got.pairing == "paired"
    assert got.high - got.low > 2.8 * (naive.high - naive.low)
    apart = compare(sides[0], sides[1].model_copy(update={"digests": {}})).utility
    assert apart.pairing == "unpaired"
    assert apart.high - apart.low > 2.8 * (naive.high - naive.low)
    assert Utility.model_validate_json(sides[0].utility.model_dump_json()) == sides[0].utility


@pytest.mark.claim("loop-2")
def test_copies_of_rows_make_no_accuracy_surer():
    right = np.arange(40) < 36
    once = useful(right)
    tenfold = useful(np.tile(right, 10), inputs=np.tile(np.arange(40), 10))
    assert tenfold.accuracy == pytest.approx(once.accuracy)
    assert tenfold.accuracy_low <= once.accuracy_low + 0.005
    fewer = np.arange(40) < 30
    after = [useful(fewer), useful(np.tile(fewer, 10), inputs=np.tile(np.arange(40), 10))]
    changes = [
        compare(assessment(utility=old), assessment(utility=new)).utility for old, new in zip((once, tenfold), after, strict=True)
    ]
    assert changes[1].high - changes[1].low >= 0.98 * (changes[0].high - changes[0].low)


@pytest.mark.parametrize("wrong", [{"correct": "ff"}, {"correct": "zz"}, {"clusters": "0,1"}, {"clusters": "a" * 10}])
def test_rows_that_are_not_all_told_are_refused(wrong):
    with pytest.raises(ValidationError):
        Utility(rows=10, accuracy=0.5, accuracy_low=0.2, accuracy_high=0.8, majority_share=0.5, **wrong)


def test_assessments_of_different_systems_are_refused():
    other = SystemSummary(name="other", file="holdfast.yaml", framework="python", modality="tabular", facts={})
    with pytest.raises(ConfigurationError, match="different systems"):
        compare(assessment(), assessment(system=other))


def test_assessments_in_the_wrong_order_are_refused():
    early, late = assessment(created="2029-12-31T23:59:59Z"), assessment()
    assert compare(early, late).before.created == "2029-12-31T23:59:59Z"
    assert compare(late, late).before.created == late.created
    with pytest.raises(ConfigurationError, match="made after the other") as caught:
        compare(late, early)
    assert "earlier one first" in str(caught.value)


def test_labels_only_leave_no_auc_to_compare():
    utility = Utility(rows=200, accuracy=0.9, accuracy_low=0.8, accuracy_high=0.95, majority_share=0.6)
    got = compare(assessment(), assessment(utility=utility))
    assert got.utility is not None
    assert got.utility.auc_difference is None
    assert got.utility.accuracy_difference == pytest.approx(0.0)


@pytest.fixture(scope="module")
def ward():
    """A small network on real tumour measurements, attacked by scores and by labels alone."""
    import pandas as pd
    from sklearn.datasets import load_breast_cancer
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from holdfast.core.target import Dataset, Target
    from holdfast.models.answers import Context
    from holdfast.models.sklearn import SklearnModel

    loaded = load_breast_cancer()
    frame = pd.DataFrame(loaded.data, columns=loaded.feature_names)
    order = np.random.default_rng(0).permutation(len(frame))
    classes = ("0", "1")

    def part(rows, name):
        return Dataset(
            name=name,
            x=frame.iloc[rows].reset_index(drop=True),
            y=loaded.target[rows].astype(np.int64),
            classes=classes,
            ids=np.array([f"r{i}" for i in rows]),
        )

    train, holdout = part(order[:300], "train"), part(order[300:], "holdout")

    def fitted(x, y):
        network = make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=600, random_state=0))
        return SklearnModel(network.fit(x, y), Context(sample=holdout.x[:4], labels=classes))

    target = Target(name="triage", model=fitted(train.x, train.y), modality="tabular", train=train, holdout=holdout)
    return target, fitted


def measured(target):
    from holdfast.core.errors import CannotMeasure
    from holdfast.core.probe import Budget
    from holdfast.core.progress import Silent
    from holdfast.probes.evasion import LabelEvasion, ScoreEvasion

    budget = Budget(level="quick", rows=80, queries=150, repeats=1, shadows=1)
    found = []
    for probe in (ScoreEvasion(), LabelEvasion()):
        try:
            probe.check(target)
            found.append(probe.run(target, budget, 3, Silent()).model_copy(update={"seed": 3}))
        except CannotMeasure as refusal:
            found.append(evidence(probe.id, status=refusal.status, reason=str(refusal), seed=3))
    return assessment(*found)


@pytest.mark.slow
@pytest.mark.claim("loop-5")
def test_controls_that_do_nothing_are_called_no_evidence_of_help(ward):
    from dataclasses import replace

    import pandas as pd

    target, fitted = ward
    before = measured(target)
    train, draw = target.train, np.random.default_rng(1)
    noise = draw.normal(size=train.x.shape) * 0.3 * train.x.std().to_numpy()
    augmented = fitted(pd.concat([train.x, train.x + noise], ignore_index=True), np.r_[train.y, train.y])
    worst = family(compare(before, measured(replace(target, model=augmented))))
    assert worst.trials >= 40
    assert worst.verdict != "helps"
    nothing = family(compare(before, measured(target)))
    assert nothing.verdict == "no evidence of help"
    assert (nothing.fixed, nothing.broken) == (0, 0)


@pytest.mark.slow
@pytest.mark.claim("loop-5")
def test_answer_hardening_is_attacked_adaptively_through_the_real_probes(ward):
    from holdfast.hardening.answers import AnswerHardening

    target, _ = ward
    before = measured(target)
    after = measured(AnswerHardening(answers="label").apply(target, 0))
    comparison = compare(before, after)
    assert after.evidence[0].status == "not_applicable"
    assert after.evidence[1].status == "measured"
    assert only(comparison, "P-EVA-SCORE").verdict == "not comparable"
    worst = family(comparison)
    assert worst.adaptive
    assert worst.after == sum(row.success for row in after.evidence[1].rows) / len(after.evidence[1].rows)
    assert worst.after > 0
    label = only(comparison, "P-EVA-LABEL")
    assert (label.fixed, label.broken) == (0, 0)


def run_cli(tmp_path, *arguments):
    from typer import Typer
    from typer.testing import CliRunner

    from holdfast.cli import compare as command

    app = Typer()
    app.callback()(lambda: None)
    command.register(app)
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], env={"COLUMNS": "100"})


@pytest.fixture
def files(tmp_path):
    from holdfast.core.files import write_document

    before = assessment(evidence("P-EVA-LABEL", outcomes(40, 30)), risks=(risk("a", 100.0),))
    hostile = "\x1b[31m[bold red]withheld[/bold red]\u202e"
    after = assessment(
        evidence("P-EVA-LABEL", outcomes(40, 3)),
        evidence("P-EVA-GRAD", status="unmeasured", reason=hostile),
        risks=(risk("a", 10.0),),
    )
    for name, document in (("before", before), ("after", after)):
        write_document(tmp_path / f"{name}.json", document)
    return tmp_path / "before.json", tmp_path / "after.json"


def test_the_command_says_what_happened_and_writes_the_document(tmp_path, files):
    done = run_cli(tmp_path, *files, "--output", tmp_path / "comparison.json")
    assert done.exit_code == 0
    assert "helps" in done.stdout
    assert "Not comparable, so nothing is claimed" in done.stdout
    assert "[bold red]withheld" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    written = Comparison.model_validate_json((tmp_path / "comparison.json").read_text())
    assert only(written, "P-EVA-LABEL").verdict == "helps"
    printed = run_cli(tmp_path, *files, "--json")
    assert Comparison.model_validate_json(printed.stdout) == written


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("damage", "code", "said"),
    [
        (lambda text: re.sub(r'"mean": 1(0*)\.0', r'"mean": 2\1.0', text, count=1), 4, "changed after it was made"),
        (lambda text: text[: len(text) // 2], 2, "not an assessment"),
        (lambda text: text.replace('"name": "', '"name": "other ', 1), 4, "changed after it was made"),
        (lambda _: "", 2, "not an assessment"),
        (lambda _: '{"format": "holdfast-comparison/1"}', 2, "not an assessment"),
    ],
    ids=["a number", "half of it", "the name", "nothing", "another document"],
)
def test_a_damaged_assessment_is_refused_with_its_name(tmp_path, files, side, damage, code, said):
    text = files[side].read_text()
    files[side].write_text(damage(text))
    assert files[side].read_text() != text
    done = run_cli(tmp_path, *files, "--output", tmp_path / "comparison.json")
    assert isinstance(done.exception, HoldfastError)
    assert done.exception.exit_code == code
    assert said in str(done.exception)
    assert files[side].name in str(done.exception)
    assert not (tmp_path / "comparison.json").exists()


def scored(scores: Any, y: Any) -> Utility:
    from types import SimpleNamespace

    x = np.stack([scores, np.arange(len(y))], axis=1)
    data = Dataset(name="holdout", x=x, y=y, classes=("no", "yes"), ids=np.arange(len(y)).astype(str))
    model = SimpleNamespace(
        access=Access.SCORES,
        labels=lambda x: (x[:, 0] > 0).astype(np.int64),
        scores=lambda x: np.stack([np.zeros(len(x)), x[:, 0]], axis=1),
    )
    return measure_utility(SimpleNamespace(holdout=data, model=model))


def test_the_difference_of_areas_has_a_paired_interval():
    """Against the bootstrap over rows, and against the interval of one area by another implementation."""
    from sklearn.metrics import roc_auc_score

    from holdfast.attacks.privacy.identification import area

    draw = np.random.default_rng(0)
    y = draw.integers(2, size=400)
    first = y + draw.normal(size=400)
    second = first + 0.4 * draw.normal(size=400)
    old, new = scored(first, y), scored(second, y)
    got = compare(assessment(utility=old), assessment(utility=new)).utility
    resampled = []
    for _ in range(400):
        rows = draw.integers(400, size=400)
        resampled.append(roc_auc_score(y[rows], second[rows]) - roc_auc_score(y[rows], first[rows]))
    assert got.auc_high - got.auc_low == pytest.approx(2 * 1.96 * np.std(resampled), rel=0.12)
    assert (got.auc_low + got.auc_high) / 2 == pytest.approx(new.auc - old.auc)
    apart = compare(assessment(utility=old), assessment(utility=new, digests={"holdout": "other"})).utility
    assert apart.auc_high - apart.auc_low > 1.5 * (got.auc_high - got.auc_low)
    published = area(first[y == 1], first[y == 0])
    assert 1.96 * np.sqrt(np.sum(old.auc_by_row() ** 2)) == pytest.approx((published.high - published.low) / 2, rel=0.05)
