"""Named child seeds and one random stream a sample."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.seeds import SampleStreams, derive, generator

LABELS = st.lists(st.text(max_size=5), max_size=4)


@given(st.integers(), LABELS, LABELS)
def test_children_differ_by_every_label_and_by_how_labels_are_cut(seed: int, first, second) -> None:
    assert 0 <= derive(seed, *first) < 2**63
    assert (derive(seed, *first) == derive(seed, *second)) == (first == second)


def test_labels_cannot_be_glued_together() -> None:
    assert derive(0, "a", "b") != derive(0, "a\x1fb")
    assert derive(0, "1:a") != derive(0, "1", "a")


def test_a_seed_gives_the_same_numbers_in_every_release() -> None:
    assert derive(7, "unit", 3) == 2294412820054195328
    assert generator(7, "unit", 3).integers(2**31, size=3).tolist() == [192043514, 122125309, 1232722928]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True))
def test_what_is_drawn_for_a_sample_does_not_depend_on_the_others(units) -> None:
    together = SampleStreams(5, units)
    everyone = np.arange(len(units))
    normal, uniform, whole = (
        together.normal(everyone, (2, 3)),
        together.uniform(everyone, (4,)),
        together.integers(everyone, 10, (2,)),
    )
    for place, unit in enumerate(units):
        alone = SampleStreams(5, [unit])
        only = np.array([0])
        assert np.array_equal(alone.normal(only, (2, 3))[0], normal[place])
        assert np.array_equal(alone.uniform(only, (4,))[0], uniform[place])
        assert np.array_equal(alone.integers(only, 10, (2,))[0], whole[place])


def test_a_draw_may_be_cut_into_parts() -> None:
    whole, parts, only = SampleStreams(1, ["a"]), SampleStreams(1, ["a"]), np.array([0])
    expected = whole.normal(only, (5, 3))[0]
    assert np.array_equal(np.concatenate([parts.normal(only, (2, 3))[0], parts.normal(only, (3, 3))[0]]), expected)


def test_no_samples_draw_nothing() -> None:
    empty = SampleStreams(1, [])
    none = np.array([], dtype=np.int64)
    assert empty.normal(none, (2,)).shape == empty.uniform(none, (2,)).shape == empty.integers(none, 5, (2,)).shape == (0, 2)


def test_a_part_goes_on_with_the_streams_of_its_samples() -> None:
    whole, other = SampleStreams(3, range(4)), SampleStreams(3, range(4))
    part, picked = whole.part(np.array([3, 1])), np.array([3, 1])
    assert np.array_equal(part.uniform(np.arange(2), (2,)), other.uniform(picked, (2,)))
    assert np.array_equal(whole.uniform(picked, (2,)), other.uniform(picked, (2,)))
