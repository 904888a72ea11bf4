"""What models answer: forms are told apart, and wrong ones are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import Inconclusive, InvalidModel
from holdfast.models.answers import (
    LOG_ZERO,
    Context,
    as_answer,
    as_labels,
    as_scores,
    class_name,
    detect_output,
    log_probabilities,
    unnamed_classes,
)


def test_forms_are_told_apart() -> None:
    assert detect_output(np.array([[0.2, 0.8], [0.5, 0.5]]), "m") == "probabilities"
    assert detect_output(np.array([[0.2, 0.9], [0.5, 0.5]]), "m") == "logits"
    assert detect_output(np.array([[-3.0, 2.0]]), "m") == "logits"
    assert detect_output(np.array([0.2, 0.7]), "m") == "probabilities"
    assert detect_output(np.array([-0.2, 3.7]), "m") == "logits"
    for labels in (np.array([0, 2, 1]), np.array(["a", "b"]), np.array([True, False]), np.array([0.0, 2.0])):
        assert detect_output(labels, "m") == "labels"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_one_probability_becomes_two_classes_that_stay_finite(values: list[float]) -> None:
    scores = log_probabilities(np.array(values)[:, None], "m")
    assert np.isfinite(scores).all()
    assert np.allclose(np.exp(scores)[:, 1], values, atol=1e-300)
    assert (scores >= LOG_ZERO).all()


def test_a_single_logit_is_the_log_odds_of_the_second_class() -> None:
    scores = as_scores(np.array([-2.0, 3.0]), "logits", "m")
    share = np.exp(scores[:, 1]) / np.exp(scores).sum(axis=1)
    assert np.allclose(share, 1 / (1 + np.exp([2.0, -3.0])))


def test_nan_is_inconclusive_and_never_a_score() -> None:
    with pytest.raises(Inconclusive):
        as_scores(np.array([[np.nan, 1.0]]), "logits", "m")
    with pytest.raises(Inconclusive):
        detect_output(np.array([[np.nan, 1.0]]), "m")
    with pytest.raises(Inconclusive):
        as_labels(np.array([np.nan, 1.0]), pd.Index([0, 1]), "m")


@pytest.mark.parametrize(
    ("raw", "rows"),
    [(0.5, 3), (np.zeros((2, 3)), 3), (np.zeros((3, 2, 2)), 3), (None, 1), ([{"a": 1}], 1), ([[1, 2], [3]], 2)],
)
def test_answers_of_the_wrong_shape_are_refused(raw: object, rows: int) -> None:
    with pytest.raises(InvalidModel):
        as_answer(raw, rows, "m")


def test_probabilities_that_are_none_are_refused() -> None:
    with pytest.raises(InvalidModel, match="add up"):
        as_scores(np.array([[0.2, 0.2]]), "probabilities", "m")
    with pytest.raises(InvalidModel, match="outside"):
        as_scores(np.array([[1.5, -0.5]]), "probabilities", "m")
    with pytest.raises(InvalidModel, match="3 scores"):
        as_scores(np.zeros((2, 3)), "logits", "m", classes=2)


def test_unknown_labels_are_refused_by_name() -> None:
    with pytest.raises(InvalidModel, match="'c'"):
        as_labels(np.array(["a", "c"]), pd.Index(["a", "b"]), "m")
    assert as_labels(np.array([True, False]), pd.Index([0, 1]), "m").tolist() == [1, 0]


def test_class_names_agree_across_types() -> None:
    assert class_name(np.int64(3)) == class_name(3.0) == class_name("3") == "3"
    assert class_name(np.True_) == "True"
    assert class_name(0.5) == "0.5"


def test_unnamed_classes_take_declared_names_then_numbers_then_the_data() -> None:
    sample = np.zeros((1, 1))
    assert unnamed_classes(2, Context(sample=sample, labels=("x", "y"), classes=("n", "p"))) == ("n", "p")
    assert unnamed_classes(3, Context(sample=sample, labels=("0", "2"))) == ("0", "1", "2")
    assert unnamed_classes(2, Context(sample=sample, labels=("no", "yes"))) == ("no", "yes")
    with pytest.raises(InvalidModel, match="3 classes"):
        unnamed_classes(3, Context(sample=sample, labels=("no", "yes")))
