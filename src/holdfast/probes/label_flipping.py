"""P-POI-FLIP: how many flipped labels it takes to harm the model.

A training run is one unit: the recipe trains a clean twin and, with the same seed, a twin for each share of flipped labels
and each strategy. The capability is the smallest share at which some strategy costs at least two points of accuracy, or of
the mean recall of the classes, on the holdout rows, with a paired interval, corrected for all comparisons of the run, that
excludes no harm. Mean recall counts too because accuracy may rise while a rare class is lost. A further clean twin with
another seed, judged in the same way, shows how often training again does that by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from holdfast.attacks.poisoning.label_flipping import STRATEGIES, Strategy, flip_labels, out_of_fold
from holdfast.core.errors import Inconclusive
from holdfast.core.evidence import Evidence, Metric, Row, Spent, plain_detail
from holdfast.core.oracle import Access, Oracle
from holdfast.core.probe import Budget, Work
from holdfast.core.progress import Progress
from holdfast.core.seeds import derive
from holdfast.core.statistics import CONFIDENCE, paired_change, rate
from holdfast.core.target import Dataset, Target
from holdfast.probes.footing import footing, percent, some, standing, tied

HARM = 0.02
"""Points of accuracy or mean recall lost from which a run counts as harmed."""
SHARES = (0.005, 0.01, 0.03, 0.1, 0.2)
QUICK_SHARES = (0.01, 0.1, 0.2)
FEWEST_TRAINING = 200
FEWEST_ROWS = 200
MOST_JUDGED = 5000
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """Which holdout rows the twins of one run get right.

    Attributes:
        clean, again: (rows,) the clean twin, and one with another seed.
        poisoned: by strategy and share.
    """

    clean: Flags
    again: Flags
    poisoned: dict[tuple[Strategy, float], Flags]


class LabelFlipping:
    """Harm by flipped training labels."""

    id: str = "P-POI-FLIP"
    threats: tuple[str, ...] = ("T-POI-01", "T-POI-08")
    access: str = "training rows"

    def check(self, target: Target) -> None:
        """Training rows and a recipe are needed.

        Raises:
            Unmeasured: one was not given.
        """
        target.require_train()
        target.require_recipe()

    def work(self, target: Target, budget: Budget) -> Work:
        """A training for each share and strategy and two clean ones, in each run."""
        strategies, shares = _scope(budget)
        fits = budget.repeats * (2 + len(strategies) * len(shares))
        return Work(fits=fits, predictions=fits * min(MOST_JUDGED, len(target.holdout)), seconds=3.0)

    def run(self, target: Target, budget: Budget, seed: int, progress: Progress) -> Evidence:
        """Measure.

        Raises:
            Unmeasured: as for `check`.
            Inconclusive: too few rows, one class, or twins that do no better than a constant answer.
        """
        train, recipe = target.require_train(), target.require_recipe()
        footing(target.model, target.holdout, rows=FEWEST_ROWS, seed=seed).require_above_floor()
        if len(train) < FEWEST_TRAINING or len(np.unique(train.y)) < 2:
            raise Inconclusive(f"{len(train)} training rows of {len(np.unique(train.y))} classes; too few to flip shares of")
        judged = tied(some(target.holdout, MOST_JUDGED, seed))
        strategies, shares = _scope(budget)
        confidence = out_of_fold(train, seed=derive(seed, "confidence")) if "confident" in strategies else None
        total, done = budget.repeats * (2 + len(strategies) * len(shares)), 0

        def right(data: Dataset, run_seed: int) -> Flags:
            nonlocal done
            progress.advance("trainings", done, total)
            done += 1
            answers = Oracle(recipe.fit(data, run_seed), Access.LABELS, 0).judge(judged.x)
            return np.asarray(answers == judged.y, dtype=bool)

        runs = []
        for repeat in range(budget.repeats):
            run_seed = derive(seed, "run", repeat) % 2**31
            clean = right(train, run_seed)
            again = right(train, derive(seed, "again", repeat) % 2**31)
            poisoned = {
                (strategy, fraction): right(
                    flip_labels(train, fraction, strategy, seed=derive(seed, "flips", repeat), confidence=confidence), run_seed
                )
                for strategy in strategies
                for fraction in shares
            }
            runs.append(TrainingRun(clean=clean, again=again, poisoned=poisoned))
        progress.advance("trainings", total, total)
        majority = float(np.bincount(judged.y).max() / len(judged))
        clean, repeated = np.concatenate([run.clean for run in runs]), np.tile(judged.y, len(runs))
        standing(clean, repeated, np.tile(_units(judged), len(runs))).require_above_floor()
        rows = tuple(_row(index, run, judged, seed) for index, run in enumerate(runs))
        by_chance = sum(_harm(run.clean, run.again, judged, len(run.poisoned)).proven for run in runs)
        return Evidence(
            probe=self.id,
            threats=self.threats,
            status="measured",
            reason=f"accuracy and mean recall on {len(judged)} holdout rows stand for harm; {len(runs)} training runs",
            axis="poison fraction",
            tested=max(shares),
            rows=rows,
            chance=by_chance / len(runs),
            strength="moderate" if len(strategies) == len(STRATEGIES) else "weak",
            method=(
                f"labels flipped in {', '.join(percent(value) for value in shares)} of {len(train)} training rows "
                f"({', '.join(strategies)}), twins trained with the same seed; success: {100 * HARM:g} points of accuracy "
                "or mean recall lost against the clean twin"
            ),
            metrics=tuple(_metrics(runs, judged, strategies, shares, majority)),
            findings=(_finding(rows, shares),),
            spent=Spent(queries=total * len(judged), calls=total),
        )


def _scope(budget: Budget) -> tuple[tuple[Strategy, ...], tuple[float, ...]]:
    """A quick budget leaves out the smallest steps and the strategy that seldom matters more than `directed`."""
    if budget.level == "quick":
        return ("random", "directed"), QUICK_SHARES
    return STRATEGIES, SHARES


def _units(data: Dataset) -> NDArray[np.str_]:
    return data.ids if data.clusters is None else data.clusters


@dataclass(frozen=True, kw_only=True)
class Harm:
    """What a twin lost against the clean one, in points of accuracy and of mean recall, and whether that is proven harm."""

    accuracy: float
    recall: float
    proven: bool

    @property
    def worst(self) -> float:
        """The larger loss."""
        return max(self.accuracy, self.recall)


def _harm(clean: Flags, poisoned: Flags, judged: Dataset, comparisons: int) -> Harm:
    """Judge a twin; each comparison looks at two losses."""
    confidence = 1 - (1 - CONFIDENCE) / (2 * comparisons)
    accuracy = paired_change(clean, poisoned, judged.clusters, confidence)
    recall, low, _ = recall_lost(clean, poisoned, judged.y, judged.clusters, confidence)
    losses = ((accuracy.difference, accuracy.low), (recall, low))
    proven = any(lost >= HARM - 1e-12 and bound > 0 for lost, bound in losses)
    return Harm(accuracy=accuracy.difference, recall=recall, proven=proven)


def recall_lost(
    clean: Flags, poisoned: Flags, y: NDArray[np.int64], cluster: NDArray[np.str_] | None, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """The paired loss of mean recall over the classes and its interval, by the sandwich over rows or clusters.

    Args:
        clean, poisoned: (n,) whether each twin gets the row right.
        y: (n,) true classes, whose numbers of rows are taken as given.
        cluster: (n,) what rows share; None when they are independent.
        confidence: nominal coverage, by Student's t on the number of clusters.
    """
    _, place, counts = np.unique(y, return_inverse=True, return_counts=True)
    change = clean.astype(float) - poisoned.astype(float)
    means = np.bincount(place, weights=change) / counts
    lost = float(means.mean())
    parts = (change - means[place]) / counts[place] / len(counts)
    _, owner = np.unique(cluster if cluster is not None else np.arange(len(y)), return_inverse=True)
    sums = np.bincount(owner, weights=parts)
    if len(sums) < 2:
        return lost, -1.0, 1.0
    deviation = float(np.sqrt(np.sum(sums**2) * len(sums) / (len(sums) - 1)))
    half = float(stats.t.ppf((1 + confidence) / 2, len(sums) - 1)) * deviation
    return lost, max(-1.0, lost - half), min(1.0, lost + half)


def _row(index: int, run: TrainingRun, judged: Dataset, seed: int) -> Row:
    lost = {key: _harm(run.clean, flags, judged, len(run.poisoned)) for key, flags in run.poisoned.items()}
    harmful = [fraction for (_, fraction), harm in lost.items() if harm.proven]
    worst = max(lost, key=lambda key: lost[key].worst)
    return Row(
        unit=f"training run {index + 1}",
        capability=min(harmful) if harmful else None,
        seed=seed,
        detail=plain_detail(
            {
                "clean accuracy": float(run.clean.mean()),
                "accuracy lost at worst": lost[worst].accuracy,
                "mean recall lost at worst": lost[worst].recall,
                "by": f"{worst[0]} at {percent(worst[1])}",
            }
        ),
    )


def _metrics(
    runs: list[TrainingRun], judged: Dataset, strategies: tuple[Strategy, ...], shares: tuple[float, ...], majority: float
) -> list[Metric]:
    units = np.tile(_units(judged), len(runs))
    clean = np.concatenate([run.clean for run in runs])
    seen = rate(clean, units)
    found = [
        Metric(name="clean accuracy", value=seen.value, low=seen.low, high=seen.high, note=f"over {len(runs)} training runs"),
        Metric(name="share of the commonest class", value=majority),
    ]
    for strategy in strategies:
        for fraction in shares:
            poisoned = np.concatenate([run.poisoned[strategy, fraction] for run in runs])
            change = paired_change(clean, poisoned, units)
            recall = recall_lost(clean, poisoned, np.tile(judged.y, len(runs)), units)
            found.append(
                Metric(
                    name=f"accuracy lost at {percent(fraction)} flipped",
                    value=change.difference,
                    low=change.low,
                    high=change.high,
                    group=f"strategy: {strategy}",
                    note="paired with the clean twins; interval over holdout rows, not corrected",
                )
            )
            found.append(
                Metric(
                    name=f"mean recall lost at {percent(fraction)} flipped",
                    value=recall[0],
                    low=recall[1],
                    high=recall[2],
                    group=f"strategy: {strategy}",
                    note="as for accuracy",
                )
            )
    return found


def _finding(rows: tuple[Row, ...], shares: tuple[float, ...]) -> str:
    reached = [row.capability for row in rows if row.capability is not None]
    if not reached:
        return (
            f"No flipping of up to {percent(max(shares))} of labels cost {100 * HARM:g} points of accuracy or mean recall in "
            f"{len(rows)} runs. Absence of a finding is not evidence of safety: harm to one group may not show in either."
        )
    return (
        f"In {len(reached)} of {len(rows)} training runs flipping labels cost at least {100 * HARM:g} points of accuracy or "
        f"mean recall; the smallest share that did was {percent(min(reached))}."
    )
