"""P-ROB-SHIFT: what ordinary noise, units, missing values and population shift do to the model, without an attacker.

1. The footing: enough rows, a model that is better than a constant answer.
2. Each kind of natural change, in five severities, on the same rows; the capability is the smallest severity that flips a
   row which the model handled correctly.
3. Columns in which a missing cell or an unseen category makes the model fail are named.
4. Accuracy in each subpopulation of the holdout rows, with intervals corrected for how many there are. A subpopulation is
   named by its column and its place in it; its value is a person's, and is named only if the user opted in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from holdfast.core.errors import Inconclusive, InvalidData, InvalidModel
from holdfast.core.evidence import Evidence, Metric, Row, Spent, plain_detail
from holdfast.core.oracle import Access, Oracle
from holdfast.core.probe import Budget, Work
from holdfast.core.progress import Progress
from holdfast.core.seeds import SampleStreams, derive
from holdfast.core.statistics import CONFIDENCE, Rate, rate
from holdfast.core.target import Dataset, Model, Target
from holdfast.probes.corruptions import (
    SEVERITIES,
    UNSEEN,
    Corruption,
    array_corruptions,
    category_columns,
    numeric_columns,
    table_corruptions,
    with_hole,
)
from holdfast.probes.footing import MOST_ROWS, distinct, footing, share, some, tied
from holdfast.probes.surface import chosen_rows

FEWEST_ROWS = 20
TRIED_ROWS = 5
FEWEST_IN_GROUP = 20
MOST_VALUES = 12
"""A column with more values is cut into quarters if it holds numbers, and else tells no groups apart."""
SHOWN_GROUPS = 8
BINS = 10


@dataclass(frozen=True, kw_only=True)
class Group:
    """One subpopulation, with how the model does in it."""

    name: str
    accuracy: Rate


class NaturalShift:
    """Fragility under natural shift."""

    id: str = "P-ROB-SHIFT"
    threats: tuple[str, ...] = ("T-EVA-07",)
    access: str = "offline"

    def check(self, target: Target) -> None:
        """Any model that answers can meet shifted inputs."""

    def work(self, target: Target, budget: Budget) -> Work:
        """Each row under each kind and severity, and each holdout row once."""
        rows, holdout = min(budget.rows, len(target.holdout)), min(MOST_ROWS, len(target.holdout))
        columns = target.holdout.x.shape[1] if target.holdout.is_table else 0
        return Work(predictions=rows * (1 + 5 * len(SEVERITIES)) + holdout + 2 * columns * TRIED_ROWS)

    def run(self, target: Target, budget: Budget, seed: int, progress: Progress) -> Evidence:
        """Measure.

        Raises:
            Inconclusive: too few rows, or a model that is no better than a constant answer.
        """
        ground = footing(target.model, target.holdout, rows=FEWEST_ROWS, seed=seed)
        ground.require_above_floor()
        rows = target.holdout.take(chosen_rows(target.holdout, budget.rows))
        rows = tied(rows.take(np.asarray(_finite(rows.x))))
        model = _Asked(target.model)
        correct = model.labels(rows.x) == rows.y
        if (enough := distinct(rows.take(correct).x)) < FEWEST_ROWS:
            raise Inconclusive(f"only {enough} distinct rows of {len(rows)} were handled correctly; {FEWEST_ROWS} are needed")
        kinds, findings = _kinds(target, model, rows)
        flips, metrics, failures = _flips(target.model, model, rows, kinds, seed, progress)
        groups, below = _subpopulations(target, model, seed)
        first = flips.min(axis=0, initial=np.inf)
        by = [kinds[kind].name if np.isfinite(first[row]) else None for row, kind in enumerate(flips.argmin(axis=0))]
        won = np.isfinite(first[correct])
        headline = f"{won.sum()} of {len(won)} correct decisions were flipped by a natural change of severity up to 5."
        return Evidence(
            probe=self.id,
            threats=self.threats,
            status="measured",
            axis="severity",
            tested=float(SEVERITIES[-1]),
            rows=tuple(
                Row(
                    unit=str(rows.ids[row]),
                    cluster=None if rows.clusters is None else str(rows.clusters[row]),
                    capability=float(first[row]) if np.isfinite(first[row]) else None,
                    seed=seed,
                    detail=plain_detail({"change": by[row]}),
                )
                for row in np.flatnonzero(correct)
            ),
            strength="moderate",
            method=f"{', '.join(kind.name for kind in kinds)}, each in severities 1 to 5; accuracy in subpopulations",
            metrics=(
                share("success rate", rate(won, _of(rows.clusters, correct)), note="flipped by any of these changes"),
                share("clean accuracy", rate(correct, rows.clusters), note="on the tested rows"),
                *_calibration(target.model, rows.x, rows.y, "unchanged"),
                *metrics,
                *groups,
            ),
            findings=(headline, *findings, *failures, *below),
            spent=Spent(queries=model.rows, calls=model.calls),
        )


class _Asked:
    """A model with a count of what it was asked."""

    def __init__(self, model: Model) -> None:
        self._judge = Oracle(model, Access.LABELS, 0)
        self.rows = self.calls = 0

    def labels(self, x: Any) -> NDArray[np.int64]:
        self.rows += len(x)
        self.calls += 1
        return self._judge.judge(x)


def _kinds(target: Target, model: _Asked, rows: Dataset) -> tuple[list[Corruption], list[str]]:
    """The changes that the model can be asked about, and the columns in which it fails."""
    if not rows.is_table:
        usable = target.holdout.x[_finite(target.holdout.x)]
        low = float(usable.min()) if target.domain.low is None else target.domain.low
        high = float(usable.max()) if target.domain.high is None else target.domain.high
        return array_corruptions(low, high, tuple(rows.x.shape[1:])), []
    probe = rows.x.iloc[:TRIED_ROWS]
    features = [name for name in rows.x.columns if not pd.api.types.is_bool_dtype(rows.x[name])]
    lacking, fails_missing = _accepted(model, probe, features, None)
    strange, fails_strange = _accepted(model, probe, category_columns(rows.x), UNSEEN)
    findings = []
    for word, failing in (("a missing value", fails_missing), ("an unseen category", fails_strange)):
        if failing:
            shown = ", ".join(map(str, failing[:SHOWN_GROUPS])) + (" and others" if len(failing) > SHOWN_GROUPS else "")
            findings.append(f"The model fails on {word} in {len(failing)} of the columns: {shown}.")
    return table_corruptions(target.holdout.x, lacking, strange), findings


def _flips(
    served: Model, model: _Asked, rows: Dataset, kinds: Sequence[Corruption], seed: int, progress: Progress
) -> tuple[NDArray[np.float64], list[Metric], list[str]]:
    """(kinds, rows) the smallest severity at which each kind flips each row, infinite where none does; and what it did overall.

    A change on which the model fails counts as flipping every row.
    """
    flips = np.full((len(kinds), len(rows)), np.inf)
    metrics: list[Metric] = []
    failures: list[str] = []
    for at, kind in enumerate(kinds):
        for severity in SEVERITIES:
            progress.advance("changes", at * len(SEVERITIES) + severity - 1, len(kinds) * len(SEVERITIES))
            changed = kind.apply(rows.x, severity, SampleStreams(derive(seed, kind.name, severity), list(rows.ids)))
            try:
                right = model.labels(changed) == rows.y
            except (InvalidModel, InvalidData, Inconclusive) as error:
                failures.append(f"The model fails on {kind.name} of severity {severity}: {error.what}")
                flips[at] = np.minimum(flips[at], severity)
                break
            flips[at, ~right] = np.minimum(flips[at, ~right], severity)
            metrics.append(share(f"accuracy, severity {severity}", rate(right, rows.clusters), group=kind.name))
            if severity in (3, 5):
                metrics += _calibration(served, changed, rows.y, f"{kind.name}, severity {severity}")
    progress.advance("changes", len(kinds) * len(SEVERITIES), len(kinds) * len(SEVERITIES))
    return flips, metrics, failures


def _accepted(model: _Asked, probe: pd.DataFrame, columns: Sequence[Any], value: Any) -> tuple[list[Any], list[Any]]:
    """Columns in which the model takes such a value in every row, and those in which it fails."""
    taken: list[Any] = []
    failing: list[Any] = []
    for name in columns:
        try:
            model.labels(probe.assign(**{str(name): with_hole(probe[name], np.ones(len(probe), dtype=bool), value)}))
        except (InvalidModel, InvalidData, Inconclusive):
            failing.append(name)
        else:
            taken.append(name)
    return taken, failing


def _calibration(model: Model, x: Any, y: NDArray[np.int64], group: str) -> list[Metric]:
    """Expected calibration error over ten bins of confidence. Source: Guo et al. (2017), equation 3."""
    if model.access < Access.SCORES:
        return []
    scores = Oracle(model, Access.SCORES, len(y)).scores(x)
    probability = softmax(np.asarray(scores, dtype=float), axis=1)
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == y
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        abs(float(confidence[place == at].mean() - right[place == at].mean())) * float((place == at).mean()) for at in set(place)
    ]
    return [Metric(name="expected calibration error", value=sum(gaps), group=group)]


def _subpopulations(target: Target, model: _Asked, seed: int) -> tuple[list[Metric], list[str]]:
    """Accuracy of the worst subpopulations; intervals by Bonferroni over all of them."""
    data = some(target.holdout, MOST_ROWS, seed)
    data = tied(data.take(np.asarray(_finite(data.x))))
    right = model.labels(data.x) == data.y
    frames = [data.groups] if data.groups is not None else []
    frames += [data.x.drop(columns=[c for f in frames for c in f.columns if c in data.x.columns])] if data.is_table else []
    slices = [found for frame in frames for name in frame.columns for found in _slices(frame[name], target.show_values)]
    slices += [(f"class {name}", data.y == index) for index, name in enumerate(data.classes)]
    slices = [(name, inside) for name, inside in slices if FEWEST_IN_GROUP <= inside.sum() < len(data)]
    if not slices:
        return [], []
    level = 1 - (1 - CONFIDENCE) / len(slices)
    groups = [Group(name=name, accuracy=rate(right[inside], _of(data.clusters, inside), level)) for name, inside in slices]
    groups.sort(key=lambda group: (group.accuracy.value, group.accuracy.high))
    overall = rate(right, data.clusters)
    note = f"95 % intervals corrected for {len(groups)} subpopulations; overall {overall.value:.3f}"
    metrics = [share("accuracy", group.accuracy, group=group.name, note=note) for group in groups[:SHOWN_GROUPS]]
    below = [group for group in groups if group.accuracy.high < overall.low]
    findings = [
        f"Accuracy is {group.accuracy.value:.1%} ({group.accuracy.low:.1%} to {group.accuracy.high:.1%}) in {group.name}, "
        f"against {overall.value:.1%} overall."
        for group in below[:3]
    ]
    return metrics, findings


def _slices(column: pd.Series, show_values: bool) -> list[tuple[str, NDArray[np.bool_]]]:
    """The groups that one column tells apart: its values where they are few, else quarters of its numbers."""
    found = [(f"{column.name} missing", column.isna().to_numpy(dtype=bool))]
    values = column.value_counts().index
    if len(values) <= MOST_VALUES:
        for place, value in enumerate(values, 1):
            name = f"{column.name} = {value}" if show_values else f"{column.name}, value {place} of {len(values)} by frequency"
            found.append((name, (column == value).fillna(False).to_numpy(dtype=bool)))
        return found
    if column.name not in numeric_columns(column.to_frame()):
        return []
    numbers = column.astype(float)
    edges = np.unique(numbers.quantile([0, 0.25, 0.5, 0.75, 1]).to_numpy())
    for place, (low, high) in enumerate(pairwise(edges), 1):
        last = high == edges[-1]
        inside = (numbers >= low) & ((numbers <= high) if last else (numbers < high))
        named = f"from {low:.4g} to {high:.4g}" if show_values else f"quarter {place} from the lowest"
        found.append((f"{column.name} {named}", inside.to_numpy(dtype=bool)))
    return found


def _finite(x: Any) -> NDArray[np.bool_]:
    """(n,) rows without infinities, and for arrays without NaN."""
    if isinstance(x, pd.DataFrame):
        numbers = x.select_dtypes("number").astype(float)
        return np.asarray(~np.isinf(numbers.to_numpy(dtype=float, na_value=np.nan)).any(axis=1), dtype=bool)
    return np.asarray(np.isfinite(np.asarray(x, dtype=float)).reshape(len(x), -1).all(axis=1), dtype=bool)


def _of(clusters: NDArray[np.str_] | None, rows: NDArray[np.bool_]) -> NDArray[np.str_] | None:
    return None if clusters is None else clusters[rows]
