"""Planted faults: how much the data audit would have seen, on the very data it looked at.

1. The audit runs on the data as they are; what it says is the baseline.
2. A known fault is planted into a copy of the training rows, and the checks that could see it run again.
3. The fault is caught when a finding of the right kind is new, worse, or grew by at least half of the planted rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.seeds import generator
from holdfast.core.target import Dataset
from holdfast.validation.audit import audit
from holdfast.validation.columns import kind_of
from holdfast.validation.findings import SEVERITIES, Finding

SHARE = 0.05
"""Share of the training rows that a fault touches, unless its name says otherwise."""
FACTORS = (0.1, 2.54, 10.0, 1000.0)
"""Changes of unit: a decimal point, inches, a digit too many, kilograms as grams."""
STAND_IN = -999.0

Rng = np.random.Generator
Planted = tuple[Dataset, int]
Plant = Callable[[Dataset, Dataset, Rng], Planted]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault that can be planted.

    Attributes:
        name: such as `unit change x10`.
        column: where; None for whole rows.
        checks: names of the audit's checks that look for it.
        signs: the findings, by `Finding.check`, that mean it was seen.
        plant: from (train, holdout, generator) to the faulty training rows and how many were touched.
    """

    name: str
    column: str | None = None
    checks: tuple[str, ...]
    signs: tuple[str, ...]
    plant: Plant

    @property
    def unit(self) -> str:
        """Its name and column."""
        return self.name if self.column is None else f"{self.name}: {self.column}"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Whether the audit saw a planted fault in `rows` rows; `sign` is the check that did."""

    fault: Fault
    rows: int
    caught: bool
    sign: str | None = None


def self_test(
    train: Dataset,
    holdout: Dataset,
    *,
    baseline: tuple[Finding, ...],
    seed: int,
    columns: int = 6,
    advance: Callable[[int, int], None] | None = None,
) -> tuple[Trial, ...]:
    """Plant faults and see which the audit catches.

    Args:
        train, holdout: the data.
        baseline: what the audit says about them.
        seed: of the choice of columns and rows, and the audit's own.
        columns: into how many columns of each kind the faults of columns are planted.
        advance: told how many faults of how many are done.
    """
    faults = list(planned_faults(train, columns=columns, seed=seed))
    trials = []
    for place, fault in enumerate(faults):
        faulty, rows = fault.plant(train, holdout, generator(seed, fault.unit))
        if rows:
            sign = _seen(fault, rows, baseline, audit(faulty, holdout, seed=seed, only=fault.checks))
            trials.append(Trial(fault=fault, rows=rows, caught=sign is not None, sign=sign))
        if advance:
            advance(place + 1, len(faults))
    return tuple(trials)


def planned_faults(train: Dataset, *, columns: int, seed: int) -> Iterator[Fault]:
    """The faults that can be planted into such data."""
    if train.is_table:
        yield from _column_faults(train, columns, seed)
    else:
        yield from _array_faults()
    yield Fault(name="repeated rows", checks=("duplicates",), signs=("duplicate rows",), plant=_repeat)
    yield Fault(
        name="holdout rows in train", checks=("duplicates",), signs=("overlap of train and holdout",), plant=_leak(noise=0.0)
    )
    yield Fault(
        name="near copies of holdout rows in train",
        checks=("duplicates", "near duplicates"),
        signs=("near duplicates across splits", "overlap of train and holdout"),
        plant=_leak(noise=0.01),
    )
    yield Fault(name="rows again with another label", checks=("duplicates",), signs=("contradicting labels",), plant=_contradict)
    for share in (0.05, 0.1):
        yield Fault(
            name=f"random labels in {share:.0%} of rows",
            checks=("labels", "classes"),
            signs=("doubtful labels", "class shares"),
            plant=_flip(share, one_way=False),
        )
        yield Fault(
            name=f"one class called another in {share:.0%} of rows",
            checks=("labels", "classes"),
            signs=("doubtful labels", "class shares"),
            plant=_flip(share, one_way=True),
        )


def _seen(fault: Fault, rows: int, baseline: tuple[Finding, ...], found: tuple[Finding, ...]) -> str | None:
    known = {one.key: one for one in baseline}
    for one in found:
        if one.check not in fault.signs or (fault.column is not None and one.column != fault.column):
            continue
        before = known.get(one.key)
        worse = before is not None and SEVERITIES.index(one.severity) < SEVERITIES.index(before.severity)
        if before is None or worse or one.count >= before.count + max(1, rows // 2):
            return one.check
    return None


def _column_faults(train: Dataset, columns: int, seed: int) -> Iterator[Fault]:
    draw = generator(seed, "fault columns")
    kinds = {column: kind_of(train.x[column]) for column in train.x.columns}

    def chosen(kind: str) -> list[Any]:
        names = [column for column in kinds if kinds[column] == kind]
        return [names[place] for place in sorted(draw.permutation(len(names))[:columns])]

    for column in chosen("numbers"):
        if train.x[column].nunique() > 2:
            for factor in FACTORS:
                yield Fault(
                    name=f"unit change x{factor:g}",
                    column=str(column),
                    checks=("ranges", "relations"),
                    signs=("range", "contradicted numbers"),
                    plant=_cells(column, factor=factor),
                )
        yield Fault(
            name="stand-ins for missing",
            column=str(column),
            checks=("encodings", "ranges"),
            signs=("placeholders", "range"),
            plant=_cells(column, factor=None),
        )
    for column in chosen("text"):
        yield Fault(
            name="unknown category",
            column=str(column),
            checks=("categories",),
            signs=("new categories",),
            plant=_texts(column, "planted category"),
        )
        yield Fault(
            name="other spelling",
            column=str(column),
            checks=("encodings", "categories"),
            signs=("spellings", "new categories"),
            plant=_texts(column, None),
        )
        yield Fault(
            name="stand-ins for missing",
            column=str(column),
            checks=("encodings",),
            signs=("placeholders",),
            plant=_texts(column, "?"),
        )
    every = list(kinds)
    for column in [every[place] for place in sorted(draw.permutation(len(every))[:columns])]:
        name = str(column)
        yield Fault(name="missing cells", column=name, checks=("missing",), signs=("missing cells",), plant=_gaps(column))
        yield Fault(name="frozen column", column=name, checks=("constant",), signs=("constant column",), plant=_freeze(column))
        yield Fault(name="lost column", column=name, checks=("schema",), signs=("schema",), plant=_lose(column))
        yield Fault(name="numbers turned to text", column=name, checks=("schema",), signs=("type",), plant=_as_text(column))
        for noise in (0.0, 0.03):
            yield Fault(
                name=f"copy of the label, {noise:.0%} wrong" if noise else "copy of the label",
                column=name,
                checks=("leakage",),
                signs=("label leakage",),
                plant=_copy_label(column, noise),
            )


def _array_faults() -> Iterator[Fault]:
    changes: tuple[tuple[str, Callable[[Any], Any], tuple[str, ...], tuple[str, ...]], ...] = (
        ("inputs x255", lambda x: x * 255, ("ranges", "relations"), ("range", "contradicted numbers")),
        ("inverted inputs", lambda x: x.max() + x.min() - x, ("ranges", "relations"), ("range", "contradicted numbers")),
        (
            "blank inputs",
            lambda x: np.full_like(x, x.min()),
            ("constant", "ranges", "duplicates"),
            ("constant inputs", "range", "duplicate rows"),
        ),
        ("missing values", _holes, ("missing",), ("missing cells",)),
    )
    for name, change, checks, signs in changes:
        yield Fault(name=name, checks=checks, signs=signs, plant=_inputs(change))


def _holes(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every seventh number of each input lost."""
    return np.where(np.arange(x[0].size).reshape(x[0].shape) % 7 == 0, np.nan, x)


