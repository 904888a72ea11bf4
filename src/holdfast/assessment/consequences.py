"""What a change to a system cost in accuracy and did to the annual loss."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from holdfast.assessment.comparison import RiskChange, UtilityChange
from holdfast.assessment.document import Assessment, Utility
from holdfast.core.statistics import CONFIDENCE, difference, paired_change, rate
from holdfast.risk.register import Risk, RiskRegister


def utility_change(before: Assessment, after: Assessment) -> UtilityChange | None:
    """What the change cost; None when a side has no utility."""
    old, new = before.utility, after.utility
    if old is None or new is None:
        return None
    low, high, pairing = _accuracy_interval(before, after, old, new)
    auc_low, auc_high = _auc_interval(old, new, pairing == "paired")
    return UtilityChange(
        rows=min(old.rows, new.rows),
        accuracy_before=old.accuracy,
        accuracy_after=new.accuracy,
        accuracy_difference=new.accuracy - old.accuracy,
        low=low,
        high=high,
        pairing=pairing,
        auc_before=old.auc,
        auc_after=new.auc,
        auc_difference=None if old.auc is None or new.auc is None else new.auc - old.auc,
        auc_low=auc_low,
        auc_high=auc_high,
    )


def _auc_interval(old: Utility, new: Utility, paired: bool) -> tuple[float, float] | tuple[None, None]:
    """The interval of the AUC's change, after minus before; rows of a cluster, and of both sides when paired, move together."""
    first, second = old.auc_by_row(), new.auc_by_row()
    if first is None or second is None or old.auc is None or new.auc is None:
        return None, None
    if paired:
        variance = _variance(second - first, new.row_clusters())
    else:
        variance = _variance(first, old.row_clusters()) + _variance(second, new.row_clusters())
    reach = float(norm.ppf(0.5 + CONFIDENCE / 2)) * math.sqrt(variance)
    return max(-1.0, new.auc - old.auc - reach), min(1.0, new.auc - old.auc + reach)


def _variance(parts: NDArray[np.float64], clusters: NDArray[np.int64] | None) -> float:
    """Of the sum of the parts, from the spread of the clusters' sums."""
    sums = parts if clusters is None else np.bincount(np.unique(clusters, return_inverse=True)[1], weights=parts)
    return float(np.sum(sums**2)) * len(sums) / max(1, len(sums) - 1)


def _accuracy_interval(
    before: Assessment, after: Assessment, old: Utility, new: Utility
) -> tuple[float, float, Literal["paired", "unpaired"]]:
    """The interval of the accuracy's change, after minus before, and how it was made."""
    first, second = old.correct_rows(), new.correct_rows()
    same = (before.digests.get("holdout"), old.rows, old.clusters) == (after.digests.get("holdout"), new.rows, new.clusters)
    if first is not None and second is not None and same and "holdout" in before.digests:
        change = paired_change(second, first, new.row_clusters())
        return change.low, change.high, "paired"
    trials = [
        float(side.rows) if right is None else rate(right, side.row_clusters()).effective_trials
        for side, right in ((old, first), (new, second))
    ]
    return *difference(new.accuracy * trials[1], trials[1], old.accuracy * trials[0], trials[0]), "unpaired"


def risk_changes(before: RiskRegister, after: RiskRegister) -> tuple[RiskChange, ...]:
    """Every risk of either side, the largest change of the mean first."""
    old, new = {risk.id: risk for risk in before.risks}, {risk.id: risk for risk in after.risks}
    changes = [_risk(old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new])]
    return tuple(sorted(changes, key=lambda one: -abs((one.mean_before or 0.0) - (one.mean_after or 0.0))))


def _risk(before: Risk | None, after: Risk | None) -> RiskChange:
    known = before or after
    assert known is not None
    return RiskChange(
        id=known.id,
        threat=known.threat,
        name=known.threat_name,
        actor=known.actor,
        state_before=before.state if before else None,
        state_after=after.state if after else None,
        mean_before=before.annual.mean if before else None,
        mean_after=after.annual.mean if after else None,
        p95_before=before.annual.p95 if before else None,
        p95_after=after.annual.p95 if after else None,
    )


def measured_total(before: RiskRegister, after: RiskRegister) -> tuple[float, float]:
    """Mean annual loss, (before, after), over the risks that are measured on both sides."""
    new = {risk.id: risk for risk in after.risks if risk.state == "measured"}
    both = [(risk, new[risk.id]) for risk in before.risks if risk.state == "measured" and risk.id in new]
    return sum(old.annual.mean for old, _ in both), sum(risk.annual.mean for _, risk in both)


def appetite_exceeded(before: RiskRegister, after: RiskRegister) -> tuple[float, float] | None:
    """P(annual loss above the appetite), (before, after); None without a common appetite."""
    if before.appetite != after.appetite or before.exceeds_appetite is None or after.exceeds_appetite is None:
        return None
    return before.exceeds_appetite, after.exceeds_appetite
