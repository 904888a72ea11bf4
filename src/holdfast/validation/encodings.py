"""Checks of how cells are written: stand-ins for missing values, numbers as text, spellings, garbled text, new categories."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.target import Dataset
from holdfast.validation.columns import kind_of
from holdfast.validation.findings import ALARM, Finding, about, run_probability, sides

PLACEHOLDERS = frozenset(
    {"", "?", "-", ".", "na", "n/a", "#n/a", "null", "none", "nan", "nil", "unknown", "missing", "not available"}
)
SENTINELS = (-9999.0, -999.0, -99.0, -9.0, -1.0, 99.0, 999.0, 9999.0, 99999.0, 999999.0)
GARBLED = re.compile("\ufffd|Ã[\u0080-\u00bf]|â€")


def check_encodings(train: Dataset, holdout: Dataset) -> Iterator[Finding]:
    """Placeholders for missing values, numbers kept as text, spellings of one category, and garbled characters."""
    if not train.is_table:
        return
    for data in (train, holdout):
        for column in data.x.columns:
            series = data.x[column]
            if kind_of(series) == "numbers":
                yield from _sentinels(data, str(column), series.to_numpy(dtype=float, na_value=np.nan))
                continue
            if kind_of(series) != "text":
                continue
            known = series.notna().to_numpy()
            present = series[known].astype(str)
            plain = present.str.strip().str.lower()
            hits = {
                "placeholders": _spread(plain.isin(PLACEHOLDERS), known),
                "garbled text": _spread(present.str.contains(GARBLED), known),
            }
            for what, rows in hits.items():
                if rows.any():
                    yield about(
                        data,
                        what,
                        "medium",
                        f"Column {column} holds {what} in {int(rows.sum())} rows of {data.name}.",
                        column=column,
                        rows=rows,
                    )
            spellings = present.groupby(plain).nunique()
            if 2 <= len(spellings) <= 1000 and (spellings > 1).any():
                doubled = _spread(plain.isin(spellings.index[spellings > 1]), known)
                yield about(
                    data,
                    "spellings",
                    "medium",
                    f"Column {column} spells {int((spellings > 1).sum())} categories in more than one way in {data.name}.",
                    column=column,
                    rows=doubled,
                )
            numeric = _spread(pd.to_numeric(present, errors="coerce").notna(), known)
            if len(present) and numeric.sum() > 0.9 * len(present):
                yield about(
                    data,
                    "numbers as text",
                    "low",
                    f"Column {column} of {data.name} holds numbers as text.",
                    column=column,
                    rows=numeric,
                )


def check_categories(train: Dataset, holdout: Dataset) -> Iterator[Finding]:
    """Categories that one split never has, in more rows of the other than chance puts there."""
    if not train.is_table:
        return
    columns = [column for column in train.x.columns if column in holdout.x.columns and kind_of(train.x[column]) == "text"]
    for data, other in sides(train, holdout):
        for column in columns:
            known = set(other.x[column].dropna().astype(str))
            values = data.x[column].dropna().astype(str)
            new = values[~values.isin(known)].value_counts()
            if not len(new) or values.nunique() > 0.5 * len(values):
                continue
            largest = int(new.iloc[0])
            if run_probability(largest, len(data), len(other)) * 2 * len(columns) * max(values.nunique(), 1) >= ALARM:
                continue
            rows = data.x[column].notna().to_numpy() & ~data.x[column].astype(str).isin(known).to_numpy()
            yield about(
                data,
                "new categories",
                "medium",
                f"Column {column}: {len(new)} categories of {data.name}, in {int(rows.sum())} rows, never occur in {other.name}.",
                column=column,
                rows=rows,
            )


def _sentinels(data: Dataset, column: str, values: NDArray[np.float64]) -> Iterator[Finding]:
    """A usual stand-in for "missing", frequent, and standing apart from all other values."""
    known = values[np.isfinite(values)]
    for sentinel in SENTINELS:
        rows = values == sentinel
        rest = known[known != sentinel]
        if rows.sum() < max(3, 0.005 * len(values)) or len(np.unique(rest)) < 5:
            continue
        gap = max(rest.min() - sentinel, sentinel - rest.max())
        if gap <= 0 or (gap < 0.25 * np.ptp(rest) and not sentinel < 0 <= rest.min()):
            continue
        yield about(
            data,
            "placeholders",
            "medium",
            f"Column {column} holds {sentinel:g} in {int(rows.sum())} rows of {data.name}, apart from all other values, "
            "like a stand-in for missing.",
            column=column,
            rows=rows,
        )


def _spread(mask: pd.Series[bool], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask over the present cells as one over all rows."""
    full = np.zeros(len(known), dtype=bool)
    full[known] = mask.to_numpy(dtype=bool)
    return full
