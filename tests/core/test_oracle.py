"""The door to the model: access, caps, counts, and the ledger of first successes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.domain import Ball
from holdfast.core.errors import AccessDenied, Inconclusive, InvalidData, InvalidModel, QueryBudgetExceeded
from holdfast.core.oracle import Access, Oracle


class Threshold:
    """Class 1 where the first feature exceeds one half; counts its own calls, outside the oracle."""

    def __init__(self, access: Access = Access.GRADIENTS) -> None:
        self.access = access
        self.rows = 0
        self.calls = 0

    def labels(self, x):
        return np.asarray(self.scores(x)).argmax(axis=1)

    def scores(self, x):
        self.rows += len(x)
        self.calls += 1
        first = np.asarray(x)[:, 0]
        return np.stack([0.5 - first, first - 0.5], axis=1)

    def value_and_gradient(self, x, loss):
        self.rows += len(x)
        self.calls += 1
        x = x.detach().requires_grad_(True)
        value = loss(torch.stack([0.5 - x[:, 0], x[:, 0] - 0.5], dim=1))
        (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient


class Answers(Threshold):
    """A model that answers whatever the test wants."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def labels(self, x):
        return self.answer

    def scores(self, x):
        return self.answer

    def value_and_gradient(self, x, loss):
        return torch.zeros(len(x)), torch.zeros_like(x)


@settings(max_examples=200, deadline=None)
@given(
    samples=st.integers(1, 5),
    budget=st.integers(0, 12),
    requests=st.lists(
        st.tuples(st.sampled_from(["labels", "scores", "gradient"]), st.lists(st.integers(0, 4), max_size=6)), max_size=8
    ),
)
def test_no_sample_is_answered_over_its_cap_and_counts_equal_an_outside_counter(samples, budget, requests) -> None:
    model = Threshold()
    oracle = Oracle(model, Access.GRADIENTS, samples, budget)
    answered = np.zeros(samples, dtype=int)
    for kind, owners in requests:
        owner = np.array([owner % samples for owner in owners], dtype=np.int64)
        rows = torch.rand(len(owner), 2)
        before, asked = model.rows, np.bincount(owner, minlength=samples)
        try:
            if kind == "labels":
                oracle.labels(rows, owner)
            elif kind == "scores":
                oracle.scores(rows, owner)
            else:
                oracle.value_and_gradient(rows, lambda logits: logits[:, 0], owner)
        except QueryBudgetExceeded:
            assert (answered + asked > budget).any()
            assert model.rows == before
        else:
            answered += asked
        assert (oracle.cost.queries == answered).all()
        assert (answered <= budget).all()
        assert (oracle.remaining() == budget - answered).all()
    assert oracle.cost.forward == model.rows == answered.sum()
    assert oracle.cost.calls == model.calls


def test_access_is_enforced_on_both_sides_of_the_door() -> None:
    with pytest.raises(AccessDenied, match="the model gives labels"):
        Oracle(Threshold(Access.LABELS), Access.SCORES, 1)
    model = Threshold()
    blind = Oracle(model, Access.LABELS, 1)
    with pytest.raises(AccessDenied):
        blind.scores(np.zeros((1, 2)))
    with pytest.raises(AccessDenied):
        Oracle(model, Access.SCORES, 1).value_and_gradient(torch.zeros(1, 2), lambda z: z[:, 0])
    assert model.rows == 0
    assert blind.labels(np.zeros((1, 2))).tolist() == [0]


def test_the_first_success_is_the_first_misclassified_row_inside_the_domain() -> None:
    x0, y = np.full((2, 2), 0.4), np.array([0, 0])
    oracle = Oracle(Threshold(), Access.SCORES, 2)
    oracle.watch(x0, y, Ball(norm="linf", radius=0.2))
    outside, inside, correct = [0.9, 0.4], [0.55, 0.4], [0.3, 0.4]
    oracle.labels(np.array([outside, correct]))
    assert oracle.ledger.queries.tolist() == [-1, -1]
    rows = np.array([correct, correct, inside, inside, outside])
    oracle.scores(rows, np.array([0, 1, 0, 0, 1]))
    assert oracle.ledger.queries.tolist() == [3, -1]
    rows[:] = 0.0
    assert oracle.ledger.rows[0].tolist() == inside
    oracle.labels(np.array([inside]), np.array([1]))
    oracle.labels(np.array([inside]), np.array([0]))
    assert oracle.ledger.queries.tolist() == [3, 4]


def test_gradients_are_counted_and_watched() -> None:
    x0 = torch.full((1, 2), 0.4)
    oracle = Oracle(Threshold(), Access.GRADIENTS, 1)
    oracle.watch(x0, np.array([0]), Ball(norm="linf", radius=0.2))
    value, gradient = oracle.value_and_gradient(torch.tensor([[0.55, 0.4]]), lambda logits: logits[:, 1] - logits[:, 0])
    assert value.item() == pytest.approx(0.1)
    assert gradient.tolist() == [[2.0, 0.0]]
    assert (oracle.cost.forward, oracle.cost.backward, oracle.ledger.queries.tolist()) == (1, 1, [1])


def test_judging_is_not_charged_to_the_attacker() -> None:
    oracle = Oracle(Threshold(), Access.LABELS, 1, budget=0)
    assert oracle.judge(np.ones((1, 2))).tolist() == [1]
    assert oracle.cost.forward == 0


def test_decode_turns_rows_into_model_inputs() -> None:
    oracle = Oracle(Threshold(), Access.LABELS, 1, decode=lambda x: x / 10)
    assert oracle.labels(np.array([[9.0, 0.0]])).tolist() == [1]
    assert oracle.judge(np.array([[4.0, 0.0]])).tolist() == [0]


@pytest.mark.parametrize("owner", [[0], [0, 1, 0], [-1, 0], [0, 2], [[0, 1]]])
def test_owners_that_do_not_fit_are_refused(owner) -> None:
    oracle = Oracle(Threshold(), Access.LABELS, 2)
    with pytest.raises(InvalidData):
        oracle.labels(np.zeros((2, 2)), np.array(owner))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (np.array([math.nan]), Inconclusive),
        (np.array([0, 1]), InvalidModel),
        (np.array(0), InvalidModel),
        (np.array([[0, 1]]), InvalidModel),
        (np.array(["no"]), InvalidModel),
    ],
)
def test_labels_that_cannot_be_judged_are_refused(answer, error) -> None:
    oracle = Oracle(Answers(answer), Access.LABELS, 1)
    with pytest.raises(error):
        oracle.labels(np.zeros((1, 2)))
    with pytest.raises(error):
        oracle.judge(np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (np.array([[math.nan, 0.0]]), Inconclusive),
        (torch.tensor([[math.nan, 0.0]]), Inconclusive),
        (np.array([0.5]), InvalidModel),
        (np.zeros((2, 2)), InvalidModel),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(answer, error) -> None:
    with pytest.raises(error):
        Oracle(Answers(answer), Access.SCORES, 1).scores(np.zeros((1, 2)))


def test_infinite_log_probabilities_are_legitimate() -> None:
    assert Oracle(Answers(np.array([[0.0, -math.inf]])), Access.SCORES, 1).scores(np.zeros((1, 2)))[0, 1] == -math.inf


def test_a_gradient_without_the_loss_is_refused() -> None:
    with pytest.raises(InvalidModel, match="loss"):
        Oracle(Answers(None), Access.GRADIENTS, 1).value_and_gradient(torch.zeros(1, 2), lambda z: z[:, 0])