def _some(data: Dataset, draw: Rng, share: float = SHARE) -> NDArray[np.int64]:
    return np.sort(draw.permutation(len(data))[: max(1, round(share * len(data)))]).astype(np.int64)


def _with(data: Dataset, column: Any, values: Any) -> Dataset:
    frame = data.x.copy()
    frame[column] = values
    return replace(data, x=frame)


def _cells(column: Any, factor: float | None) -> Plant:
    """Multiply numbers other than 0; without a factor write the stand-in for missing."""

    def plant(train: Dataset, _: Dataset, draw: Rng) -> Planted:
        values = train.x[column].to_numpy(dtype=float, na_value=np.nan).copy()
        rows = draw.permutation(len(train))
        usable = np.isfinite(values[rows]) & ((values[rows] != 0) | (factor is None))
        rows = rows[usable][: max(1, round(SHARE * len(train)))]
        values[rows] = STAND_IN if factor is None else values[rows] * factor
        return _with(train, column, values), len(rows)

    return plant


def _texts(column: Any, written: str | None) -> Plant:
    """Write one text into cells; None spells what is there in capitals after a space."""

    def plant(train: Dataset, _: Dataset, draw: Rng) -> Planted:
        values = train.x[column].astype(object).to_numpy(copy=True)
        rows = _some(train, draw)
        rows = rows[train.x[column].notna().to_numpy()[rows]]
        for row in rows:
            values[row] = f" {str(values[row]).upper()}" if written is None else written
        return _with(train, column, pd.Series(values, dtype=object)), len(rows)

    return plant


