"""Randomized smoothing against closed forms: a linear model's votes are known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from holdfast.certification.smoothing import ABSTAINED, Smoothing
from holdfast.core.errors import ConfigurationError, Inconclusive, InvalidData
from holdfast.core.oracle import Access


class Half:
    """Class 1 where the first feature exceeds 0; counts what it is asked."""

    access = Access.LABELS

    def __init__(self) -> None:
        self.rows = 0

    def labels(self, x: Any) -> np.ndarray:
        self.rows += len(x)
        return np.asarray(x)[:, 0].__gt__(0).astype(np.int64)

    def scores(self, x: Any) -> Any:
        raise AssertionError("smoothing needs labels only")

    def value_and_gradient(self, x: Any, loss: Any) -> Any:
        raise AssertionError("smoothing needs labels only")


def test_the_radius_is_that_of_the_paper() -> None:
    votes = Smoothing(sigma=0.5, samples=2000, alpha=0.001).certify(Half(), np.array([[0.6, 0.0], [-0.2, 0.0]]), seed=3)
    assert votes.label.tolist() == [1, 0]
    share = stats.beta.ppf(0.001, votes.votes, 2000 - votes.votes + 1)
    np.testing.assert_allclose(votes.share, share)
    np.testing.assert_allclose(votes.radius, 0.5 * stats.norm.ppf(share))
    assert (votes.radius < [0.6, 0.2]).all()
    assert (votes.radius > [0.45, 0.12]).all()


@pytest.mark.claim("evasion-10")
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_certificates_are_wrong_no_more_often_than_stated(library: str) -> None:
    margin, alpha = 0.1, 0.05
    x = np.tile([[margin, 0.0]], (1000, 1)).astype(np.float32)
    votes = Smoothing(sigma=0.25, samples=500, selection=50, alpha=alpha).certify(
        Half(), torch.from_numpy(x) if library == "torch" else x, seed=0
    )
    wrong = ((votes.label == 1) & (votes.radius > margin)) | (votes.label == 0)
    assert 0.01 < wrong.mean() <= alpha + 2 * np.sqrt(alpha * (1 - alpha) / 1000)


def test_a_point_on_the_boundary_abstains() -> None:
    x = np.zeros((200, 2))
    smoothing = Smoothing(sigma=1.0, samples=300, alpha=0.01)
    votes = smoothing.certify(Half(), x, seed=1)
    assert (votes.label == ABSTAINED).mean() > 0.97
    assert (votes.radius[votes.label == ABSTAINED] == 0).all()
    assert (smoothing.predict(Half(), x, seed=1) == ABSTAINED).mean() > 0.97
    assert smoothing.predict(Half(), x + 2, seed=1).tolist() == [1] * 200


@settings(max_examples=15, deadline=None)
@given(samples=st.integers(1, 2500), selection=st.integers(1, 1200), rows=st.integers(0, 4))
def test_exactly_the_stated_rows_are_asked(samples: int, selection: int, rows: int) -> None:
    model = Half()
    votes = Smoothing(sigma=1.0, samples=samples, selection=selection).certify(model, np.ones((rows, 3)), seed=0)
    assert model.rows == rows * (samples + selection)
    assert votes.queries.tolist() == [samples + selection] * rows


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_results_do_not_depend_on_the_batch(library: str) -> None:
    x: Any = np.random.default_rng(0).normal(size=(7, 40, 40)).astype(np.float32)
    x = torch.from_numpy(x) if library == "torch" else x

    class First(Half):
        def labels(self, x: Any) -> np.ndarray:
            return (np.asarray(x).reshape(len(x), -1)[:, 0] > 0).astype(np.int64)

    smoothing = Smoothing(sigma=1.0, samples=1500)
    together = smoothing.certify(First(), x, seed=5, units=list("abcdefg"))
    for row in (0, 3, 6):
        alone = smoothing.certify(First(), x[row : row + 1], seed=5, units=["abcdefg"[row]])
        assert alone.votes[0] == together.votes[row]
        assert alone.radius[0] == together.radius[row]


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Smoothing(sigma=0.0)
    with pytest.raises(InvalidData):
        Smoothing(sigma=1.0).certify(Half(), np.array([[np.nan, 0.0]]), seed=0)
    with pytest.raises(InvalidData):
        Smoothing(sigma=1.0).certify(Half(), np.zeros((2, 2)), seed=0, units=["a"])

    class Broken(Half):
        def labels(self, x: Any) -> np.ndarray:
            return np.full(len(x), np.nan)

    with pytest.raises(Inconclusive):
        Smoothing(sigma=1.0).certify(Broken(), np.zeros((2, 2)), seed=0)
