"""Interval honesty: how often nominal 95 % intervals contain the truth, beside the bootstrap that others print.

Coverage over independent rows is an exact sum over all outcomes; the bootstrap's ends are binomial quantiles, the limit of
ever more resamples. Clustered rows are simulated: beta-binomial clusters with an intra-cluster correlation of 0.7.

    python -m benchmarks.intervals [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.recording import Recorder
from holdfast.attacks.privacy.identification import identify
from holdfast.core.statistics import clopper_pearson, jeffreys, paired_change, rate, wilson

Curve = Callable[[np.random.Generator, int], tuple[NDArray[np.float64], float]]
SHARES = (0.005, 0.01, 0.05, 0.1, 0.3, 0.5)
CLUSTERED_SHARES = (0.02, 0.05, 0.1, 0.3, 0.5)
ICC = 0.7
DESIGNS = {
    "50 x 5": lambda _: np.full(50, 5),
    "50 x 1-11": lambda draw: draw.integers(1, 12, 50),
    "20 x 10": lambda _: np.full(20, 10),
    "10 x 5": lambda _: np.full(10, 5),
    "20 x 50": lambda _: np.full(20, 50),
    "30 x 20": lambda _: np.full(30, 20),
}
PAIRED = ((0.1, 0.05), (0.02, 0.01), (0.3, 0.3), (0.15, 0.0), (0.05, 0.0))

NOMINAL = 0.01


def _shifted(by: float) -> Curve:
    """Members' signals normal, moved by so many standard deviations; given as the others' ranks, which are uniform."""
    return lambda random, m: (stats.norm.cdf(random.normal(by, 1, m)), float(stats.norm.sf(stats.norm.isf(NOMINAL) - by)))


def _bent(low: float, high: float) -> Curve:
    """Three in ten members, evenly, between two false positive rates, and the others as non-members."""

    def draw(random: np.random.Generator, m: int) -> tuple[NDArray[np.float64], float]:
        u, leaking = random.random(m), random.random(m) < 0.3
        inside = np.clip((NOMINAL - low) / (high - low), 0, 1)
        return 1 - np.where(leaking, low + u * (high - low), u), float(0.3 * inside + 0.7 * NOMINAL)

    return draw


CURVES: dict[str, Curve] = {
    "no leak": _shifted(0),
    "normal, 0.5 sd": _shifted(0.5),
    "normal, 2 sd": _shifted(2),
    "bent at the rate from below": _bent(0, NOMINAL),
    "bent at the rate from above": _bent(NOMINAL, 1.5 * NOMINAL),
    "a step across the rate": _bent(0.98 * NOMINAL, 1.02 * NOMINAL),
}


def main(argv: list[str] | None = None) -> int:
    """Print the tables and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="not used: everything is computed")
    parser.add_argument("--quick", action="store_true", help="fewer simulated tables")
    quick = parser.parse_args(argv).quick
    recorder = Recorder("intervals", ("numpy", "scipy"))
    started = time.process_time()
    _independent(recorder)
    _clustered(recorder, 200 if quick else 2000)
    _paired(recorder)
    _identification(recorder, 200 if quick else 1000)
    print(f"\n{time.process_time() - started:.1f} CPU-seconds")
    return recorder.write()


def _independent(recorder: Recorder) -> None:
    print("Coverage of nominal 95 % intervals, independent rows (exact sums)")
    print(f"{'n':>4} {'p':>6} {'shown':>8} {'Jeffreys':>9} {'Wilson':>8} {'bootstrap':>10}")
    for n in (40, 256):
        shown = [rate(np.arange(n) < k) for k in range(n + 1)]
        ends = {
            "shown": [(one.low, one.high) for one in shown],
            "Jeffreys": [jeffreys(k, n) for k in range(n + 1)],
            "Wilson": [wilson(k, n) for k in range(n + 1)],
            "bootstrap": [_bootstrap(k, n) for k in range(n + 1)],
        }
        for p in SHARES:
            weight = stats.binom.pmf(np.arange(n + 1), n, p)
            found = {name: _covered(np.array(pairs), weight, p) for name, pairs in ends.items()}
            print(f"{n:4} {p:6} " + " ".join(f"{value:9.4f}" for value in found.values()))
            recorder.at_least("loop-1", f"exact coverage of the shown 95 % interval, n = {n}, p = {p}", found["shown"], 0.95)


def _bootstrap(k: int, n: int) -> tuple[float, float]:
    low, high = stats.binom.ppf((0.025, 0.975), n, k / n) / n
    return float(low), float(high)


def _covered(pairs: NDArray[np.float64], weight: NDArray[np.float64], p: float) -> float:
    return float(np.sum(weight * ((pairs[:, 0] <= p) & (p <= pairs[:, 1]))))


