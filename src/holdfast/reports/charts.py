"""Charts as inline SVG, drawn by hand: exceedance curves, capability curves, before/after, and small bars.

Each chart is an image to assistive technology, with a title and a description. Colours are presentation attributes of the
light theme, which any renderer understands; the page's stylesheet replaces them by class for dark screens and paper. No
chart carries a style attribute, so that a strict content security policy holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from holdfast.reports import numbers
from holdfast.reports.text import clean
from holdfast.risk.register import CurvePoint

WIDTH, HEIGHT = 480, 290
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 16, 48
LABEL = 150
"""Pixels that the label of the accepted sum may need."""
LOG_SPAN = 20
"""The ratio of largest to smallest capability above which the axis is logarithmic."""

INK, MUTED, GRID, SERIES, ALERT = "#1c2430", "#5a6675", "#d9dee5", "#1f5fae", "#b3261e"
_COLOURS = {
    "axis": {"stroke": MUTED},
    "grid": {"stroke": GRID},
    "label": {"fill": MUTED},
    "strong": {"fill": INK},
    "line": {"stroke": SERIES, "fill": "none"},
    "faint": {"stroke": MUTED, "fill": "none"},
    "band": {"fill": SERIES, "fill-opacity": "0.18"},
    "band-line": {"stroke": SERIES, "stroke-opacity": "0.3", "stroke-linecap": "round"},
    "mark": {"fill": SERIES},
    "hollow": {"stroke": SERIES, "fill": "#ffffff"},
    "alert": {"stroke": ALERT},
    "alert-text": {"fill": ALERT},
    "unknown": {"fill": MUTED, "fill-opacity": "0.12"},
    "unsure": {"stroke": MUTED},
}


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels, linearly or by logarithm; values outside are put on the edge."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        part = (at - low) / (high - low) if high > low else 0.5
        return round(self.start + part * (self.end - self.start), 1)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values to label the axis with."""
        if not self.logarithmic:
            step = _round_step((self.high - self.low) / max(1, most - 1))
            first = math.ceil(self.low / step - 1e-9)
            return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]
        powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
        every = math.ceil(len(powers) / most) if powers else 1
        return [10.0**power for power in powers if (power - powers[0]) % every == 0] or [self.low, self.high]


@dataclass(frozen=True)
class Change:
    """A share before and after a change, for `dumbbells`.

    Attributes:
        label: what changed.
        before, after: the shares.
        low, high: where the share after lies when the ends of the paired difference's interval are taken from `before`.
    """

    label: str
    before: float
    after: float
    low: float
    high: float


def exceedance(
    points: Sequence[tuple[float, float]], unit: str, appetite: tuple[float, float] | None, title: str, description: str
) -> Markup:
    """The probability that the annual loss exceeds each sum, over a logarithmic axis of sums.

    Args:
        points: (loss, probability), by rising loss.
        unit: of the losses.
        appetite: (annual loss, at); drawn as the accepted sum and the accepted probability 1 - at.
        title, description: for people who do not see the chart.
    """
    positive = [(loss, probability) for loss, probability in points if loss > 0]
    if len(positive) < 2:
        return Markup("")
    largest = max(loss for loss, _ in positive)
    sums = [loss for loss, _ in positive] + ([appetite[0]] if appetite else [])
    low = max(min(sums), largest / 1e6)
    across = Scale(_power(low, math.floor), _power(max(sums), math.ceil), LEFT, WIDTH - RIGHT, logarithmic=True)
    up = Scale(0, 1, HEIGHT - BOTTOM, TOP)
    parts = [*_vertical_axis(up, "probability of more"), *_horizontal_axis(across, f"annual loss, {clean(unit, 20)}", _sum)]
    if appetite:
        x, y = across(appetite[0]), up(1 - appetite[1])
        over = any(loss > appetite[0] and probability > 1 - appetite[1] for loss, probability in positive)
        anchor = "end" if (over and x - LEFT > LABEL) or WIDTH - RIGHT - x < LABEL else "start"
        label = f"accepted: {numbers.money(appetite[0], unit)}"
        parts += [
            _tag("line", {"class": "alert", "x1": x, "x2": x, "y1": TOP, "y2": HEIGHT - BOTTOM, "stroke-dasharray": "5 4"}),
            _tag("line", {"class": "alert", "x1": LEFT, "x2": x, "y1": y, "y2": y, "stroke-dasharray": "5 4"}),
            _text(x + (-6 if anchor == "end" else 6), max(y - 7, TOP + 10), label, "alert-text", anchor),
        ]
    shown = [(loss, probability) for loss, probability in positive if loss >= across.low] or positive
    path = _path((across(loss), up(probability)) for loss, probability in shown)
    parts.append(_tag("path", {"class": "line", "d": path, "stroke-width": 2.5, "stroke-linejoin": "round"}))
    return _image("exceedance", parts, title, description)


