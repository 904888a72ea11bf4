"""Checks of single columns: schema, types, missing cells, constants, ranges, relations, identifiers.

Arrays and images are looked at through a table of per-input statistics (`statistics_table`), so that the same checks serve.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from holdfast.core.target import Dataset
from holdfast.validation.findings import ALARM, Finding, about, excess_of, run_probability, sides

FAR_ROWS = 3
"""Rows beyond the reference's range by a whole range that make a finding a serious one."""
RESIDUAL = 6.0
"""How many robust standard deviations from what the other columns predict a cell must be to count as strange."""


def check_schema(train: Dataset, holdout: Dataset) -> Iterator[Finding]:
    """Columns, their order and types; shapes and types of arrays."""
    if not train.is_table or not holdout.is_table:
        if train.is_table != holdout.is_table:
            yield Finding(check="schema", severity="high", split="both", message="One split is a table and the other an array.")
            return
        for what, first, second in (
            ("shape", train.x.shape[1:], holdout.x.shape[1:]),
            ("type", train.x.dtype, holdout.x.dtype),
        ):
            if first != second:
                yield Finding(
                    check="schema",
                    severity="high" if what == "shape" else "medium",
                    split="both",
                    message=f"Inputs have {what} {first} in train and {second} in holdout.",
                )
        return
    for data, other in sides(train, holdout):
        for column in data.x.columns.difference(other.x.columns, sort=False):
            yield about(data, "schema", "high", f"Column {column} is in {data.name} and not in {other.name}.", column=column)
    shared = [column for column in train.x.columns if column in holdout.x.columns]
    if shared != [column for column in holdout.x.columns if column in train.x.columns]:
        yield Finding(
            check="schema", severity="low", split="both", message="The columns stand in another order in the two splits."
        )
    for column in shared:
        first, second = kind_of(train.x[column]), kind_of(holdout.x[column])
        if first != second:
            yield Finding(
                check="type",
                severity="high",
                split="both",
                column=str(column),
                count=len(train),
                of=len(train),
                message=f"Column {column} holds {first} in train and {second} in holdout.",
            )


def check_missing(train: Dataset, holdout: Dataset) -> Iterator[Finding]:
    """Missing and infinite cells: wholly missing columns, and columns that are missing more often in one split."""
    for data, other in sides(train, holdout):
        absent, reference = _absent(data), _absent(other)
        for column in absent.columns:
            gone = absent[column].to_numpy()
            count = int(gone.sum())
            known = column in reference.columns
            elsewhere = int(reference[column].sum()) if known else 0
            there = reference[column].to_numpy() if known else np.zeros(len(other), dtype=bool)
            chance = excess_of(gone, data, there, other) * len(absent.columns) * 2 if known else 1.0
            share = count / max(len(data), 1)
            more = chance < ALARM and share > elsewhere / max(len(other), 1) + 0.005
            if not count or not (more or share > 0.5):
                continue
            whole = count == len(data)
            yield about(
                data,
                "missing cells",
                "high" if whole else "medium" if more else "low",
                f"Column {column} is missing or not finite in {count} of {len(data)} rows of {data.name}"
                + (f", in {elsewhere} of {len(other)} of {other.name}." if known else "."),
                column=column,
                rows=gone,
            )
    if not train.is_table:
        return
    for data in (train, holdout):
        for column in _numbers(data.x):
            endless = np.isinf(data.x[column].to_numpy(dtype=float, na_value=np.nan))
            if endless.any():
                yield about(
                    data,
                    "infinite cells",
                    "medium",
                    f"Column {column} is infinite in {int(endless.sum())} rows of {data.name}.",
                    column=column,
                    rows=endless,
                )


