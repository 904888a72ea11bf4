"""Rows as points: one numeric matrix for both splits, for neighbours and small models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.validation.columns import kind_of

MOST_CATEGORIES = 20
"""Categories up to which a column becomes one-hot; beyond, each cell becomes the frequency of its category."""
COMPONENTS = 40
"""Principal components that inputs of more numbers than this are reduced to."""
FITTED_ROWS = 4000
"""Rows that the components are computed from."""


def joint_matrix(first: Any, second: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both splits as matrices with the same columns, standardised over both, missing cells at the middle.

    Args:
        first, second: DataFrames, or arrays (n, ...).
    """
    if isinstance(first, pd.DataFrame):
        parts = [_encode(pd.concat([first[column], second[column]], ignore_index=True)) for column in first.columns]
        pooled = np.concatenate(parts, axis=1) if parts else np.zeros((len(first) + len(second), 0))
    else:
        raw = np.concatenate([np.reshape(part, (len(part), -1)) for part in (first, second)])
        pooled = _standard(np.asarray(raw, dtype=float), together=True)
    if pooled.shape[1] > COMPONENTS:
        pooled = _reduce(pooled)
    return pooled[: len(first)], pooled[len(first) :]


def _encode(column: pd.Series[Any]) -> NDArray[np.float64]:
    if kind_of(column) in ("numbers", "booleans"):
        return _standard(column.to_numpy(dtype=float, na_value=np.nan)[:, None])
    if kind_of(column) == "times":
        return _standard(column.astype("int64").to_numpy(dtype=float)[:, None])
    codes, names = pd.factorize(column.astype(object).where(column.notna(), None))
    if len(names) <= MOST_CATEGORIES:
        return np.asarray(codes[:, None] == np.arange(len(names)), dtype=float)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    frequency = np.where(codes >= 0, counts[codes], 0).astype(np.float64)
    return _standard(frequency[:, None])


def _standard(columns: NDArray[Any], together: bool = False) -> NDArray[np.float64]:
    """Centre each column; divide by its own spread, or by that of all columns `together`, as for the points of a picture."""
    known = np.where(np.isfinite(columns), columns, np.nan)
    with np.errstate(all="ignore"):
        middle = np.nan_to_num(np.nanmean(known, axis=0)) if len(known) else np.zeros(known.shape[1])
        spread = np.nan_to_num(np.nanstd(known, axis=0)) if len(known) else np.ones(known.shape[1])
    if together and spread.size:
        spread = np.full_like(spread, np.sqrt((spread**2).mean()))
    scaled = (np.where(np.isnan(known), middle, known) - middle) / np.where(spread > 0, spread, 1.0)
    return np.asarray(np.clip(scaled, -20, 20))


def _reduce(pooled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Onto the leading principal components of an evenly spaced sample of the rows."""
    sample = pooled[np.linspace(0, len(pooled) - 1, min(len(pooled), FITTED_ROWS)).astype(int)]
    centred = sample - sample.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.asarray((pooled - sample.mean(axis=0)) @ axes[:, ::-1][:, :COMPONENTS])
