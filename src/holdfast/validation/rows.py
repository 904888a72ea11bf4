"""Checks of whole rows: duplicates within and across splits, near duplicates, doubtful labels, class balance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from holdfast.core.seeds import generator
from holdfast.core.target import Dataset
from holdfast.validation.findings import ALARM, Finding, about, excess_of, sides
from holdfast.validation.matrix import joint_matrix

NEAR = 0.1
"""A row is a near duplicate when its nearest neighbour is this much nearer than the second nearest."""
MOST_NEIGHBOURS = 8000
MOST_DOUBTED = 4000
"""Rows of each split that the neighbour and label checks look at."""
FOLDS = 3


def check_duplicates(train: Dataset, holdout: Dataset) -> Iterator[Finding]:
    """Equal inputs within a split and in both, and equal inputs with different labels.

    Tables of few distinct values repeat by nature. The overlap of the splits is of high severity only when holdout rows have
    twins in train more often than train rows themselves do.
    """
    first, second = _fingerprints(train), _fingerprints(holdout)
    repeats = {}
    for data, prints in ((train, first), (holdout, second)):
        again = pd.Series(prints).duplicated().to_numpy()
        repeats[data.name] = again
        if again.any():
            yield about(
                data,
                "duplicate rows",
                "medium" if 0.001 < again.mean() < 0.2 else "low",
                f"{int(again.sum())} of {len(data)} rows of {data.name} repeat an earlier one.",
                rows=again,
            )
    shared = np.isin(second, first)
    if shared.any():
        twin = pd.Series(first).duplicated(keep=False).to_numpy()
        twins = int(twin.sum())
        chance = excess_of(shared, holdout, twin, train)
        yield about(
            holdout,
            "overlap of train and holdout",
            "high" if chance < ALARM / 10 and shared.mean() > 0.01 else "medium" if shared.mean() > 0.01 else "low",
            f"{int(shared.sum())} of {len(holdout)} rows of holdout are also in train, where {twins} of {len(train)} rows have a "
            "twin of their own; results on such rows do not count as unseen.",
            rows=shared,
        )
    both = np.concatenate([first, second])
    labels = pd.Series(np.concatenate([train.y, holdout.y])).groupby(both).transform("nunique").to_numpy() > 1
    for data, rows in ((train, labels[: len(train)]), (holdout, labels[len(train) :])):
        if rows.any():
            yield about(
                data,
                "contradicting labels",
                "medium" if rows.mean() < 0.2 else "low",
                f"{int(rows.sum())} of {len(data)} rows of {data.name} equal another row that has a different label.",
                rows=rows,
            )


def check_near_duplicates(train: Dataset, holdout: Dataset, seed: int = 0) -> Iterator[Finding]:
    """Holdout rows that are nearly rows of train, more often than train rows are nearly each other.

    The distance to the nearest row is held against that to the second nearest, which adapts to how dense the data are.
    """
    from sklearn.neighbors import NearestNeighbors

    first, second = (_sample(data, MOST_NEIGHBOURS, seed) for data in (train, holdout))
    if min(len(first), len(second)) < 30:
        return
    near, far = joint_matrix(first.x, second.x)
    finder = NearestNeighbors(n_neighbors=3).fit(near)
    across, _ = finder.kneighbors(far, 2)
    within, _ = finder.kneighbors(near, 3)
    close = _nearly(across[:, 0], across[:, 1])
    natural = _nearly(within[:, 1], within[:, 2])
    chance = excess_of(close, second, natural, first)
    if chance >= ALARM / 10 or close.sum() < 3:
        return
    yield about(
        second,
        "near duplicates across splits",
        "medium",
        f"{int(close.sum())} of {len(second)} rows of holdout are nearly the same as one row of train, and as no other.",
        rows=close,
    )


def check_doubtful_labels(train: Dataset, holdout: Dataset, seed: int = 0) -> Iterator[Finding]:
    """Labels of one split that disagree with what the rows say more often than those of the other.

    Forests trained on two thirds of the training rows judge the third that is left and, one forest for each row, the holdout
    rows. Where both splits are labelled alike, their error rates differ only by chance.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    first, second = (_sample(data, MOST_DOUBTED, seed) for data in (train, holdout))
    if min(len(first), len(second)) < 30 or len(np.unique(first.y)) < 2:
        return
    x, z = joint_matrix(first.x, second.x)
    draw = generator(seed, "label folds")
    own = np.arange(len(x)) if first.clusters is None else np.unique(first.clusters, return_inverse=True)[1]
    fold, judge = draw.permutation(int(own.max()) + 1)[own] % FOLDS, draw.permutation(len(z)) % FOLDS
    told, sure, elsewhere = np.empty(len(x), dtype=np.int64), np.empty(len(x)), np.empty(len(z), dtype=np.int64)
    for part in range(FOLDS):
        seen = fold != part
        if len(np.unique(first.y[seen])) < 2:
            return
        forest = ExtraTreesClassifier(50, min_samples_leaf=2, random_state=seed % 2**32, n_jobs=1)
        forest.fit(x[seen], first.y[seen])
        shares = forest.predict_proba(x[~seen])
        told[~seen], sure[~seen] = forest.classes_[shares.argmax(axis=1)], shares.max(axis=1)
        if (judge == part).any():
            elsewhere[judge == part] = forest.predict(z[judge == part])
    wrong, other_wrong = told != first.y, elsewhere != second.y
    for data, other, mine, theirs, rows in (
        (first, second, wrong, other_wrong, wrong & (sure > 0.8)),
        (second, first, other_wrong, wrong, other_wrong),
    ):
        chance = excess_of(mine, data, theirs, other) * 2
        if chance >= ALARM / 2 or mine.mean() < theirs.mean() + 0.01:
            continue
        yield Finding(
            check="doubtful labels",
            severity="medium",
            split=data.name,
            count=int(mine.sum()),
            of=len(mine),
            ids=about(data, "", "low", "", rows=rows).ids,
            message=f"Labels of {data.name} disagree with what the rows say in {mine.mean():.1%} of rows, against "
            f"{theirs.mean():.1%} in the other split; mislabelling or drift looks like this.",
        )


