"""A realistic assessment of a hospital's treatment recommender, and one whose every text is hostile."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from holdfast.assessment.comparison import Change, Comparison, RiskChange, Side, UtilityChange
from holdfast.assessment.document import Assessment, DataSummary, SystemSummary, Utility
from holdfast.core.evidence import ChangedCell, Evidence, Example, Metric, Row, Spent
from holdfast.core.statistics import clopper_pearson
from holdfast.risk.register import CurvePoint, Decision, Driver, Loss, NextProbe, Risk, RiskRegister
from holdfast.threats.catalogue import load_catalogue
from holdfast.threats.derivation import Threat

UNIT = "EUR"
CLASSES = ("standard care", "intensive care")
DIGEST = "4f1c9b0d6a7e2f83b5c4d1e09a8f7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f00"
DIGESTS = {"model": f"sha256:{DIGEST}", "train": f"sha256:{DIGEST[1:]}0", "holdout": f"sha256:{DIGEST[::-1]}"}
HOSTILE = (
    "<script>alert(1)</script>",
    "]]>",
    "=cmd()|' /C calc'!A0",
    "a | b | c",
    "`code` ``two`` ```three```",
    "\u202egnp.exe \u2066isolate\u2069",
    "bell\x07 esc\x1b[31mred\x1b[0m nul\x00 del\x7f c1\x9b",
    "lone \ud800 surrogate",
    '" onload="alert(1)',
    "[click](javascript:alert(1)) ![x](https://attacker.test/x.png)",
    "https://attacker.test/ www.attacker.test mail@attacker.test @everyone #1",
    "{{ 7 * 7 }} {% raw %}",
    "</style></title><img src=x onerror=alert(1)>",
    "[bold red]rich[/bold red] [link=https://attacker.test]x[/link]",
    "line\r\nbreak\u2028separator",
    "- list\n# heading\n1. one",
    "&lt;already&gt; &amp; \\ backslash",
    "A" * 5000,
)


def rows(successes: dict[float, int], trials: int) -> tuple[Row, ...]:
    """Units with the given number of first successes at each capability; the others censored."""
    reached = [capability for capability, count in successes.items() for _ in range(count)]
    return tuple(
        Row(unit=f"r{index:04d}", capability=reached[index] if index < len(reached) else None) for index in range(trials)
    )


def curve(evidence: Evidence, grid: tuple[float, ...]) -> tuple[CurvePoint, ...]:
    points = []
    for capability in grid:
        hits = sum(row.capability is not None and row.capability <= capability for row in evidence.rows)
        low, high = clopper_pearson(hits, len(evidence.rows))
        points.append(
            CurvePoint(
                capability=capability,
                value=hits / len(evidence.rows),
                low=low,
                high=high,
                successes=hits,
                trials=len(evidence.rows),
            )
        )
    return tuple(points)


def simulated(seed: int, attempts: float, success: float, loss: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    share = random.uniform(0, 1, 4000) if success < 0 else random.beta(200 * success + 0.5, 200 * (1 - success) + 0.5, 4000)
    events = random.poisson(attempts * random.lognormal(0, 0.6, 4000) * share)
    return events * loss * random.lognormal(0, 0.9, 4000)


def loss_of(draws: np.ndarray) -> Loss:
    ordered = np.sort(draws)
    grid = np.quantile(ordered, np.linspace(0.01, 0.999, 60))
    return Loss(
        mean=float(draws.mean()),
        p5=float(np.quantile(draws, 0.05)),
        p50=float(np.quantile(draws, 0.5)),
        p95=float(np.quantile(draws, 0.95)),
        exceedance=tuple((float(value), float((draws > value).mean())) for value in np.unique(grid)),
    )


def digit_picture(shift: int) -> str:
    from PIL import Image

    pixels = np.zeros((8, 8), dtype=np.uint8)
    pixels[1:7, 3:5] = 220
    pixels = np.clip(pixels.astype(int) + np.random.default_rng(shift).integers(0, 20 * shift + 1, (8, 8)), 0, 255).astype(
        np.uint8
    )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def make_threats() -> tuple[Threat, ...]:
    found = []
    for entry in load_catalogue().threats:
        excluded = [fact for fact in ("federated", "genai") if fact in entry.when]
        unknown = ["weights_known_to"] if "weights_known_to" in entry.when else []
        applicability = "excluded" if excluded else "unknown" if unknown else "applies"
        because = {
            "excluded": f"excluded: {excluded[0] if excluded else ''} is none",
            "unknown": "unknown: weights_known_to is not stated",
            "applies": "applies: reach is internal",
        }[applicability]
        found.append(
            Threat(
                id=entry.id,
                name=entry.name,
                stage=entry.stage,
                goal=entry.goal,
                what=entry.what,
                applicability=applicability,
                because=because,
                missing_facts=tuple(unknown) if applicability == "unknown" else (),
                atlas=entry.atlas,
                owasp_ml=entry.owasp_ml,
                nist=entry.nist,
                ai_exchange=entry.ai_exchange,
                probes=entry.probes,
                controls=entry.controls,
            )
        )
    return tuple(found)


def make_evidence() -> tuple[Evidence, ...]:
    stamp = {"digests": DIGESTS, "versions": {"holdfast": "0.1.0"}, "seed": 7}
    score = Evidence(
        probe="P-EVA-SCORE",
        threats=("T-EVA-02",),
        status="measured",
        axis="queries",
        tested=1000,
        rows=rows({4: 6, 10: 9, 40: 12, 100: 20, 400: 17, 900: 11}, 200),
        strength="strong",
        method="Square attack (Andriushchenko et al. 2020) inside the table's constraints, margin of the returned scores",
        metrics=(
            Metric(name="median queries of the successes", value=88, unit="queries"),
            Metric(name="success", value=0.375, low=0.3078, high=0.4460, successes=75, trials=200),
        ),
        examples=(
            Example(
                unit="r0003",
                label_before="standard care",
                label_after="intensive care",
                distance=0.31,
                changed=(
                    ChangedCell(feature="visits", before="3", after="5"),
                    ChangedCell(feature="income", before="9800", after="9100"),
                ),
            ),
            Example(
                unit="r0017",
                label_before="intensive care",
                label_after="standard care",
                distance=0.84,
                image_before=digit_picture(1),
                image_after=digit_picture(3),
            ),
        ),
        spent=Spent(queries=61240, calls=1000, cpu_seconds=14.2),
        **stamp,
    )
    label = Evidence(
        probe="P-EVA-LABEL",
        threats=("T-EVA-03",),
        status="measured",
        axis="queries",
        tested=1000,
        rows=rows({40: 2, 200: 5, 700: 9}, 200),
        strength="moderate",
        method="HopSkipJump (Chen et al. 2020), label only",
        spent=Spent(queries=188_000, calls=1000, cpu_seconds=31.0),
        **stamp,
    )
    member = Evidence(
        probe="P-PRI-MIA",
        threats=("T-PRI-01",),
        status="measured",
        axis="queries",
        tested=1,
        rows=rows({1: 312}, 2000),
        chance=0.01,
        strength="strong",
        method="LiRA with 16 shadow models from the training recipe",
        metrics=(
            Metric(name="TPR at 1 % FPR", value=0.156, low=0.1404, high=0.1727, successes=312, trials=2000),
            Metric(name="AUC", value=0.713, low=0.698, high=0.727, unit="AUC"),
        ),
        findings=("The records that are found are mostly those whose label the model gets wrong outside training.",),
        spent=Spent(queries=4000, cpu_seconds=9.1),
        **stamp,
    )
    audit = Evidence(
        probe="P-DATA-AUDIT",
        threats=("T-POI-05", "T-POI-07", "T-POI-08"),
        status="measured",
        rows=rows({1: 2}, 24),
        strength="exact",
        method="seeded faults in a copy of the data",
        metrics=(Metric(name="duplicate rows", value=14, unit="rows"), Metric(name="conflicting labels", value=0, unit="rows")),
        findings=("14 holdout rows also occur in train.",),
        **stamp,
    )
    harm = Evidence(
        probe="P-FAIR",
        threats=("T-ETH-01",),
        status="measured",
        metrics=tuple(
            Metric(name="false negative rate", value=value, low=low, high=high, successes=k, trials=n, group=group)
            for group, value, low, high, k, n in (
                ("sex = female", 0.21, 0.17, 0.26, 84, 400),
                ("sex = male", 0.12, 0.09, 0.16, 48, 400),
                ("age_band = 80+", 0.33, 0.18, 0.52, 10, 30),
            )
        ),
        strength="exact",
        method="error rates by group on the holdout rows, Holm-corrected",
        **stamp,
    )
    other = [
        ("P-POI-FLIP", ("T-POI-01",), "unmeasured", "no training recipe is given; name one under model.recipe"),
        ("P-EXT-COPY", ("T-EXT-01",), "inconclusive", "the copy answers one class for every row"),
        ("P-ROB-SHIFT", ("T-EVA-07",), "failed", "the model raised ValueError: Input contains NaN"),
        ("P-PRI-ATTR", ("T-PRI-03",), "not_applicable", "the data has no sensitive column among the model's inputs"),
        ("P-BAC-SCAN", ("T-POI-08",), "unmeasured", "weights are not readable through the endpoint"),
    ]
    return (
        score,
        label,
        member,
        audit,
        harm,
        *(Evidence(probe=probe, threats=names, status=status, reason=reason, **stamp) for probe, names, status, reason in other),
    )


def make_risk(threats: dict[str, Threat], threat: str, actor: str, seed: int, **given: Any) -> tuple[Risk, np.ndarray]:
    state = given.get("state", "measured")
    success = given.get("success", -1.0)
    draws = simulated(seed, given.get("attempts", 2.0), success, given.get("loss", 40_000.0))
    width = 0.04 if state == "measured" else 0.0
    probability = (success, max(0, success - width), success + width) if state == "measured" else (0.5, 0.05, 0.95)
    risk = Risk(
        id=f"{threat}:{actor.replace(' ', '-')}",
        threat=threat,
        threat_name=threats[threat].name,
        goal=threats[threat].goal,
        actor=actor,
        state=state,
        probe=given.get("probe"),
        strength=given.get("strength"),
        probability=probability,
        curve=given.get("curve", ()),
        axis="queries" if given.get("curve") else "",
        untested=given.get("untested", 0.0),
        attempts=given.get("attempts_source", "declared"),
        success="measured" if state == "measured" else "default",
        loss_per_event=given.get("loss_source", "declared"),
        annual=loss_of(draws),
        drivers=(
            Driver(input="loss per event", correlation=0.71, source="declared"),
            Driver(input="attempts per year", correlation=0.58, source="declared"),
            Driver(input="P(success)", correlation=0.19, source="measured" if state == "measured" else "default"),
        ),
        notes=given.get("notes", ()),
    )
    return risk, draws


def make_register(threats: tuple[Threat, ...], evidence: tuple[Evidence, ...]) -> RiskRegister:
    known = {threat.id: threat for threat in threats}
    by_probe = {item.probe: item for item in evidence}
    grid = (1.0, 4.0, 10.0, 40.0, 100.0, 400.0, 1000.0)
    score, label = curve(by_probe["P-EVA-SCORE"], grid), curve(by_probe["P-EVA-LABEL"], grid)
    beyond = ("12 % of this actor's capability lies beyond the 1,000 queries tested.",)
    made = [
        make_risk(
            known, "T-EVA-02", "paid data broker", 1, success=0.34, probe="P-EVA-SCORE", strength="strong",
            curve=score, loss=90_000.0, untested=0.12, notes=beyond,
        ),
        make_risk(
            known, "T-EVA-02", "curious clinician", 2, success=0.11, probe="P-EVA-SCORE", strength="strong",
            curve=score, loss=90_000.0,
        ),
        make_risk(known, "T-EVA-03", "paid data broker", 3, success=0.07, probe="P-EVA-LABEL", strength="moderate", curve=label),
        make_risk(
            known, "T-PRI-01", "curious clinician", 4, success=0.15, probe="P-PRI-MIA", strength="strong",
            loss=600_000.0, attempts=0.6,
        ),
        make_risk(known, "T-POI-05", "malicious supplier row feed", 5, success=0.08, probe="P-DATA-AUDIT", attempts=0.1),
        make_risk(known, "T-ETH-01", "ordinary operation", 6, success=0.2, probe="P-FAIR", attempts_source="default"),
        make_risk(known, "T-POI-01", "malicious supplier row feed", 7, state="unmeasured", attempts=0.1),
        make_risk(known, "T-EXT-01", "paid data broker", 8, state="inconclusive", attempts=0.7, loss=30_000.0),
        make_risk(known, "T-EVA-07", "ordinary operation", 9, state="failed", attempts=1.0, attempts_source="default"),
        make_risk(
            known, "T-SUP-01", "unnamed attacker", 10, state="unmeasured", attempts_source="default", loss_source="default"
        ),
        make_risk(known, "T-ACC-01", "unnamed attacker", 11, state="unmeasured", attempts_source="default", loss=150_000.0),
    ]  # fmt: skip
    total = np.sum([draws for _, draws in made], axis=0)
    risks = sorted((risk for risk, _ in made), key=lambda risk: -risk.annual.mean)
    return RiskRegister(
        unit=UNIT,
        risks=tuple(risks),
        total=loss_of(total),
        appetite=(250_000.0, 0.95),
        exceeds_appetite=float((total > 250_000).mean()),
        draws=20_000,
        seed=7,
        next_probes=(
            NextProbe(
                threat="T-ACC-01", probe="P-ACC-SURFACE", actor="unnamed attacker", value=31_000.0, why="Its range is widest."
            ),
            NextProbe(threat="T-SUP-01", probe="P-SUP-SCAN", actor="unnamed attacker", value=9_400.0, why=""),
            NextProbe(threat="T-POI-01", probe="P-POI-FLIP", actor="malicious supplier row feed", value=2_100.0, why=""),
        ),
    )


def make_assessment(**changes: Any) -> Assessment:
    threats, evidence = make_threats(), make_evidence()
    fields: dict[str, Any] = {
        "created": "2026-03-14T09:26:53Z",
        "seconds": 96.4,
        "holdfast": "0.1.0",
        "versions": {"holdfast": "0.1.0", "python": "3.11.9", "numpy": "2.4.0", "scikit-learn": "1.9.0"},
        "system": SystemSummary(
            name="treatment-recommender",
            owner="jennifer@hospital.example",
            file="holdfast.yaml",
            model_path="models/treatment.joblib",
            framework="scikit-learn",
            modality="tabular",
            facts={"reach": ("internal",), "returns": ("scores",), "data_sensitivity": ("health",), "registry": ("unsigned",)},
            controls=("C-AUTH", "C-AUDIT"),
            defaults=("lifecycle.registry",),
        ),
        "data": (
            DataSummary(name="train", rows=14133, features=16, classes=CLASSES, sensitive=("hiv_status",)),
            DataSummary(name="holdout", rows=6057, features=16, classes=CLASSES, groups=("sex", "age_band")),
        ),
        "utility": Utility(
            rows=6057, accuracy=0.842, accuracy_low=0.8326, accuracy_high=0.8511, majority_share=0.752, auc=0.871
        ),
        "digests": DIGESTS,
        "seed": 7,
        "budget": "standard",
        "threats": threats,
        "evidence": evidence,
        "measurable": {threat: (item.probe,) for item in evidence for threat in item.threats},
        "register": make_register(threats, evidence),
        "decisions": (
            Decision(
                id="d1", risk="T-PRI-01:curious-clinician", choice="accept", who="R. Okafor", until="2026-09-30",
                reason="Retrain is planned", model_digest=DIGEST, data_digest=DIGEST, made="2026-01-10",
            ),
            Decision(
                id="d2", risk="T-EVA-02:paid-data-broker", choice="mitigate", who="R. Okafor", until="2026-02-01",
                model_digest=DIGEST, data_digest=DIGEST, made="2025-11-02", state="lapsed",
                lapsed_because="the date it ran until has passed",
            ),
        ),
        "personal_values": True,
        "notes": ("One data file without a role: it was taken as holdout.",),
    }  # fmt: skip
    return Assessment(**{**fields, **changes}).sealed()


KEPT = frozenset(
    {
        "state", "status", "strength", "goal", "stage", "applicability", "attempts", "success", "loss_per_event", "choice",
        "source", "input", "format", "axis", "image_before", "image_after", "probe", "probes", "threat", "threats", "id",
        "controls", "risk", "correct", "clusters", "auc_parts",
    }
)  # fmt: skip
"""Fields bound to a vocabulary, and the identifiers that join the parts of an assessment."""


def poisoned(document: Any, texts: tuple[str, ...]) -> Any:
    """The document with every free text replaced by a hostile one, keeping what is bound to a vocabulary."""
    count = iter(range(10**9))

    def change(value: Any, key: str) -> Any:
        if isinstance(value, str):
            return value if key in KEPT else texts[next(count) % len(texts)]
        if isinstance(value, list):
            return [change(item, key if not isinstance(item, dict) else "") for item in value]
        if isinstance(value, dict):
            return {name: change(item, name) for name, item in value.items()}
        return value

    return change(document, "")


def make_comparison() -> Comparison:
    side = Side(
        system="s", file="holdfast.yaml", created="2026-03-14T09:26:53Z", model_digest="a", answers="as computed", controls=(),
        budget="standard", seed=7,
    )  # fmt: skip
    return Comparison(
        before=side,
        after=side.model_copy(update={"file": "rounded.yaml"}),
        paired=True,
        changes=(
            Change(
                name="Membership inference", probes=("P-PRI-MIA",), threats=("T-PRI-01",), verdict="helps", pairing="paired",
                before=0.156, after=0.011, fixed=300, broken=10, trials=2000, probability_helps=1.0, difference=0.145, low=0.13,
                high=0.16,
            ),
            Change(
                name="Noise", probes=("P-EVA-LABEL",), threats=("T-EVA-03",), verdict="no evidence of help", pairing="paired",
                before=0.08, after=0.09, fixed=2, broken=4, trials=200, probability_helps=0.2, difference=-0.01,
                low=-0.04, high=0.02,
            ),
            Change(
                name="Copying", probes=("P-EXT-COPY",), threats=("T-EXT-01",), verdict="not comparable", pairing="none",
                reason="before: inconclusive: <script>alert(1)</script>",
            ),
        ),
        utility=UtilityChange(
            rows=6057, accuracy_before=0.842, accuracy_after=0.846, accuracy_difference=0.004, low=-0.008, high=0.017,
            auc_before=0.871,
            auc_after=0.874, auc_difference=0.003,
        ),
        unit="EUR",
        total=RiskChange(id="total", mean_before=660_000.0, mean_after=560_000.0, p95_before=2e6, p95_after=1.8e6),
        measured_total=(259_000.0, 160_000.0),
        exceeds_appetite=(0.69, 0.61),
        risks=(),
        notes=("Both sides are of the same model file.",),
    )  # fmt: skip


def make_nothing_measured() -> Assessment:
    """Every probe failed, did not run or could not tell."""
    threats = make_threats()
    silent = [
        item.model_copy(update={"status": "inconclusive", "reason": "the model returns one class", "rows": (), "metrics": ()})
        if item.status == "measured"
        else item
        for item in make_evidence()
    ]
    register = make_register(threats, make_evidence())
    risks = tuple(
        risk.model_copy(update={"state": "inconclusive", "curve": (), "probability": (0.5, 0.05, 0.95), "success": "default"})
        if risk.state == "measured"
        else risk
        for risk in register.risks
    )
    return make_assessment(evidence=tuple(silent), register=register.model_copy(update={"risks": risks}))


def make_hostile() -> Assessment:
    """Every free text is an attack on some format."""
    plain = make_assessment().model_dump(mode="python")
    document = poisoned(_lists(plain), HOSTILE)
    document["system"]["facts"] = {f"{text[:200]}": [text[:200]] for text in HOSTILE}
    document["system"]["controls"] = list(HOSTILE)
    document["versions"] = {text[:200]: text[:200] for text in HOSTILE}
    document["threats"][1]["id"] = document["evidence"][0]["threats"][0] = "<b>T|`X`</b>\x1b"
    document["threats"][2]["controls"] = list(HOSTILE)
    for decision, kept in zip(document["decisions"], plain["decisions"], strict=True):
        decision["until"] = kept["until"]
    return Assessment.model_validate(document)


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in value]
    return value
