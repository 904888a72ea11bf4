"""Label flipping: somebody who labels training rows gives a share of them wrong labels.

- `random`: rows at random, each with another class at random. What carelessness does too.
- `directed`: rows of the rarest class, given the commonest other one. What somebody with an interest does.
- `confident`: the rows that a model is surest of, each with the class it finds least likely. What hurts most a learner
  that trusts its data; who does it needs a model of his own.

Sources: Biggio et al. (2011), "Support Vector Machines Under Adversarial Label Noise"; Xiao et al. (2012), "Adversarial Label
Flips Attack on Support Vector Machines", whose heuristic baselines `random` and `confident` are.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.features import Booster, Encoder
from holdfast.core.errors import InvalidData
from holdfast.core.seeds import derive, generator
from holdfast.core.target import Dataset

Strategy = Literal["random", "directed", "confident"]
STRATEGIES: tuple[Strategy, ...] = ("random", "directed", "confident")
Labels = NDArray[np.int64]
FOLDS = 3


def flip_labels(
    data: Dataset, share: float, strategy: Strategy, *, seed: int, confidence: NDArray[np.float64] | None = None
) -> Dataset:
    """The data with a share of its labels changed; everything else as it was.

    For one seed and strategy the rows flipped at a smaller share are among those flipped at a larger one.

    Args:
        data: training rows.
        share: of rows to flip, in [0, 1]; at least one row when above 0.
        strategy: see the module.
        seed: decides which.
        confidence: (n, k) of the attacker's own model, for `confident`; see `out_of_fold`.

    Raises:
        InvalidData: the share is no share, there are fewer than two classes, or `confident` lacks `confidence`.
    """
    if not 0 <= share <= 1:
        raise InvalidData(f"share {share} is not between 0 and 1")
    classes = np.unique(data.y)
    if len(classes) < 2:
        raise InvalidData("labels of a single class cannot be flipped")
    count = max(1, round(share * len(data))) if share > 0 else 0
    random = generator(seed, "flip", strategy)
    order, labels = _random(data.y, classes, random)
    if strategy == "directed":
        order, labels = _directed(data.y, classes, random)
    elif strategy == "confident":
        if confidence is None or len(confidence) != len(data):
            raise InvalidData("flipping confident rows needs the confidence in each row")
        own = np.take_along_axis(confidence, data.y[:, None], axis=1)[:, 0]
        order = np.lexsort((random.random(len(data)), -own))
        barred = np.full_like(confidence, np.inf)
        barred[:, classes] = confidence[:, classes]
        np.put_along_axis(barred, data.y[:, None], np.inf, axis=1)
        labels = barred.argmin(axis=1)
    flipped = data.y.copy()
    flipped[order[:count]] = labels[order[:count]]
    return Dataset(
        name=data.name,
        x=data.x,
        y=flipped,
        classes=data.classes,
        ids=data.ids,
        sensitive=data.sensitive,
        groups=data.groups,
        clusters=data.clusters,
    )


def out_of_fold(data: Dataset, *, seed: int) -> NDArray[np.float64]:
    """(n, k) class probabilities of the attacker's own boosted model, each row's from a model that was not trained on it."""
    encoder = Encoder.of(data.x)
    features = encoder(data.x)
    fold = generator(seed, "folds").permutation(np.arange(len(data)) % FOLDS)
    found = np.zeros((len(data), len(data.classes)))
    for index in range(FOLDS):
        kept, left = fold != index, fold == index
        if len(np.unique(data.y[kept])) < 2:
            found[left, data.y[kept][0]] = 1.0
            continue
        model = Booster(encoder.categorical, derive(seed, "confidence", index), max_iter=40).fit(features[kept], data.y[kept])
        found[np.ix_(left, model.classes)] = model.shares(features[left])
    return found


def _random(y: Labels, classes: Labels, random: np.random.Generator) -> tuple[Labels, Labels]:
    shift = random.integers(1, len(classes), size=len(y))
    return random.permutation(len(y)), classes[(np.searchsorted(classes, y) + shift) % len(classes)]


def _directed(y: Labels, classes: Labels, random: np.random.Generator) -> tuple[Labels, Labels]:
    """Rows by rising size of their class, in random order within it, and the commonest class other than each row's."""
    counts = np.array([(y == label).sum() for label in classes])
    size = counts[np.searchsorted(classes, y)]
    ranked = classes[np.lexsort((classes, -counts))]
    order = np.lexsort((random.random(len(y)), y, size))
    return order, np.where(y == ranked[0], ranked[1], ranked[0])
