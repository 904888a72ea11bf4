"""A model as an actor with a given access sees it: the only door through which an attack touches a model.

An `Oracle` refuses what the access does not give, counts every row it answers against the sample it is spent on, and
refuses the row that would exceed the sample's cap, before the model is called. While an attack runs it also keeps, for
each sample, the first answered row that was misclassified inside the domain and how many queries that took, so that
success is never the attack's own word.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from holdfast.core.arrays import Array, copied
from holdfast.core.domain import Domain
from holdfast.core.errors import AccessDenied, Inconclusive, InvalidData, InvalidModel, QueryBudgetExceeded


class Access(IntEnum):
    """What an attacker sees of a running model; a higher access includes the lower ones."""

    LABELS = 0
    SCORES = 1
    GRADIENTS = 2


@runtime_checkable
class Predictor(Protocol):
    """What an oracle needs of a model. Inputs are whatever the model takes: arrays, tensors or DataFrames.

    A model that asks another one several times for one answer says how often by an attribute `price`; else one answer costs
    one query.
    """

    @property
    def access(self) -> Access:
        """The most that the model, as it is served, can give."""

    def labels(self, x: Any) -> NDArray[np.int64]:
        """(n,) class indices."""

    def scores(self, x: Any) -> Array:
        """(n, k) logits or log-probabilities."""

    def value_and_gradient(self, x: Any, loss: Callable[[Array], Array]) -> tuple[Array, Array]:
        """The per-sample loss of the logits, (n,), and its gradient with respect to x, in x's shape."""


@dataclass
class Cost:
    """What an attack spent.

    Attributes:
        queries: (n,) rows answered for each sample, at the model's price.
        forward, backward: rows passed through the model, calls made, and CPU seconds inside the model.
    """

    queries: NDArray[np.int64]
    forward: int = 0
    backward: int = 0
    calls: int = 0
    seconds: float = 0.0


@dataclass
class Ledger:
    """The first misclassified row inside the domain for each sample, as the oracle saw it."""

    queries: NDArray[np.int64]
    rows: dict[int, Array] = field(default_factory=dict)


