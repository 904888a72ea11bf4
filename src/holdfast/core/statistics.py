"""Intervals and comparisons for success counts.

Shown intervals are exact (Clopper and Pearson 1934); intervals inside the Monte Carlo are Jeffreys' (Brown, Cai and
DasGupta 2001). Rows that come in clusters, such as several inputs of one patient, are corrected by the design effect
(Kish 1965) with the ANOVA estimate of the intra-cluster correlation (Donner and Klar 2000) and, because that estimate is
itself uncertain with few clusters, by the t quantile of Korn and Graubard (1998). Before and after a change the same rows
are compared as discordant pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import betaincinv

from holdfast.core.errors import InvalidData

Effect = Literal["helps", "harms", "no evidence of help"]
CONFIDENCE = 0.95
FEWEST_SHOWING = 5
"""Clusters that must show the rarer outcome before the intra-cluster correlation is estimated from them."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of successes with its interval.

    Attributes:
        successes, trials: what was counted.
        value: successes / trials, or NaN when nothing was tried.
        low, high: the interval, in [0, 1].
        effective_trials: how many independent rows carry as much information; `trials` when rows are independent.
    """

    successes: int
    trials: int
    value: float
    low: float
    high: float
    effective_trials: float


def clopper_pearson(successes: float, trials: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval for a binomial share; fractional counts, from a design effect, are allowed.

    Source: Clopper and Pearson (1934), by the beta quantiles.
    """
    _check_counts(successes, trials)
    if trials == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1 - tail))
    return low, high