def check_classes(train: Dataset, holdout: Dataset) -> Iterator[Finding]:
    """Classes that are missing or rare, and class shares that differ between the splits."""
    counts = {data.name: np.bincount(data.y, minlength=len(data.classes)) for data in (train, holdout)}
    for data, other in sides(train, holdout):
        for label, name in enumerate(data.classes):
            here, there = int(counts[data.name][label]), int(counts[other.name][label])
            share = here / max(len(data), 1)
            if not here and there:
                yield about(data, "missing class", "high", f"Class {name} does not occur in {data.name}.", rows=data.y == label)
            elif here and (share < 0.01 or here < 10):
                message = f"Class {name} has {here} of {len(data)} rows in {data.name}; statements about it are weak."
                yield about(data, "rare class", "low", message, rows=data.y == label)
    table = np.array([counts[train.name], counts[holdout.name]])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] > 1 and table.sum(axis=1).min() > 0:
        if train.clusters is not None and holdout.clusters is not None:
            sizes = [len(np.unique(data.clusters)) / len(data) for data in (train, holdout) if data.clusters is not None]
            chance = float(stats.chi2_contingency(table * np.array(sizes)[:, None], correction=False).pvalue)
        else:
            chance = float(stats.chi2_contingency(table, correction=False).pvalue)
        gap = float(np.abs(np.diff(table / table.sum(axis=1, keepdims=True), axis=0)).max())
        if chance < ALARM / 10 and gap > 0.01:
            yield Finding(
                check="class shares",
                severity="medium",
                split="both",
                count=len(train) + len(holdout),
                of=len(train) + len(holdout),
                message=f"The shares of the classes differ between train and holdout by up to {gap:.1%} (p = {chance:.2g}).",
            )


def _nearly(nearest: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray((nearest > 1e-9) & (nearest < NEAR * second))


def _sample(data: Dataset, most: int, seed: int) -> Dataset:
    if len(data) <= most:
        return data
    return data.take(np.sort(generator(seed, "sample", data.name).permutation(len(data))[:most]))


def _fingerprints(data: Dataset) -> NDArray[np.uint64]:
    """(n,) a hash of each input, equal for equal inputs whatever the column types of the two splits."""
    if data.is_table:
        frame = pd.DataFrame(
            {
                str(place): (series.astype(float) if pd.api.types.is_numeric_dtype(series) else series.astype(object))
                for place, (_, series) in enumerate(data.x.items())
            }
        )
        return np.asarray(pd.util.hash_pandas_object(frame, index=False, categorize=False), dtype=np.uint64)
    flat = pd.DataFrame(np.reshape(data.x, (len(data), -1)).astype(np.float64))
    return np.asarray(pd.util.hash_pandas_object(flat, index=False), dtype=np.uint64)
