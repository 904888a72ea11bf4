from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.evidence import Metric
from holdfast.reports import numbers
from holdfast.reports.text import clean


def plain(text: str) -> str:
    return text.replace(numbers.SPACE, " ")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 EUR"),
        (0.4, "<1 EUR"),
        (7.04, "7.0 EUR"),
        (854.2, "850 EUR"),
        (999.6, "1.0 k EUR"),
        (12_345, "12 k EUR"),
        (123_456, "120 k EUR"),
        (999_900, "1.0 M EUR"),
        (2_040_000, "2.0 M EUR"),
        (3.1e9, "3.1 bn EUR"),
        (-12_345, "\u221212 k EUR"),
    ],
)
def test_sums_have_two_significant_digits(value: float, shown: str) -> None:
    assert plain(numbers.money(value, "EUR")) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 %"),
        (1e-6, "<0.01 %"),
        (0.0042, "0.42 %"),
        (0.031, "3.1 %"),
        (0.5, "50 %"),
        (0.994, "99.4 %"),
        (0.9998, ">99.9 %"),
        (1, "100 %"),
    ],
)
def test_shares(value: float, shown: str) -> None:
    assert plain(numbers.share(value)) == shown


def test_the_interval_of_no_success_is_not_zero() -> None:
    assert plain(numbers.share_interval(0.0, 0.0, 0.0143)) == "0.0 % [0.0, 1.5]"


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_shown_intervals_cover_the_computed_ones(a: float, b: float, c: float) -> None:
    low, value, high = sorted((a, b, c))
    shown = re.search(r"\[([\d.]+), ([\d.]+)\]", plain(numbers.share_interval(value, low, high)))
    assert shown
    assert float(shown[1]) <= 100 * low + 1e-6
    assert float(shown[2]) >= 100 * high - 1e-6


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_has_a_form(value: float) -> None:
    assert numbers.money(value, "EUR")
    assert numbers.quantity(value)
    assert math.isfinite(len(numbers.share(value)))


def test_metrics_carry_their_counts() -> None:
    shown = numbers.metric(Metric(name="TPR", value=0.156, low=0.1404, high=0.1727, successes=312, trials=2000))
    assert plain(shown) == "15.6 % [14.0, 17.3], 312 of 2,000"
    assert plain(numbers.metric(Metric(name="duplicates", value=14, unit="rows"))) == "14 rows"


def test_capabilities_speak_their_axis() -> None:
    assert plain(numbers.capability("queries", 1000)) == "1,000 queries"
    assert plain(numbers.capability("queries", 1)) == "1 query"
    assert plain(numbers.capability("poison fraction", 0.03)) == "poison fraction 3 %"


@given(st.text())
def test_clean_text_is_one_visible_line(text: str) -> None:
    shown = clean(text, 50)
    assert len(shown) <= 50 * 10 + 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    shown.encode("utf-8")


def test_clean_text_shows_what_it_replaced() -> None:
    assert clean("a\u202eb\x1b[31m\x00\nc") == "a[U+202E]b[U+001B][31m[U+0000] c"
    assert clean("نص \u05d0\u05d1") == "نص \u05d0\u05d1"
    assert clean("abc", 2) == "ab…"


def test_a_difference_that_rounds_to_nothing_has_no_sign() -> None:
    assert [numbers.signed_share(value) for value in (-0.0, 0.0, -0.0004, 0.0006, -0.01)] == ["0.0", "0.0", "0.0", "+0.1", "−1.0"]


def test_a_moment_is_shown_to_the_minute_and_anything_else_is_text() -> None:
    assert numbers.moment("2026-01-31T09:30:07Z") == "2026-01-31 09:30 UTC"
    assert numbers.moment("\x1b[2J") == "[U+001B][2J"
