"""P-PRI-ATTR: how much the model helps to fill in a person's missing sensitive field.

For each declared sensitive column an imputer without the model and an attacker with it guess on the same records, the
training rows where they were given. What counts is the paired gain. Both learn from one half of the holdout rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.privacy.attributes import STRATEGIES, FieldGuesser, Guesses
from holdfast.core.errors import Inconclusive, NotApplicable, Unmeasured
from holdfast.core.evidence import Evidence, Metric, Row, Spent
from holdfast.core.oracle import Access, Oracle
from holdfast.core.probe import Budget, Work
from holdfast.core.progress import Progress
from holdfast.core.seeds import derive
from holdfast.core.statistics import CONFIDENCE, PairedChange, paired_change, rate
from holdfast.core.target import Dataset, Target
from holdfast.probes.footing import distinct, footing, halves, served_access, share, some, tied

FEWEST_ROWS = 200
FEWEST_VICTIMS = 50
MOST_SAMPLE = 4000
MOST_CANDIDATES = 10


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What the best strategy gained on one column, with an interval corrected for columns and strategies."""

    column: str
    strategy: str
    victims: Dataset
    guesses: Guesses
    baseline: NDArray[np.bool_]
    correct: NDArray[np.bool_]
    change: PairedChange
    outside: PairedChange | None


