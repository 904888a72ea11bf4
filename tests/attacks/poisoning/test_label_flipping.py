"""Flips change exactly the labels they should, and nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.attacks.poisoning.label_flipping import STRATEGIES, flip_labels, out_of_fold
from holdfast.core.errors import InvalidData
from holdfast.core.target import Dataset


def rows(count: int, classes: int, seed: int) -> Dataset:
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 3))
    y = (
        np.concatenate([np.arange(classes), random.integers(0, classes, count - classes)])
        if count >= classes
        else np.zeros(count)
    )
    return Dataset(name="r", x=x, y=y.astype(np.int64), classes=tuple("abcdef")[:classes], ids=np.arange(count).astype(str))


@settings(max_examples=80, deadline=None)
@given(st.integers(6, 120), st.integers(2, 6), st.floats(0, 1), st.floats(0, 1), st.sampled_from(STRATEGIES), st.integers(0, 999))
def test_the_share_is_exact_every_flip_is_a_flip_and_shares_nest(count, classes, share, more, strategy, seed):
    data = rows(count, classes, seed)
    confidence = np.random.default_rng(seed).random((count, classes))
    before = data.y.copy()
    share, more = min(share, more), max(share, more)
    small = flip_labels(data, share, strategy, seed=seed, confidence=confidence)
    large = flip_labels(data, more, strategy, seed=seed, confidence=confidence)
    expected = max(1, round(share * count)) if share > 0 else 0
    assert (small.y != before).sum() == expected
    assert set(np.unique(small.y)) <= set(range(classes))
    assert set(np.flatnonzero(small.y != before)) <= set(np.flatnonzero(large.y != before))
    assert (data.y == before).all()
    assert small.x is data.x
    assert (small.ids == data.ids).all()
    again = flip_labels(data, share, strategy, seed=seed, confidence=confidence)
    assert (again.y == small.y).all()


def test_directed_flips_hit_the_rarest_class_first():
    data = rows(100, 2, 0)
    data.y[:] = np.arange(100) < 20
    flipped = flip_labels(data, 0.2, "directed", seed=0)
    assert (flipped.y == 0).all()
    beyond = flip_labels(data, 0.3, "directed", seed=0)
    assert (beyond.y[:20] == 0).all()
    assert (beyond.y[20:] == 1).sum() == 10


def test_confident_flips_hit_the_surest_rows_with_the_least_likely_class():
    data = rows(50, 3, 1)
    confidence = np.full((50, 3), 0.2)
    confidence[np.arange(50), data.y] = np.linspace(0.3, 0.9, 50)
    least = (data.y + 1) % 3
    confidence[np.arange(50), least] = 0.01
    flipped = flip_labels(data, 0.1, "confident", seed=0, confidence=confidence)
    assert set(np.flatnonzero(flipped.y != data.y)) == set(range(45, 50))
    assert (flipped.y[45:] == least[45:]).all()


def test_confidence_is_out_of_fold():
    random = np.random.default_rng(0)
    x = pd.DataFrame({"a": random.normal(size=400), "b": random.choice(["u", "v"], 400)})
    noise = Dataset(name="n", x=x, y=random.integers(0, 2, 400), classes=("a", "b"), ids=np.arange(400).astype(str))
    found = out_of_fold(noise, seed=0)
    assert found.sum(axis=1) == pytest.approx(np.ones(400))
    own = found[np.arange(400), noise.y]
    assert abs(own.mean() - 0.5) < 0.06, "a model that saw the row would be sure of it"


def test_nonsense_is_refused():
    data = rows(20, 2, 0)
    with pytest.raises(InvalidData):
        flip_labels(data, 1.5, "random", seed=0)
    with pytest.raises(InvalidData):
        flip_labels(data, 0.1, "confident", seed=0)
    one = rows(20, 2, 0)
    one.y[:] = 0
    with pytest.raises(InvalidData):
        flip_labels(one, 0.1, "random", seed=0)
