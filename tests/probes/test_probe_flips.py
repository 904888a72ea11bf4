"""An attack counts only if the model is the same one before, during and after it."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.core.domain import Ball
from holdfast.core.errors import Inconclusive
from holdfast.core.evidence import Spent
from holdfast.core.oracle import Access
from holdfast.probes import flips
from holdfast.probes.surface import Surface

ROWS, OWNED = 60, 60


class Turning:
    """Answers by the sign of its input, and the other way round for the places that have turned."""

    classes = ("a", "b")
    framework = "python"
    access = Access.LABELS

    def __init__(self) -> None:
        self.turned = np.zeros(ROWS + OWNED, dtype=bool)

    def labels(self, x):
        answer = (x[:, 0] > 0).astype(np.int64)
        return np.where(self.turned[: len(x)], 1 - answer, answer)


@pytest.fixture
def field() -> Surface:
    x = np.random.default_rng(0).normal(size=(ROWS + OWNED, 2))
    y = (x[:, 0] > 0).astype(np.int64)
    return Surface(
        x=x[:ROWS],
        y=y[:ROWS],
        domain=Ball(norm="linf", radius=0.1, low=-9.0, high=9.0),
        decode=None,
        units=np.arange(ROWS).astype(str),
        clusters=None,
        owned=x[ROWS:],
        owned_labels=y[ROWS:],
        budget="0.1",
    )


def findings(field: Surface, correct: np.ndarray) -> flips.Findings:
    nothing = np.full(ROWS, np.nan)
    return flips.Findings(
        correct=correct,
        success=np.zeros(ROWS, dtype=bool),
        adversarial=field.x,
        distance=nothing,
        capability=nothing,
        queries=np.full(ROWS, -1),
        spent=Spent(),
    )


@pytest.mark.claim("loop-2")
def test_a_steady_model_is_judged(field: Surface) -> None:
    model = Turning()
    flips._close(model, field, flips._opening(model, field), findings(field, np.ones(ROWS, dtype=bool)))


@pytest.mark.claim("loop-2")
def test_a_model_that_was_another_one_only_during_the_attack_is_found(field: Surface) -> None:
    model = Turning()
    before = flips._opening(model, field)
    wrong_meanwhile = np.arange(ROWS) >= 6
    with pytest.raises(Inconclusive, match="6 of 60"):
        flips._close(model, field, before, findings(field, wrong_meanwhile))


@pytest.mark.claim("loop-2")
@pytest.mark.parametrize(("first", "last"), [(ROWS, ROWS + 30), (0, 2)])
def test_a_model_that_is_another_one_afterwards_is_found(field: Surface, first: int, last: int) -> None:
    """On the attacker's own rows as on the attacked ones, whether or not many rows are at hand."""
    model = Turning()
    before = flips._opening(model, field)
    model.turned[first:last] = True
    with pytest.raises(Inconclusive, match="answers changed"):
        flips._close(model, field, before, findings(field, np.ones(ROWS, dtype=bool)))
