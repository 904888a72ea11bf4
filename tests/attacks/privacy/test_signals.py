"""Signals stay exact where naive formulas overflow, and censoring keeps the order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from holdfast.attacks.privacy.signals import censor, signals, true_class_logit
from holdfast.core.errors import AccessDenied, InvalidData, QueryBudgetExceeded
from holdfast.core.oracle import Access, Oracle
from holdfast.core.target import Dataset


def test_the_signal_is_the_logit_of_the_true_class():
    shares = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    y = np.array([0, 2])
    expected = np.log(np.array([0.7 / 0.3, 0.3 / 0.7]))
    assert true_class_logit(np.log(shares), y) == pytest.approx(expected)
    assert true_class_logit(np.log(shares) + 5.0, y) == pytest.approx(expected), "logits need no normalisation"


def test_it_keeps_its_digits_where_a_probability_rounds_to_one():
    logits = np.array([[60.0, 0.0], [800.0, 0.0], [0.0, 800.0]], dtype=np.float32)
    assert true_class_logit(logits, np.zeros(3, dtype=np.int64)) == pytest.approx([60.0, 800.0, -800.0])


def test_exact_zeros_and_ones_are_infinite_and_then_censored():
    with np.errstate(divide="ignore"):
        logs = np.log(np.array([[1.0, 0.0], [0.0, 1.0], [0.99, 0.01], [0.98, 0.02], [0.3, 0.7]]))
    raw = true_class_logit(logs, np.zeros(5, dtype=np.int64))
    assert np.isposinf(raw[0])
    assert np.isneginf(raw[1])
    pulled, share = censor(raw)
    assert share == pytest.approx(0.4)
    assert pulled[0] == pytest.approx(np.log(99) + np.log(2))
    assert pulled[1] == pytest.approx(np.log(3 / 7) - np.log(2))


@given(
    arrays(np.float64, st.integers(1, 40), elements=st.one_of(st.floats(-700, 700), st.sampled_from([np.inf, -np.inf, 708.0])))
)
def test_censoring_is_finite_and_keeps_the_order(values):
    pulled, share = censor(values)
    assert np.isfinite(pulled).all()
    assert 0 <= share <= 1
    with np.errstate(invalid="ignore"):
        apart = np.subtract.outer(values, values)
    clear = np.isinf(apart) | (np.abs(np.nan_to_num(apart)) > 1e-3)
    clear &= ~np.isnan(apart)
    assert (np.subtract.outer(pulled, pulled)[clear & (apart > 0)] >= 0).all()


def test_untied_logits_are_left_alone():
    values = np.random.default_rng(0).normal(scale=30, size=200)
    pulled, share = censor(values)
    assert share == 0
    assert (pulled == values).all()


class Counted:
    """Answers class 0 with a share that grows with the input."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.asked = 0

    def labels(self, x):
        self.asked += len(x)
        return (x[:, 0] < 0).astype(np.int64)

    def scores(self, x):
        self.asked += len(x)
        return np.stack([x[:, 0], np.zeros(len(x))], axis=1)


def rows(count: int) -> Dataset:
    x = np.linspace(-1, 1, count)[:, None]
    return Dataset(name="rows", x=x, y=np.zeros(count, dtype=np.int64), classes=("a", "b"), ids=np.arange(count).astype(str))


def test_each_record_costs_one_query_and_access_is_kept():
    model, data = Counted(Access.SCORES), rows(5000)
    oracle = Oracle(model, Access.SCORES, len(data), 1)
    assert signals(oracle, data) == pytest.approx(data.x[:, 0])
    assert model.asked == 5000
    assert (oracle.cost.queries == 1).all()
    with pytest.raises(QueryBudgetExceeded):
        signals(oracle, data)
    labels = signals(Oracle(Counted(Access.LABELS), Access.LABELS, 100, 1), rows(100))
    assert set(labels) == {0.0, 1.0}
    with pytest.raises(AccessDenied):
        Oracle(Counted(Access.LABELS), Access.SCORES, 1)


def test_malformed_scores_are_refused():
    with pytest.raises(InvalidData):
        true_class_logit(np.zeros((3, 1)), np.zeros(3, dtype=np.int64))
    with pytest.raises(InvalidData):
        true_class_logit(np.zeros((3, 2)), np.zeros(2, dtype=np.int64))
