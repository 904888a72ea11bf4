"""How evasion attacks are run on a target: which rows, which attacks in which order, and what fell to them.

The model is asked for all unattacked rows once before the attacks and once after them, in one call each. What an attack
found on a model that turned constant or began to answer otherwise in between counts for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack, Outcome, require_unchanged, require_varied
from holdfast.attacks.evasion.apgd import APGD
from holdfast.attacks.evasion.encoded import EncodedDomain, EncodedModel, reads_numbers
from holdfast.attacks.evasion.hop_skip_jump import HopSkipJump
from holdfast.attacks.evasion.square import Square
from holdfast.core.domain import Domain
from holdfast.core.errors import Inconclusive
from holdfast.core.evidence import Spent
from holdfast.core.oracle import Access, Oracle, Predictor
from holdfast.core.probe import Budget
from holdfast.core.progress import Progress
from holdfast.core.seeds import derive
from holdfast.core.tabular import Tabular
from holdfast.core.target import Model, Target
from holdfast.probes.footing import footing
from holdfast.probes.surface import Surface, chosen_rows, surface

FEWEST_ROWS = 20
RADII = (1.0, 0.75, 0.5, 0.25, 0.125, 0.0625, 0.03125)
"""The radii that are tested, as shares of the declared one."""
ATTACKED_AT_ONCE = 250
"""Rows of one attack run; progress is told after each."""


@dataclass(kw_only=True)
class Findings:
    """What an attack did to each of n rows.

    Attributes:
        correct, success: (n,) handled correctly, and evaded.
        adversarial: (n, ...) the verified examples, encoded.
        distance, capability: (n,) of each success; NaN elsewhere.
        queries: (n,) until the first success; -1 elsewhere.
        spent: what it cost.
    """

    correct: NDArray[np.bool_]
    success: NDArray[np.bool_]
    adversarial: NDArray[Any]
    distance: NDArray[np.float64]
    queries: NDArray[np.int64]
    capability: NDArray[np.float64]
    spent: Spent


def attacked_field(target: Target, model: Model, budget: Budget, seed: int) -> Surface:
    """The attacked rows, once it is clear that attacking them can mean something.

    Raises:
        Inconclusive: too few rows, or a model that is no better than a constant answer.
        NotApplicable, Unmeasured: nothing may be changed.
    """
    footing(model, target.holdout, rows=FEWEST_ROWS, seed=seed).require_above_floor()
    return surface(target, chosen_rows(target.holdout, budget.rows))


def by_gradient(target: Target) -> bool:
    """Whether the holder of the model can follow its gradients to the inputs; in a table, only to numbers."""
    return target.differentiable and (not target.holdout.is_table or reads_numbers(target.holdout.x))


def steps_between(domain: Domain) -> bool:
    """Whether changes come in steps or depend on each other, so that a gradient alone does not tell where they lead."""
    if not isinstance(domain, Tabular):
        return False
    return bool(domain.relations) or any(feature.mutable and feature.kind != "number" for feature in domain.table.features)


def strongest(target: Target, field: Surface) -> list[Attack]:
    """What the holder of the model tries, in this order; each on the rows that are left."""
    scores: list[Attack] = [score_search(field)] if target.weights.access >= Access.SCORES else []
    return [*([APGD()] if by_gradient(target) else []), *scores, label_walk(field)]


def tested_radii(field: Surface) -> list[float]:
    """The tested radii, largest first; whole numbers of features under l0."""
    radii = [field.domain.radius * part for part in RADII]
    return sorted({float(int(r)) for r in radii if r >= 1}, reverse=True) if field.domain.norm == "l0" else radii


def score_search(field: Surface) -> Square:
    """The attack by scores; on tables also between the corners, where trees have pockets."""
    return Square(inside=0.3 if field.decode else 0.0)


def label_walk(field: Surface) -> HopSkipJump:
    """The attack by labels; on tables a quarter of the queries may go into the pockets nearby."""
    return HopSkipJump(starts=field.owned, start_labels=field.owned_labels, near=0.25 if field.decode else 0.0)


def narrow(
    model: Model,
    field: Surface,
    attacks: Sequence[Attack],
    radii: Sequence[float],
    queries: int,
    seed: int,
    progress: Progress,
) -> tuple[Findings, NDArray[np.int64]]:
    """The smallest radius at which each row falls, and which attack took it.

    1. All attacks at the largest radius, each on the rows that are left.
    2. What fell is tried at smaller and smaller radii by gradients for as long as it falls; without gradients, one walk from
       the examples that were found makes them as close as it can.

    Raises:
        Inconclusive: too few rows are handled correctly, or the model answers otherwise after the attacks than before.
    """
    before = _opening(model, field)
    found = _nothing(field)
    by = np.full(len(field), -1)
    gradient = isinstance(attacks[0], APGD)
    steps = len(attacks) + (len(radii) - 1 if gradient else 1)
    for index, attack in enumerate(attacks):
        progress.advance("radii", index, steps)
        rows = np.flatnonzero(~found.success)
        _attack(found, model, field, attack, rows, radii[0], queries, derive(seed, index))
        by[rows[found.success[rows]]] = index
    standing = np.flatnonzero(found.success)
    if gradient:
        for index, radius in enumerate(radii[1:], start=len(attacks)):
            progress.advance("radii", index, steps)
            near = _contains(field.domain.within(radius), field, found, standing)
            _attack(found, model, field, attacks[0], standing[~near], radius, queries, derive(seed, "radius", index))
            standing = standing[_contains(field.domain.within(radius), field, found, standing)]
    elif len(standing):
        progress.advance("radii", len(attacks), steps)
        answers = Oracle(model, Access.LABELS, 0, decode=field.decode).judge(found.adversarial[standing])
        walk = HopSkipJump(starts=found.adversarial[standing], start_labels=answers)
        _attack(found, model, field, walk, standing, radii[0], queries, derive(seed, "walk"))
    for radius in radii:
        near = _contains(field.domain.within(radius), field, found, np.arange(len(field)))
        found.capability[near & found.success] = radius
    _close(model, field, before, found)
    progress.advance("radii", steps, steps)
    return found, by


def _contains(domain: Domain, field: Surface, found: Findings, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(domain.contains(field.x[rows], found.adversarial[rows]), dtype=bool)


def _attack(
    found: Findings,
    model: Model,
    field: Surface,
    attack: Attack,
    rows: NDArray[np.int64],
    radius: float,
    queries: int,
    seed: int,
) -> None:
    """Attack some rows within a radius and write down what fell, or fell closer."""
    if not len(rows):
        return
    x: Any = field.x[rows]
    attacked: Predictor = model
    domain, decode = field.domain.within(radius), field.decode
    gradient = attack.access >= Access.GRADIENTS
    if gradient:
        import torch

        x = torch.from_numpy(np.ascontiguousarray(x))
        if isinstance(domain, Tabular):
            attacked, domain, decode = EncodedModel(model, domain.table), EncodedDomain(tabular=domain), None
    outcome = attack.run(
        attacked,
        x,
        field.y[rows],
        domain,
        seed=seed,
        units=list(field.units[rows]),
        budget=None if gradient else queries,
        decode=decode,
    )
    _merge(found, rows, outcome)


def by_queries(model: Model, field: Surface, attack: Attack, queries: int, seed: int, progress: Progress) -> Findings:
    """How many queries it takes until each row falls.

    Raises:
        Inconclusive: too few rows are handled correctly, or the model answers otherwise after the attack than before.
    """
    before = _opening(model, field)
    found = _nothing(field)
    for start in range(0, len(field), ATTACKED_AT_ONCE):
        progress.advance("rows", start, len(field))
        rows = np.arange(start, min(start + ATTACKED_AT_ONCE, len(field)))
        _attack(found, model, field, attack, rows, field.domain.radius, queries, seed)
    _close(model, field, before, found)
    progress.advance("rows", len(field), len(field))
    found.capability = np.where(found.success, found.queries, np.nan)
    return found


def _opening(model: Model, field: Surface) -> NDArray[np.int64]:
    """What the model answers to the attacked rows and to the attacker's own before an attack.

    Raises:
        Inconclusive: always the same, or too seldom correctly.
    """
    before = Oracle(model, Access.LABELS, 0).judge(field.originals)
    if len(np.unique(before)) < 2:
        raise Inconclusive(
            f"the model gives the same answer to all {len(before)} rows at hand; nothing would show if it turned constant",
            hint="Give more holdout rows of the rare classes, or a larger budget.",
        )
    _require_enough(field, before[: len(field)] == field.y)
    return before


def _close(model: Model, field: Surface, before: NDArray[np.int64], found: Findings) -> None:
    """Return if the attacked model is the one that was asked before.

    Raises:
        Inconclusive: it answered otherwise in between or does so now, or the attacks saw too few correct answers.
    """
    after = Oracle(model, Access.LABELS, 0).judge(field.originals)
    attacked = slice(len(field))
    require_varied(before, after)
    require_unchanged(before, after)
    require_unchanged(before[attacked], after[attacked])
    require_unchanged(before[attacked] == field.y, found.correct)
    _require_enough(field, found.correct)


def _require_enough(field: Surface, correct: NDArray[np.bool_]) -> None:
    if (enough := field.distinct(correct)) < FEWEST_ROWS:
        raise Inconclusive(
            f"only {enough} distinct rows of {len(field)} were handled correctly; {FEWEST_ROWS} are needed to attack"
        )


def _nothing(field: Surface) -> Findings:
    none = np.zeros(len(field), dtype=bool)
    return Findings(
        correct=none.copy(),
        success=none.copy(),
        adversarial=field.x.copy(),
        distance=np.full(len(field), np.nan),
        queries=np.full(len(field), -1),
        capability=np.full(len(field), np.nan),
        spent=Spent(),
    )


def _merge(found: Findings, rows: NDArray[np.int64], outcome: Outcome) -> None:
    found.correct[rows] |= outcome.correct
    closer = outcome.success & ~(outcome.distance >= found.distance[rows])
    won = rows[closer]
    found.success[won] = True
    found.adversarial[won] = np.asarray(outcome.adversarial)[closer]
    found.distance[won] = outcome.distance[closer]
    found.queries[won] = outcome.queries[closer]
    found.spent = Spent(
        queries=found.spent.queries + outcome.cost.forward,
        backward=found.spent.backward + outcome.cost.backward,
        calls=found.spent.calls + outcome.cost.calls,
        cpu_seconds=found.spent.cpu_seconds + outcome.cost.seconds,
    )
