"""What a data check says, and the exact tests by which checks tell a fault from chance.

All comparisons rest on exchangeability alone: if train and holdout are random parts of one set, the part that a strange row
falls into is a coin toss with the parts' sizes as odds, whatever the distribution of the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import gammaln

from holdfast.core.target import Dataset

Severity = Literal["high", "medium", "low"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")
SHOWN_IDS = 20
"""Row ids that a finding lists at most."""
ALARM = 0.05
"""Chance that a family of comparisons raises any alarm on two random parts of one set."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or strange, with the data.

    Attributes:
        check: what was looked for, such as `missing cells`.
        severity: `high` breaks the model or the evaluation, `medium` deserves a look, `low` is good to know.
        split: `train`, `holdout` or `both`.
        column: the column concerned; None for rows as a whole.
        count, of: rows concerned, and rows looked at.
        ids: of at most 20 of these rows.
        message: one sentence, without values of the data.
    """

    check: str
    severity: Severity
    split: str
    column: str | None = None
    count: int = 0
    of: int = 0
    ids: tuple[str, ...] = ()
    message: str

    @property
    def key(self) -> tuple[str, str, str | None]:
        """What makes it the same finding in another run."""
        return self.check, self.split, self.column


def about(
    data: Dataset, check: str, severity: Severity, message: str, *, column: Any = None, rows: NDArray[np.bool_] | None = None
) -> Finding:
    """A finding about the rows of a mask, or about all rows of one split."""
    return Finding(
        check=check,
        severity=severity,
        split=data.name,
        column=None if column is None else str(column),
        count=len(data) if rows is None else int(rows.sum()),
        of=len(data),
        ids=() if rows is None else tuple(str(name) for name in data.ids[np.flatnonzero(rows)[:SHOWN_IDS]]),
        message=message,
    )


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Worst first, then by how many rows are concerned."""
    return tuple(sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), -one.count, one.check, one.column or "")))


def excess(strange: int, rows: int, other_strange: int, other_rows: int) -> float:
    """P(at least this many of the strange rows fall into this part), by the hypergeometric distribution.

    Source: Fisher (1935), the exact one-sided test of a two-by-two table.
    """
    if not strange:
        return 1.0
    return float(stats.hypergeom.sf(strange - 1, rows + other_rows, strange + other_strange, rows))


def excess_of(strange: NDArray[np.bool_], data: Dataset, other_strange: NDArray[np.bool_], other: Dataset) -> float:
    """`excess` of the rows of two masks; where both parts have clusters, of the clusters with any such row.

    Rows that share a cluster fall into one part together, so that the cluster is what is dealt at random.
    """
    if data.clusters is None or other.clusters is None:
        return excess(int(strange.sum()), len(data), int(other_strange.sum()), len(other))
    names = (data.clusters[strange], data.clusters, other.clusters[other_strange], other.clusters)
    return excess(*(len(np.unique(each)) for each in names))


def run_probability(length: int, rows: int, other_rows: int) -> float:
    """P(the `length` most extreme rows of both parts all lie in this one)."""
    if not length:
        return 1.0
    total = rows + other_rows
    logs = gammaln(rows + 1) - gammaln(rows - length + 1) - gammaln(total + 1) + gammaln(total - length + 1)
    return float(np.exp(logs))


def sides(train: Dataset, holdout: Dataset) -> Sequence[tuple[Dataset, Dataset]]:
    """Each split with the other one as its reference."""
    return (train, holdout), (holdout, train)
