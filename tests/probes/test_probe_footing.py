"""A model that answers at random gives no footing, whether it shows in its labels or only in its scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made_targets import people

from holdfast.core.errors import Inconclusive
from holdfast.core.oracle import Access
from holdfast.models.answers import Context
from holdfast.models.python import PythonModel
from holdfast.probes.footing import footing

DATA = people(400, 0)
DRAW = np.random.default_rng(0)


def served(function: Any) -> PythonModel:
    return PythonModel(function, Context(sample=DATA.x[:20], classes=DATA.classes, fixed=True))


def probabilities(x: Any, noise: float = 0.0) -> Any:
    share = 0.1 + 0.8 * (x["age"].to_numpy() > 60) + noise * DRAW.random(len(x))
    return np.stack([1 - share, share], axis=1)


@pytest.mark.claim("loop-2")
@pytest.mark.parametrize(
    "function",
    [
        lambda x: DRAW.integers(0, 2, len(x)),
        lambda x: np.where(DRAW.random(len(x)) < 0.1, 1 - (x["age"] > 60), x["age"] > 60),
        lambda x: probabilities(x, 0.01),
    ],
)
def test_a_model_that_answers_identical_rows_differently_is_inconclusive(function: Any) -> None:
    with pytest.raises(Inconclusive, match="answers identical rows differently"):
        footing(served(function), DATA, rows=30, seed=0)


def test_a_steady_model_has_footing_even_where_its_scores_move_by_rounding() -> None:
    model = served(lambda x: probabilities(x, 1e-9))
    assert model.access is Access.SCORES
    assert footing(model, DATA, rows=30, seed=0).above_floor
