"""What `Attack.run` guarantees, whatever the attack does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from holdfast.attacks.base import Attack
from holdfast.core.domain import Ball
from holdfast.core.errors import AccessDenied, InvalidData, QueryBudgetExceeded
from holdfast.core.oracle import Access
from holdfast.core.tabular import Table, Tabular


class Threshold:
    """Class 1 where the first feature exceeds one half."""

    access = Access.LABELS

    def labels(self, x: Any) -> np.ndarray:
        first = x.iloc[:, 0].to_numpy() if isinstance(x, pd.DataFrame) else np.asarray(x)[:, 0]
        if np.isnan(first).any():
            raise AssertionError("an input with NaN reached the model")
        return (first > 0.5).astype(np.int64)

    def scores(self, x: Any) -> Any:
        raise AssertionError("scores of a label-only model")

    def value_and_gradient(self, x: Any, loss: Any) -> Any:
        raise AssertionError("gradients of a label-only model")


@dataclass(frozen=True, kw_only=True)
class Scripted(Attack):
    """Does what the test says."""

    does: Callable[..., Any]
    access = Access.LABELS

    def perturb(self, oracle, x, y, domain, streams):
        return self.does(oracle, x, y, domain)


X = np.array([[0.45, 0.5], [0.1, 0.5], [0.9, 0.5]])
Y = np.array([0, 0, 0])
BALL = Ball(norm="linf", radius=0.1)


def run(does: Callable[..., Any], x: Any = X, y: Any = Y, domain: Any = BALL, **more: Any):
    return Scripted(does=does).run(Threshold(), x, y, domain, seed=0, **more)


def test_only_what_the_model_misclassifies_inside_the_domain_is_success() -> None:
    outcome = run(lambda oracle, x, y, domain: x + 0.1)
    assert outcome.correct.tolist() == [True, True, False]
    assert outcome.success.tolist() == [True, False, False]
    assert outcome.adversarial[0].tolist() == pytest.approx([0.55, 0.6])
    assert outcome.adversarial[1:].tolist() == X[1:].tolist()
    assert outcome.distance[0] == pytest.approx(0.1)
    assert np.isnan(outcome.distance[1:]).all()
    assert outcome.queries.tolist() == [0, -1, -1]


def test_an_attack_that_leaves_the_domain_is_brought_back() -> None:
    outcome = run(lambda oracle, x, y, domain: x + 10)
    assert outcome.success.tolist() == [True, False, False]
    assert BALL.contains(X[:1], outcome.adversarial[:1]).all()


@pytest.mark.parametrize("nothing", [math.nan, math.inf, -math.inf])
def test_an_attack_that_returns_no_numbers_has_no_success(nothing: float) -> None:
    assert not run(lambda oracle, x, y, domain: np.full_like(x, nothing)).success.any()


def test_an_attack_that_returns_another_shape_is_refused() -> None:
    with pytest.raises(InvalidData, match="shape"):
        run(lambda oracle, x, y, domain: x[:1])


def test_what_the_oracle_saw_counts_even_if_the_attack_forgets_it() -> None:
    def forgets(oracle, x, y, domain):
        oracle.labels(x)
        oracle.labels(domain.project(x, x + 0.1))
        return x

    outcome = run(forgets, budget=2)
    assert outcome.success.tolist() == [True, False, False]
    assert outcome.queries.tolist() == [2, -1, -1]
    assert outcome.adversarial[0].tolist() == pytest.approx([0.55, 0.6])
    assert outcome.cost.queries.tolist() == [2, 2]


def test_what_the_oracle_saw_outside_the_domain_does_not_count() -> None:
    def far(oracle, x, y, domain):
        oracle.labels(x + 0.9)
        return x

    assert not run(far).success.any()


def test_an_attack_over_its_cap_is_stopped() -> None:
    with pytest.raises(QueryBudgetExceeded):
        run(lambda oracle, x, y, domain: oracle.labels(x), budget=0)


def test_inputs_are_not_changed_by_an_attack_that_works_in_place() -> None:
    x = X.copy()

    def in_place(oracle, x, y, domain):
        x += 0.1
        return x

    run(in_place, x=x)
    assert np.array_equal(x, X)


def test_torch_gives_what_numpy_gives() -> None:
    expected = run(lambda oracle, x, y, domain: x + 0.1)
    outcome = run(lambda oracle, x, y, domain: x + 0.1, x=torch.tensor(X))
    assert isinstance(outcome.adversarial, torch.Tensor)
    assert np.array_equal(outcome.adversarial.numpy(), expected.adversarial)
    assert np.array_equal(outcome.success, expected.success)
    assert np.allclose(outcome.distance, expected.distance, equal_nan=True)


def test_tables_go_through_the_users_columns() -> None:
    frame = pd.DataFrame({"x": [0.45, 0.2, 0.9], "sex": ["f", "m", "f"]})
    table = Table.describe(frame, immutable=["sex"])
    domain = Tabular(table=table, radius=0.5)
    outcome = run(lambda oracle, x, y, domain: x + 9, x=table.encode(frame), domain=domain, decode=table.decode)
    assert outcome.correct.tolist() == [True, True, False]
    assert outcome.success.tolist() == [True, False, False]
    assert table.decode(outcome.adversarial)["sex"].tolist() == ["f", "m", "f"]


@pytest.mark.parametrize(
    ("x", "y", "more", "match"),
    [
        (X, Y[:2], {}, "2 labels"),
        (X, Y, {"units": ["a"]}, "1 units"),
        (X + 1, Y, {}, "outside"),
        (np.full_like(X, math.nan), Y, {}, "outside"),
        (X.astype(np.int64), Y, {}, "type int64"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, y, more, match: str) -> None:
    with pytest.raises(InvalidData, match=match):
        run(lambda oracle, x, y, domain: x, x=x, y=y, **more)


def test_nothing_to_attack_is_no_success() -> None:
    called = []
    outcome = run(lambda oracle, x, y, domain: called.append(1), x=X[2:], y=Y[2:])
    assert (outcome.correct.tolist(), outcome.success.tolist(), called) == ([False], [False], [])
    empty = run(lambda oracle, x, y, domain: called.append(1), x=X[:0], y=Y[:0])
    assert (len(empty.success), called) == (0, [])


def test_an_attack_needs_its_access() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Greedy(Scripted):
        access = Access.SCORES

    with pytest.raises(AccessDenied):
        Greedy(does=lambda *_: None).run(Threshold(), X, Y, BALL, seed=0)
