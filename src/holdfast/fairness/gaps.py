"""How unequally a model treats groups of people: each group against all others, with intervals, and against chance.

- error rate, and for each class that may be chosen: selection rate, true and false positive rate, and calibration;
- shares with exact intervals, gaps with Newcombe's; clustered rows count as their effective number;
- p-values are corrected by Holm over all comparisons; whether any error gap is beyond chance at all is asked of
  permutations that deal the group memberships anew, whole clusters at a time.

A group that is too small is too few to tell, which is not fair treatment. Sources: Holm (1979); Westfall and Young (1993)
for the largest statistic over permutations; Hardt, Price and Srebro (2016) for the measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from holdfast.core.seeds import generator
from holdfast.core.statistics import CONFIDENCE, Rate, difference, effective_trials, rate
from holdfast.fairness.groups import SMALLEST, count_distinct, find_groups

ERROR = "error rate"
PERMUTATIONS = 999
MOST_SELECTED = 4
"""Classes up to which selection is looked at for each; for two classes it is that of the second."""
ALPHA = 1 - CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Gap:
    """One measure of one group against all others.

    Attributes:
        group, measure: whose, and what.
        inside, outside: the group's share and that of all others; None for calibration.
        gap, low, high: inside minus outside with its 95 % interval; for calibration the group's mean score minus its observed
            share.
        chance: the two-sided p-value.
        corrected: the p-value after Holm's correction over all gaps.
    """

    group: str
    measure: str
    inside: Rate | None = None
    outside: Rate | None = None
    gap: float
    low: float
    high: float
    chance: float
    corrected: float = 1.0

    @property
    def beyond_chance(self) -> bool:
        """Whether the corrected p-value is below 5 %."""
        return self.corrected < ALPHA


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """All gaps.

    Attributes:
        gaps: of every group and measure.
        members: (n,) masks by group.
        too_few: rows of the groups that are too small, by name.
        overall: p-value that the largest error gap is chance, by permutation.
    """

    gaps: tuple[Gap, ...]
    members: Mapping[str, NDArray[np.bool_]]
    too_few: Mapping[str, int]
    overall: float

    @property
    def worst(self) -> Gap | None:
        """The largest error gap to a group's disadvantage, those beyond chance first; None without groups."""
        errors = [gap for gap in self.gaps if gap.measure == ERROR]
        return max(errors, key=lambda gap: (gap.beyond_chance and gap.gap > 0, gap.gap), default=None)

    @property
    def harm_beyond_chance(self) -> bool:
        """Whether some group has more errors than the others by more than chance."""
        worst = self.worst
        return worst is not None and worst.gap > 0 and worst.beyond_chance and self.overall < ALPHA


def measure_gaps(
    y: NDArray[np.int64],
    predicted: NDArray[np.int64],
    groups: pd.DataFrame,
    classes: tuple[str, ...],
    *,
    probabilities: NDArray[np.float64] | None = None,
    clusters: NDArray[np.str_] | None = None,
    copies: NDArray[np.int64] | None = None,
    seed: int = 0,
    smallest: int = SMALLEST,
) -> Gaps:
    """Compare every group, and every crossing of two group columns, with all others.

    Args:
        y, predicted: (n,) class indices.
        groups: (n, g) the columns by which groups are told apart.
        classes: the class names.
        probabilities: (n, k) for calibration; None without.
        clusters: (n,) what correlated rows share.
        copies: (n,) what copies of a row share; they count once among the rows that a group must have. None without copies.
        seed: of the permutations.
        smallest: rows that a group, and all others, must have.
    """
    copies = np.arange(len(y)) if copies is None else copies
    grouping = find_groups(groups, smallest, copies)
    wrong = predicted != y
    together = None if clusters is None else np.unique(clusters, return_inverse=True)[1]
    gaps = []
    for name, mask in grouping.members.items():
        gaps.append(_share_gap(name, ERROR, wrong, mask, np.ones(len(y), dtype=bool), together))
        for label in _selectable(classes):
            gaps.extend(_selection_gaps(name, mask, y, predicted, label, classes[label], together, copies, smallest))
            if probabilities is not None:
                gaps.append(_calibration_gap(name, mask, y, probabilities[:, label], label, classes[label], together))
    corrected = _holm([gap.chance for gap in gaps])
    return Gaps(
        gaps=tuple(replace(gap, corrected=value) for gap, value in zip(gaps, corrected, strict=True)),
        members=grouping.members,
        too_few=grouping.too_few,
        overall=_permutation(wrong, grouping.members, np.arange(len(y)) if together is None else together, seed),
    )


def _selectable(classes: tuple[str, ...]) -> range:
    if len(classes) == 2:
        return range(1, 2)
    return range(len(classes)) if len(classes) <= MOST_SELECTED else range(0)


