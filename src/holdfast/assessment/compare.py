"""Before and after: what a change to a system really did.

1. Evidence is paired by probe, and its rows by unit. Only rows that were attacked on both sides are compared, at a
   capability that was tested on both sides; how many rows fell out is said.
2. Attacks that reach the same goal by the same access form a family. A row of the family counts as lost when any attack of
   the family succeeds, so that a defence which merely shuts one attack out is held against the others (the adaptive case).
3. What the change cost in utility and did to the annual loss stands beside it.

Where chance differs between the sides, success beyond chance counts, never the raw rate; a probe that chooses a threshold, a
column or a group anew on each side is judged by its own estimate and interval.

Where rows, seeds or budget differ the two sides are compared as independent samples and marked so.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from holdfast.assessment.comparison import Change, Comparison, RiskChange, Side, UtilityChange
from holdfast.assessment.consequences import appetite_exceeded, measured_total, risk_changes, utility_change
from holdfast.assessment.document import Assessment
from holdfast.core.errors import ConfigurationError
from holdfast.core.evidence import Evidence, Metric, Row
from holdfast.core.statistics import CONFIDENCE, Rate, difference, effect, paired_change, rate

__all__ = ["Change", "Comparison", "RiskChange", "Side", "UtilityChange", "compare"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Attacks on one goal between which an attacker is free to choose."""

    name: str
    probes: tuple[str, ...]


Estimate = tuple[float, float, float]
"""A value with the low and high end of its interval."""
OWN_ESTIMATES = {
    "P-PRI-MIA": re.compile(r"TPR at (?P<level>[0-9]+(\.[0-9]+)?) % FPR"),
    "P-PRI-ATTR": re.compile("gain over imputer"),
    "P-FAIR": re.compile("gap in error rate"),
}
"""Probes that are judged by a metric of theirs, because success on a row depends on a choice that each side made anew."""
FAMILIES = (Family(name="Evasion by queries, the attacker's best choice", probes=("P-EVA-SCORE", "P-EVA-LABEL")),)


def compare(before: Assessment, after: Assessment) -> Comparison:
    """Compare two assessments of one system.

    Raises:
        ConfigurationError: they are of different systems, in the wrong order, or count losses in different units.
    """
    if before.system.name != after.system.name:
        raise ConfigurationError(
            f"the assessments are of different systems: {before.system.name!r} and {after.system.name!r}",
            hint="Compare two assessments of one system, made before and after a change.",
        )
    if before.created > after.created:
        raise ConfigurationError(
            f"the assessment before the change was made after the other one: {before.created} and {after.created}",
            hint="Give the earlier one first. If the earlier state was assessed again, assess the later one again, too.",
        )
    if before.register.unit != after.register.unit:
        raise ConfigurationError(f"losses are counted in {before.register.unit!r} before and in {after.register.unit!r} after")
    obstacles = _obstacles(before, after)
    names = {threat.id: threat.name for threat in (*before.threats, *after.threats) if threat.applicability != "excluded"}
    old, new = _by_probe(before.evidence), _by_probe(after.evidence)
    changes = [_family(family, old, new, obstacles) for family in FAMILIES if _is_family(family, old, new)]
    for probe in dict.fromkeys([*old, *new]):
        changes.append(_single(probe, old.get(probe), new.get(probe), names, obstacles))
    return Comparison(
        before=_side(before),
        after=_side(after),
        paired=not obstacles,
        changes=tuple(changes),
        utility=utility_change(before, after),
        unit=before.register.unit,
        total=RiskChange(
            id="total",
            name="All risks together",
            mean_before=before.register.total.mean,
            mean_after=after.register.total.mean,
            p95_before=before.register.total.p95,
            p95_after=after.register.total.p95,
        ),
        measured_total=measured_total(before.register, after.register),
        exceeds_appetite=appetite_exceeded(before.register, after.register),
        risks=risk_changes(before.register, after.register),
        notes=tuple(_notes(before, after, obstacles)),
    )


