"""The gate before every membership attack: can train and holdout be told apart without the model?

If they can, because they come from other times, places or people, a membership attack measures that difference and not
the model's memory, and its result is void. The gate

1. sets aside rows whose inputs occur more than once in train and holdout together: their membership is ambiguous, and
   dropping them on one side only would itself make the sides differ. Where both sides declare clusters and all copies
   belong to one cluster on one side, such as the years of one person, the first copy stands for all;
2. trains a classifier, without the model, to tell the remaining train rows from holdout rows, label included, by
   cross-validation that keeps clusters together;
3. reads the area under its ROC curve, fold by fold, with its interval;
4. where that lies above one half, shuffles who is train and who holdout, and lets the finding stand only if no shuffle can be
   told apart as well: folds share rows and rows resemble each other, which the interval does not know.

An interval wholly below one half says that near-copies lie on both sides of the split: the attack is then understated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from holdfast.attacks.features import Booster, Encoder
from holdfast.attacks.privacy.identification import Area, area
from holdfast.core.errors import Inconclusive
from holdfast.core.seeds import derive, generator
from holdfast.core.statistics import CONFIDENCE
from holdfast.core.target import Dataset

Floats = NDArray[np.float64]
FOLDS = 5
MOST_ROWS = 4000
"""Rows of each side that the classifier sees; its verdict does not need more."""
SHUFFLES = 39
"""Shuffles none of which may be told apart as well: a chance of one in forty."""
EVIDENT = 0.6
"""A lower end of the interval that needs no shuffles."""
MOST_COLUMNS = 40
"""Wider inputs are reduced to this many principal components."""


@dataclass(frozen=True, kw_only=True)
class Separability:
    """How well train and holdout can be told apart without the model.

    Attributes:
        area: of the model-free classifier, cross-validated.
        train, holdout: rows of each side whose inputs occur once, or stand for all copies within one cluster.
        repeated: further rows, set aside because their inputs occur more than once.
        by_chance: whether a shuffle of the sides was told apart as well.
    """

    area: Area
    train: NDArray[np.int64]
    holdout: NDArray[np.int64]
    repeated: int
    by_chance: bool = False

    @property
    def confounded(self) -> bool:
        """Whether the sides differ without the model."""
        return self.area.low > 0.5 and not self.by_chance

    @property
    def near_copies(self) -> bool:
        """Whether near-copies seem to lie on both sides."""
        return self.area.high < 0.5


def separability(train: Dataset, holdout: Dataset, *, seed: int) -> Separability:
    """Try to tell train from holdout without the model.

    Raises:
        Inconclusive: too few rows occur only once to tell.
    """
    once_train, once_holdout = _once(train, holdout)
    repeated = len(train) + len(holdout) - len(once_train) - len(once_holdout)
    if min(len(once_train), len(once_holdout)) < 4 * FOLDS:
        raise Inconclusive(
            f"only {len(once_train)} training and {len(once_holdout)} holdout rows have inputs that occur once; "
            "the membership of repeated rows is ambiguous"
        )
    random = generator(seed, "separability")
    sides = [
        data.take(np.sort(random.permutation(once)[:MOST_ROWS])) for data, once in ((train, once_train), (holdout, once_holdout))
    ]
    x = pd.concat([side.x for side in sides], ignore_index=True) if train.is_table else np.concatenate([s.x for s in sides])
    origin = np.repeat([1, 0], [len(side) for side in sides])
    labels = np.concatenate([side.y for side in sides])
    shared = train.clusters is not None and holdout.clusters is not None
    cluster = np.concatenate([side.clusters for side in sides if side.clusters is not None]) if shared else None
    features, categorical = _features(x, labels, seed)
    seen = _cross_validated(features, categorical, origin, cluster, seed)
    by_chance = 0.5 < seen.low <= EVIDENT and any(
        _cross_validated(features, categorical, shuffled, cluster, seed).value >= seen.value
        for shuffled in _shuffles(origin, cluster, seed)
    )
    return Separability(area=seen, train=once_train, holdout=once_holdout, repeated=repeated, by_chance=by_chance)


def row_digests(x: Any) -> NDArray[np.uint64]:
    """(n,) a digest of each row's inputs; equal rows have equal digests."""
    if isinstance(x, pd.DataFrame):
        return np.asarray(pd.util.hash_pandas_object(x, index=False), dtype=np.uint64)
    rows = np.asarray(x)
    return np.array([int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "big") for row in rows], np.uint64)


