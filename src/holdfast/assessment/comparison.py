"""The comparison document: what a change to a system did to each attack, to utility and to the annual loss."""

from __future__ import annotations

from typing import Literal

from holdfast.core.evidence import Document, Finite

SCHEMA: Literal["holdfast-comparison/1"] = "holdfast-comparison/1"
Verdict = Literal["helps", "harms", "no evidence of help", "not comparable"]
Pairing = Literal["paired", "unpaired", "none"]


class Side(Document):
    """One of the two assessments."""

    system: str
    file: str
    created: str
    model_digest: str
    answers: str
    controls: tuple[str, ...]
    budget: str
    seed: int
    seal: str = ""


class Change(Document):
    """What happened to one attack, or to a family of attacks.

    Attributes:
        name: of the threat, or of the family.
        probes, threats: what was measured.
        verdict: by whether the interval of the difference excludes zero; `not comparable` says why in `reason`.
        pairing: `paired` on the same rows and seeds, `unpaired` as independent samples, `none` when not comparable.
        adaptive: an attack of the family no longer applies after the change, and the ones that still do were run.
        axis, capability: what capability counts, and the largest that was tested on both sides.
        before, after: share of the compared rows on which the attack succeeded, or what `reason` says it is judged by.
        fixed, broken: rows that the change saved and lost; None when unpaired.
        trials: rows compared; when unpaired, of the smaller side.
        only_before, only_after: rows attacked on one side only, for example because the model gets them wrong on the other.
        probability_helps: P(fixed > broken among discordant rows); when unpaired, P(difference > 0) of a normal distribution
            with the spread of the interval. None when not comparable.
        difference, low, high: before minus after with its 95 % interval; positive means the attack got weaker.
        reason: conditions that the reader must know.
    """

    name: str
    probes: tuple[str, ...]
    threats: tuple[str, ...]
    verdict: Verdict
    pairing: Pairing
    adaptive: bool = False
    axis: str = ""
    capability: Finite | None = None
    before: Finite | None = None
    after: Finite | None = None
    fixed: int | None = None
    broken: int | None = None
    trials: int = 0
    only_before: int = 0
    only_after: int = 0
    probability_helps: Finite | None = None
    difference: Finite | None = None
    low: Finite | None = None
    high: Finite | None = None
    reason: str = ""


class UtilityChange(Document):
    """What the change cost.

    Attributes:
        rows: compared; when unpaired, of the smaller side.
        accuracy_before, accuracy_after: of each side.
        accuracy_difference, low, high: after minus before with its 95 % interval, which counts clusters of rows where they
            are known.
        pairing: `paired` when both sides tell which of the same rows they got right.
        auc_before, auc_after, auc_difference: None without scores.
        auc_low, auc_high: the 95 % interval of the AUC's difference; None where a side does not tell what each row moves it by.
    """

    rows: int
    accuracy_before: Finite
    accuracy_after: Finite
    accuracy_difference: Finite
    low: Finite
    high: Finite
    pairing: Pairing = "unpaired"
    auc_before: Finite | None = None
    auc_after: Finite | None = None
    auc_difference: Finite | None = None
    auc_low: Finite | None = None
    auc_high: Finite | None = None


class RiskChange(Document):
    """One risk, or the total. None where the side has no such risk."""

    id: str
    threat: str = ""
    name: str = ""
    actor: str = ""
    state_before: str | None = None
    state_after: str | None = None
    mean_before: Finite | None = None
    mean_after: Finite | None = None
    p95_before: Finite | None = None
    p95_after: Finite | None = None


class Comparison(Document):
    """Two assessments of one system, before and after a change.

    Attributes:
        format: the schema's version.
        before, after: the two.
        paired: whether rows, seeds and budget are those of one design.
        changes: families first, then each probe.
        utility: None when either side has none.
        unit: of all losses.
        total: annual loss over all risks.
        measured_total: mean annual loss over the risks that are measured on both sides, (before, after).
        exceeds_appetite: P(annual loss > appetite), (before, after); None without a common appetite.
        risks: largest change first.
        notes: conditions that the reader must know.
    """

    format: Literal["holdfast-comparison/1"] = SCHEMA
    before: Side
    after: Side
    paired: bool
    changes: tuple[Change, ...]
    utility: UtilityChange | None
    unit: str
    total: RiskChange
    measured_total: tuple[Finite, Finite]
    exceeds_appetite: tuple[Finite, Finite] | None
    risks: tuple[RiskChange, ...]
    notes: tuple[str, ...] = ()
