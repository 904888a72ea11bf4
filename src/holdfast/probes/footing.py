"""What a measurement stands on: rows enough, more than one class, and a model that answers differently to different rows
and alike to the same.

Rows with the same inputs are one piece of evidence: they count once where rows are counted, and share a cluster where an
interval is made.

A probe whose footing is missing says so. A constant model leaks nothing, cannot be fooled and is copied by one answer;
none of that says anything about the model that was meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from holdfast.attacks.privacy.separability import row_digests
from holdfast.core.errors import Inconclusive
from holdfast.core.evidence import Metric
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import generator
from holdfast.core.statistics import Rate, rate
from holdfast.core.target import Dataset, Model

MOST_ROWS = 5000
ASKED_TWICE = 200
"""Rows at most that are asked again, to see whether the model gives the same answers."""
NEAR = 1e-4
"""Numbers that differ by less than this share of their standard deviation are no further evidence."""
PERCOLATED, SWALLOWED = 10, 0.1
"""A chain this many times as large as any person or copy, and this share of all rows, ties by coincidence."""


@dataclass(frozen=True, kw_only=True)
class Footing:
    """How the model does on rows it was not trained on.

    Attributes:
        accuracy: with its interval.
        majority: the share of the commonest label, which a constant answer reaches.
        balanced, balanced_low: the mean recall over the classes that occur, and the lower end of its 95 % interval.
        classes: how many occur; a constant or random answer has a mean recall of 1 / classes.
        guessed_order: the labels in the order in which they were taken, where neither the model nor the system file orders them.
    """

    accuracy: Rate
    majority: float
    balanced: float
    balanced_low: float
    classes: int
    guessed_order: tuple[str, ...] = ()

    @property
    def above_floor(self) -> bool:
        """Whether the model surely beats the constant answer, in accuracy or in mean recall.

        Where one class is rare a useful model may be less accurate than the constant answer; its mean recall then tells.
        """
        return self.accuracy.low > self.majority or self.balanced_low > 1 / self.classes

    def require_above_floor(self) -> None:
        """Return if it does.

        Raises:
            Inconclusive: it does not, so that what it does with an input says little.
        """
        if not self.above_floor:
            together = "that the model, the data and the label column belong together."
            taken = ", ".join(self.guessed_order)
            raise Inconclusive(
                f"accuracy {self.accuracy.value:.3f} on holdout rows (95 % CI from {self.accuracy.low:.3f}) is not above the "
                f"{self.majority:.3f} of always answering the commonest class, and the mean recall {self.balanced:.3f} (from "
                f"{self.balanced_low:.3f}) is not above {1 / self.classes:.3f}",
                hint=f"Add model.classes: the labels in the order in which the model numbers them; they were taken as {taken}. "
                f"Then check {together}"
                if taken
                else f"Check the order of model.classes, and {together}",
            )


def footing(model: Model, holdout: Dataset, *, rows: int, seed: int) -> Footing:
    """Check that a measurement on the holdout rows can mean something.

    Args:
        model: as it is served.
        holdout: rows it was not trained on.
        rows: the fewest distinct ones that the measurement needs.
        seed: decides which rows are looked at when there are many.

    Raises:
        Inconclusive: too few rows, a single class, a constant answer, NaN answers, or other answers to the same rows.
    """
    if len(holdout) < rows:
        raise Inconclusive(f"{len(holdout)} holdout rows; this measurement needs at least {rows}")
    if len(np.unique(holdout.y)) < 2:
        raise Inconclusive("the holdout rows have a single class")
    seen = some(holdout, MOST_ROWS, seed)
    if (found := distinct(seen.x)) < rows:
        raise Inconclusive(
            f"only {found} of {len(seen)} holdout rows have distinct inputs; this measurement needs at least {rows}",
            hint="Copies of a row are no further evidence; give other rows.",
        )
    answers = Oracle(model, Access.LABELS, 0).judge(seen.x)
    if len(np.unique(answers)) < 2:
        raise Inconclusive("the model gives the same answer to every row; a constant model proves nothing")
    if model.access >= Access.SCORES:
        Oracle(model, Access.SCORES, len(seen)).scores(seen.x)
    require_steady(model, holdout, seed)
    ground = standing(answers == seen.y, seen.y, tied(seen).clusters)
    return replace(ground, guessed_order=model.classes if getattr(model, "guessed_order", False) else ())


def require_steady(model: Model, data: Dataset, seed: int) -> None:
    """Return if the model gives the same answers to some rows that are asked twice, but for rounding.

    Raises:
        Inconclusive: it does not, so that an attack that fails may have been beaten by chance.
    """
    asked = some(data, ASKED_TWICE, seed).x
    changed = np.zeros(len(asked), dtype=bool)
    if model.access >= Access.SCORES:
        first, again = (np.asarray(Oracle(model, Access.SCORES, len(asked)).scores(asked), dtype=float) for _ in range(2))
        changed |= ~alike(first, again)
    judge = Oracle(model, Access.LABELS, 0).judge
    changed |= judge(asked) != judge(asked)
    if changed.any():
        raise Inconclusive(
            f"the model answers identical rows differently: {int(changed.sum())} of {len(asked)} rows asked twice",
            hint="Fix the model's random state; an attack that fails on a model that answers at random proves nothing.",
        )


def alike(first: NDArray[np.float64], again: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) whether two (n, k) answers to the same rows differ by rounding only, which grows with a row's largest score.

    A network in float32 answers a row in another batch with other last digits.
    """
    reach = 1e-6 + 1e-4 * np.abs(again) + 1e-5 * np.abs(again).max(axis=1, initial=0.0, keepdims=True)
    same: NDArray[np.bool_] = np.all((first == again) | (np.abs(first - again) <= reach), axis=1)
    return same


