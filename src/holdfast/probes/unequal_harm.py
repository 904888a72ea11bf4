"""P-FAIR: whether the model is wrong more often about some groups of people than about all others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import softmax

from holdfast.core.errors import Inconclusive, Unmeasured
from holdfast.core.evidence import Evidence, Metric, Row, Spent
from holdfast.core.oracle import Access
from holdfast.core.probe import Budget, Work
from holdfast.core.progress import Progress
from holdfast.core.statistics import rate
from holdfast.core.target import Dataset, Target
from holdfast.fairness.gaps import ERROR, PERMUTATIONS, Gap, Gaps, measure_gaps
from holdfast.fairness.groups import SMALLEST
from holdfast.probes.footing import copies, distinct, require_steady, tied

SHOWN = 30
"""Groups whose gaps the evidence lists at most, largest error gaps first."""


class UnequalHarm:
    """Compares groups on the holdout rows.

    A row of the evidence is a holdout row of the worst-off group, and success means that the model is wrong about that
    person. What the others suffer counts as chance, so that only the difference is the group's harm; where the difference is
    not beyond chance, the group's own rate counts as chance and nothing is left. Copies of a row count once.
    """

    id = "P-FAIR"
    threats: tuple[str, ...] = ("T-ETH-01",)
    access = "offline"

    def check(self, target: Target) -> None:
        """Needs the columns that tell groups apart."""
        if target.holdout.groups is None or not target.holdout.groups.shape[1]:
            raise Unmeasured(
                "no columns that tell groups of people apart were named", hint="Add groups: [...] to the holdout data."
            )
        if (rows := distinct(target.holdout.x)) < 2 * SMALLEST:
            raise Unmeasured(f"{rows} distinct holdout rows are too few to compare groups; {2 * SMALLEST} are needed")

    def work(self, target: Target, budget: Budget) -> Work:  # noqa: ARG002
        """One pass over the holdout rows, and the permutations."""
        return Work(predictions=2 * len(target.holdout), seconds=0.2 + 2e-8 * PERMUTATIONS * len(target.holdout) * 20)

    def run(self, target: Target, budget: Budget, seed: int, progress: Progress) -> Evidence:  # noqa: ARG002
        """Compare every group with all others."""
        self.check(target)
        data = tied(target.holdout)
        assert data.groups is not None
        predicted = np.asarray(target.model.labels(data.x), dtype=np.int64)
        if len(np.unique(predicted)) < 2:
            raise Inconclusive(
                "the model gives every holdout row the same answer, so that no difference between groups is its doing"
            )
        require_steady(target.model, data, seed)
        scores = np.asarray(target.model.scores(data.x), dtype=float) if target.model.access >= Access.SCORES else None
        if scores is not None and np.isnan(scores).any():
            raise Inconclusive("the model answered NaN")
        probabilities = None if scores is None else softmax(scores, axis=1)
        gaps = measure_gaps(
            data.y,
            predicted,
            data.groups,
            data.classes,
            probabilities=probabilities,
            clusters=data.clusters,
            copies=copies(data.x),
            seed=seed,
        )
        worst = gaps.worst
        if worst is None or worst.inside is None or worst.outside is None:
            raise Inconclusive(f"no group has {SMALLEST} distinct rows inside and outside; that is too few to tell, not fair")
        harm = gaps.harm_beyond_chance
        chance = worst.outside.value if harm else max(worst.outside.value, worst.inside.value)
        progress.advance("groups", 1, 1)
        return Evidence(
            probe=self.id,
            threats=self.threats,
            status="measured",
            reason=_summary(gaps, worst, harm),
            rows=tuple(_rows(data, gaps.members[worst.group], predicted, seed)),
            subject=worst.group,
            chance=float(chance),
            strength="exact",
            method=f"{len(gaps.members)} groups and crossings of two columns against all others on {len(data)} holdout rows; "
            f"Holm's correction over {len(gaps.gaps)} comparisons; {PERMUTATIONS} permutations",
            metrics=tuple(_metrics(gaps, data, predicted)),
            findings=tuple(_findings(gaps, target.show_values)),
            spent=Spent(queries=len(data) * (1 if scores is None else 2), calls=1 if scores is None else 2),
            seed=seed,
        )


def _rows(data: Dataset, mask: np.ndarray, predicted: np.ndarray, seed: int) -> Iterator[Row]:
    for place in np.flatnonzero(mask):
        yield Row(
            unit=str(data.ids[place]),
            cluster=None if data.clusters is None else str(data.clusters[place]),
            capability=1.0 if predicted[place] != data.y[place] else None,
            seed=seed,
        )


def _summary(gaps: Gaps, worst: Gap, harm: bool) -> str:
    small = f" {len(gaps.too_few)} groups are too small to tell." if gaps.too_few else ""
    if harm:
        return f"The worst-off group is {worst.group}: {_said(worst)}.{small}"
    return (
        f"No group has an error rate above the others' beyond chance (p = {gaps.overall:.2g} by permutation). That is no "
        f"evidence of equal treatment: the largest gap, of {worst.group}, may reach {100 * worst.high:.1f} points.{small}"
    )


def _said(gap: Gap) -> str:
    if gap.inside is None or gap.outside is None:
        return (
            f"{gap.measure} is off by {100 * gap.gap:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
            f", corrected p = {gap.corrected:.2g}"
        )
    return (
        f"{gap.measure} {gap.inside.value:.1%} against {gap.outside.value:.1%} of all others, {100 * gap.gap:+.1f} points "
        f"[{100 * gap.low:+.1f}, {100 * gap.high:+.1f}], corrected p = {gap.corrected:.2g}"
    )


def _findings(gaps: Gaps, show_values: bool) -> Iterator[str]:
    """The gaps beyond chance; a group so small that its name is almost a person's is named only if the user opted in."""
    beyond = sorted((gap for gap in gaps.gaps if gap.beyond_chance), key=lambda gap: -abs(gap.gap))
    for gap in beyond[:SHOWN]:
        yield f"{gap.group}: {_said(gap)}"
    for name, rows in list(gaps.too_few.items())[:SHOWN] if show_values else ():
        yield f"{name}: {rows} rows are too few to tell"


def _metrics(gaps: Gaps, data: Dataset, predicted: np.ndarray) -> Iterator[Metric]:
    total = rate(predicted != data.y, data.clusters)
    yield Metric(name=ERROR, value=total.value, low=total.low, high=total.high, successes=total.successes, trials=total.trials)
    yield Metric(name="p-value of the largest error gap", value=gaps.overall, unit="probability", note="by permutation")
    worst = gaps.worst
    errors = sorted((gap for gap in gaps.gaps if gap.measure == ERROR), key=lambda gap: (gap is not worst, -gap.gap))[:SHOWN]
    shown = {gap.group for gap in errors}
    for gap in [*errors, *(gap for gap in gaps.gaps if gap.measure != ERROR and gap.group in shown)]:
        note = f"{gap.inside.trials if gap.inside else gaps.members[gap.group].sum()} rows; corrected p = {gap.corrected:.2g}"
        if gap.inside is not None:
            yield Metric(
                name=gap.measure,
                group=gap.group,
                value=gap.inside.value,
                low=gap.inside.low,
                high=gap.inside.high,
                successes=gap.inside.successes,
                trials=gap.inside.trials,
            )
        name = gap.measure if gap.inside is None else f"gap in {gap.measure}"
        yield Metric(
            name=name, group=gap.group, value=gap.gap, low=gap.low, high=gap.high, unit="difference of shares", note=note
        )
