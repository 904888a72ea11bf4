"""P-EXT-COPY: how many answers it takes to copy the model.

A repetition is one attacker: with his own random inputs from one half of the holdout rows he trains substitutes on N
answers, from each kind of answer that the service gives. His capability is the smallest N at which a substitute agrees
with the model on at least 95 % of the other half, which he never saw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.extraction.copying import Answers, Learner, Mode, ask, choose_learner, train_copy
from holdfast.attacks.features import Encoder
from holdfast.core.errors import Inconclusive
from holdfast.core.evidence import Evidence, Metric, Row, Spent, plain_detail
from holdfast.core.oracle import Access, Oracle
from holdfast.core.probe import Budget, Work
from holdfast.core.progress import Progress
from holdfast.core.seeds import derive, generator
from holdfast.core.statistics import rate
from holdfast.core.target import Dataset, Target
from holdfast.probes.footing import footing, halves, served_access, share, some

AGREEMENT = 0.95
"""Agreement on unseen rows from which a substitute counts as a copy."""
FEWEST_QUERIES = 10
FEWEST_ROWS = 100
MOST_JUDGED = 2000
STEPS = {"quick": 4}
MOST_STEPS = 6


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Agreement of the substitutes of all repetitions.

    Attributes:
        agrees: (modes, steps, repeats, rows) whether the substitute answers as the model does.
        learners: the learner used for each mode and step.
    """

    agrees: NDArray[np.bool_]
    learners: tuple[tuple[str, ...], ...]