def _obstacles(before: Assessment, after: Assessment) -> list[str]:
    """Why the two are not one paired design; empty when they are."""
    found = []
    for name in ("holdout", "train"):
        if before.digests.get(name) != after.digests.get(name):
            found.append(f"the {name} rows differ")
    if before.seed != after.seed:
        found.append(f"the seeds differ ({before.seed} and {after.seed})")
    if before.budget != after.budget:
        found.append(f"the budgets differ ({before.budget} and {after.budget})")
    return found


def _notes(before: Assessment, after: Assessment, obstacles: Sequence[str]) -> Iterable[str]:
    if obstacles:
        yield (
            f"Not paired: {'; '.join(obstacles)}. Both sides are compared as independent samples, which is weaker; "
            "assess both with the same data, --seed and --budget."
        )
    if before.digests.get("model") == after.digests.get("model"):
        same = before.system.answers == after.system.answers
        yield "Both sides are of the same model file" + (" and the same answers." if same else "; only its answers differ.")
    changed = sorted(
        name for name in {*before.versions, *after.versions} if before.versions.get(name) != after.versions.get(name)
    )
    if changed:
        yield f"Versions differ, which may by itself change results: {', '.join(changed)}."
    old, new = before.register, after.register
    if (old.seed, old.draws) == (new.seed, new.draws):
        yield "The annual losses of both sides rest on the same draws of attempts and losses."
    else:
        yield "The annual losses of the two sides rest on different draws."
    yield "Sums rest on the owner's own estimates of attempts and losses; their change between the sides does much less so."
    yield "Each interval covers its own comparison with 95 %; among many comparisons some exclude zero by chance."


def _side(assessment: Assessment) -> Side:
    return Side(
        system=assessment.system.name,
        file=assessment.system.file,
        created=assessment.created,
        model_digest=assessment.digests.get("model", ""),
        answers=assessment.system.answers,
        controls=assessment.system.controls,
        budget=assessment.budget,
        seed=assessment.seed,
        seal=assessment.seal,
    )


def _by_probe(evidence: Iterable[Evidence]) -> dict[str, Evidence]:
    """Evidence by probe id; where several plug-ins measure one probe id, the one with most successes counts."""
    found: dict[str, Evidence] = {}
    for item in evidence:
        held = found.get(item.probe)
        if held is None or (item.status == "measured", _successes(item)) > (held.status == "measured", _successes(held)):
            found[item.probe] = item
    return found


def _successes(evidence: Evidence) -> int:
    return sum(row.success for row in evidence.rows)


def _single(
    probe: str, before: Evidence | None, after: Evidence | None, names: dict[str, str], obstacles: Sequence[str]
) -> Change:
    threats = tuple(dict.fromkeys([*(before.threats if before else ()), *(after.threats if after else ())]))
    name = ", ".join(names[threat] for threat in threats if threat in names) or probe
    lost = [_missing(side, item) for side, item in (("before", before), ("after", after)) if not _has_rows(item)]
    if lost or before is None or after is None:
        return Change(
            name=name, probes=(probe,), threats=threats, verdict="not comparable", pairing="none", reason="; ".join(lost) + "."
        )
    if probe in OWN_ESTIMATES or before.subject != after.subject:
        return _by_own_estimates(name, before, after, threats)
    return _change(name, (probe,), threats, [before], [after], obstacles)