class AttributeInference:
    """Attribute inference as gain over imputation."""

    id: str = "P-PRI-ATTR"
    threats: tuple[str, ...] = ("T-PRI-03",)
    access: str = "scores"

    def check(self, target: Target) -> None:
        """A table with at least one declared sensitive column that the model takes.

        Raises:
            NotApplicable: the inputs are no table.
            Unmeasured: no sensitive column was declared.
        """
        if not target.holdout.is_table:
            raise NotApplicable("the inputs are no table, so no field of them can be missing")
        if not _columns(target):
            raise Unmeasured(
                "no sensitive column of the model's inputs was declared", hint="Add data.sensitive with the columns' names."
            )

    def work(self, target: Target, budget: Budget) -> Work:
        """One answer for each candidate value, record and column."""
        columns = len(_columns(target))
        sample = min(MOST_SAMPLE, len(target.holdout) // 2)
        victims = min(_most(budget), len(target.train or target.holdout)) + min(_most(budget), len(target.holdout) // 2)
        return Work(predictions=columns * MOST_CANDIDATES // 2 * (sample + victims), seconds=5.0 * columns)

    def run(self, target: Target, budget: Budget, seed: int, progress: Progress) -> Evidence:
        """Measure.

        Raises:
            NotApplicable, Unmeasured: as for `check`.
            Inconclusive: too few rows, a constant model, or columns with nothing to guess.
        """
        self.check(target)
        footing(target.model, target.holdout, rows=FEWEST_ROWS, seed=seed)
        own, others = halves(target.holdout, derive(seed, "attacker"))
        own = some(own, MOST_SAMPLE, seed)
        others = some(others, _most(budget), seed)
        victims = others if target.train is None else tied(some(target.train, _most(budget), seed))
        columns, gains, skipped, queries = _columns(target), [], [], 0
        for index, column in enumerate(columns):
            progress.advance("sensitive columns", index, len(columns))
            try:
                gain, spent = _measure(target, own, victims, others, column, len(columns), derive(seed, column))
            except Inconclusive as nothing:
                skipped.append(nothing.what)
                continue
            gains.append(gain)
            queries += spent
        progress.advance("sensitive columns", len(columns), len(columns))
        if not gains:
            raise Inconclusive("; ".join(skipped))
        worst = max(gains, key=lambda gain: (gain.change.low, gain.change.difference))
        seen = "scores" if served_access(target.model) >= Access.SCORES else "labels only"
        return Evidence(
            probe=self.id,
            threats=self.threats,
            status="measured",
            reason="; ".join(_limits(target, own, worst, skipped)),
            rows=_rows(worst, seed),
            subject=worst.column,
            chance=float(worst.baseline.mean()),
            strength="moderate",
            method=(
                f"field {worst.column!r} guessed from the other fields, the label and {worst.guesses.candidates} answers each "
                f"(served {seen}; best of {len(STRATEGIES)} strategies: {worst.strategy}), against imputation from the same "
                f"fields; both learn from {len(own)} holdout rows"
            ),
            metrics=tuple(metric for gain in gains for metric in _metrics(gain)),
            findings=tuple(_finding(gain) for gain in gains),
            spent=Spent(queries=queries),
        )


def _columns(target: Target) -> list[str]:
    return [column for column in target.holdout.sensitive if target.holdout.is_table and column in target.holdout.x.columns]


def _most(budget: Budget) -> int:
    """Records that are guessed; a gain of a few points needs many."""
    return int(np.clip(10 * budget.rows, 1000, 10_000))


def _measure(
    target: Target, own: Dataset, victims: Dataset, others: Dataset, column: str, columns: int, seed: int
) -> tuple[Gain, int]:
    access = served_access(target.model)
    learning = Oracle(target.model, access, len(own))
    attack = FieldGuesser(learning, own, column, seed=seed)
    candidates = len(attack.candidates.values)
    queries = int(learning.cost.queries.sum())
    confidence = 1 - (1 - CONFIDENCE) / (len(STRATEGIES) * columns)

    def guess(data: Dataset) -> tuple[Dataset, Guesses, NDArray[np.bool_]]:
        nonlocal queries
        known = data.take(attack.candidates.codes(data.x) >= 0)
        if (found := distinct(known.x)) < FEWEST_VICTIMS:
            raise Inconclusive(f"only {found} distinct records have a value of {column!r} to guess")
        oracle = Oracle(target.model, access, len(known), candidates)
        guesses = attack.guess(oracle, known)
        queries += int(oracle.cost.queries.sum())
        return known, guesses, _baseline(attack, own, guesses)

    known, guesses, baseline = guess(victims)
    changes = {
        name: paired_change(guessed == guesses.truth, baseline, known.clusters, confidence)
        for name, guessed in guesses.with_model.items()
    }
    strategy = max(STRATEGIES, key=lambda name: (changes[name].low, changes[name].difference))
    outside = None
    if target.train is not None:
        apart, again, base = guess(others)
        outside = paired_change(again.with_model[strategy] == again.truth, base, apart.clusters, confidence)
    return (
        Gain(
            column=column,
            strategy=strategy,
            victims=known,
            guesses=guesses,
            baseline=baseline,
            correct=guesses.with_model[strategy] == guesses.truth,
            change=changes[strategy],
            outside=outside,
        ),
        queries,
    )


def _baseline(attack: FieldGuesser, own: Dataset, guesses: Guesses) -> NDArray[np.bool_]:
    """Where the better of the imputer and the commonest value is right: the model must beat both."""
    codes = attack.candidates.codes(own.x)
    commonest = int(np.bincount(codes[codes >= 0]).argmax())
    imputed: NDArray[np.bool_] = guesses.imputer == guesses.truth
    constant: NDArray[np.bool_] = guesses.truth == commonest
    return imputed if imputed.mean() >= constant.mean() else constant


def _rows(gain: Gain, seed: int) -> tuple[Row, ...]:
    clusters = gain.victims.clusters
    return tuple(
        Row(
            unit=str(unit),
            cluster=None if clusters is None else str(clusters[index]),
            capability=float(gain.guesses.candidates) if gain.correct[index] else None,
            seed=seed,
            detail={"right without the model": bool(gain.baseline[index])},
        )
        for index, unit in enumerate(gain.victims.ids)
    )


def _metrics(gain: Gain) -> list[Metric]:
    clusters = gain.victims.clusters
    change = gain.change
    found = [
        Metric(
            name="gain over imputer",
            value=change.difference,
            low=change.low,
            high=change.high,
            group=gain.column,
            note=f"paired: {change.fixed} gained, {change.broken} lost; interval corrected for strategies and columns",
        ),
        share("accuracy with the model", rate(gain.correct, clusters), group=gain.column),
        share("accuracy without the model", rate(gain.baseline, clusters), group=gain.column),
    ]
    if gain.outside is not None:
        seen = gain.outside
        found.append(
            Metric(
                name="gain over imputer on people who were not trained on",
                value=seen.difference,
                low=seen.low,
                high=seen.high,
                group=gain.column,
                note="a gain here too is knowledge about the population, not memory of people",
            )
        )
    return found


def _finding(gain: Gain) -> str:
    change = gain.change
    numbers = f"{100 * change.difference:+.1f} points, 95 % CI {100 * change.low:+.1f} to {100 * change.high:+.1f}"
    if change.low > 0:
        return f"The model helps to guess {gain.column!r} ({numbers} over an imputer without it)."
    return (
        f"No gain from the model in guessing {gain.column!r} was found ({numbers} over an imputer without it). "
        "Absence of a finding is not evidence of safety."
    )


def _limits(target: Target, own: Dataset, worst: Gain, skipped: list[str]) -> list[str]:
    limits = [f"the attacker knows {len(own)} records like those attacked, their other fields and their labels"]
    if target.train is None:
        limits.append("no training rows were given, so the records are holdout rows and memory of people cannot show")
    left = len(worst.victims)
    limits.append(f"{left} records hold one of the {worst.guesses.candidates} values or bands that are guessed")
    return limits + skipped