def capability(
    points: Sequence[CurvePoint], axis: str, title: str, description: str, *, reaches_beyond: bool = False, chance: float = 0.0
) -> Markup:
    """The share of units on which the attack succeeded within each capability, as steps with their 95 % band.

    Args:
        points: by rising capability.
        axis: what capability counts.
        title, description: for people who do not see the chart.
        reaches_beyond: whether an actor goes beyond the largest tested capability; that region is then drawn as unknown.
        chance: the success rate of an attacker without the model; drawn as a line when above zero.
    """
    if not points:
        return Markup("")
    spread = [point.capability for point in points if point.capability > 0]
    logarithmic = len(spread) == len(points) and max(spread) / min(spread) >= LOG_SPAN
    low = min(spread) if logarithmic else 0.0
    high = points[-1].capability
    edge = WIDTH - RIGHT - (52 if reaches_beyond else 0)
    across = Scale(low, high if high > low else low + 1, LEFT, edge, logarithmic)
    top = _ceiling(max([point.high for point in points] + [chance]))
    up = Scale(0, top, HEIGHT - BOTTOM, TOP)
    parts = [*_vertical_axis(up, "attack success"), *_horizontal_axis(across, clean(axis, 60), _plain, edge)]
    if reaches_beyond:
        parts += [
            _tag(
                "rect", {"class": "unknown", "x": edge, "y": TOP, "width": WIDTH - RIGHT - edge, "height": HEIGHT - BOTTOM - TOP}
            ),
            _tag("line", {"class": "faint", "x1": edge, "x2": edge, "y1": TOP, "y2": HEIGHT - BOTTOM, "stroke-dasharray": "2 3"}),
            _text((edge + WIDTH - RIGHT) / 2, TOP + 14, "not", "label", "middle"),
            _text((edge + WIDTH - RIGHT) / 2, TOP + 28, "tested", "label", "middle"),
        ]
    steps = [(across(point.capability), point) for point in points]
    upper = _staircase([(x, up(point.high)) for x, point in steps], edge)
    lower = _staircase([(x, up(point.low)) for x, point in steps], edge)
    middle = _staircase([(x, up(point.value)) for x, point in steps], edge)
    parts.append(_tag("path", {"class": "band", "d": _path([*upper, *reversed(lower)]) + "Z"}))
    parts.append(_tag("path", {"class": "line", "d": _path(middle), "stroke-width": 2.5}))
    end, last = steps[-1]
    parts.append(
        _tag("line", {"class": "line", "x1": end, "x2": end, "y1": up(last.low), "y2": up(last.high), "stroke-width": 1.5})
    )
    parts += [_tag("circle", {"class": "mark", "cx": x, "cy": up(point.value), "r": 3}) for x, point in steps[:40]]
    if chance > 0:
        y = up(chance)
        parts.append(_tag("line", {"class": "faint", "x1": LEFT, "x2": edge, "y1": y, "y2": y, "stroke-dasharray": "2 3"}))
        parts.append(_text(LEFT + 4, y - 4, "chance", "label", "start"))
    return _image("capability", parts, title, description)