def _by_own_estimates(name: str, before: Evidence, after: Evidence, threats: tuple[str, ...]) -> Change:
    """Compare the number by which the probe itself judges, as independent estimates with the probe's own intervals.

    A pairing of rows would take what each side chose from its own data, such as a threshold, for fixed. Where another column
    or group came out worst after the change, the one that was worst before is compared, unless the other one got worse.
    """
    base = Change(name=name, probes=(before.probe,), threats=threats, verdict="not comparable", pairing="none", axis=before.axis)
    form = OWN_ESTIMATES.get(before.probe)
    subjects = tuple(dict.fromkeys((before.subject, after.subject)))
    compared = [one for subject in subjects if form and (one := _about(subject, base, before, after, form))]
    moved = f"What came out worst is not the same: {before.subject or 'unnamed'} before, {after.subject or 'unnamed'} after."
    if compared:
        worse = next((one for one in compared if one.verdict == "harms"), compared[0])
        if len(subjects) == 1:
            return worse
        if len(compared) == 1 and worse.verdict == "helps":
            worse = worse.model_copy(update={"verdict": "no evidence of help"})
            moved += " Only one of them was estimated on both sides, so that the other may have become worse."
        return worse.model_copy(update={"reason": f"{moved} {worse.reason}"})
    if len(subjects) > 1:
        return base.model_copy(update={"reason": f"{moved} Neither was estimated on both sides."})
    said = " and ".join(", ".join(sorted(_measures(item, before.subject, form))) or "none" for item in (before, after))
    return base.model_copy(update={"reason": f"No estimate of one kind was made on both sides: {said}."})


def _about(subject: str, base: Change, before: Evidence, after: Evidence, form: re.Pattern[str]) -> Change | None:
    """The comparison of one column or group, at the strictest measure that both sides resolve; None without such a measure."""
    shared = _measures(before, subject, form).keys() & _measures(after, subject, form).keys()
    if not shared:
        return None
    measure = min(shared, key=lambda one: _level(form, one))
    first, second = (_own_estimate(item.metric(measure, subject or None)) for item in (before, after))
    of = f" of {subject}" if subject else ""
    reason = f"Judged by {measure}{of}, as independent estimates with the probe's own intervals."
    return _independent(base, first, second, min(_rows_about(subject, item) for item in (before, after)), reason)


def _measures(item: Evidence, subject: str, form: re.Pattern[str] | None) -> dict[str, Metric]:
    """The estimates of a column or group that have an interval and by which the probe is judged, by name."""
    return {
        metric.name: metric
        for metric in item.metrics
        if metric.group == (subject or None) and None not in (metric.low, metric.high) and form and form.fullmatch(metric.name)
    }


def _rows_about(subject: str, item: Evidence) -> int:
    if subject == item.subject:
        return len(item.rows)
    return max((metric.trials or 0 for metric in item.metrics if metric.group == subject), default=0)


def _level(form: re.Pattern[str], measure: str) -> float:
    """The false positive rate that a measure is taken at; 0 for a measure without one."""
    found = form.fullmatch(measure)
    return float((found and found.groupdict().get("level")) or 0.0)


def _own_estimate(metric: Metric) -> Estimate:
    assert metric.low is not None
    assert metric.high is not None
    return metric.value, metric.low, metric.high


def _independent(base: Change, first: Estimate, second: Estimate, trials: int, reason: str) -> Change:
    """First minus second by squaring and adding the reaches of their intervals.

    Source: Zou and Donner (2008), "Construction of confidence limits about effect measures: a general approach".
    """
    (one, one_low, one_high), (other, other_low, other_high) = first, second
    low = one - other - math.hypot(one - one_low, other_high - other)
    high = one - other + math.hypot(one_high - one, other - other_low)
    return base.model_copy(
        update={
            "verdict": effect(low, high),
            "pairing": "unpaired",
            "before": one,
            "after": other,
            "trials": trials,
            "probability_helps": _probability(one - other, low, high),
            "difference": one - other,
            "low": low,
            "high": high,
            "reason": reason,
        }
    )


def _probability(difference: float, low: float, high: float) -> float:
    """P(the true difference is above zero): normal, with the spread that the arm of the 95 % interval towards zero stands for.

    So it is above 97.5 % exactly where the interval lies above zero, and below 2.5 % where it lies below.
    """
    arm = difference - low if difference > 0 else high - difference
    if arm <= 0:
        return 0.5 + 0.5 * float(np.sign(difference))
    return float(norm.cdf(float(norm.ppf(0.5 + CONFIDENCE / 2)) * difference / arm))