class Oracle:
    """Counts every query, and refuses what the access does not give or the budget no longer allows.

    Args:
        model: the model behind the door.
        access: what the actor may see.
        samples: how many samples the attack works on.
        budget: most rows that may be answered for any one sample; None for no cap.
        decode: turns a batch of the attack's arrays into the model's inputs, for instance a DataFrame; identity by default.

    Raises:
        AccessDenied: the model as served gives less than `access`.
    """

    def __init__(
        self,
        model: Predictor,
        access: Access,
        samples: int,
        budget: int | None = None,
        decode: Callable[[Array], Any] | None = None,
    ) -> None:
        if model.access < access:
            raise AccessDenied(f"the model gives {model.access.name.lower()}, not {access.name.lower()}")
        self.access = access
        self.budget = budget
        self.cost = Cost(queries=np.zeros(samples, dtype=np.int64))
        self._model = model
        self._price = int(getattr(model, "price", 1))
        self._decode = decode or (lambda x: x)
        self._watch: tuple[Array, NDArray[np.int64], Domain] | None = None
        self.ledger = Ledger(queries=np.full(samples, -1, dtype=np.int64))

    def watch(self, x0: Array, y: NDArray[np.int64], domain: Domain) -> None:
        """Record, from now on, the first row of each sample that is misclassified inside `domain` around `x0`."""
        self._watch = (x0, np.asarray(y), domain)

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """Answer rows that are charged to a sample but are no attempt at it, such as rows that an attack learns from."""
        watch, self._watch = self._watch, None
        try:
            yield
        finally:
            self._watch = watch

    def remaining(self, owner: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """How many rows each sample may still ask for; the largest int64 when there is no cap."""
        spent = self.cost.queries if owner is None else self.cost.queries[owner]
        if self.budget is None:
            return np.full_like(spent, np.iinfo(np.int64).max)
        return (self.budget - spent) // self._price

    def labels(self, x: Array, owner: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """(m,) int64 class indices.

        Args:
            x: (m, ...) rows.
            owner: (m,) the sample each row is spent on; row i belongs to sample i by default.

        Raises:
            QueryBudgetExceeded: some sample would exceed its cap. Nothing was asked or counted then.
            Inconclusive: the model answered NaN.
            InvalidModel: the answer does not have one label for each input.
        """
        owner = self._charge(x, owner)
        started = time.process_time()
        answer = _classes(self._model.labels(self._decode(x)), len(x))
        self.cost.seconds += time.process_time() - started
        self._record(x, answer, owner)
        return answer

    def scores(self, x: Array, owner: NDArray[np.int64] | None = None) -> Array:
        """(m, k) logits or log-probabilities, in x's array library.

        Raises:
            AccessDenied: the actor sees labels only.
            QueryBudgetExceeded: as for `labels`.
            Inconclusive: the model answered NaN.
            InvalidModel: the answer does not have one row of scores for each input.
        """
        self._require(Access.SCORES)
        owner = self._charge(x, owner)
        started = time.process_time()
        answer = self._model.scores(self._decode(x))
        self.cost.seconds += time.process_time() - started
        plain = _finite(answer, len(x))
        self._record(x, plain.argmax(axis=1), owner)
        return answer

    def value_and_gradient(
        self, x: Array, loss: Callable[[Array], Array], owner: NDArray[np.int64] | None = None
    ) -> tuple[Array, Array]:
        """The per-sample loss (m,) of the logits and its gradient with respect to x. One query and one backward pass a row.

        Args:
            x: (m, ...) torch tensor.
            loss: from (m, k) logits to (m,) losses, differentiable.
            owner: as for `labels`.

        Raises:
            AccessDenied: the actor sees no gradients.
            QueryBudgetExceeded: as for `labels`.
        """
        self._require(Access.GRADIENTS)
        owner = self._charge(x, owner)
        self.cost.backward += len(x) * self._price
        seen: list[Array] = []

        def spied(logits: Array) -> Array:
            seen.append(logits.detach())
            return loss(logits)

        started = time.process_time()
        value, gradient = self._model.value_and_gradient(self._decode(x), spied)
        self.cost.seconds += time.process_time() - started
        if not seen:
            raise InvalidModel("the model gave a gradient without computing the loss it was asked for")
        self._record(x, _finite(seen[-1], len(x)).argmax(axis=1), owner)
        return value, gradient

    def judge(self, x: Array) -> NDArray[np.int64]:
        """Class indices for the evaluator's own verification; not charged to the attacker."""
        return _classes(self._model.labels(self._decode(x)), len(x))

    def _require(self, access: Access) -> None:
        if self.access < access:
            raise AccessDenied(f"an actor who sees {self.access.name.lower()} asked for {access.name.lower()}")

    def _charge(self, x: Array, owner: NDArray[np.int64] | None) -> NDArray[np.int64]:
        rows = len(x)
        if owner is None:
            owner = np.arange(rows, dtype=np.int64)
        owner = np.asarray(owner, dtype=np.int64)
        if owner.shape != (rows,):
            raise InvalidData(f"{rows} rows with owners of shape {owner.shape}")
        if rows and not 0 <= owner.min() <= owner.max() < len(self.cost.queries):
            raise InvalidData(f"rows of samples {owner.min()} to {owner.max()}, of {len(self.cost.queries)} samples")
        asked = self._price * np.bincount(owner, minlength=len(self.cost.queries))
        total = self.cost.queries + asked
        if self.budget is not None and total.max(initial=0) > self.budget:
            worst = int(np.argmax(total))
            raise QueryBudgetExceeded(f"sample {worst}: {int(total[worst])} queries of {self.budget}")
        self.cost.queries = total
        self.cost.forward += rows * self._price
        self.cost.calls += self._price
        return owner

    def _record(self, x: Array, answer: NDArray[np.int64], owner: NDArray[np.int64]) -> None:
        if self._watch is None:
            return
        x0, y, domain = self._watch
        wrong = np.flatnonzero((answer != y[owner]) & (self.ledger.queries[owner] < 0))
        if not len(wrong):
            return
        inside = wrong[np.asarray(domain.contains(x0[owner[wrong]], x[wrong]), dtype=bool)]
        samples, first = np.unique(owner[inside], return_index=True)
        before = self.cost.queries - self._price * np.bincount(owner, minlength=len(self.cost.queries))
        for sample, row in zip(samples, inside[first], strict=True):
            self.ledger.queries[sample] = before[sample] + self._price * np.count_nonzero(owner[: row + 1] == sample)
            self.ledger.rows[int(sample)] = copied(x[row])


def _plain(answer: Array, rows: int) -> NDArray[Any]:
    plain = answer.detach().cpu().numpy() if hasattr(answer, "detach") else np.asarray(answer)
    if plain.dtype.kind not in "biuf" or plain.shape[:1] != (rows,):
        raise InvalidModel(f"the model answered {rows} inputs with an array of shape {plain.shape} and type {plain.dtype}")
    if plain.dtype.kind == "f" and np.isnan(plain).any():
        raise Inconclusive(
            "the model answered NaN", hint="Find the inputs that cause it; a model that answers NaN cannot be judged."
        )
    return plain


def _classes(answer: Array, rows: int) -> NDArray[np.int64]:
    """The labels as (rows,) int64."""
    plain = _plain(answer, rows)
    if plain.ndim != 1:
        raise InvalidModel(f"the model answered {rows} inputs with labels of shape {plain.shape}")
    return plain.astype(np.int64)


def _finite(scores: Array, rows: int) -> NDArray[Any]:
    """The scores as (rows, k), refusing NaN; infinities are legitimate log-probabilities."""
    plain = _plain(scores, rows)
    if plain.ndim != 2:
        raise InvalidModel(f"the model answered {rows} inputs with scores of shape {plain.shape}")
    return plain