def standing(right: NDArray[np.bool_], y: NDArray[np.int64], clusters: NDArray[np.str_] | None) -> Footing:
    """The footing of answers that are already known to be right or wrong.

    The interval of the mean recall is put together from those of the classes by squaring and adding (Zou and Donner 2008).

    Args:
        right: (n,) whether each answer is right.
        y: (n,) the labels.
        clusters: (n,) what correlated rows share.
    """
    present = np.unique(y)
    recalls = [rate(right[y == label], None if clusters is None else clusters[y == label]) for label in present]
    balanced = float(np.mean([recall.value for recall in recalls]))
    reach = float(np.sqrt(sum((recall.value - recall.low) ** 2 for recall in recalls))) / len(recalls)
    return Footing(
        accuracy=rate(right, clusters),
        majority=float(np.bincount(y).max() / len(y)),
        balanced=balanced,
        balanced_low=balanced - reach,
        classes=len(present),
    )


def copies(x: Any) -> NDArray[np.int64]:
    """(n,) codes; rows with the same inputs, up to `NEAR` of each number's spread, share one."""
    return np.unique(row_digests(_coarse(x)), return_inverse=True)[1]


def distinct(x: Any) -> int:
    """How many rows have inputs that no earlier row has, as `copies` tells them apart."""
    return int(copies(x).max(initial=-1)) + 1


def _coarse(x: Any) -> Any:
    """The inputs with each broken number as a whole multiple of its column's, or the array's, smallest step that counts."""
    if not isinstance(x, pd.DataFrame):
        values = np.asarray(x)
        return _steps(values) if np.issubdtype(values.dtype, np.floating) else values
    broken = [name for name in x.columns if pd.api.types.is_float_dtype(x[name].dtype)]
    return x.assign(**{name: _steps(x[name].to_numpy(dtype=float, na_value=np.nan)) for name in broken}) if broken else x


def _steps(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    finite = values[np.isfinite(values)].astype(float)
    spread = float(finite.std()) if finite.size else 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        return np.round(values / (NEAR * spread)) + 0.0 if spread > 0 else values.astype(float)


def tied(data: Dataset) -> Dataset:
    """The same rows, with those in one cluster that share their inputs, a declared cluster, or a chain of both.

    In a table of few values chains of coincidences tie nearly all rows together, which says nothing about evidence. Where they
    do, the coarser of both ways to tie rows stands, by the mean size of a row's cluster.
    """
    same = copies(data.x)
    if data.clusters is None:
        groups = same
    else:
        declared = np.unique(data.clusters, return_inverse=True)[1]
        groups = _chained(declared, same)
        if groups.max(initial=0) == declared.max(initial=0):
            return data
        size, longest = (np.bincount(part).max() for part in (groups, np.concatenate([declared, same + len(same)])))
        if size > max(PERCOLATED * longest, SWALLOWED * len(data)):
            groups = max(declared, same, key=lambda part: float(np.sum(np.bincount(part).astype(float) ** 2)))
    first, place = np.unique(groups, return_index=True, return_inverse=True)[1:]
    return data if len(first) == len(data) else replace(data, clusters=data.ids[first][place])


def _chained(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) codes; rows share one that are connected through equal codes on either side."""
    width = int(one.max(initial=0)) + 1
    nodes = width + int(other.max(initial=0)) + 1
    edges = coo_array((np.ones(len(one), dtype=bool), (one, width + other)), shape=(nodes, nodes))
    return np.asarray(connected_components(edges, directed=False)[1][one])


def some(data: Dataset, most: int, seed: int) -> Dataset:
    """At most so many rows, at random, in their order."""
    return data if len(data) <= most else data.take(np.sort(generator(seed, "some").permutation(len(data))[:most]))


def halves(data: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Two random halves, whole clusters and copies together: the attacker's own rows, and those on which he is judged."""
    data = tied(data)
    names, place = np.unique(data.clusters if data.clusters is not None else np.arange(len(data)), return_inverse=True)
    first: NDArray[np.bool_] = (generator(seed, "halves").permutation(np.arange(len(names)) % 2) == 0)[place]
    return data.take(first), data.take(~first)


def served_access(model: Model) -> Access:
    """What somebody who only asks the service sees: never gradients."""
    return min(model.access, Access.SCORES)


def share(name: str, found: Rate, *, group: str | None = None, note: str = "") -> Metric:
    """A rate as a metric."""
    return Metric(
        name=name,
        value=found.value,
        low=found.low,
        high=found.high,
        successes=found.successes,
        trials=found.trials,
        group=group,
        note=note,
    )


def percent(value: float) -> str:
    """A share in words: `1 %`, `0.1 %`."""
    return f"{100 * value:g} %"