def _gaps(column: Any) -> Plant:
    def plant(train: Dataset, _: Dataset, draw: Rng) -> Planted:
        rows = _some(train, draw)
        numbers = kind_of(train.x[column]) == "numbers"
        series = train.x[column].astype(float) if numbers else train.x[column].astype(object)
        rows = rows[series.notna().to_numpy()[rows]]
        series = series.copy()
        series.iloc[rows] = np.nan if numbers else None
        return _with(train, column, series), len(rows)

    return plant


def _freeze(column: Any) -> Plant:
    def plant(train: Dataset, _: Dataset, draw: Rng) -> Planted:
        if train.x[column].nunique(dropna=False) < 2:
            return train, 0
        value = train.x[column].iloc[[int(draw.integers(len(train)))] * len(train)].reset_index(drop=True)
        return _with(train, column, value), len(train)

    return plant


def _lose(column: Any) -> Plant:
    def plant(train: Dataset, _: Dataset, __: Rng) -> Planted:
        return replace(train, x=train.x.drop(columns=[column])), len(train)

    return plant


def _as_text(column: Any) -> Plant:
    def plant(train: Dataset, _: Dataset, __: Rng) -> Planted:
        if kind_of(train.x[column]) != "numbers":
            return train, 0
        return _with(train, column, train.x[column].astype(str).astype(object)), len(train)

    return plant


def _copy_label(column: Any, noise: float) -> Plant:
    """Numbers get the label plus a jitter, anything else its name; a share `noise` of rows gets another class."""

    def plant(train: Dataset, _: Dataset, draw: Rng) -> Planted:
        label = train.y.copy()
        wrong = draw.random(len(label)) < noise
        label[wrong] = (label[wrong] + draw.integers(1, max(2, len(train.classes)), wrong.sum())) % len(train.classes)
        if kind_of(train.x[column]) == "numbers":
            return _with(train, column, label + 0.01 * draw.standard_normal(len(label))), len(train)
        return _with(train, column, pd.Series([train.classes[place] for place in label], dtype=object)), len(train)

    return plant


def _repeat(train: Dataset, _: Dataset, draw: Rng) -> Planted:
    rows = _some(train, draw)
    return train.take(np.concatenate([np.arange(len(train)), rows])), len(rows)


def _leak(noise: float) -> Plant:
    """Append holdout rows to train, numbers moved by `noise` standard deviations."""

    def plant(train: Dataset, holdout: Dataset, draw: Rng) -> Planted:
        rows = _some(holdout, draw)
        copied = holdout.take(rows)
        if noise:
            copied = replace(copied, x=_jitter(copied.x, holdout.x, noise, draw))
        return _joined(train, copied), len(rows)

    return plant


def _jitter(x: Any, reference: Any, noise: float, draw: Rng) -> Any:
    if not isinstance(x, pd.DataFrame):
        return x + noise * np.std(reference) * draw.standard_normal(x.shape)
    moved = x.copy()
    for column in moved.columns:
        if kind_of(moved[column]) == "numbers":
            step = noise * float(reference[column].std() or 0.0) * draw.standard_normal(len(moved))
            moved[column] = moved[column].astype(float) + step
    return moved


def _contradict(train: Dataset, _: Dataset, draw: Rng) -> Planted:
    copied = train.take(_some(train, draw, SHARE / 2))
    return _joined(train, replace(copied, y=(copied.y + 1) % len(train.classes))), len(copied)


def _flip(share: float, one_way: bool) -> Plant:
    def plant(train: Dataset, _: Dataset, draw: Rng) -> Planted:
        count = len(train.classes)
        label = train.y.copy()
        rows = _some(train, draw, share)
        if one_way:
            common = int(np.bincount(label, minlength=count).argmax())
            inside = draw.permutation(np.flatnonzero(label == common))
            rows = np.sort(inside[: max(1, round(share * len(train)))])
            label[rows] = (common + 1) % count
        else:
            label[rows] = (label[rows] + draw.integers(1, max(2, count), len(rows))) % count
        return replace(train, y=label), int((label != train.y).sum())

    return plant


def _inputs(change: Callable[[Any], Any]) -> Plant:
    def plant(train: Dataset, _: Dataset, draw: Rng) -> Planted:
        rows = _some(train, draw)
        x = np.array(train.x, dtype=float)
        x[rows] = change(x[rows])
        return replace(train, x=x), len(rows)

    return plant


def _joined(first: Dataset, second: Dataset) -> Dataset:
    if first.is_table:
        x: Any = pd.concat([first.x, second.x[list(first.x.columns)]], ignore_index=True)
    else:
        x = np.concatenate([first.x, second.x])
    return replace(
        first,
        x=x,
        y=np.concatenate([first.y, second.y]),
        ids=np.concatenate([first.ids, second.ids]),
        groups=None,
        clusters=None,
    )