def dumbbells(changes: Sequence[Change], title: str, description: str) -> Markup:
    """Before and after, one line each: a hollow mark before, a full one after, with the interval of the paired difference."""
    if not changes:
        return Markup("")
    row, head = 52, 34
    floor = head + row * len(changes)
    across = Scale(0, _ceiling(max(max(change.before, change.after, change.high) for change in changes)), 16, WIDTH - 26)
    parts: list[Markup] = []
    for tick in across.ticks():
        x = across(tick)
        parts.append(_tag("line", {"class": "grid", "x1": x, "x2": x, "y1": head - 6, "y2": floor}))
        parts.append(_text(x, floor + 18, numbers.share(tick), "label", "middle"))
    parts += [
        _tag("circle", {"class": "hollow", "cx": 22, "cy": 11, "r": 5, "stroke-width": 2}),
        _text(33, 15, "before", "label", "start"),
        _tag("circle", {"class": "mark", "cx": 96, "cy": 11, "r": 5}),
        _text(107, 15, "after, with the interval of the difference", "label", "start"),
        _text(WIDTH / 2, floor + 37, "attack success", "label", "middle"),
    ]
    for index, change in enumerate(changes):
        y = head + row * index + 32
        ends = {"y1": y, "y2": y}
        parts += [
            _text(16, y - 15, clean(change.label, 66), "strong", "start"),
            _tag(
                "line", {"class": "unsure", "x1": across(change.before), "x2": across(change.after), **ends, "stroke-width": 1.5}
            ),
            _tag("line", {"class": "band-line", "x1": across(change.low), "x2": across(change.high), **ends, "stroke-width": 9}),
            _tag("circle", {"class": "hollow", "cx": across(change.before), "cy": y, "r": 6, "stroke-width": 2}),
            _tag("circle", {"class": "mark", "cx": across(change.after), "cy": y, "r": 6}),
        ]
    return _image("dumbbells", parts, title, description, floor + 46)


def span(low: float, middle: float, high: float, edges: tuple[float, float], *, sure: bool, title: str) -> Markup:
    """A small bar for a table: the interval as a line, the mean as a mark, on a logarithmic scale shared by the table.

    Args:
        low, middle, high: of the quantity.
        edges: the ends of the table's scale, both positive.
        sure: whether it rests on a measurement; otherwise it is drawn hollow and dashed.
        title: for people who do not see it.
    """
    across = Scale(*edges, 6, 134, logarithmic=True)
    dash = {} if sure else {"stroke-dasharray": "3 3"}
    parts = [
        _tag("line", {"class": "grid", "x1": 6, "x2": 134, "y1": 9, "y2": 9}),
        _tag(
            "line",
            {
                "class": "line" if sure else "unsure",
                "x1": across(low),
                "x2": across(high),
                "y1": 9,
                "y2": 9,
                **dash,
                "stroke-width": 3,
            },
        ),
        _tag("circle", {"class": "mark" if sure else "hollow", "cx": across(middle), "cy": 9, "r": 4.5, "stroke-width": 2}),
    ]
    return _svg("span", parts, title, "", 140, 18)


def tornado(bars: Sequence[tuple[str, float, str]], title: str, description: str) -> Markup:
    """Signed bars in [-1, 1] with a label and a remark each, such as rank correlations and the source of the input."""
    if not bars:
        return Markup("")
    row = 36
    height = row * len(bars) + 8
    across = Scale(-1, 1, 20, WIDTH - 20)
    zero = across(0)
    parts = [_tag("line", {"class": "axis", "x1": zero, "x2": zero, "y1": 4, "y2": height - 4})]
    for index, (label, value, remark) in enumerate(bars):
        y = 4 + row * index
        left, right = sorted((zero, across(value)))
        parts.append(_text(20, y + 13, clean(f"{label} ({remark})", 70), "label", "start"))
        parts.append(_text(WIDTH - 20, y + 13, numbers.correlation(value), "strong", "end"))
        parts.append(
            _tag("rect", {"class": "mark", "x": left, "y": y + 18, "width": round(right - left, 1), "height": 10, "rx": 2})
        )
    return _image("tornado", parts, title, description, height)


