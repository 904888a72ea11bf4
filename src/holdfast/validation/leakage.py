"""Columns that give the label away: how well each column alone, binned and out of fold, ranks the classes.

A column that is nearly perfect, or that beats all other columns together, was probably filled in after the outcome was known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from holdfast.core.seeds import generator
from holdfast.core.target import Dataset
from holdfast.validation.columns import kind_of
from holdfast.validation.findings import ALARM, Finding
from holdfast.validation.matrix import joint_matrix

NEARLY_PERFECT = 0.99
"""AUC of a column alone from which on it gives the label away, if its lower bound is at least `CERTAIN`."""
CERTAIN = 0.97
STANDS_OUT = 0.05
"""By how much such a column must beat all others together to be of high severity, with a bound of at least `SUSPECT`."""
SUSPECT = 0.9
BINS = 32
FOLDS = 5
MOST_ROWS = 20_000


def column_power(values: pd.Series[Any], y: NDArray[np.int64], classes: int, seed: int = 0) -> NDArray[np.float64]:
    """(n, classes) out-of-fold class shares of the bin, or category, that each row's cell falls into.

    Numbers fall into at most 32 bins of equal counts, missing cells into their own. Shares are smoothed towards the prior,
    so that an identifier, whose bins are empty in the other folds, ranks nothing.
    """
    codes = _codes(values)
    fold = generator(seed, "folds").permutation(len(y)) % FOLDS
    out = np.empty((len(y), classes))
    for part in range(FOLDS):
        seen = fold != part
        table = np.zeros((codes.max() + 1, classes))
        np.add.at(table, (codes[seen], y[seen]), 1.0)
        prior = table.sum(axis=0) / max(table.sum(), 1)
        shares = (table + prior) / (table.sum(axis=1, keepdims=True) + 1)
        out[~seen] = shares[codes[~seen]]
    return out


def ranking(shares: NDArray[np.float64], y: NDArray[np.int64]) -> tuple[float, float]:
    """The AUC of class shares, averaged over the classes by the pairs they make, and its standard error.

    Source: Hanley and McNeil (1982), equation 2, for the error of each class against the rest.
    """
    total, weights, error = 0.0, 0.0, 0.0
    labels = [label for label in range(shares.shape[1]) if 0 < (y == label).sum() < len(y)]
    for label in labels[1:] if len(labels) == 2 else labels:
        hit = y == label
        positive, negative = int(hit.sum()), int((~hit).sum())
        ranks = stats.rankdata(shares[:, label])
        area = (ranks[hit].sum() - positive * (positive + 1) / 2) / (positive * negative)
        q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
        variance = area * (1 - area) + (positive - 1) * (q1 - area**2) + (negative - 1) * (q2 - area**2)
        weight = float(min(positive, negative))
        total, weights = total + weight * area, weights + weight
        error += weight * np.sqrt(max(variance, 0.0) / (positive * negative))
    return (total / weights, error / weights) if weights else (0.5, 0.5)


def check_leakage(train: Dataset, holdout: Dataset, seed: int = 0) -> Iterator[Finding]:  # noqa: ARG001
    """Columns of the training rows that predict the label alone; the bound is corrected for the number of columns."""
    if not train.is_table or len(train) < 50 or len(np.unique(train.y)) < 2:
        return
    if len(train) > MOST_ROWS:
        train = train.take(np.sort(generator(seed, "leakage").permutation(len(train))[:MOST_ROWS]))
    classes = len(train.classes)
    z = float(stats.norm.isf(ALARM / 2 / train.x.shape[1]))
    powers = {column: ranking(column_power(train.x[column], train.y, classes, seed), train.y) for column in train.x.columns}
    for column, (area, error) in powers.items():
        bound = area - z * max(error, 0.5 / len(train))
        rival = max((other for name, (other, _) in powers.items() if name != column), default=0.5)
        perfect = area >= NEARLY_PERFECT and bound >= CERTAIN
        if not perfect and (bound < SUSPECT or area - rival < STANDS_OUT):
            continue
        others = _others(train, column, classes, seed)
        stands_out = area - others >= STANDS_OUT
        if not perfect and not stands_out:
            continue
        yield Finding(
            check="label leakage",
            severity="high" if stands_out else "medium",
            split="train",
            column=str(column),
            count=len(train),
            of=len(train),
            message=f"Column {column} predicts the label alone: AUC {area:.3f}, at least {bound:.3f}; all other columns together "
            f"reach {others:.3f}. "
            + ("It may have been filled in after the outcome." if stands_out else "So may an easy label."),
        )


def _others(train: Dataset, column: Any, classes: int, seed: int) -> float:
    """The out-of-fold AUC of a forest on all other columns."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import cross_val_predict

    rest = train.x.drop(columns=[column])
    if not rest.shape[1]:
        return 0.5
    x, _ = joint_matrix(rest, rest.iloc[:0])
    present = np.unique(train.y)
    folds = int(min(3, np.bincount(train.y)[present].min()))
    if folds < 2:
        return 0.5
    forest = ExtraTreesClassifier(60, min_samples_leaf=2, random_state=seed % 2**32, n_jobs=1)
    found = cross_val_predict(forest, x, train.y, cv=folds, method="predict_proba")
    shares = np.zeros((len(train), classes))
    shares[:, present] = found
    return ranking(shares, train.y)[0]


def _codes(values: pd.Series[Any]) -> NDArray[np.int64]:
    if kind_of(values) in ("numbers", "times"):
        numbers = values.astype("int64").astype(float) if kind_of(values) == "times" else values
        plain = numbers.to_numpy(dtype=float, na_value=np.nan)
        known = np.isfinite(plain)
        codes = np.zeros(len(plain), dtype=np.int64)
        if known.any():
            distinct = np.unique(plain[known])
            edges = distinct if len(distinct) <= BINS else np.unique(np.quantile(plain[known], np.linspace(0, 1, BINS + 1)[1:-1]))
            codes[known] = 1 + np.searchsorted(edges, plain[known], side="right")
        return codes
    found, _ = pd.factorize(values.astype(object).where(values.notna(), None))
    return np.asarray(found + 1, dtype=np.int64)