def _clustered(recorder: Recorder, runs: int) -> None:
    print(f"\nCoverage of nominal 95 % intervals, clustered rows (ICC {ICC}, {runs} simulated tables each)")
    print(f"{'clusters':>10} {'p':>5} {'shown':>8} {'rows as':>9} {'cluster':>10}")
    print(f"{'x size':>10} {'':>5} {'':>8} {'iid boot.':>9} {'bootstrap':>10}")
    for name, sizes in DESIGNS.items():
        for p in CLUSTERED_SHARES:
            draw = np.random.default_rng(20)
            hits = np.zeros(3)
            for _ in range(runs):
                member = np.repeat(np.arange(len(size := sizes(draw))), size)
                chance = draw.beta(p * (1 - ICC) / ICC, (1 - p) * (1 - ICC) / ICC, len(size))
                outcome = draw.random(len(member)) < chance[member]
                shown = rate(outcome, member)
                by_rows = _bootstrap(int(outcome.sum()), len(outcome))
                ends = [(shown.low, shown.high), by_rows, _cluster_bootstrap(outcome, member, draw)]
                hits += [low <= p <= high for low, high in ends]
            shares = hits / runs
            print(f"{name:>10} {p:5} " + " ".join(f"{value:9.3f}" for value in shares))
            recorder.at_least("loop-1", f"coverage with clustered rows, {name}, ICC {ICC}, p = {p}", float(shares[0]), 0.90)


def _cluster_bootstrap(outcome: NDArray[np.bool_], member: NDArray[np.int64], draw: np.random.Generator) -> tuple[float, float]:
    """Percentile ends of 400 resamples of whole clusters."""
    won, size = np.bincount(member, weights=outcome), np.bincount(member)
    picked = draw.integers(0, len(size), (400, len(size)))
    low, high = np.quantile(won[picked].sum(axis=1) / size[picked].sum(axis=1), (0.025, 0.975))
    return float(low), float(high)


def _paired(recorder: Recorder) -> None:
    print("\nCoverage of nominal 95 % intervals for a paired change (exact sums)")
    print(f"{'n':>4} {'fixed':>6} {'broken':>7} {'shown':>8} {'Wald':>8}")
    for n in (20, 60):
        for fixed, broken in PAIRED:
            shown, wald = _paired_coverage(n, fixed, broken)
            print(f"{n:4} {fixed:6} {broken:7} {shown:8.4f} {wald:8.4f}")
            name = f"exact coverage of the paired interval, n = {n}, fixed {fixed}, broken {broken}"
            recorder.at_least("loop-1", name, shown, 0.93)


def _paired_coverage(n: int, fixed: float, broken: float) -> tuple[float, float]:
    row, truth = np.arange(n), fixed - broken
    shown = wald = 0.0
    for b in range(n + 1):
        for c in range(n - b + 1):
            weight = float(stats.multinomial.pmf([b, c, n - b - c], n, [fixed, broken, 1 - fixed - broken]))
            if weight < 1e-7:
                continue
            change = paired_change(row < b, (row >= b) & (row < b + c))
            shown += weight * (change.low <= truth <= change.high)
            half = 1.959964 * np.sqrt(b + c - (b - c) ** 2 / n) / n
            wald += weight * (abs((b - c) / n - truth) <= half + 1e-12)
    return shown, wald


def _identification(recorder: Recorder, runs: int) -> None:
    print(f"\nCoverage of the membership attack's interval of TPR at 1 % FPR ({runs} simulated attacks each)")
    print(f"{'members':>8} {'others':>7}  {'ROC curve':>26} {'truth':>7} {'shown':>7} {'known':>7} {'width':>7}")
    print(f"{'':>8} {'':>7}  {'':>26} {'':>7} {'':>7} {'thresh.':>7}")
    for members, others in ((300, 1000), (1000, 1000), (6000, 6000)):
        for curve, draw in CURVES.items():
            random = np.random.default_rng(21)
            covered, naive, width = 0, 0, 0.0
            for run in range(runs):
                inside, truth = draw(random, members)
                found = identify(inside, random.random(others), NOMINAL, seed=run).true_positive
                low, high = clopper_pearson(found.successes, found.trials)
                covered += found.low <= truth <= found.high
                naive += low <= truth <= high
                width += (found.high - found.low) / runs
            print(
                f"{members:8} {others:7}  {curve:>26} {truth:7.4f} {covered / runs:7.3f} {naive / runs:7.3f} {width:7.4f}",
                flush=True,
            )
            name = f"simulated coverage, TPR at 1 % FPR, {members} members, {others} others, {curve}"
            recorder.at_least("loop-1", name, covered / runs, 0.95)


if __name__ == "__main__":
    raise SystemExit(main())
