"""What a measurement found in one sentence, for probes whose rows alone would mislead.

A wording reads the evidence's metrics and returns an empty text when they are not there; the reader then gets the share
of units on which the attack succeeded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from holdfast.core.evidence import Evidence, Metric
from holdfast.reports import numbers
from holdfast.reports.text import clean


def _inferred(evidence: Evidence) -> str:
    """The gain of attribute inference over guessing without the model, for each column."""
    gains = sorted(_called(evidence, "gain over imputer"), key=lambda item: -item.value)
    told = [f"{clean(item.group or 'a column', 60)} {numbers.points(item)}" for item in gains[:3]]
    more = f"; {len(gains) - 3} more" if len(gains) > 3 else ""
    return f"Gain in guessing over an imputer without the model: {'; '.join(told)}{more} (95 % interval)." if told else ""


def _copied(evidence: Evidence) -> str:
    """The best agreement of a copy with the model."""
    found = [item for item in evidence.metrics if item.name.startswith("agreement after ")]
    if not found:
        return ""
    best = max(found, key=lambda item: item.value)
    group = f" ({clean(best.group, 60)})" if best.group else ""
    base = next(iter(_called(evidence, "agreement of the commonest class")), None)
    against = f"; always answering the commonest class: {numbers.share(base.value)}" if base else ""
    copied = sum(row.success for row in evidence.rows)
    return (
        f"Best {clean(best.name, 60)}{group}: {_shown(best)} (95 % interval){against}. "
        f"{copied} of {numbers.plural(len(evidence.rows), 'attacker')} made a full copy."
    )


def _harmed(evidence: Evidence) -> str:
    """The error of the group that fares worst, against all others."""
    gaps = _called(evidence, "gap in error rate")
    if not gaps:
        return ""
    worst = max(gaps, key=lambda item: item.value)
    inside = next((item for item in _called(evidence, "error rate") if item.group == worst.group), None)
    error = f"error rate {_shown(inside)}, " if inside else "error rate "
    return f"{clean(worst.group or 'one group', 80)}: {error}{numbers.points(worst)} against all others (95 % interval)."


def _audited(evidence: Evidence) -> str:
    """What the audit of the data found, and what it missed of the faults that were planted."""
    counts = [
        f"{item.value:.0f} {severity}"
        for severity in ("high", "medium", "low")
        for item in _called(evidence, f"findings of {severity} severity")
    ]
    planted = next((item for item in _called(evidence, "planted faults detected") if item.group is None), None)
    if not counts:
        return ""
    missed = ""
    if planted and planted.successes is not None and planted.trials is not None:
        missed = f"; it missed {planted.trials - planted.successes} of {numbers.plural(planted.trials, 'planted fault')}"
    return f"The audit has findings of severity {', '.join(counts)}{missed}."


def _recognised(evidence: Evidence) -> str:
    """The share of training records that are recognised, at the lowest false-positive rate."""
    found = [item for item in evidence.metrics if re.fullmatch(r"TPR at [\d.]+ % FPR", item.name) and item.group is None]
    if not found:
        return ""
    lowest = min(found, key=lambda item: float(item.name.split()[2]))
    nominal = lowest.name.removeprefix("TPR ")
    real = next(iter(_called(evidence, f"achieved FPR at nominal {nominal.removeprefix('at ').removesuffix(' FPR')}")), None)
    false = f"; of records never trained on, {numbers.share(real.value)}" if real else ""
    return f"{clean(lowest.name, 60)}: {_shown(lowest)} of the training records are recognised (95 % interval){false}."


WORDINGS: Mapping[str, Callable[[Evidence], str]] = MappingProxyType(
    {
        "P-PRI-ATTR": _inferred,
        "P-EXT-COPY": _copied,
        "P-FAIR": _harmed,
        "P-DATA-AUDIT": _audited,
        "P-PRI-MIA": _recognised,
    }
)
"""The wording of each probe that has its own."""


def _called(evidence: Evidence, name: str) -> list[Metric]:
    return [item for item in evidence.metrics if item.name == name]


def _shown(item: Metric) -> str:
    if item.low is None or item.high is None:
        return numbers.share(item.value)
    return numbers.share_interval(item.value, item.low, item.high)
