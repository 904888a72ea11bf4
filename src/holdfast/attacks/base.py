"""The invariants that every evasion attack keeps, so that an attack is only its algorithm.

`Attack.run` is final. In order, it

1. validates the inputs and asks the model which samples it handles correctly; the others are out;
2. lets `perturb` work on the correct ones through an `Oracle` that enforces access and budget;
3. projects what came back into the domain and asks the model again, outside the attack's budget;
4. where that failed, falls back to the first row that the oracle itself saw misclassified inside the domain;
5. reports as success only what the model itself misclassifies inside the domain;
6. asks for the unattacked samples once more: a model that now answers them otherwise is not the one that was attacked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from holdfast.core.arrays import Array, copied
from holdfast.core.domain import Domain
from holdfast.core.errors import Inconclusive, InvalidData
from holdfast.core.oracle import Access, Cost, Oracle, Predictor
from holdfast.core.seeds import SampleStreams

MOST_CHANGED = 0.02
"""The share of unattacked samples whose answer may differ after an attack; one sample may in any case."""
CHANGED_HINT = "Find out whether the model keeps state, limits its callers or answers otherwise under load."


def require_unchanged(before: NDArray[Any], after: NDArray[Any]) -> None:
    """Return if a model answers unattacked samples after an attack as it did before it.

    Args:
        before, after: (n,) class indices, or other facts of the answers, for the same samples.

    Raises:
        Inconclusive: more than `MOST_CHANGED` of them differ, and more than one.
    """
    changed = int((before != after).sum())
    if changed > max(1, MOST_CHANGED * len(before)):
        raise Inconclusive(
            f"the model's answers changed during the attack: {changed} of {len(before)} unattacked rows were answered otherwise",
            hint=CHANGED_HINT,
        )


def require_varied(before: NDArray[np.int64], after: NDArray[np.int64]) -> None:
    """Return if a model that told unattacked samples apart before an attack still does.

    Raises:
        Inconclusive: it gives them all the same answer now.
    """
    if len(np.unique(after)) == 1 < len(np.unique(before)):
        raise Inconclusive(
            f"the model turned constant during the attack: all {len(after)} unattacked rows get the same answer now",
            hint=CHANGED_HINT,
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an attack did to each of n samples.

    Attributes:
        correct: (n,) the model handled the unattacked sample correctly; only these were attacked.
        success: (n,) the model itself misclassifies `adversarial` and the domain contains it.
        adversarial: (n, ...) the verified adversarial example; the original where there is none.
        distance: (n,) what the change costs, NaN where there is no success.
        queries: (n,) the attacker's queries until the first success, -1 where there is none.
        cost: what the attack spent on the samples it attacked, in the order of `correct`'s true entries.
    """

    correct: NDArray[np.bool_]
    success: NDArray[np.bool_]
    adversarial: Array
    distance: NDArray[np.float64]
    queries: NDArray[np.int64]
    cost: Cost


class Attack(ABC):
    """An evasion attack. A subclass is a frozen dataclass whose fields are its whole configuration."""

    access: Access

    @abstractmethod
    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams) -> Array:
        """Return an attempt at an adversarial example for each sample, (n, ...).

        Args:
            oracle: the only way to the model. Row i belongs to sample i unless `owner` says otherwise.
            x: (n, ...) correctly classified samples.
            y: (n,) their labels.
            domain: what may be changed.
            streams: one random stream a sample; stream i belongs to sample i.
        """

    @final
    def run(
        self,
        model: Predictor,
        x: Array,
        y: NDArray[np.int64],
        domain: Domain,
        *,
        seed: int,
        units: Sequence[object] | None = None,
        budget: int | None = None,
        decode: Callable[[Array], Any] | None = None,
    ) -> Outcome:
        """Attack each sample.

        Args:
            model: the model as it is served.
            x: (n, ...) float array or tensor, inside the domain's box.
            y: (n,) labels as class indices.
            domain: what the attacker may change.
            seed: with `units`, decides everything random.
            units: a stable name for each sample, 0..n-1 by default; results do not depend on which samples share a batch.
            budget: most queries for one sample; None for no cap.
            decode: from attack arrays to model inputs.

        Raises:
            AccessDenied: the model as served gives less than the attack needs.
            Inconclusive: the model answered NaN, or the unattacked samples otherwise after the attack than before it.
            InvalidData: shapes disagree, or an input is no float array, has NaN, infinities or lies outside the domain.
            InvalidModel: the model answers in a form that nobody can judge.
        """
        y = np.asarray(y, dtype=np.int64)
        units = range(len(x)) if units is None else units
        if len(x) != len(y) or len(units) != len(y):
            raise InvalidData(f"{len(x)} inputs, {len(y)} labels and {len(units)} units")
        if not array_namespace(x).isdtype(x.dtype, "real floating"):
            raise InvalidData(f"inputs of type {x.dtype}; attacks move in floating-point arrays")
        inside = np.asarray(domain.contains(x, x), dtype=bool) if len(x) else np.zeros(0, dtype=bool)
        if not inside.all():
            raise InvalidData(
                f"{int((~inside).sum())} of {len(x)} inputs lie outside the declared domain",
                hint="Declare domain.low and domain.high in the units that the model takes.",
            )
        judge = Oracle(model, Access.LABELS, len(x), decode=decode)
        answers = judge.judge(x) if len(x) else np.zeros(0, dtype=np.int64)
        correct = answers == y
        active = np.flatnonzero(correct)
        oracle = Oracle(model, self.access, len(active), budget, decode)
        start, labels = x[active], y[active]
        adversarial = copied(x)
        success = np.zeros(len(x), dtype=bool)
        queries = np.full(len(x), -1, dtype=np.int64)
        if len(active):
            oracle.watch(start, labels, domain)
            attempt = self.perturb(oracle, copied(start), labels, domain, SampleStreams(seed, [units[int(i)] for i in active]))
            found, won = self._verify(oracle, start, labels, domain, attempt)
            adversarial[active[won]] = found[won]
            success[active[won]] = True
            first = oracle.ledger.queries
            queries[active[won]] = np.where(first < 0, oracle.cost.queries, first)[won]
            again = judge.judge(x)
            require_varied(answers, again)
            require_unchanged(answers, again)
        distance = np.full(len(x), np.nan)
        if success.any():
            distance[success] = np.asarray(domain.distance(x[success], adversarial[success]))
        return Outcome(
            correct=correct,
            success=success,
            adversarial=adversarial,
            distance=distance,
            queries=queries,
            cost=oracle.cost,
        )

    @staticmethod
    def _verify(
        oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, attempt: Array
    ) -> tuple[Array, NDArray[np.bool_]]:
        """The projected attempt, or else what the oracle saw, and whether the model misclassifies it inside the domain."""
        if tuple(attempt.shape) != tuple(x.shape):
            raise InvalidData(f"an attack on inputs of shape {tuple(x.shape)} returned shape {tuple(attempt.shape)}")
        found = domain.project(x, attempt)
        won = (oracle.judge(found) != y) & np.asarray(domain.contains(x, found), dtype=bool)
        seen = [sample for sample in oracle.ledger.rows if not won[sample]]
        if seen:
            xp = array_namespace(x)
            rows = xp.stack([oracle.ledger.rows[sample] for sample in seen])
            again = (oracle.judge(rows) != y[seen]) & np.asarray(domain.contains(x[np.asarray(seen)], rows), dtype=bool)
            kept = np.asarray(seen)[again]
            found[kept] = rows[np.flatnonzero(again)]
            won[kept] = True
        return found, won
