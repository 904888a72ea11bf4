"""P-DATA-AUDIT: what is wrong with the data, and how much of what could be wrong the audit would have seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from holdfast.core.evidence import Evidence, Metric, Row
from holdfast.core.probe import Budget, Work
from holdfast.core.progress import Progress
from holdfast.core.seeds import generator
from holdfast.core.statistics import rate
from holdfast.core.target import Dataset, Target
from holdfast.validation.audit import audit, comparable
from holdfast.validation.faults import Trial, self_test
from holdfast.validation.findings import SEVERITIES, Finding

COLUMNS = {"quick": 3, "standard": 6, "thorough": 12}
RESPLITS = {"quick": 4, "standard": 10, "thorough": 20}
COMPARATIVE = frozenset(
    {"range", "contradicted numbers", "missing cells", "new categories", "doubtful labels", "class shares"}
    | {"near duplicates across splits", "overlap of train and holdout"}
)
"""Findings that say one split is not like the other; on two random parts of one set each is a false alarm."""
SHOWN = 40


class DataAudit:
    """Audits the training and holdout rows.

    A row of the evidence is a planted fault; the attacker succeeds when the fault passes unseen. What the audit says about
    the data themselves stands in `findings`, and how often it raises a false alarm in the metrics.
    """

    id = "P-DATA-AUDIT"
    threats: tuple[str, ...] = ("T-POI-05", "T-POI-07", "T-POI-08")
    access = "data"

    def check(self, target: Target) -> None:
        """Needs the training rows."""
        target.require_train()

    def work(self, target: Target, budget: Budget) -> Work:
        """Audits run again for each fault and each random re-split; their time depends on the data alone."""
        rows = len(target.require_train()) + len(target.holdout)
        once = 0.15 + 4e-5 * min(rows, 50_000)
        return Work(seconds=once * (RESPLITS.get(budget.level, 10) + 6 + 1.5 * COLUMNS.get(budget.level, 6)))

    def run(self, target: Target, budget: Budget, seed: int, progress: Progress) -> Evidence:
        """Audit, plant faults, and audit random re-splits."""
        train, holdout = target.require_train(), target.holdout
        findings = audit(train, holdout, seed=seed)
        trials = self_test(
            train,
            holdout,
            baseline=findings,
            seed=seed,
            columns=COLUMNS.get(budget.level, 6),
            advance=lambda done, total: progress.advance("planted faults", done, total),
        )
        resplits = RESPLITS.get(budget.level, 10)
        alarms = []
        for turn in range(resplits):
            alarms.append(_false_alarm(*_resplit(train, holdout, seed, turn), seed))
            progress.advance("false alarms", turn + 1, resplits)
        worst = [one for one in findings if one.severity != "low"]
        return Evidence(
            probe=self.id,
            threats=self.threats,
            status="measured",
            reason=_summary(worst),
            rows=tuple(_row(trial, seed) for trial in trials),
            strength="moderate",
            method=f"{len(trials)} faults planted into copies of the training rows, 5 % of rows unless named; "
            f"{resplits} random re-splits for false alarms",
            metrics=tuple(_metrics(findings, trials, alarms)),
            findings=tuple(f"{one.severity}: {one.message}" for one in findings[:SHOWN]),
            seed=seed,
        )


def _summary(worst: list[Finding]) -> str:
    if not worst:
        return "The audit found nothing of high or medium severity; the planted faults say what that is worth."
    return f"The audit found {len(worst)} things of high or medium severity."


def _row(trial: Trial, seed: int) -> Row:
    return Row(
        unit=trial.fault.unit,
        cluster=trial.fault.name,
        capability=None if trial.caught else 1.0,
        seed=seed,
        detail={"rows": trial.rows, "column": trial.fault.column, "caught by": trial.sign},
    )


def _metrics(findings: tuple[Finding, ...], trials: tuple[Trial, ...], alarms: list[bool]) -> Iterable[Metric]:
    for severity in SEVERITIES:
        count = sum(one.severity == severity for one in findings)
        yield Metric(name=f"findings of {severity} severity", value=count, unit="findings")
    if trials:
        found = rate([trial.caught for trial in trials], np.array([trial.fault.name for trial in trials]))
        yield Metric(
            name="planted faults detected",
            value=found.value,
            low=found.low,
            high=found.high,
            successes=found.successes,
            trials=found.trials,
            note="faults of one kind count as correlated",
        )
    kinds: dict[str, list[bool]] = defaultdict(list)
    for trial in trials:
        kinds[trial.fault.name].append(trial.caught)
    for name, caught in kinds.items():
        one = rate(caught)
        yield Metric(
            name="planted faults detected",
            group=name,
            value=one.value,
            low=one.low,
            high=one.high,
            successes=one.successes,
            trials=one.trials,
        )
    false = rate(alarms)
    yield Metric(
        name="false alarms",
        value=false.value,
        low=false.low,
        high=false.high,
        successes=false.successes,
        trials=false.trials,
        note="audits of random re-splits that say the splits differ",
    )


def _false_alarm(train: Dataset, holdout: Dataset, seed: int) -> bool:
    found = audit(train, holdout, seed=seed)
    return any(
        one.severity == "high" or (one.severity == "medium" and one.check != "overlap of train and holdout")
        for one in found
        if one.check in COMPARATIVE
    )


def _resplit(train: Dataset, holdout: Dataset, seed: int, turn: int) -> tuple[Dataset, Dataset]:
    """The rows of both splits, dealt again at random into parts of about the same sizes; rows of a cluster stay together."""
    train, holdout = comparable(train, holdout)
    clustered = train.clusters is not None and holdout.clusters is not None
    pooled = replace(
        train,
        x=pd.concat([train.x, holdout.x], ignore_index=True) if train.is_table else np.concatenate([train.x, holdout.x]),
        y=np.concatenate([train.y, holdout.y]),
        ids=np.concatenate([train.ids, holdout.ids]),
        groups=None,
        clusters=np.concatenate([train.clusters, holdout.clusters]) if clustered else None,
    )
    draw = generator(seed, "re-split", turn)
    if pooled.clusters is None:
        order = draw.permutation(len(pooled))
    else:
        names, place = np.unique(pooled.clusters, return_inverse=True)
        order = np.argsort(draw.permutation(len(names))[place], kind="stable")
    return pooled.take(order[: len(train)]), replace(pooled.take(order[len(train) :]), name=holdout.name)
