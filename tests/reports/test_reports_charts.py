from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.statistics import clopper_pearson
from holdfast.reports import charts
from holdfast.risk.register import CurvePoint

finite = st.floats(allow_nan=False, allow_infinity=False)
losses = st.lists(st.tuples(st.floats(0, 1e300), st.floats(0, 1)), max_size=20)


def point(capability: float, successes: int, trials: int = 100) -> CurvePoint:
    low, high = clopper_pearson(successes, trials)
    return CurvePoint(capability=capability, value=successes / trials, low=low, high=high, successes=successes, trials=trials)


def numbers_in(svg: str) -> list[float]:
    return [float(found) for found in re.findall(r'(?:x|y|x1|x2|y1|y2|cx|cy)="(-?[\d.]+)"', svg)]


def test_a_chart_is_an_image_with_a_name_and_a_description() -> None:
    svg = charts.exceedance([(1e3, 0.9), (1e4, 0.5), (1e6, 0.01)], "EUR", (25_000, 0.95), "the title", "the description")
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.findtext("title") == "the title"
    assert root.findtext("desc") == "the description"
    assert "style" not in {name for element in root.iter() for name in element.attrib}


def test_the_exceedance_axis_is_logarithmic_and_the_accepted_point_is_drawn() -> None:
    scale = charts.Scale(1e3, 1e6, 0, 300, logarithmic=True)
    assert [scale(value) for value in (1e3, 1e4, 1e5, 1e6)] == [0, 100, 200, 300]
    assert scale.ticks() == [1e3, 1e4, 1e5, 1e6]
    svg = charts.exceedance([(1e3, 0.9), (1e6, 0.01)], "EUR", (1e5, 0.95), "t", "d")
    assert "accepted: 100" in svg
    assert 'class="alert"' in svg
    assert 'class="alert"' not in charts.exceedance([(1e3, 0.9), (1e6, 0.01)], "EUR", None, "t", "d")


def test_a_wide_capability_axis_is_logarithmic_and_a_narrow_one_linear() -> None:
    wide = charts.capability([point(1, 1), point(10, 5), point(100, 9)], "queries", "t", "d")
    marks = [float(found) for found in re.findall(r'cx="([\d.]+)"', wide)]
    assert marks[1] - marks[0] == pytest.approx(marks[2] - marks[1], abs=0.2)
    narrow = charts.capability([point(0.01, 1), point(0.02, 5), point(0.03, 9)], "poison fraction", "t", "d")
    marks = [float(found) for found in re.findall(r'cx="([\d.]+)"', narrow)]
    assert marks[1] - marks[0] == pytest.approx(marks[2] - marks[1], abs=0.2)


def test_the_region_beyond_what_was_tested_is_drawn_as_unknown() -> None:
    points = [point(1, 1), point(100, 9)]
    assert 'class="unknown"' in charts.capability(points, "queries", "t", "d", reaches_beyond=True)
    assert 'class="unknown"' not in charts.capability(points, "queries", "t", "d")


def test_bars_without_a_measurement_look_different() -> None:
    sure = charts.span(1, 10, 100, (1, 1000), sure=True, title="t")
    unsure = charts.span(1, 10, 100, (1, 1000), sure=False, title="t")
    assert 'class="mark"' in sure
    assert 'class="mark"' not in unsure
    assert "stroke-dasharray" in unsure


def test_text_is_escaped() -> None:
    bad = '<script>"&\x00'
    for svg in (
        charts.capability([point(1, 1), point(2, 3)], bad, bad, bad),
        charts.dumbbells([charts.Change(bad, 0.4, 0.2, 0.1, 0.3)], bad, bad),
        charts.tornado([(bad, 0.4, bad)], bad.replace("\x00", ""), bad.replace("\x00", "")),
    ):
        assert "<script" not in svg
        assert '"&"' not in svg


@given(losses, st.one_of(st.none(), st.tuples(st.floats(1e-300, 1e300), st.floats(0.01, 0.99))))
def test_no_curve_breaks_the_exceedance_chart(points: list[tuple[float, float]], appetite: tuple[float, float] | None) -> None:
    svg = charts.exceedance(sorted(points), "EUR", appetite, "t", "d")
    assert all(-1 <= number <= charts.WIDTH + 1 for number in numbers_in(svg))


@given(st.lists(st.tuples(finite, st.integers(0, 50)), min_size=1, max_size=30), st.booleans(), st.floats(0, 1))
def test_no_capability_breaks_its_chart(steps: list[tuple[float, int]], beyond: bool, chance: float) -> None:
    points = [point(capability, successes, 50) for capability, successes in sorted(steps)]
    svg = charts.capability(points, "queries", "t", "d", reaches_beyond=beyond, chance=chance)
    ET.fromstring(svg)
    assert all(-1 <= number <= charts.WIDTH + 1 for number in numbers_in(svg))