def _vertical_axis(up: Scale, title: str) -> list[Markup]:
    parts = []
    for tick in up.ticks():
        y = up(tick)
        parts.append(_tag("line", {"class": "grid", "x1": LEFT, "x2": WIDTH - RIGHT, "y1": y, "y2": y}))
        parts.append(_text(LEFT - 7, y + 4, numbers.share(tick), "label", "end"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = {
        "class": "label",
        "x": 0,
        "y": 0,
        "text-anchor": "middle",
        "font-size": 13,
        "transform": f"translate(13 {middle}) rotate(-90)",
    }
    return [*parts, _tag("text", turned, title)]


def _horizontal_axis(across: Scale, title: str, label: Callable[[float], str], edge: float = WIDTH - RIGHT) -> list[Markup]:
    floor = HEIGHT - BOTTOM
    parts = [_tag("line", {"class": "axis", "x1": LEFT, "x2": WIDTH - RIGHT, "y1": floor, "y2": floor})]
    for tick in across.ticks():
        x = across(tick)
        parts.append(_tag("line", {"class": "axis", "x1": x, "x2": x, "y1": floor, "y2": floor + 5}))
        parts.append(_text(x, floor + 19, label(tick), "label", "middle"))
    return [*parts, _text((LEFT + edge) / 2, HEIGHT - 7, title, "label", "middle")]


def _image(name: str, parts: Iterable[Markup], title: str, description: str, height: float = HEIGHT) -> Markup:
    return _svg(f"chart {name}", parts, title, description, WIDTH, height)


def _svg(name: str, parts: Iterable[Markup], title: str, description: str, width: float, height: float) -> Markup:
    head = [_tag("title", {}, title)] + ([_tag("desc", {}, description)] if description else [])
    frame = {
        "class": name, "viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": title,
        "font-family": "system-ui, sans-serif", "width": width, "height": height,
    }  # fmt: skip
    return _tag("svg", frame, Markup("").join([*head, *parts]))


def _text(x: float, y: float, text: str, name: str, anchor: str) -> Markup:
    return _tag("text", {"class": name, "x": round(x, 1), "y": round(y, 1), "text-anchor": anchor, "font-size": 13}, text)


def _tag(name: str, attributes: dict[str, object], content: str | Markup = "") -> Markup:
    """An element with escaped attributes and content, and the light theme's colours of its class."""
    colours = _COLOURS.get(str(attributes.get("class", "")), {})
    listed = "".join(f' {key}="{escape(str(value))}"' for key, value in {**colours, **attributes}.items())
    return Markup(f"<{name}{listed}>{escape(content)}</{name}>")  # noqa: S704


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _staircase(points: Sequence[tuple[float, float]], edge: float) -> list[tuple[float, float]]:
    """Points of a step function that holds each value until the next point, and the last one to the edge."""
    stairs: list[tuple[float, float]] = []
    for index, (x, y) in enumerate(points):
        stairs.append((x, y))
        stairs.append((points[index + 1][0] if index + 1 < len(points) else edge, y))
    return stairs


def _power(value: float, rounding: Callable[[float], int]) -> float:
    return float(10.0 ** max(-300, min(300, rounding(math.log10(value)))))


def _round_step(step: float) -> float:
    size = 10 ** math.floor(math.log10(step)) if step > 0 else 1.0
    return next((factor * size for factor in (1, 2, 5, 10) if factor * size >= step * (1 - 1e-9)), step) or 1.0


def _ceiling(share: float) -> float:
    """The next round share at or above this one, at most 1."""
    return next((top for top in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8) if share <= top), 1.0)


def _sum(value: float) -> str:
    return numbers.money(value, "").replace(".0", "")


def _plain(value: float) -> str:
    return numbers.quantity(value) if value < 1e4 else numbers.money(value, "").replace(".0", "")