def jeffreys(successes: float, trials: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Jeffreys' interval, Beta(k + 1/2, n - k + 1/2), with the ends 0 and 1 where k is 0 or n.

    Source: Brown, Cai and DasGupta (2001), section 4.3.
    """
    _check_counts(successes, trials)
    if trials == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    won, lost = successes + 0.5, trials - successes + 0.5
    low = 0.0 if successes == 0 else float(betaincinv(won, lost, tail))
    high = 1.0 if successes == trials else float(betaincinv(won, lost, 1 - tail))
    return low, high


def wilson(successes: float, trials: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval, the one the robustness literature prints.

    Source: Wilson (1927); Brown, Cai and DasGupta (2001), equation 4.
    """
    _check_counts(successes, trials)
    if trials == 0:
        return 0.0, 1.0
    z = float(stats.norm.ppf((1 + confidence) / 2))
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def difference(successes: float, trials: float, other_successes: float, other_trials: float) -> tuple[float, float]:
    """The 95 % interval of the difference between two independent shares, first minus second.

    Source: Newcombe (1998), "Interval estimation for the difference between independent proportions", method 10.
    """
    low, high = wilson(successes, trials)
    other_low, other_high = wilson(other_successes, other_trials)
    if not trials or not other_trials:
        return -1.0, 1.0
    first, second = successes / trials, other_successes / other_trials
    gap = first - second
    return (
        gap - float(np.hypot(first - low, other_high - second)),
        gap + float(np.hypot(high - first, second - other_low)),
    )


def intra_cluster_correlation(success: ArrayLike, cluster: ArrayLike) -> float:
    """The ANOVA estimate of the intra-cluster correlation, in [0, 1].

    With no success or only successes the data cannot show it; it is then 1, the careful choice.
    """
    outcome = np.asarray(success, dtype=float)
    _, member = np.unique(np.asarray(cluster), return_inverse=True)
    sizes = np.bincount(member)
    clusters, rows = len(sizes), len(outcome)
    if outcome.min(initial=1) == outcome.max(initial=0) or clusters < 2 or clusters == rows:
        return 0.0 if clusters == rows else 1.0
    means = np.bincount(member, weights=outcome) / sizes
    between = float(np.sum(sizes * (means - outcome.mean()) ** 2) / (clusters - 1))
    within = float(np.sum((outcome - means[member]) ** 2) / (rows - clusters))
    typical = (rows - float(np.sum(sizes**2)) / rows) / (clusters - 1)
    total = between + (typical - 1) * within
    return float(np.clip((between - within) / total, 0.0, 1.0)) if total > 0 else 1.0


def rate(success: ArrayLike, cluster: ArrayLike | None = None, confidence: float = CONFIDENCE) -> Rate:
    """The share of successes with its exact interval, widened by the design effect when rows are clustered.

    Source: Korn and Graubard (1998), "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data", for the interval at the effective sample size.

    Args:
        success: (n,) booleans.
        cluster: (n,) labels of the unit each row belongs to; None when rows are independent.
        confidence: the nominal coverage.
    """
    outcome = np.asarray(success, dtype=bool)
    trials, successes = len(outcome), int(outcome.sum())
    effective = float(trials)
    if cluster is not None and trials:
        effective = effective_trials(outcome, np.asarray(cluster), confidence)
    scale = effective / trials if trials else 1.0
    low, high = clopper_pearson(min(successes * scale, effective), effective, confidence)
    value = successes / trials if trials else float("nan")
    return Rate(successes=successes, trials=trials, value=value, low=low, high=high, effective_trials=effective)


def effect(low: float, high: float) -> Effect:
    """What an interval of a difference in attack success, before minus after, shows: by whether it excludes zero."""
    if low > 0:
        return "helps"
    return "harms" if high < 0 else "no evidence of help"


@dataclass(frozen=True, kw_only=True)
class PairedChange:
    """What a change did to the same rows.

    Attributes:
        fixed: rows that failed before and hold after.
        broken: rows that held before and fail after.
        trials: rows compared.
        probability_helps: P(fixed > broken among discordant rows), Beta(fixed + 1/2, broken + 1/2) above 1/2.
        difference: success rate before minus after; positive means the attack got weaker.
        low, high: the 95 % interval of the difference.
    """

    fixed: int
    broken: int
    trials: int
    probability_helps: float
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> Effect:
        """The effect that the interval shows."""
        return effect(self.low, self.high)


def paired_change(
    before: ArrayLike, after: ArrayLike, cluster: ArrayLike | None = None, confidence: float = CONFIDENCE
) -> PairedChange:
    """Compare attack success on the same rows and seeds before and after a change.

    The interval is Tango's score interval, which keeps its coverage with small samples and few discordant rows. Clustered
    rows count as their effective number of rows.

    Source: Tango (1998), "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", section 3.

    Args:
        before, after: (n,) booleans, success of the attack on each row.
        cluster: (n,) labels of the unit each row belongs to; None when rows are independent.
        confidence: the nominal coverage.

    Raises:
        InvalidData: the two do not describe the same number of rows.
    """
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if first.shape != second.shape or first.ndim != 1:
        raise InvalidData(f"paired comparison of {first.shape} with {second.shape} rows")
    trials = len(first)
    fixed, broken = int((first & ~second).sum()), int((~first & second).sum())
    effective = float(trials)
    if cluster is not None and trials:
        effective = effective_trials(first.astype(float) - second.astype(float), np.asarray(cluster), confidence)
    scale = effective / trials if trials else 1.0
    won, lost = min(fixed * scale, effective), min(broken * scale, effective)
    low, high = _tango(won, lost, effective, confidence)
    helps = float(stats.beta.sf(0.5, won + 0.5, lost + 0.5))
    difference = (fixed - broken) / trials if trials else 0.0
    return PairedChange(
        fixed=fixed, broken=broken, trials=trials, probability_helps=helps, difference=difference, low=low, high=high
    )


def _tango(fixed: float, broken: float, trials: float, confidence: float) -> tuple[float, float]:
    """The differences that the score test does not reject, found by bisection: the statistic falls as the difference rises."""
    if trials <= 0:
        return -1.0, 1.0
    z = float(stats.norm.ppf((1 + confidence) / 2))
    centre = (fixed - broken) / trials

    def statistic(difference: float) -> float:
        b = (2 * trials - fixed + broken) * difference - fixed - broken
        c = -broken * difference * (1 - difference)
        share = (np.sqrt(max(b * b - 8 * trials * c, 0.0)) - b) / (4 * trials)
        variance = trials * (2 * share + difference * (1 - difference))
        distance = fixed - broken - trials * difference
        return float(distance / np.sqrt(variance)) if variance > 0 else float(np.sign(distance) * np.inf) if distance else 0.0

    ends = []
    for outside, sign in ((-1.0, 1.0), (1.0, -1.0)):
        kept, refused = centre, outside
        for _ in range(60):
            middle = (kept + refused) / 2
            if sign * statistic(middle) < z:
                kept = middle
            else:
                refused = middle
        ends.append(kept)
    return ends[0], ends[1]


def effective_trials(outcome: ArrayLike, cluster: ArrayLike, confidence: float = CONFIDENCE) -> float:
    """How many independent rows say as much about a mean as these clustered ones.

    The rows divided by the design effect, times (t_rows / t_clusters)^2 to pay for a design effect that was estimated from
    few clusters. Where fewer than `FEWEST_SHOWING` clusters show anything but the commonest outcome, the data cannot tell
    the correlation; the design effect is then the careful one, of clusters whose rows are all alike, and needs no payment.

    Source: Kish (1965) for unequal sizes, sum(m^2) / sum(m); Korn and Graubard (1998), equation 4.

    Args:
        outcome: (n,) booleans or numbers.
        cluster: (n,) labels of the unit each row belongs to.
        confidence: of the interval that it is for.
    """
    values, member = np.asarray(outcome, dtype=float), np.asarray(cluster)
    rows = len(values)
    sizes = np.unique(member, return_counts=True)[1]
    clusters = len(sizes)
    if rows == 0 or clusters == rows:
        return float(rows)
    typical = float(np.sum(sizes**2)) / rows
    outcomes, counts = np.unique(values, return_counts=True)
    if len(np.unique(member[values != outcomes[counts.argmax()]])) < FEWEST_SHOWING:
        return rows / typical
    effect = max(1.0, 1 + (typical - 1) * intra_cluster_correlation(values, member))
    tail = (1 + confidence) / 2
    payment = float(stats.t.ppf(tail, rows - 1) / stats.t.ppf(tail, clusters - 1)) ** 2
    return rows / effect * payment


def _check_counts(successes: float, trials: float) -> None:
    if not 0 <= successes <= trials:
        raise InvalidData(f"{successes} successes in {trials} trials")
