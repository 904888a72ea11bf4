"""P-EVA-WB, P-EVA-SCORE and P-EVA-LABEL: how much an attacker must change, or ask, until a correct decision flips.

1. The footing: enough rows, a model that is better than a constant answer.
2. The surface: the attacked rows, and what may be changed about them.
3. The attack, through the model as the attacker sees it: its file for P-EVA-WB, the service with its hardened answers for
   the other two. The label-only attack runs whatever the service answers, so that hiding scores is never taken for
   robustness.
4. Rows: each row that the model handled correctly, and the capability at which the model itself first misclassified it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.apgd import APGD
from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.core.domain import Ball
from holdfast.core.errors import NotApplicable
from holdfast.core.evidence import Evidence, Example, Metric, Row, Strength, plain_detail
from holdfast.core.oracle import Access, Oracle
from holdfast.core.probe import Budget, Work
from holdfast.core.progress import Progress
from holdfast.core.seeds import SampleStreams, derive
from holdfast.core.statistics import rate
from holdfast.core.target import Model, Target
from holdfast.probes.flips import (
    Findings,
    attacked_field,
    by_gradient,
    by_queries,
    label_walk,
    narrow,
    score_search,
    steps_between,
    strongest,
    tested_radii,
)
from holdfast.probes.footing import share
from holdfast.probes.surface import Surface, changed_cells, picture, surface

MOST_EXAMPLES = 6


class Evasion:
    """What the three probes share."""

    id: str
    threats: tuple[str, ...]
    access: str

    def check(self, target: Target) -> None:
        """Any model that answers; what may be changed must leave something.

        Raises:
            NotApplicable, Unmeasured: nothing may be changed.
        """
        surface(target, np.arange(0))


class WhiteBoxEvasion(Evasion):
    """Evasion by somebody who holds the model."""

    id = "P-EVA-WB"
    threats = ("T-EVA-01",)
    access = "white-box"

    def work(self, target: Target, budget: Budget) -> Work:
        """All losses on each row once; what falls at one radius is tried at the next, mostly in a few steps."""
        rows = min(budget.rows, len(target.holdout))
        if by_gradient(target):
            steps = 2 * (1 + APGD().targets) * APGD().steps
            return Work(predictions=rows * (steps + budget.queries), gradients=rows * steps)
        return Work(predictions=2 * rows * budget.queries)

    def run(self, target: Target, budget: Budget, seed: int, progress: Progress) -> Evidence:
        """Measure.

        Raises:
            Inconclusive: too few rows, a model that is no better than a constant answer, or one that changed meanwhile.
        """
        field = attacked_field(target, target.weights, budget, seed)
        attacks = strongest(target, field)
        tested = tested_radii(field)
        found, by = narrow(target.weights, field, attacks, tested, budget.queries, seed, progress)
        how = _described(attacks, field)
        names = [type(attack).__name__ for attack in attacks]
        gradient = names[0] == "APGD"
        limits = [] if gradient else [_without_gradients(target)]
        findings = [_headline(found, f"within the {field.budget}")]
        if gradient:
            findings += _masking(found, by, field)
        return _evidence(
            self,
            target,
            target.weights,
            field,
            found,
            seed,
            axis="perturbation budget",
            tested=field.domain.radius,
            strength="strong" if gradient else "moderate",
            method=f"{how}, on the model itself; {field.budget}; radii {', '.join(f'{r:g}' for r in tested)}",
            limits=limits,
            findings=findings,
            detail={"attack": [names[index] if index >= 0 else None for index in by]},
        )


class ServiceEvasion(Evasion, ABC):
    """Evasion by somebody who only asks the service."""

    answers: str
    """What the attack reads."""

    @abstractmethod
    def attack(self, field: Surface) -> Attack:
        """The attack by these answers."""

    def work(self, target: Target, budget: Budget) -> Work:
        """At most the query budget for each row."""
        return Work(predictions=min(budget.rows, len(target.holdout)) * budget.queries)

    def run(self, target: Target, budget: Budget, seed: int, progress: Progress) -> Evidence:
        """Measure.

        Raises:
            NotApplicable: as for `check`.
            Inconclusive: too few rows, a model that is no better than a constant answer, or one that changed meanwhile.
        """
        self.check(target)
        field = attacked_field(target, target.model, budget, seed)
        attack = self.attack(field)
        found = by_queries(target.model, field, attack, budget.queries, seed, progress)
        most = f"with at most {budget.queries}"
        return _evidence(
            self,
            target,
            target.model,
            field,
            found,
            seed,
            axis="queries",
            tested=budget.queries,
            strength="moderate",
            method=f"{_described([attack], field)} {most} queries a row, on the service's {self.answers}; {field.budget}",
            findings=[_headline(found, f"{most} queries each, within the {field.budget}")],
        )


class ScoreEvasion(ServiceEvasion):
    """Evasion by somebody who sees the scores that the service returns."""

    id = "P-EVA-SCORE"
    threats = ("T-EVA-02",)
    access = "scores"
    answers = "scores"

    def check(self, target: Target) -> None:
        """The service must return scores.

        Raises:
            NotApplicable: it returns labels only, or nothing may be changed.
            Unmeasured: nothing can be changed within the radius.
        """
        if target.model.access < Access.SCORES:
            raise NotApplicable("the service returns labels only, so no score can guide an attacker")
        super().check(target)

    def attack(self, field: Surface) -> Attack:
        """By scores."""
        return score_search(field)


class LabelEvasion(ServiceEvasion):
    """Evasion by somebody who sees nothing but the decision."""

    id = "P-EVA-LABEL"
    threats = ("T-EVA-03",)
    access = "label"
    answers = "labels"

    def attack(self, field: Surface) -> Attack:
        """By labels."""
        return label_walk(field)


def _evidence(
    probe: Evasion,
    target: Target,
    model: Model,
    field: Surface,
    found: Findings,
    seed: int,
    *,
    axis: str,
    tested: float,
    strength: Strength,
    method: str,
    findings: Sequence[str],
    limits: Sequence[str] = (),
    detail: dict[str, list[Any]] | None = None,
) -> Evidence:
    attacked = np.flatnonzero(found.correct)
    clusters = None if field.clusters is None else field.clusters[attacked]
    won = found.success[attacked]
    rows = tuple(
        Row(
            unit=str(field.units[row]),
            cluster=None if field.clusters is None else str(field.clusters[row]),
            capability=float(found.capability[row]) if found.success[row] else None,
            seed=seed,
            detail=plain_detail(
                {"distance": found.distance[row], **{key: values[row] for key, values in (detail or {}).items()}}
            ),
        )
        for row in attacked
    )
    random, steady = _controls(model, field, attacked, seed)
    metrics = [
        share("success rate", rate(won, clusters), note="of the rows that the model handled correctly"),
        share("clean accuracy", rate(found.correct, field.clusters), note="on the attacked rows, before the attack"),
        share("flipped by one random change", rate(random, clusters), note="a draw from the same budget, without search"),
    ]
    if won.any():
        metrics.append(Metric(name="median distance", value=float(np.nanmedian(found.distance)), note="of the flipped rows"))
    if won.any() and axis == "queries":
        queries = float(np.median(found.queries[found.success]))
        metrics.append(Metric(name="median queries", value=queries, unit="queries", note="until the first success of a row"))
    unsteady = () if steady else ("the model answers identical calls differently; each success was confirmed by one more call",)
    return Evidence(
        probe=probe.id,
        threats=probe.threats,
        status="measured",
        reason="; ".join((*limits, *unsteady)),
        axis=axis,
        tested=float(tested),
        rows=rows,
        strength=strength,
        method=method,
        metrics=tuple(metrics),
        examples=_examples(target, model, field, found),
        findings=tuple(findings),
        spent=found.spent,
    )


def _controls(model: Model, field: Surface, rows: NDArray[np.int64], seed: int) -> tuple[NDArray[np.bool_], bool]:
    """Whether one random change flips each row, and whether the model answers the same question the same way twice."""
    streams = SampleStreams(derive(seed, "random change"), list(field.units[rows]))
    drawn = field.domain.sample(field.x[rows], streams.uniform(np.arange(len(rows)), tuple(field.x.shape[1:])))
    judge = Oracle(model, Access.LABELS, 0, decode=field.decode)
    answers = judge.judge(drawn)
    return answers != field.y[rows], bool((answers == judge.judge(drawn)).all())


def _examples(target: Target, model: Model, field: Surface, found: Findings) -> tuple[Example, ...]:
    rows = np.flatnonzero(found.success)[:MOST_EXAMPLES]
    if not len(rows):
        return ()
    names = target.model.classes
    after = Oracle(model, Access.LABELS, 0, decode=field.decode).judge(found.adversarial[rows])
    examples = []
    for row, label in zip(rows, after, strict=True):
        example = Example(
            unit=str(field.units[row]),
            label_before=names[field.y[row]],
            label_after=names[label],
            distance=float(found.distance[row]),
        )
        one = slice(row, row + 1)
        if field.decode is not None:
            cells = changed_cells(field.inputs(field.x[one]), field.inputs(found.adversarial[one]), target.show_values)
            example = example.model_copy(update={"changed": cells})
        elif target.show_values and isinstance(field.domain, Ball):
            low, high = float(field.domain.low), float(field.domain.high)
            pictures = {
                "image_before": picture(field.x[row], low, high),
                "image_after": picture(found.adversarial[row], low, high),
            }
            example = example.model_copy(update=pictures)
        examples.append(example)
    return tuple(examples)


def _headline(found: Findings, words: str) -> str:
    return f"{found.success.sum()} of {found.correct.sum()} correct decisions were flipped {words}."


def _masking(found: Findings, by: NDArray[np.int64], field: Surface) -> list[str]:
    """Rows that only an attack without gradients could flip tell that the gradients lead nowhere, or that steps lie between."""
    missed = int((by > 0).sum())
    if missed < max(2, 0.02 * found.correct.sum()):
        return []
    fell = f"{missed} rows that held against the gradient attack fell to an attack that sees only answers"
    if steps_between(field.domain):
        return [f"{fell}: the model's gradients mislead there, or whole numbers, categories or relations stood in their way."]
    overstated = "They count as flipped; a test by gradients alone would have overstated this model."
    return [f"The model's gradients mislead: {fell}. {overstated}"]


def _without_gradients(target: Target) -> str:
    why = "the model's gradients end at columns that hold no numbers" if target.differentiable else "the model gives no gradients"
    return f"{why}, so its holder was given the strongest attacks without"


def _described(attacks: Sequence[Attack], field: Surface) -> str:
    names = []
    for attack in attacks:
        if isinstance(attack, APGD):
            way = " through the table's encoding" if field.decode else ""
            names.append(f"Auto-PGD{way} ({attack.steps} steps; cross-entropy, then the {attack.targets} next classes)")
        elif isinstance(attack, HopSkipJump):
            names.append(f"HopSkipJump from {'nearby inputs and ' if attack.near else ''}the attacker's own rows")
        else:
            names.append("Square attack")
    return ", then ".join(names)
