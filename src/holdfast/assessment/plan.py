"""What an assessment will do: which probes run for which threats, what each needs and costs, and what stays unmeasured.

The plan is data. It is made and can be read before anything is attacked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from holdfast.core import registry, seeds
from holdfast.core.errors import CannotMeasure, ConfigurationError
from holdfast.core.evidence import Document, Finite
from holdfast.core.oracle import Access
from holdfast.core.probe import BUDGETS, Budget, Probe, Work
from holdfast.core.target import Dataset, Target
from holdfast.threats.derivation import Threat

TIMED_ROWS = 128
TIMED_FIT_ROWS = 1000
LIMITS = {"rows": (20, 2000), "queries": (100, 10_000), "repeats": (3, 50), "shadows": (4, 128)}
"""The range in which a time budget may move each quantity of a `Budget`."""


FACTORS = tuple(0.05 * 2 ** (step / 2) for step in range(18))
"""Steps of a time budget, as multiples of the standard one; coarse, so that a little noise does not change the result."""


class PlannedProbe(Document):
    """One probe of the plan.

    Attributes:
        name: it is registered under.
        probe: the catalogue's id.
        threats: which of the system's threats it is about.
        access: what the measured attacker has.
        state: `runs`, or the status its evidence will have without running.
        reason: why it does not run.
        seconds: estimated CPU seconds.
        actors: declared actors whom the measurement is about.
    """

    name: str
    probe: str
    threats: tuple[str, ...]
    access: str
    state: Literal["runs", "not_applicable", "unmeasured", "inconclusive", "failed"]
    reason: str = ""
    seconds: Finite = 0.0
    actors: tuple[str, ...] = ()


class Unplanned(Document):
    """A threat that may apply and that no probe here measures."""

    threat: str
    name: str
    applicability: str
    wanted_probes: tuple[str, ...]


class Plan(Document):
    """The whole plan; `rows`, `queries`, `repeats` and `shadows` are the budget's, see `core.probe.Budget`."""

    budget: str
    rows: int
    queries: int
    repeats: int
    shadows: int
    workers: int
    seconds: Finite
    probes: tuple[PlannedProbe, ...]
    unmeasured: tuple[Unplanned, ...]

    @property
    def described_budget(self) -> str:
        """The level, or the time with what it became, since that depends on the machine's speed."""
        if self.budget in BUDGETS:
            return self.budget
        return f"{self.budget} ({self.rows} rows, {self.queries} queries, {self.repeats} trainings, {self.shadows} shadows)"

    @property
    def allowance(self) -> Budget:
        """The budget as probes take it."""
        return Budget(level=self.budget, rows=self.rows, queries=self.queries, repeats=self.repeats, shadows=self.shadows)


def probes_by_name(names: Sequence[str] | None = None) -> dict[str, Probe]:
    """Instances of the registered probes, all or the named ones.

    Raises:
        ConfigurationError: a name is not registered, or what is registered is no probe.
    """
    found: dict[str, Probe] = {}
    for name in registry.names("probes") if names is None else names:
        probe = registry.load("probes", name)()
        if not isinstance(probe, Probe):
            raise ConfigurationError(f"plug-in {name!r} is not a probe: it lacks id, threats, access, check, work or run")
        found[name] = probe
    return found