def _once(train: Dataset, holdout: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    together = pd.concat([train.x, holdout.x], ignore_index=True) if train.is_table else np.concatenate([train.x, holdout.x])
    _, first, place, counts = np.unique(row_digests(together), return_index=True, return_inverse=True, return_counts=True)
    single = counts[place] == 1
    if train.clusters is not None and holdout.clusters is not None:
        _, cluster = np.unique(np.concatenate([train.clusters, holdout.clusters]), return_inverse=True)
        within = np.ones(len(counts), dtype=bool)
        side = np.arange(len(place)) < len(train)
        within[place[(cluster != cluster[first][place]) | (side != side[first][place])]] = False
        single = within[place] & (first[place] == np.arange(len(place)))
    return np.flatnonzero(single[: len(train)]), np.flatnonzero(single[len(train) :])


def _features(x: Any, labels: NDArray[np.int64], seed: int) -> tuple[Floats, list[bool] | None]:
    """Inputs and label as numbers, and which columns are categories."""
    encoder = Encoder.of(x)
    features = encoder(x)
    mask = encoder.categorical
    if features.shape[1] > MOST_COLUMNS and mask is None:
        from sklearn.decomposition import PCA

        reduced = PCA(MOST_COLUMNS, random_state=seed % 2**32).fit_transform(np.nan_to_num(features))
        features = np.asarray(reduced, dtype=np.float64)
    return np.column_stack([features, labels]), None if mask is None else [*mask.tolist(), False]


def _shuffles(origin: NDArray[np.int64], cluster: NDArray[np.str_] | None, seed: int) -> Iterator[NDArray[np.int64]]:
    """The sides dealt anew, whole clusters together; a cluster on both sides is dealt by its share of train."""
    random = generator(seed, "shuffles")
    place = np.unique(cluster if cluster is not None else np.arange(len(origin)), return_inverse=True)[1]
    share = np.bincount(place, weights=origin) / np.bincount(place)
    for _ in range(SHUFFLES):
        yield (random.random(len(origin)) < random.permutation(share)[place]).astype(np.int64)


def _cross_validated(
    features: Floats,
    categorical: list[bool] | None,
    origin: NDArray[np.int64],
    cluster: NDArray[np.str_] | None,
    seed: int,
) -> Area:
    """The mean over folds of the area in each, with the interval of independent folds."""
    fold = _folds(origin, cluster, seed)
    values, variances = [], []
    reach = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    for index in range(FOLDS):
        test = fold == index
        if len(np.unique(origin[test])) < 2 or len(np.unique(origin[~test])) < 2:
            continue
        model = Booster(categorical, derive(seed, "fold", index))
        score = model.fit(features[~test], origin[~test]).shares(features[test])[:, 1]
        where = np.flatnonzero(test)
        first, second = where[origin[test] == 1], where[origin[test] == 0]
        clusters = None if cluster is None else (cluster[first], cluster[second])
        found = area(score[origin[test] == 1], score[origin[test] == 0], clusters=clusters)
        values.append(found.value)
        variances.append((max(found.high - found.value, found.value - found.low) / reach) ** 2)
    if not values:
        raise Inconclusive("train and holdout have too few clusters to tell them apart by cross-validation")
    mean, half = float(np.mean(values)), reach * math.sqrt(sum(variances)) / len(values)
    return Area(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half))


def _folds(origin: NDArray[np.int64], cluster: NDArray[np.str_] | None, seed: int) -> NDArray[np.int64]:
    """Random folds, whole clusters together; independent of the origin, so that the areas have no bias."""
    names, place = np.unique(cluster if cluster is not None else np.arange(len(origin)), return_inverse=True)
    return np.asarray(generator(seed, "folds").permutation(np.arange(len(names)) % FOLDS)[place], dtype=np.int64)
