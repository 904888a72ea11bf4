from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from holdfast.core.control import Control
from holdfast.core.domain import Ball
from holdfast.core.errors import AccessDenied, ConfigurationError, Inconclusive
from holdfast.core.oracle import Access, Oracle
from holdfast.core.target import Dataset, Target
from holdfast.hardening.answers import AnswerHardening, harden_answers


@dataclass
class Table:
    """A model that answers the logits it is given."""

    k: int = 4
    access: Access = Access.GRADIENTS

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple("abcdefgh"[: self.k])

    @property
    def framework(self) -> str:
        return "python"

    def labels(self, x: Any) -> Any:
        return np.asarray(x).argmax(axis=1)

    def scores(self, x: Any) -> Any:
        return x

    def value_and_gradient(self, x: Any, loss: Any) -> Any:
        return loss(x), x


LOGITS = np.log(np.array([[0.6171, 0.3012, 0.0811, 0.0006], [0.4014, 0.4012, 0.1, 0.0974]]))


def test_label_mode_answers_labels_and_nothing_else():
    model = harden_answers(Table(), "label")
    assert model.access == Access.LABELS
    np.testing.assert_array_equal(model.labels(LOGITS), [0, 0])
    with pytest.raises(AccessDenied):
        model.scores(LOGITS)
    with pytest.raises(AccessDenied):
        model.value_and_gradient(LOGITS, lambda z: z.sum(axis=1))
    with pytest.raises(AccessDenied):
        Oracle(model, Access.SCORES, 2)


def test_rounding_tells_only_the_digits_that_are_answered():
    got = np.exp(harden_answers(Table(), {"round": 2}).scores(LOGITS))
    np.testing.assert_allclose(got[0], [0.62, 0.30, 0.08, 0.0025], rtol=1e-4)
    np.testing.assert_allclose(got[1], [0.40, 0.40, 0.10, 0.10], rtol=1e-4)


def test_two_inputs_whose_probabilities_round_alike_get_the_same_answer():
    other = np.log(np.array([[0.6212, 0.2989, 0.0751, 0.0048]]))
    model = harden_answers(Table(), {"round": 2})
    np.testing.assert_array_equal(model.scores(other), model.scores(LOGITS[:1]))
    assert not np.array_equal(harden_answers(Table(), {"round": 4}).scores(other), model.scores(LOGITS[:1]))


def test_top_k_tells_nothing_of_how_the_rest_is_spread():
    got = np.exp(harden_answers(Table(), {"top_k": 1}).scores(LOGITS))
    np.testing.assert_allclose(got[0], [0.6171, *[0.3829 / 3] * 3], rtol=1e-4)
    both = np.exp(harden_answers(Table(), {"top_k": 2, "round": 1}).scores(LOGITS))
    np.testing.assert_allclose(both[0], [0.6, 0.3, 0.05, 0.05], rtol=1e-4)


@given(
    hnp.arrays(np.float64, (6, 5), elements=st.floats(-800, 800, width=64)),
    st.sampled_from([{"round": 1}, {"round": 3}, {"top_k": 1}, {"top_k": 3}, {"top_k": 2, "round": 2}]),
)
def test_hardening_changes_no_decision_and_stays_finite(logits, answers):
    model = harden_answers(Table(k=5), answers)
    got = model.scores(logits)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got.argmax(axis=1), model.labels(logits))
    assert (got <= 1e-4).all()


def test_an_infinite_log_probability_becomes_a_floor():
    got = harden_answers(Table(), {"round": 2}).scores(np.log(np.array([[1.0, 1e-300, 1e-300, 1e-300]])))
    np.testing.assert_allclose(np.exp(got), [[1.0, 0.0025, 0.0025, 0.0025]], rtol=1e-4)
    with np.errstate(divide="ignore"):
        certain = np.log(np.array([[1.0, 0.0, 0.0, 0.0]]))
    assert np.isfinite(harden_answers(Table(), {"top_k": 1}).scores(certain)).all()


def test_torch_scores_stay_torch_and_keep_the_decision_in_float32():
    torch = pytest.importorskip("torch")
    logits = torch.tensor(LOGITS[1:], dtype=torch.float32)
    got = harden_answers(Table(), {"round": 1}).scores(logits)
    assert isinstance(got, torch.Tensor)
    assert got.dtype == torch.float32
    assert int(got.argmax(dim=1)) == 0
    assert float(got[0, 0]) > float(got[0, 1])


def test_a_label_only_model_gains_no_scores():
    model = harden_answers(Table(access=Access.LABELS), {"round": 2})
    assert model.access == Access.LABELS
    with pytest.raises(AccessDenied):
        model.scores(LOGITS)


def test_nan_is_not_rounded_away():
    with pytest.raises(Inconclusive):
        harden_answers(Table(), {"round": 2}).scores(np.array([[np.nan, 0.0, 0.0, 0.0]]))


@pytest.mark.parametrize(
    "answers",
    [
        "labels",
        "",
        {},
        {"rounds": 2},
        {"round": 0},
        {"round": 40},
        {"round": True},
        {"round": 2.0},
        {"top_k": 0},
        {"top_k": 3},
        {"top_k": 9},
    ],
)
def test_modes_that_make_no_sense_are_refused(answers):
    with pytest.raises(ConfigurationError) as caught:
        harden_answers(Table(), answers)
    assert caught.value.where


def test_the_control_hardens_what_is_served_and_leaves_the_file_bare():
    data = Dataset(name="holdout", x=LOGITS, y=np.array([0, 0]), classes=("a", "b", "c", "d"), ids=np.array(["1", "2"]))
    target = Target(name="t", model=Table(), modality="tabular", holdout=data)
    control = AnswerHardening(answers="label")
    assert isinstance(control, Control)
    hardened = control.apply(target, seed=0)
    assert hardened.model.access == Access.LABELS
    assert hardened.weights.access == Access.GRADIENTS
    again = AnswerHardening(answers={"round": 2}).apply(hardened, seed=0)
    assert again.model.access == Access.SCORES
    assert target.model.access == Access.GRADIENTS


@pytest.mark.claim("loop-5")
def test_attacks_see_the_hardened_answers_and_their_queries_are_counted():
    model = harden_answers(Table(), {"round": 1})
    oracle = Oracle(model, Access.SCORES, 1, budget=2)
    oracle.watch(LOGITS[:1], np.array([0]), Ball(norm="linf", radius=9.0, low=-10, high=10))
    np.testing.assert_allclose(np.exp(oracle.scores(LOGITS[:1])), [[0.6, 0.3, 0.1, 0.025]], rtol=1e-4)
    assert oracle.ledger.queries[0] == -1
    oracle.scores(LOGITS[:1, ::-1].copy())
    assert oracle.ledger.queries[0] == 2
