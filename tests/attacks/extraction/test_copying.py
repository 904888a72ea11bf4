"""Copies agree with what they copy, learn more from scores than from labels, and pay for every answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from holdfast.attacks.extraction.copying import Answers, ask, choose_learner, train_copy
from holdfast.attacks.features import Encoder
from holdfast.core.errors import Inconclusive, QueryBudgetExceeded
from holdfast.core.oracle import Access, Oracle


class Linear:
    """A linear model of three classes."""

    weights = np.array([[2.0, -1.0, 0.0], [0.0, 2.0, -1.0], [-1.0, 0.0, 2.0]])

    def __init__(self, access: Access = Access.SCORES) -> None:
        self.access = access
        self.asked = 0

    def scores(self, x):
        self.asked += len(x)
        return x @ self.weights

    def labels(self, x):
        return self.scores(x).argmax(axis=1)


def inputs(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 3))


def agreement(mode, count: int, learner=None) -> float:
    model, x, fresh = Linear(), inputs(count, 0), inputs(2000, 1)
    answers = ask(Oracle(model, Access.SCORES, 1, count), x, Encoder.of(x))
    assert model.asked == count
    copy = train_copy(answers, mode, seed=0, learner=learner)
    return float((copy.predict(Encoder.of(x)(fresh)) == model.labels(fresh)).mean())


def test_a_linear_model_is_copied_from_few_scores():
    assert agreement("scores", 200) > 0.97
    assert agreement("labels", 200) > 0.85
    assert agreement("scores", 60) > agreement("labels", 60)
    assert agreement("labels", 1000) > agreement("labels", 20)


@pytest.mark.parametrize("learner", ["boosting", "network"])
@pytest.mark.parametrize("mode", ["scores", "labels"])
def test_both_learners_learn_in_both_modes(learner, mode):
    assert agreement(mode, 400, learner) > 0.8


def test_copies_of_shuffled_answers_agree_with_nothing():
    """The mutation: answers that belong to other inputs teach nothing."""
    model, x, fresh = Linear(), inputs(400, 0), inputs(2000, 1)
    answers = ask(Oracle(model, Access.SCORES, 1, 400), x, Encoder.of(x))
    order = np.random.default_rng(0).permutation(400)
    assert answers.logs is not None
    wrong = Answers(features=answers.features, labels=answers.labels[order], logs=answers.logs[order], categorical=None)
    copy = train_copy(wrong, "labels", seed=0)
    assert (copy.predict(fresh) == model.labels(fresh)).mean() < 0.5


def test_access_and_budget_are_kept():
    x = inputs(50, 0)
    labels = ask(Oracle(Linear(Access.LABELS), Access.LABELS, 1, 50), x, Encoder.of(x))
    assert labels.logs is None
    with pytest.raises(Inconclusive):
        train_copy(labels, "scores", seed=0)
    with pytest.raises(QueryBudgetExceeded):
        ask(Oracle(Linear(), Access.SCORES, 1, 49), x, Encoder.of(x))


def test_one_answer_makes_a_constant_copy():
    x = inputs(10, 0)
    answers = Answers(features=x, labels=np.full(10, 2), logs=None, categorical=None)
    copy = train_copy(answers, "labels", seed=0)
    assert copy.learner == "constant"
    assert (copy.predict(inputs(5, 1)) == 2).all()


def test_the_learner_is_chosen_by_answers_set_aside():
    model, x = Linear(), inputs(400, 0)
    answers = ask(Oracle(model, Access.SCORES, 1, 400), x, Encoder.of(x))
    assert choose_learner(answers, "scores", seed=0) == "network"
    stripes = (np.floor(4 * x[:, 0]).astype(int) % 2 == 0).astype(np.int64)
    striped = Answers(features=x, labels=stripes, logs=None, categorical=None)
    assert choose_learner(striped, "labels", seed=0) == "boosting"
    assert choose_learner(answers.take(np.arange(10)), "labels", seed=0) == "network"


def test_tables_with_words_gaps_and_dates_are_learned_from():
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "word": random.choice(["p", "q", "r"], 300),
            "gap": np.where(random.random(300) < 0.2, np.nan, random.normal(size=300)),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 100, 300), unit="D"),
            "empty": np.nan,
        }
    )
    encoder = Encoder.of(frame)
    labels = (frame["word"] == "p").to_numpy().astype(np.int64)
    answers = Answers(features=encoder(frame), labels=labels, logs=None, categorical=encoder.categorical)
    for learner in ("boosting", "network"):
        copy = train_copy(answers, "labels", seed=0, learner=learner)
        strange = frame.head(20).assign(word="never seen")
        assert len(copy.predict(encoder(strange))) == 20
        assert (copy.predict(encoder(frame)) == labels).mean() > 0.95