def check_constant(train: Dataset, holdout: Dataset) -> Iterator[Finding]:
    """Columns that never vary; worse when they do in the other split."""
    if not train.is_table:
        for data in (train, holdout):
            flat = data.x.reshape(len(data), -1)
            same = (flat.max(axis=1) == flat.min(axis=1)) if flat.size else np.zeros(len(data), dtype=bool)
            if same.any():
                yield about(
                    data,
                    "constant inputs",
                    "medium",
                    f"{int(same.sum())} inputs of {data.name} have the same value everywhere.",
                    rows=same,
                )
        return
    for data, other in sides(train, holdout):
        for column in data.x.columns:
            if len(data) < 2 or data.x[column].nunique(dropna=False) > 1:
                continue
            varies = column in other.x.columns and other.x[column].nunique(dropna=False) > 1
            yield about(
                data,
                "constant column",
                "medium" if varies else "low",
                f"Column {column} has one value in all of {data.name}" + (" but not in the other split." if varies else "."),
                column=column,
            )


def check_ranges(train: Dataset, holdout: Dataset) -> Iterator[Finding]:
    """Numbers outside the other split's range: more of them than chance puts there, or far outside."""
    tables = {data.name: _table(data) for data in (train, holdout)}
    columns = _shared_numbers(tables[train.name], tables[holdout.name])
    for data, other in sides(train, holdout):
        for column in columns:
            values = tables[data.name][column].to_numpy(dtype=float, na_value=np.nan)
            reference = tables[other.name][column].to_numpy(dtype=float, na_value=np.nan)
            reference = reference[np.isfinite(reference)]
            rows = int(np.isfinite(values).sum())
            if len(reference) < 10 or reference.min() == reference.max():
                continue
            above, below = values > reference.max(), values < reference.min()
            chance = min(_tail_chance(side, data, rows, other, len(reference)) for side in (above, below)) * 4 * len(columns)
            far = _far(values, reference)
            if chance >= ALARM:
                continue
            outside = above | below
            yield about(
                data,
                "range",
                "high" if far.sum() >= FAR_ROWS else "medium",
                f"Column {column}: {int(outside.sum())} of {len(data)} rows of {data.name} lie outside the range of "
                f"{other.name}, {int(far.sum())} of them far outside; a change of unit or a broken source looks like this.",
                column=column,
                rows=outside,
            )


def check_relations(train: Dataset, holdout: Dataset) -> Iterator[Finding]:
    """Numbers that contradict what the row's other numbers say, more often in one split than chance allows.

    Each column is turned into normal scores over both splits; the inverse of their shrunk correlation gives what the others
    predict for all columns at once (the conditional mean of a Gaussian copula).
    """
    first, second = _table(train), _table(holdout)
    columns = _shared_numbers(first, second)
    columns = [column for column in columns if first[column].nunique() > 2]
    if len(columns) < 2 or min(len(train), len(holdout)) < 30:
        return
    pooled = np.concatenate([frame[columns].to_numpy(dtype=float, na_value=np.nan) for frame in (first, second)])
    scores = np.zeros_like(pooled)
    for place in range(len(columns)):
        known = np.isfinite(pooled[:, place])
        scores[known, place] = stats.norm.ppf((stats.rankdata(pooled[known, place]) - 0.5) / max(int(known.sum()), 1))
    inverse = np.linalg.inv(np.corrcoef(scores, rowvar=False) * 0.99 + 0.01 * np.eye(len(columns)) + 1e-9)
    residual = np.abs(scores @ inverse)
    explained = 1 - 1 / np.diag(inverse)
    spread = 1.4826 * np.median(residual, axis=0) + 1e-12
    strange = (residual > RESIDUAL * spread) & np.isfinite(pooled)
    for data, other, here, there in (
        (train, holdout, strange[: len(train)], strange[len(train) :]),
        (holdout, train, strange[len(train) :], strange[: len(train)]),
    ):
        for place, column in enumerate(columns):
            count, elsewhere = int(here[:, place].sum()), int(there[:, place].sum())
            chance = excess_of(here[:, place], data, there[:, place], other) * 2 * len(columns)
            if explained[place] < 0.3 or count < FAR_ROWS or chance >= ALARM:
                continue
            yield about(
                data,
                "contradicted numbers",
                "medium",
                f"Column {column}: {count} of {len(data)} rows of {data.name} contradict the row's other numbers, "
                f"against {elsewhere} of {len(other)} in {other.name}.",
                column=column,
                rows=here[:, place],
            )


