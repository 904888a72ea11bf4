"""A model that answers at random gives no footing, whether it shows in its labels or only in its scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import Inconclusive
from holdfast.core.oracle import Access
from holdfast.core.statistics import rate
from holdfast.core.target import Dataset
from holdfast.models.answers import Context
from holdfast.models.python import PythonModel
from holdfast.probes.footing import distinct, footing, halves, tied
from made_targets import people

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


def copies(rows: int, times: int) -> Dataset:
    data = DATA.take(np.repeat(np.arange(rows), times))
    return replace(data, ids=np.arange(len(data)).astype(str))


@pytest.mark.claim("loop-2")
def test_copies_of_few_rows_give_no_footing() -> None:
    model = served(probabilities)
    with pytest.raises(Inconclusive, match="only 29 of 290 holdout rows have distinct inputs"):
        footing(model, copies(29, 10), rows=30, seed=0)
    assert footing(model, copies(30, 10), rows=30, seed=0)


@pytest.mark.claim("loop-2")
def test_copies_make_no_interval_tighter() -> None:
    model = served(probabilities)
    once, often = (footing(model, copies(200, times), rows=30, seed=0) for times in (1, 5))
    assert often.accuracy.value == once.accuracy.value
    assert often.accuracy.effective_trials == pytest.approx(200, rel=0.02)
    assert often.accuracy.low == pytest.approx(once.accuracy.low, abs=0.005)


def test_rows_with_the_same_inputs_are_tied_to_the_first_of_them() -> None:
    data = copies(4, 3)
    assert tied(data).clusters.tolist() == ["0"] * 3 + ["3"] * 3 + ["6"] * 3 + ["9"] * 3
    assert tied(DATA) is DATA
    assert distinct(data.x) == 4
    assert distinct(data.x.iloc[:0]) == distinct(np.zeros((0, 2, 2))) == 0
    images = replace(data, x=np.repeat(np.random.default_rng(0).random((4, 1, 3, 3)), 3, axis=0))
    assert tied(images).clusters.tolist() == tied(data).clusters.tolist()


def test_declared_clusters_stay_unless_copies_tie_more_together() -> None:
    data = copies(4, 3)
    own = replace(data, clusters=data.ids)
    assert tied(own).clusters.tolist() == tied(data).clusters.tolist()
    halved = replace(data, clusters=(np.arange(12) // 6).astype(str))
    assert tied(halved) is halved


def test_a_table_pasted_under_new_patients_is_no_further_evidence() -> None:
    random = np.random.default_rng(5)
    patients = np.repeat(np.arange(100), 3)
    once = replace(copies(300, 1), clusters=patients.astype(str))
    rows = np.tile(np.arange(300), 3)
    renamed = patients[rows] + 100 * np.repeat(np.arange(3), 300)
    pasted = replace(
        once.take(rows),
        ids=np.arange(900).astype(str),
        clusters=renamed.astype(str),
    )
    right = (random.random(100)[patients] + 0.3 * random.random(300)) < 0.4
    alone, often = rate(right, tied(once).clusters), rate(right[rows], tied(pasted).clusters)
    assert often.effective_trials == pytest.approx(alone.effective_trials, rel=0.03)
    assert often.high - often.low == pytest.approx(alone.high - alone.low, rel=0.05)


def test_jitter_makes_no_evidence_of_copies() -> None:
    data = copies(40, 12)
    numbers = data.x.select_dtypes("number").columns
    moved = 1e-7 * np.random.default_rng(1).normal(size=(len(data), len(numbers)))
    shaken = replace(data, x=data.x.assign(**{name: data.x[name] + moved[:, at] for at, name in enumerate(numbers)}))
    assert distinct(shaken.x) <= 44
    assert len(np.unique(tied(shaken).clusters)) <= 44


def test_patients_and_copies_that_cross_are_one_cluster() -> None:
    crossed = replace(copies(4, 3), clusters=np.tile(["a", "b", "c"], 4))
    assert tied(crossed).clusters.tolist() == ["0"] * 12


def test_coincidences_of_a_table_of_few_values_do_not_tie_everybody_together() -> None:
    random = np.random.default_rng(6)
    many = DATA.take(np.arange(2000) % len(DATA))
    values = dict.fromkeys(many.x.columns, random.integers(0, 600, 2000))
    pairs, names = (np.arange(2000) // 2).astype(str), np.arange(2000).astype(str)
    data = replace(many, x=many.x.assign(**values), clusters=pairs, ids=names)
    sizes = np.unique(tied(data).clusters, return_counts=True)[1]
    assert sizes.max() < 20


def test_halves_keep_copies_together() -> None:
    own, judged = halves(copies(40, 5), 1)
    assert not set(own.x["income"]) & set(judged.x["income"])
    assert len(own) == len(judged) == 100


def test_a_guessed_order_of_classes_is_the_first_suspect() -> None:
    labels = np.where(DATA.y == 0, "well", "ill")
    data = replace(DATA, y=(labels == "well").astype(np.int64), classes=("ill", "well"))
    guess = Context(sample=DATA.x[:20], labels=("ill", "well"))
    for function in (probabilities, lambda x: (x["age"].to_numpy() > 60).astype(np.int64)):
        with pytest.raises(Inconclusive) as refused:
            footing(PythonModel(function, guess), data, rows=30, seed=0).require_above_floor()
        assert refused.value.hint is not None
        assert refused.value.hint.startswith("Add model.classes: the labels in the order")
        assert "ill, well" in refused.value.hint
    stated = PythonModel(probabilities, replace(guess, classes=("ill", "well")))
    with pytest.raises(Inconclusive) as refused:
        footing(stated, data, rows=30, seed=0).require_above_floor()
    assert refused.value.hint is not None
    assert refused.value.hint.startswith("Check the order of model.classes")
