"""A model that is another one after the attack than before it was not attacked, so that nothing follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from holdfast.attacks.base import MOST_CHANGED, Attack
from holdfast.core.domain import Ball
from holdfast.core.errors import Inconclusive
from holdfast.core.oracle import Access

BALL = Ball(norm="linf", radius=0.01, low=0.0, high=1.0)
X = np.random.default_rng(0).uniform(0.05, 0.95, size=(100, 3))
X = X[np.abs(X[:, 0] - 0.5) > 0.02]
Y = (X[:, 0] > 0.5).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Asking(Attack):
    """Asks a few times and finds nothing."""

    access = Access.LABELS

    def perturb(self, oracle, x, y, domain, streams):
        for _ in range(3):
            oracle.labels(x)
        return x


class Changing:
    """Class 1 where the first feature exceeds one half, until the given call; from then on what the test says."""

    access = Access.LABELS

    def __init__(self, later: Any, after: int) -> None:
        self.later, self.after, self.calls = later, after, 0
        self.asked: list[int] = []

    def labels(self, x: Any) -> np.ndarray:
        self.calls += 1
        self.asked.append(len(x))
        answer = (np.asarray(x)[:, 0] > 0.5).astype(np.int64)
        return answer if self.calls <= self.after else self.later(answer)

    def scores(self, x: Any) -> Any:
        raise AssertionError("scores of a label-only model")

    def value_and_gradient(self, x: Any, loss: Any) -> Any:
        raise AssertionError("gradients of a label-only model")


def swapped(rows: int) -> Any:
    return lambda answer: np.where(np.arange(len(answer)) < rows, 1 - answer, answer)


def run(later: Any, after: int = 2, rows: int = len(X)):
    model = Changing(later, after)
    return model, Asking().run(model, X[:rows], Y[:rows], BALL, seed=0, budget=3)


@pytest.mark.claim("loop-2")
@pytest.mark.parametrize("after", [1, 2, 4])
@pytest.mark.parametrize("answer", [0, 1])
def test_a_model_that_turns_constant_during_the_attack_is_inconclusive(after: int, answer: int) -> None:
    with pytest.raises(Inconclusive, match="turned constant"):
        run(lambda answers: np.full_like(answers, answer), after)


@pytest.mark.claim("loop-2")
def test_a_model_that_begins_to_answer_otherwise_is_inconclusive() -> None:
    most = int(MOST_CHANGED * len(X))
    assert not run(swapped(most))[1].success[most:].any()
    with pytest.raises(Inconclusive, match=f"{most + 1} of {len(X)} unattacked rows"):
        run(swapped(most + 1))


def test_one_row_may_change_among_few_but_not_two() -> None:
    assert run(swapped(1), rows=10)[1].correct.all()
    with pytest.raises(Inconclusive, match="2 of 10"):
        run(swapped(2), rows=10)


def test_the_unattacked_rows_are_asked_again_in_one_call_that_is_not_the_attackers() -> None:
    model, outcome = run(lambda answer: answer)
    assert model.asked == [len(X)] * 6
    assert outcome.cost.queries.tolist() == [3] * len(X)
    assert outcome.cost.calls == 3