def _has_rows(evidence: Evidence | None) -> bool:
    return evidence is not None and evidence.status == "measured" and len(evidence.rows) > 0


def _missing(side: str, evidence: Evidence | None) -> str:
    if evidence is None:
        return f"{side}: not run"
    if evidence.status == "measured":
        return f"{side}: measured without rows, so there is nothing to pair"
    return f"{side}: {evidence.status.replace('_', ' ')}: {evidence.reason.rstrip('.')}"


def _is_family(family: Family, old: dict[str, Evidence], new: dict[str, Evidence]) -> bool:
    return max(sum(_has_rows(side.get(probe)) for probe in family.probes) for side in (old, new)) > 1 or any(
        _has_rows(old.get(probe)) != _has_rows(new.get(probe)) for probe in family.probes
    )


def _family(family: Family, old: dict[str, Evidence], new: dict[str, Evidence], obstacles: Sequence[str]) -> Change:
    """Compare the worst case over the family; an attack may be left out of a side only where it does not apply to it."""
    before = [old[probe] for probe in family.probes if _has_rows(old.get(probe))]
    after = [new[probe] for probe in family.probes if _has_rows(new.get(probe))]
    threats = tuple(dict.fromkeys(threat for item in (*before, *after) for threat in item.threats))
    lost, shut, adaptive = [], [], False
    for probe in family.probes:
        sides = [("before", old.get(probe)), ("after", new.get(probe))]
        if not any(_has_rows(item) for _, item in sides):
            continue
        for side, item in sides:
            if item is not None and item.status == "not_applicable":
                shut.append(f"{probe} {_missing(side, item)}")
                adaptive = adaptive or side == "after"
            elif not _has_rows(item):
                lost.append(f"{probe} {_missing(side, item)}")
    lost += [
        f"no attack of the family was measured {side}" for side, items in (("before", before), ("after", after)) if not items
    ]
    if lost:
        return Change(
            name=family.name,
            probes=family.probes,
            threats=threats,
            verdict="not comparable",
            pairing="none",
            reason=f"{'; '.join(lost)}. An attack that is missing is no evidence of help.",
        )
    change = _change(family.name, family.probes, threats, before, after, obstacles)
    reasons = [f"{item}." for item in shut]
    if adaptive:
        reasons.append("An attacker turns to what still works, so the attacks that were run after the change count.")
    return change.model_copy(update={"adaptive": adaptive, "reason": " ".join([*reasons, change.reason]).strip()})


def _change(
    name: str,
    probes: tuple[str, ...],
    threats: tuple[str, ...],
    before: Sequence[Evidence],
    after: Sequence[Evidence],
    obstacles: Sequence[str],
) -> Change:
    items = (*before, *after)
    axes = {item.axis for item in items}
    base = Change(name=name, probes=probes, threats=threats, verdict="not comparable", pairing="none", axis=items[0].axis)
    if len(axes) > 1:
        return base.model_copy(
            update={"reason": f"Capability is counted in different ways: {', '.join(sorted(map(repr, axes)))}."}
        )
    limits = [item.tested for item in items if item.tested is not None]
    capability = min(limits, default=None)
    reasons = []
    if limits and max(limits) > min(limits):
        reasons.append(f"Compared up to {capability:g}, the largest capability tested on both sides.")
    if {item.method for item in before} != {item.method for item in after} and len(before) == len(after):
        reasons.append("The attacks of the two sides are not configured alike.")
    base = base.model_copy(update={"capability": capability})
    chances = [max(item.chance for item in side) for side in (before, after)]
    if chances[0] != chances[1]:
        return _above_chance(base, before, after, chances, reasons)
    old, new = _outcomes(before, capability), _outcomes(after, capability)
    seeds = [{item.probe: item.seed for item in side} for side in (before, after)]
    differing = [probe for probe in seeds[0].keys() & seeds[1].keys() if seeds[0][probe] != seeds[1][probe]]
    why = [*obstacles, *(f"the seeds of {probe} differ" for probe in differing)]
    if old is None or new is None:
        why.append("units occur more than once")
    if why or old is None or new is None:
        return _unpaired(base, before, after, [f"Not paired: {'; '.join(why)}.", *reasons])
    units = [unit for unit in old if unit in new]
    if not units:
        return _unpaired(base, before, after, ["Not paired: no row was attacked on both sides.", *reasons])
    base = base.model_copy(update={"only_before": len(old) - len(units), "only_after": len(new) - len(units)})
    first = np.array([old[unit][0] for unit in units])
    second = np.array([new[unit][0] for unit in units])
    change = paired_change(first, second, _clusters([old[unit][1] for unit in units]))
    return base.model_copy(
        update={
            "verdict": change.verdict,
            "pairing": "paired",
            "before": float(first.mean()),
            "after": float(second.mean()),
            "fixed": change.fixed,
            "broken": change.broken,
            "trials": change.trials,
            "probability_helps": change.probability_helps,
            "difference": change.difference,
            "low": change.low,
            "high": change.high,
            "reason": " ".join(reasons),
        }
    )