def _selection_gaps(
    name: str,
    mask: NDArray[np.bool_],
    y: NDArray[np.int64],
    predicted: NDArray[np.int64],
    label: int,
    class_name: str,
    clusters: NDArray[np.int64] | None,
    copies: NDArray[np.int64],
    smallest: int,
) -> Iterator[Gap]:
    selected = predicted == label
    everyone = np.ones(len(y), dtype=bool)
    for measure, among in (("selection rate", everyone), ("true positive rate", y == label), ("false positive rate", y != label)):
        if min(count_distinct(copies[among & mask]), count_distinct(copies[among & ~mask])) >= smallest:
            yield _share_gap(name, f"{measure} of {class_name}", selected, mask, among, clusters)


def _share_gap(
    name: str,
    measure: str,
    outcome: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    among: NDArray[np.bool_],
    clusters: NDArray[np.int64] | None,
) -> Gap:
    sides = [among & mask, among & ~mask]
    inside, outside = (rate(outcome[side], None if clusters is None else clusters[side]) for side in sides)
    low, high = difference(
        inside.value * inside.effective_trials,
        inside.effective_trials,
        outside.value * outside.effective_trials,
        outside.effective_trials,
    )
    return Gap(
        group=name,
        measure=measure,
        inside=inside,
        outside=outside,
        gap=inside.value - outside.value,
        low=low,
        high=high,
        chance=_chance(inside, outside, exact=clusters is None),
    )


def _chance(inside: Rate, outside: Rate, exact: bool) -> float:
    """Two-sided p-value of equal shares: Fisher's exact test, or the score test on effective counts."""
    if exact:
        table = np.array([[one.successes, one.trials - one.successes] for one in (inside, outside)])
        return float(stats.fisher_exact(table).pvalue)
    first, second = inside.effective_trials, outside.effective_trials
    pooled = (inside.value * first + outside.value * second) / (first + second)
    error = np.sqrt(pooled * (1 - pooled) * (1 / first + 1 / second))
    return 1.0 if error == 0 else float(2 * stats.norm.sf(abs(inside.value - outside.value) / error))


def _calibration_gap(
    name: str,
    mask: NDArray[np.bool_],
    y: NDArray[np.int64],
    scores: NDArray[np.float64],
    label: int,
    class_name: str,
    clusters: NDArray[np.int64] | None,
) -> Gap:
    """Mean score minus observed share inside the group, by Student's t on the effective number of rows."""
    off = scores[mask] - (y[mask] == label)
    rows = len(off) if clusters is None else effective_trials(off, clusters[mask])
    error = float(off.std(ddof=1) / np.sqrt(rows)) if len(off) > 1 else np.inf
    freedom = max(rows - 1, 1.0)
    half = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * error
    mean = float(off.mean())
    chance = 1.0 if error == 0 and mean == 0 else 0.0 if error == 0 else float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Gap(
        group=name,
        measure=f"calibration of {class_name}",
        gap=mean,
        low=max(-1.0, mean - half),
        high=min(1.0, mean + half),
        chance=chance,
    )


def _holm(chances: list[float]) -> list[float]:
    """Holm's step-down correction."""
    order = np.argsort(chances, kind="stable")
    corrected = np.ones(len(chances))
    largest = 0.0
    for step, place in enumerate(order):
        largest = max(largest, min(1.0, chances[place] * (len(chances) - step)))
        corrected[place] = largest
    return [float(value) for value in corrected]


def _permutation(
    wrong: NDArray[np.bool_],
    members: Mapping[str, NDArray[np.bool_]],
    clusters: NDArray[np.int64],
    seed: int,
) -> float:
    """P(the largest standardised excess of errors over all groups is at least the observed one) when groups do not matter.

    Clusters keep their rows and errors and are dealt each other's group memberships, so that rows of one cluster stay
    together whatever its size. Clusters of other sizes are dealt their memberships in the same proportions.
    """
    if not members or wrong.all() or not wrong.any():
        return 1.0
    draw = generator(seed, "permutations")
    order = np.lexsort((draw.random(len(wrong)), clusters))
    outcome, member = wrong[order].astype(float), clusters[order]
    profiles, profile = np.unique(np.array(list(members.values()))[:, order].T, axis=0, return_inverse=True)
    belongs = profiles.astype(float)
    sizes = np.bincount(member)
    starts = np.cumsum(sizes) - sizes
    place = np.arange(len(wrong)) - starts[member]

    def largest(dealt: NDArray[np.int64]) -> float:
        inside, hits = (np.bincount(dealt, weights, minlength=len(belongs)) @ belongs for weights in (None, outcome))
        outside, misses = len(wrong) - inside, outcome.sum() - hits
        told = (inside > 0) & (outside > 0)
        inside, hits, outside, misses = (counts[told] for counts in (inside, hits, outside, misses))
        excess = (hits / inside - misses / outside) / np.sqrt(1 / inside + 1 / outside)
        return float(excess.max(initial=-np.inf))

    observed = largest(profile)
    reached = 0
    for _ in range(PERMUTATIONS):
        giver = draw.permutation(len(sizes))
        turn = draw.integers(sizes[giver])
        row = starts[giver][member] + (place + turn[member]) % sizes[giver][member]
        reached += largest(profile[row]) >= observed - 1e-12
    return (1 + reached) / (1 + PERMUTATIONS)