def make_plan(
    target: Target,
    threats: Sequence[Threat],
    *,
    budget: str = "standard",
    workers: int = 1,
    probes: Mapping[str, Probe] | None = None,
    actors: Mapping[str, Sequence[str]] | None = None,
) -> Plan:
    """Plan an assessment.

    Args:
        target: what will be measured.
        threats: all threats of the system.
        budget: `quick`, `standard`, `thorough`, or a time such as `90s`, `10m` or `2h`.
        workers: processes that will share the work.
        probes: by registered name; all by default.
        actors: for each threat id, the declared actors who could carry it out.

    Raises:
        ConfigurationError: the budget is neither a level nor a time.
    """
    probes = probes_by_name() if probes is None else probes
    open_threats = {threat.id: threat for threat in threats if threat.applicability != "excluded"}
    pace = _Pace(target)
    seconds_wanted = None if budget in BUDGETS else parse_time(budget)
    allowance = (
        BUDGETS[budget] if seconds_wanted is None else _fit(budget, seconds_wanted, workers, probes, target, open_threats, pace)
    )
    planned = []
    for name, probe in probes.items():
        about = tuple(threat for threat in probe.threats if threat in open_threats)
        if not about:
            continue
        who = dict.fromkeys(actor for threat in about for actor in (actors or {}).get(threat, ()))
        entry: dict[str, Any] = {"name": name, "probe": probe.id, "threats": about, "access": probe.access, "actors": tuple(who)}
        try:
            probe.check(target)
            entry |= {"state": "runs", "seconds": pace.price(probe.work(target, allowance))}
        except CannotMeasure as refusal:
            entry |= {"state": refusal.status, "reason": str(refusal)}
        planned.append(PlannedProbe(**entry))
    measured = {threat for item in planned for threat in item.threats}
    unmeasured = tuple(
        Unplanned(threat=threat.id, name=threat.name, applicability=threat.applicability, wanted_probes=threat.probes)
        for threat in open_threats.values()
        if threat.id not in measured
    )
    total = sum(item.seconds for item in planned)
    longest = max((item.seconds for item in planned), default=0.0)
    return Plan(
        budget=budget,
        rows=allowance.rows,
        queries=allowance.queries,
        repeats=allowance.repeats,
        shadows=allowance.shadows,
        workers=workers,
        seconds=max(total / workers, longest),
        probes=tuple(planned),
        unmeasured=unmeasured,
    )


def parse_time(text: str) -> float:
    """Seconds of `90s`, `10m` or `2h`.

    Raises:
        ConfigurationError: the text is neither such a time nor positive.
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)\s*(s|m|h)", text.strip())
    if not match or float(match[1]) <= 0:
        raise ConfigurationError(
            f"budget {text!r} is no level (quick, standard, thorough) and no time", hint="Such as 90s, 10m, 2h."
        )
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


class _Pace:
    """How fast the target's model answers and its recipe trains, measured once, when first asked."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._row: float | None = None
        self._fit: float | None = None

    def price(self, work: Work) -> float:
        """CPU seconds of the work."""
        seconds = work.seconds + work.predictions * self._row_seconds() if work.predictions else work.seconds
        seconds += work.gradients * 3 * self._row_seconds() if work.gradients else 0.0
        return seconds + (work.fits * self._fit_seconds() if work.fits else 0.0)

    def _row_seconds(self) -> float:
        if self._row is None:
            rows = np.arange(min(TIMED_ROWS, len(self._target.holdout)))
            x = self._target.holdout.take(rows).x
            self._target.model.labels(x)
            started = time.process_time()
            self._target.model.labels(x) if self._target.model.access == Access.LABELS else self._target.model.scores(x)
            self._row = max(time.process_time() - started, 1e-6) / max(len(rows), 1)
        return self._row

    def _fit_seconds(self) -> float:
        if self._fit is None:
            data: Dataset = self._target.require_train()
            chosen = seeds.generator(0, "pace").permutation(len(data))[:TIMED_FIT_ROWS]
            started = time.process_time()
            self._target.require_recipe().fit(data.take(np.sort(chosen)), 0)
            self._fit = (time.process_time() - started) * len(data) / max(len(chosen), 1)
        return self._fit


def _fit(
    level: str,
    seconds: float,
    workers: int,
    probes: Mapping[str, Probe],
    target: Target,
    threats: Mapping[str, Threat],
    pace: _Pace,
) -> Budget:
    """The largest budget, scaled from `standard`, whose estimate stays within `seconds`; the smallest if none does."""
    runnable = []
    for probe in probes.values():
        if any(threat in threats for threat in probe.threats):
            try:
                probe.check(target)
            except CannotMeasure:
                continue
            runnable.append(probe)

    def scaled(factor: float) -> Budget:
        base = BUDGETS["standard"]
        values = {key: int(np.clip(round(getattr(base, key) * factor), low, high)) for key, (low, high) in LIMITS.items()}
        return replace(base, level=level, **values)

    def cost(budget: Budget) -> float:
        prices = [pace.price(probe.work(target, budget)) for probe in runnable]
        return max(sum(prices) / workers, max(prices, default=0.0))

    fitting = [factor for factor in FACTORS if cost(scaled(factor)) <= seconds]
    return scaled(max(fitting, default=FACTORS[0]))