def check_identifiers(train: Dataset, holdout: Dataset) -> Iterator[Finding]:  # noqa: ARG001
    """Columns that name the row rather than describe it."""
    if not train.is_table or len(train) < 20:
        return
    for column in train.x.columns:
        series = train.x[column].dropna()
        if len(series) < 0.9 * len(train) or series.nunique() < 0.98 * len(series):
            continue
        numbers = kind_of(series) == "numbers"
        if numbers:
            values = series.to_numpy(dtype=float)
            counting = (values == np.round(values)).all() and np.ptp(values) < 20 * len(values)
            if not counting and not (np.diff(values) > 0).all():
                continue
        yield Finding(
            check="identifier",
            severity="low",
            split="train",
            column=str(column),
            count=len(series),
            of=len(train),
            message=f"Column {column} is different in nearly every row, like an identifier; the model can only memorise it.",
        )


def statistics_table(x: NDArray[Any]) -> pd.DataFrame:
    """(n, 5) table of per-input statistics of an array (n, ...): mean, spread, extremes and roughness."""
    flat = np.asarray(x, dtype=float).reshape(len(x), -1)
    steps = np.abs(np.diff(flat, axis=1)).mean(axis=1) if flat.shape[1] > 1 else np.zeros(len(flat))
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(
            {
                "mean of the input": flat.mean(axis=1),
                "spread of the input": flat.std(axis=1),
                "smallest value": flat.min(axis=1),
                "largest value": flat.max(axis=1),
                "roughness": steps,
            }
        )


def _table(data: Dataset) -> pd.DataFrame:
    table: pd.DataFrame = data.x if data.is_table else statistics_table(data.x)
    return table


def _shared_numbers(first: pd.DataFrame, second: pd.DataFrame) -> list[Any]:
    there = set(_numbers(second))
    return [column for column in _numbers(first) if column in there]


def _numbers(frame: pd.DataFrame) -> list[Any]:
    return [column for column in frame.columns if kind_of(frame[column]) == "numbers"]


def kind_of(series: pd.Series[Any]) -> str:
    """`numbers`, `booleans`, `times` or `text`."""
    if pd.api.types.is_bool_dtype(series):
        return "booleans"
    if pd.api.types.is_numeric_dtype(series):
        return "numbers"
    return "times" if pd.api.types.is_datetime64_any_dtype(series) else "text"


def _absent(data: Dataset) -> pd.DataFrame:
    if data.is_table:
        return pd.DataFrame(data.x.isna())
    return pd.DataFrame({"any value": ~np.isfinite(data.x.reshape(len(data), -1)).all(axis=1)})


def _tail_chance(outside: NDArray[np.bool_], data: Dataset, rows: int, other: Dataset, other_rows: int) -> float:
    """P(all of these extreme rows in this part); rows that share a cluster fall into one part together, and count once."""
    if data.clusters is None or other.clusters is None:
        return run_probability(int(outside.sum()), rows, other_rows)
    counts = (len(np.unique(names)) for names in (data.clusters[outside], data.clusters, other.clusters))
    return run_probability(*counts)


def _far(values: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Beyond the reference's range by more than its width, on the plain or, for positive numbers, the logarithmic scale."""
    span = np.ptp(reference)
    far = (values > reference.max() + span) | (values < reference.min() - span)
    if reference.min() > 0:
        ratio = reference.max() / reference.min()
        far |= (values > reference.max() * ratio) | ((values < reference.min() / ratio) & (values > 0))
    return np.asarray(far & np.isfinite(values))
