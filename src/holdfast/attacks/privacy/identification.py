"""How well a signal tells members from non-members: the area under its ROC curve, and who it names at a false positive rate.

- A rate is read at a threshold, never interpolated, and the threshold is chosen on non-members who are not judged with it.
- Ties are broken at random, so that signals with few values, as forests give them, neither exceed the rate nor read zero.
- A false positive rate is stated only where the sample resolves it: at least `RESOLVING` expected false positives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from holdfast.core.errors import Inconclusive
from holdfast.core.seeds import generator
from holdfast.core.statistics import CONFIDENCE, Rate, rate

Floats = NDArray[np.float64]
RESOLVING = 10
SIDE = 0.25
"""Of the error allowed, what each end of an identification's interval takes; measured by `benchmarks/intervals.py`."""
RATES = (0.1, 0.01, 0.001)
"""The false positive rates that are stated where the sample resolves them."""


@dataclass(frozen=True, kw_only=True)
class Area:
    """The area under the ROC curve with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Identification:
    """Whom a signal names as members at one nominal false positive rate.

    Attributes:
        nominal: the rate that the thresholds were chosen for.
        named: (members,) which members are named.
        true_positive: over members; the interval is that of the rate at the true threshold of the nominal rate, and so pays
            for the few non-members from whom the threshold was chosen, as does the number of effective trials.
        false_positive: achieved over non-members, none of whom took part in choosing the threshold applied to them.
        p_value: one-sided exact test of equal rates (Fisher), that is of no identification beyond chance.
    """

    nominal: float
    named: NDArray[np.bool_]
    true_positive: Rate
    false_positive: Rate
    p_value: float


def resolved(non_members: int) -> tuple[float, ...]:
    """The rates of `RATES` that this many non-members resolve, largest first."""
    return tuple(nominal for nominal in RATES if nominal * non_members >= RESOLVING - 1e-9)


def area(
    members: Floats,
    others: Floats,
    *,
    clusters: tuple[NDArray[np.str_], NDArray[np.str_]] | None = None,
    confidence: float = CONFIDENCE,
) -> Area:
    """The probability that a member's signal exceeds a non-member's, ties counted half, with its interval.

    Source: DeLong, DeLong and Clarke-Pearson (1988); for clustered rows Obuchowski (1997), which reduces to it when every
    row is a cluster of its own. Where the estimate is 0 or 1 its variance is no guide, and the interval is the exact
    binomial one of the smaller group.

    Args:
        members, others: (m,) and (n,) signals.
        clusters: the cluster of each row of both, such as the patient; None when rows are independent.
        confidence: nominal coverage.
    """
    m, n = len(members), len(others)
    if not m or not n:
        return Area(value=float("nan"), low=0.0, high=1.0)
    ranks = stats.rankdata(np.concatenate([members, others]))
    above = (ranks[:m] - stats.rankdata(members)) / n
    below = 1 - (ranks[m:] - stats.rankdata(others)) / m
    value = float(above.mean())
    if clusters is None:
        clusters = (np.arange(m).astype(str), np.arange(m, m + n).astype(str))
    names, place = np.unique(np.concatenate(clusters), return_inverse=True)
    first = np.bincount(place[:m], weights=above - value, minlength=len(names))
    second = np.bincount(place[m:], weights=below - value, minlength=len(names))
    with_members, with_others = len(np.unique(place[:m])), len(np.unique(place[m:]))
    if with_members < 2 or with_others < 2:
        return Area(value=value, low=0.0, high=1.0)
    variance = float(
        np.sum(first**2) * with_members / (with_members - 1) / m**2
        + np.sum(second**2) * with_others / (with_others - 1) / n**2
        + 2 * np.sum(first * second) * len(names) / (len(names) - 1) / (m * n)
    )
    if value in (0.0, 1.0) or variance <= 0:
        reach = (1 - confidence) / 2
        slack = 1 - reach ** (1 / min(with_members, with_others))
        return Area(value=value, low=max(0.0, value - slack), high=min(1.0, value + slack))
    half = float(stats.norm.ppf((1 + confidence) / 2)) * math.sqrt(variance)
    return Area(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


def identify(
    members: Floats,
    others: Floats,
    nominal: float,
    *,
    seed: int,
    clusters: tuple[NDArray[np.str_], NDArray[np.str_]] | None = None,
    confidence: float = CONFIDENCE,
) -> Identification:
    """Name members at a false positive rate.

    Both groups are halved at random, whole clusters together. Each half is judged by the threshold of the other half's
    non-members, so that nobody takes part in choosing the threshold he is judged by, and everybody is judged.

    Args:
        members, others: (m,) and (n,) signals; higher means member.
        nominal: the false positive rate to keep.
        seed: decides the halves and the tie breaks.
        clusters: as for `area`.
        confidence: nominal coverage of the intervals.

    Raises:
        Inconclusive: a signal is NaN, or the non-members do not resolve the rate.
    """
    if np.isnan(members).any() or np.isnan(others).any():
        raise Inconclusive("the membership signal is NaN", hint="Find the inputs for which the model answers NaN.")
    if nominal * len(others) < RESOLVING - 1e-9:
        raise Inconclusive(f"a false positive rate of {nominal:g} is unresolvable with {len(others)} non-members")
    random = generator(seed, "identify", nominal)
    signals = np.concatenate([members, others])
    is_member = np.arange(len(signals)) < len(members)
    if clusters is None:
        half = np.concatenate([_halves(len(members), random), _halves(len(others), random)])
    else:
        names, place = np.unique(np.concatenate(clusters), return_inverse=True)
        half = _halves(len(names), random)[place]
    draw = random.random(len(signals))
    named = np.zeros(len(signals), dtype=bool)
    for side in (0, 1):
        choosing, judged = ~is_member & (half != side), half == side
        threshold, tie = threshold_at(signals[choosing], draw[choosing], nominal)
        named[judged] = (signals[judged] > threshold) | ((signals[judged] == threshold) & (draw[judged] > tie))
    hit = rate(named[is_member], clusters and clusters[0], confidence)
    miss = rate(named[~is_member], clusters and clusters[1], confidence)
    low, high = _threshold_aware(signals, draw, is_member, nominal, (hit, miss), confidence)
    return Identification(
        nominal=nominal,
        named=named[is_member],
        true_positive=replace(hit, low=low, high=high, effective_trials=_worth(hit, low, high, confidence)),
        false_positive=miss,
        p_value=_exceeds(hit, miss),
    )


def _threshold_aware(
    signals: Floats,
    draw: Floats,
    is_member: NDArray[np.bool_],
    nominal: float,
    seen: tuple[Rate, Rate],
    confidence: float,
) -> tuple[float, float]:
    """The interval of the true positive rate at the unknown threshold that non-members exceed with probability `nominal`.

    How many non-members exceed that threshold is binomial, whatever the distribution. Each such count has its members above
    and so its exact distribution of the rate; the ends are quantiles of all of them, weighted by the counts' probabilities.
    `SIDE` of the error goes to each end: with half of it, as usual, coverage falls to 93 % where the ROC curve bends right at
    the nominal rate.
    """
    hit, miss = seen
    side = (1 - confidence) * SIDE
    copies, scale = miss.trials / miss.effective_trials, hit.effective_trials / hit.trials
    independent = max(1, math.floor(miss.effective_trials))
    fewest, most = (int(stats.binom.ppf(tail, independent, nominal)) for tail in (side * 1e-4, 1 - side * 1e-4))
    above = np.arange(fewest, most + 1)
    weight = stats.binom.pmf(above, independent, nominal)
    weight /= weight.sum()
    order = np.lexsort((-draw, -signals))
    ranked = np.flatnonzero(~is_member[order])
    members = np.concatenate([[0], np.cumsum(is_member[order])[ranked], [hit.trials]])
    last = len(members) - 1
    strict = members[np.minimum(np.floor(above * copies).astype(int), last)] * scale
    lenient = members[np.minimum(np.ceil((above + 1) * copies).astype(int), last)] * scale
    n = hit.effective_trials

    def below(p: float) -> float:
        return float(weight @ np.where(strict > 0, special.betainc(np.maximum(strict, 1e-300), n - strict + 1, p), 1.0))

    def beyond(p: float) -> float:
        return float(weight @ np.where(lenient < n, special.betaincc(lenient + 1, np.maximum(n - lenient, 1e-300), p), 1.0))

    low = optimize.brentq(lambda p: below(p) - side, 0, 1) if below(0.0) < side else 0.0
    high = optimize.brentq(lambda p: beyond(p) - side, 0, 1) if beyond(1.0) < side else 1.0
    return min(float(low), hit.value), max(float(high), hit.value)


def _worth(hit: Rate, low: float, high: float, confidence: float) -> float:
    """How many independent trials with a known threshold would tell the rate as well, by the width of the interval."""
    middle = np.clip(hit.value, low, high) if 0 < hit.value < 1 else (low + high) / 2
    reach = 2 * float(stats.norm.ppf((1 + confidence) / 2)) / max(high - low, 1e-12)
    return float(np.clip(middle * (1 - middle) * reach**2, 1.0, hit.effective_trials))


def threshold_at(others: Floats, draws: Floats, nominal: float) -> tuple[float, float]:
    """The (signal, draw) above which a fresh non-member lies with a probability of at most `nominal`.

    Ties between signals are broken by a uniform draw each, so the pairs are distinct, and a fresh one exceeds the j-th
    largest of n with probability exactly j / (n + 1).

    Source: Vovk, Gammerman and Shafer (2005), section 2.2 (smoothed conformal predictors).
    """
    rank = math.floor(nominal * (len(others) + 1) + 1e-9)
    if rank < 1:
        return math.inf, 1.0
    order = np.lexsort((draws, others))
    place = order[max(0, len(others) - rank)]
    return float(others[place]), float(draws[place])


def strict(members: Floats, others: Floats, nominal: float) -> Rate:
    """What a threshold that excludes its own ties would read on members, for comparison: zero where signals are tied."""
    allowed = math.floor(nominal * len(others) + 1e-9)
    threshold = np.sort(others)[::-1][min(allowed, len(others) - 1)]
    return rate(members > threshold)


def _halves(count: int, random: np.random.Generator) -> NDArray[np.int64]:
    return random.permutation(np.arange(count, dtype=np.int64) % 2)


def _exceeds(hit: Rate, miss: Rate) -> float:
    """One-sided exact p-value of equal rates, on counts reduced by the design effect."""
    table = []
    for seen in (hit, miss):
        trials = max(1, math.floor(seen.effective_trials))
        successes = min(trials, round(seen.value * trials))
        table.append([successes, trials - successes])
    return float(stats.fisher_exact(np.array(table), alternative="greater").pvalue)
