"""How reports write numbers: sums, shares, probabilities and quantities, never with more digits than they can carry.

Sums come out of a Monte Carlo over declared ranges and get two significant digits. A share gets the decimals that the
width of its interval supports; the ends of an interval are rounded outwards, so that what is shown still covers.
"""

from __future__ import annotations

import math
import re

from holdfast.core.evidence import Metric
from holdfast.reports.text import clean

DIFFERENCE = "difference of shares"
"""The unit of a metric that is shown in percentage points."""
SPACE = "\u00a0"
"""No-break space, between a number and its unit."""

_STEPS = ((1e12, "T"), (1e9, "bn"), (1e6, "M"), (1e3, "k"))


def money(value: float, unit: str) -> str:
    """A sum with two significant digits, such as `340 k EUR`."""
    return _with_unit(_compact(value), unit)


def money_range(low: float, high: float, unit: str) -> str:
    """Two sums with the unit once, such as `1.2 k to 340 k EUR`."""
    return _with_unit(f"{_compact(low)} to {_compact(high)}", unit)


def share(value: float) -> str:
    """A share or probability in percent, without an interval."""
    percent = 100 * value
    if 0 < percent < 0.01:
        return f"<0.01{SPACE}%"
    if 99.9 < percent < 100:
        return f">99.9{SPACE}%"
    return f"{_trim(percent, 2 if 0 < percent < 1 else 1 if percent < 10 or percent > 90 else 0)}{SPACE}%"


def share_interval(value: float, low: float, high: float) -> str:
    """A share with its interval in percent, such as `3.1 % [1.2, 6.4]`."""
    decimals = _decimals(100 * (high - low))
    return f"{100 * value:.{decimals}f}{SPACE}% [{_down(100 * low, decimals)},{SPACE}{_up(100 * high, decimals)}]"


def quantity(value: float) -> str:
    """Any other number, with three significant digits, or whole and with separators when it is large."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 1e15:
        return f"{value:.2e}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def correlation(value: float) -> str:
    """A correlation with its sign and two decimals."""
    return f"{value:+.2f}".replace("-", "\u2212")


def capability(axis: str, value: float) -> str:
    """A capability in its axis' own terms, such as `1,000 queries` or `poison fraction 3 %`."""
    name = clean(axis, 60)
    if _is_share(axis):
        return f"{name} {share(value)}"
    if value == 1 and axis.endswith("s"):
        return f"1{SPACE}{name.removesuffix('ies') + 'y' if axis.endswith('ies') else name.removesuffix('s')}"
    if axis.endswith("s"):
        return f"{quantity(value)}{SPACE}{name}"
    return f"{name} {quantity(value)}".strip()


def axis_value(axis: str, value: float) -> str:
    """A capability without the axis' name, for a column that is headed by it."""
    return share(value) if _is_share(axis) else quantity(value)


def signed_share(value: float) -> str:
    """A difference of shares in percentage points, with its sign; what rounds to nothing has none."""
    rounded = round(100 * value, 1)
    return f"{rounded:+.1f}".replace("-", "\u2212") if rounded else "0.0"


def moment(written: str) -> str:
    """A time as documents write it, `2026-01-31T09:30:00Z`, to the minute."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(\.\d+)?Z", written)
    return f"{found[1]} {found[2]} UTC" if found else clean(written, 30)


def points(item: Metric) -> str:
    """A metric that is a difference of shares, in percentage points with its interval."""
    interval = "" if item.low is None or item.high is None else f" [{signed_share(item.low)},{SPACE}{signed_share(item.high)}]"
    return f"{signed_share(item.value)}{SPACE}points{interval}"


def metric(item: Metric) -> str:
    """A metric's value with its interval, and with the counts behind it where it has them."""
    if item.unit == DIFFERENCE:
        shown = points(item)
    elif item.unit == "" and item.low is not None and item.high is not None and 0 <= item.low <= item.high <= 1:
        shown = share_interval(item.value, item.low, item.high)
    elif item.unit == "" and item.successes is not None:
        shown = share(item.value)
    else:
        shown = quantity(item.value)
        if item.low is not None and item.high is not None:
            shown += f" [{quantity(item.low)},{SPACE}{quantity(item.high)}]"
        shown = _with_unit(shown, item.unit)
    return f"{shown}, {item.successes:,} of {item.trials:,}" if item.successes is not None and item.trials is not None else shown


def plural(count: int, noun: str, several: str | None = None) -> str:
    """A count with its noun: `1 threat`, `12 threats`."""
    return f"{count:,}{SPACE}{noun if count == 1 else several or noun + 's'}"


def duration(seconds: float) -> str:
    """Seconds in the largest unit that keeps two digits."""
    if seconds < 90:
        return f"{seconds:.0f}{SPACE}s" if seconds >= 10 else f"{seconds:.1f}{SPACE}s"
    return f"{seconds / 60:.0f}{SPACE}min" if seconds < 5400 else f"{seconds / 3600:.1f}{SPACE}h"


def _is_share(axis: str) -> bool:
    return any(word in axis for word in ("fraction", "share"))


def _compact(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) < 1:
        return "<1" if value > 0 else ">\u22121"
    sign = "\u2212" if value < 0 else ""
    rounded = _significant(abs(value))
    for size, name in _STEPS:
        if rounded >= size:
            return f"{sign}{_two_digits(rounded / size)}{SPACE}{name}"
    return f"{sign}{_two_digits(rounded)}"


def _significant(value: float) -> float:
    return float(f"{value:.1e}")


def _two_digits(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _trim(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text and float(text) == round(float(text)) else text


def _decimals(width: float) -> int:
    return 0 if width >= 20 else 1 if width >= 1 else 2


def _down(value: float, decimals: int) -> str:
    scale = 10**decimals
    return f"{math.floor(value * scale + 1e-9) / scale:.{decimals}f}"


def _up(value: float, decimals: int) -> str:
    scale = 10**decimals
    return f"{math.ceil(value * scale - 1e-9) / scale:.{decimals}f}"


def _with_unit(number: str, unit: str) -> str:
    return f"{number}{SPACE}{clean(unit, 16)}" if unit else number