class ModelCopying:
    """Model copying by queries."""

    id: str = "P-EXT-COPY"
    threats: tuple[str, ...] = ("T-EXT-01",)
    access: str = "label"

    def check(self, target: Target) -> None:
        """Any model that answers can be copied."""

    def work(self, target: Target, budget: Budget) -> Work:
        """The answers, and the training of two substitutes a step and kind of answer and one more a repetition."""
        steps, modes = len(_steps(target, budget)), 1 + (served_access(target.model) >= Access.SCORES)
        most = min(budget.queries, len(target.holdout) // 2)
        fits = modes * steps * (budget.repeats + 2)
        return Work(
            predictions=budget.repeats * most + min(MOST_JUDGED, len(target.holdout) // 2), seconds=fits * (0.05 + most / 4000)
        )

    def run(self, target: Target, budget: Budget, seed: int, progress: Progress) -> Evidence:
        """Measure.

        Raises:
            Inconclusive: too few rows, or a model whose answers are nearly constant.
        """
        footing(target.model, target.holdout, rows=FEWEST_ROWS, seed=seed)
        own, judged = halves(target.holdout, derive(seed, "attacker"))
        judged = some(judged, MOST_JUDGED, seed)
        truth = Oracle(target.model, Access.LABELS, 0).judge(judged.x)
        majority = float(np.bincount(truth).max() / len(truth))
        if majority >= AGREEMENT:
            raise Inconclusive(
                f"the model gives the same answer to {majority:.1%} of rows, so that a constant agrees with it as well as a copy"
            )
        steps = _steps(target, budget)
        access = served_access(target.model)
        modes: tuple[Mode, ...] = ("scores", "labels") if access >= Access.SCORES else ("labels",)
        copies, queries = _copy(target, own, judged, truth, steps, modes, budget.repeats, seed, progress)
        rows = tuple(_row(repeat, copies, steps, modes, majority, seed) for repeat in range(budget.repeats))
        won = sum(row.success for row in rows)
        best = max(float(copies.agrees[mode, -1].mean()) for mode in range(len(modes)))
        finding = (
            f"{won} of {len(rows)} attackers copied the model to {AGREEMENT:.0%} agreement with at most {steps[-1]} queries; "
            f"with {steps[-1]} the mean agreement is {best:.1%} (always answering the commonest class: {majority:.1%})."
        )
        return Evidence(
            probe=self.id,
            threats=self.threats,
            status="measured",
            reason=_limits(budget, own, steps),
            axis="queries",
            tested=float(steps[-1]),
            rows=rows,
            strength="moderate",
            method=(
                f"substitutes (boosting or a small network, whichever serves the attacker) trained on "
                f"{', '.join(map(str, steps))} answers to inputs from the same distribution; served {' and '.join(modes)}; "
                f"success: {AGREEMENT:.0%} agreement on {len(judged)} other rows"
            ),
            metrics=tuple(_metrics(copies, steps, modes, judged, majority)),
            findings=(finding,),
            spent=Spent(queries=queries, calls=budget.repeats),
        )


def _steps(target: Target, budget: Budget) -> list[int]:
    """Numbers of queries from ten to the budget, evenly spaced in their logarithm."""
    most = max(FEWEST_QUERIES, min(budget.queries, len(target.holdout) // 2))
    count = STEPS.get(budget.level, MOST_STEPS)
    return sorted({int(value) for value in np.round(np.geomspace(FEWEST_QUERIES, most, count))})


def _copy(
    target: Target,
    own: Dataset,
    judged: Dataset,
    truth: NDArray[np.int64],
    steps: list[int],
    modes: tuple[Mode, ...],
    repeats: int,
    seed: int,
    progress: Progress,
) -> tuple[Copies, int]:
    encoder = Encoder.of(own.x)
    features = encoder(judged.x)
    agrees = np.zeros((len(modes), len(steps), repeats, len(judged)), dtype=bool)
    learners: dict[tuple[int, int], Learner] = {}
    queries = 0
    for repeat in range(repeats):
        progress.advance("copies", repeat, repeats)
        chosen = generator(seed, "inputs", repeat).permutation(len(own))[: steps[-1]]
        oracle = Oracle(target.model, served_access(target.model), 1, steps[-1])
        answers = ask(oracle, own.take(chosen).x, encoder)
        queries += int(oracle.cost.queries.sum())
        for mode, name in enumerate(modes):
            for step, count in enumerate(steps):
                told: Answers = answers.take(np.arange(min(count, len(chosen))))
                if (mode, step) not in learners:
                    learners[mode, step] = choose_learner(told, name, seed=derive(seed, name, count))
                copy = train_copy(told, name, seed=derive(seed, name, count, repeat), learner=learners[mode, step])
                agrees[mode, step, repeat] = copy.predict(features) == truth
    progress.advance("copies", repeats, repeats)
    used = tuple(tuple(learners[mode, step] for step in range(len(steps))) for mode in range(len(modes)))
    return Copies(agrees=agrees, learners=used), queries


def _row(repeat: int, copies: Copies, steps: list[int], modes: tuple[Mode, ...], majority: float, seed: int) -> Row:
    """An attacker uses whatever the service tells him, so the better kind of answer counts at each step."""
    agreement = copies.agrees[:, :, repeat].mean(axis=2)
    reached = np.flatnonzero(agreement.max(axis=0) >= AGREEMENT)
    detail = {f"agreement from {mode}": float(agreement[index, -1]) for index, mode in enumerate(modes)}
    return Row(
        unit=f"copy {repeat + 1}",
        capability=float(steps[reached[0]]) if len(reached) else None,
        seed=seed,
        detail=plain_detail(detail | {"agreement of the commonest class": majority}),
    )


def _metrics(copies: Copies, steps: list[int], modes: tuple[Mode, ...], judged: Dataset, majority: float) -> list[Metric]:
    repeats = copies.agrees.shape[2]
    units = np.tile(judged.ids if judged.clusters is None else judged.clusters, repeats)
    found = [Metric(name="agreement of the commonest class", value=majority)]
    for index, mode in enumerate(modes):
        for step, count in enumerate(steps):
            seen = rate(copies.agrees[index, step].ravel(), units)
            note = f"over {repeats} attackers with the learner {copies.learners[index][step]}; rows judged by several count once"
            found.append(share(f"agreement after {count} queries", seen, group=f"answers: {mode}", note=note))
    return found


def _limits(budget: Budget, own: Dataset, steps: list[int]) -> str:
    limits = ["the attacker has unlabelled inputs from the same distribution as users'"]
    if steps[-1] < budget.queries:
        limits.append(f"only {len(own)} such inputs were at hand, so no more than {steps[-1]} queries were tested")
    return "; ".join(limits)