def _outcomes(side: Sequence[Evidence], capability: float | None) -> dict[str, tuple[bool, str | None]] | None:
    """For each unit that every attack of the side was run on, whether any succeeded, and its cluster; None for doubles."""
    found: dict[str, tuple[bool, str | None]] = {}
    for place, item in enumerate(side):
        if max(Counter(row.unit for row in item.rows).values()) > 1:
            return None
        here = {row.unit: (_succeeded(row, capability), row.cluster) for row in item.rows}
        if place:
            found = {unit: (found[unit][0] or here[unit][0], found[unit][1]) for unit in found if unit in here}
        else:
            found = here
    return found


def _succeeded(row: Row, capability: float | None) -> bool:
    return row.capability is not None and (capability is None or row.capability <= capability)


def _unpaired(base: Change, before: Sequence[Evidence], after: Sequence[Evidence], reasons: Sequence[str]) -> Change:
    """The largest rate of each side's attacks, as independent samples, with design effects."""
    first, second = (_largest_rate(side, base.capability) for side in (before, after))
    low, high = difference(
        first.value * first.effective_trials,
        first.effective_trials,
        second.value * second.effective_trials,
        second.effective_trials,
    )
    return base.model_copy(
        update={
            "verdict": effect(low, high),
            "pairing": "unpaired",
            "before": first.value,
            "after": second.value,
            "trials": min(first.trials, second.trials),
            "probability_helps": _probability(first.value - second.value, low, high),
            "difference": first.value - second.value,
            "low": low,
            "high": high,
            "reason": " ".join(reasons),
        }
    )


def _largest_rate(side: Sequence[Evidence], capability: float | None) -> Rate:
    rates = [
        rate([_succeeded(row, capability) for row in item.rows], _clusters([row.cluster for row in item.rows])) for item in side
    ]
    return max(rates, key=lambda one: one.value)


def _above_chance(
    base: Change, before: Sequence[Evidence], after: Sequence[Evidence], chances: Sequence[float], reasons: Sequence[str]
) -> Change:
    """What exceeds chance on each side; chance is taken to be known no better than from as many rows as were attacked."""
    estimates, rates = [], [_largest_rate(side, base.capability) for side in (before, after)]
    for found, chance in zip(rates, chances, strict=True):
        rows = found.effective_trials
        estimates.append((found.value - chance, *difference(found.value * rows, rows, chance * rows, rows)))
    said = (
        f"Success by chance differs: {chances[0]:.3f} of {rates[0].value:.3f} before, {chances[1]:.3f} of {rates[1].value:.3f} "
        "after. Judged by what exceeds it, as independent samples."
    )
    return _independent(base, estimates[0], estimates[1], min(one.trials for one in rates), " ".join([*reasons, said]))


def _clusters(names: Sequence[str | None]) -> NDArray[np.str_] | None:
    """Cluster labels; None unless every row has one."""
    return None if None in names else np.array(names, dtype=np.str_)
