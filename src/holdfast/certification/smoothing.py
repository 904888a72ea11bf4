"""Randomized smoothing: an L2 radius for the vote of any classifier under Gaussian noise, at a stated confidence.

1. A few noisy answers choose the class.
2. Exactly `samples` further ones give a lower confidence bound of that class's share (Clopper and Pearson, one-sided).
3. Above one half it is certified to sigma times the normal quantile of the bound; else the vote abstains.

What is certified is the smoothed classifier, the vote, with probability 1 - alpha for each input; not the single answer
of the model, and no more than the normal distribution can be drawn in floating point. The noise is not cut to the box of valid
inputs: the theorem needs it whole.

Source: Cohen, Rosenfeld and Kolter (2019), "Certified adversarial robustness via randomized smoothing", theorem 1 and the
algorithms Certify and Predict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray
from scipy import stats

from holdfast.core.arrays import Array
from holdfast.core.errors import ConfigurationError, InvalidData
from holdfast.core.oracle import Access, Oracle, Predictor
from holdfast.core.seeds import derive, generator
from holdfast.core.statistics import clopper_pearson

ABSTAINED = -1
BLOCK = 1000
"""Noisy copies of one sample that are drawn together; what is drawn does not depend on the batch."""
ELEMENTS_AT_ONCE = 2**17
"""Most array elements in one model call, unless one block has more."""


@dataclass(frozen=True, kw_only=True)
class Votes:
    """What smoothing found for n inputs.

    Attributes:
        label: (n,) the vote's class, `ABSTAINED` where it is not certain.
        radius: (n,) certified L2 radius of the vote; 0 where it abstained.
        votes: (n,) noisy copies, of `samples`, that got the chosen class.
        share: (n,) lower confidence bound of that share, at 1 - alpha.
        queries: (n,) rows asked for each input.
    """

    label: NDArray[np.int64]
    radius: NDArray[np.float64]
    votes: NDArray[np.int64]
    share: NDArray[np.float64]
    queries: NDArray[np.int64]

    def certified(self, y: NDArray[np.int64], radius: float) -> NDArray[np.bool_]:
        """(n,) whether the vote is y and stays so within `radius`."""
        return np.asarray((self.label == y) & (self.radius >= radius))


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """The vote of a model over Gaussian noise.

    Attributes:
        sigma: standard deviation of the noise, in the units of the inputs.
        samples: noisy copies that decide, N in the paper.
        selection: noisy copies that choose the class, N0 in the paper.
        alpha: probability, for each input, that a certificate is wrong, at most.
    """

    sigma: float
    samples: int = 10_000
    selection: int = 100
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if not (0 < self.sigma < math.inf and 0 < self.alpha < 1 and min(self.samples, self.selection) >= 1):
            raise ConfigurationError(
                "smoothing needs a positive sigma, alpha in (0, 1), and at least one sample for each of its parts"
            )

    def certify(
        self,
        model: Predictor,
        x: Array,
        *,
        seed: int,
        units: Sequence[object] | None = None,
        decode: Callable[[Array], Any] | None = None,
    ) -> Votes:
        """Vote and certify; algorithm Certify.

        Args:
            model: any classifier of arrays; only its labels are asked for.
            x: (n, ...) floats, NumPy or torch.
            seed: with `units`, decides the noise.
            units: a stable name for each input, 0..n-1 by default.
            decode: from noisy arrays to model inputs.

        Raises:
            InvalidData: x is no finite float array, or the units do not fit.
            Inconclusive: the model answered NaN.
        """
        chosen, counts, queries = self._ask(model, x, seed, units, decode)
        top = chosen.argmax(axis=1)
        votes = counts[np.arange(len(top)), top] if len(top) else np.zeros(0, dtype=np.int64)
        share = np.array([clopper_pearson(int(k), self.samples, 1 - 2 * self.alpha)[0] for k in votes])
        sure = share > 0.5
        radius = np.where(sure, self.sigma * stats.norm.ppf(np.where(sure, share, 0.5)), 0.0)
        return Votes(label=np.where(sure, top, ABSTAINED), radius=radius, votes=votes, share=share, queries=queries)

    def predict(
        self,
        model: Predictor,
        x: Array,
        *,
        seed: int,
        units: Sequence[object] | None = None,
        decode: Callable[[Array], Any] | None = None,
    ) -> NDArray[np.int64]:
        """(n,) the vote, or `ABSTAINED` where the two most frequent classes cannot be told apart; algorithm Predict.

        A returned class is the most likely one with probability 1 - alpha.

        Raises:
            InvalidData, Inconclusive: as for `certify`.
        """
        _, counts, _ = self._ask(model, x, seed, units, decode)
        order = np.sort(counts, axis=1)
        labels = counts.argmax(axis=1)
        first, second = order[:, -1], order[:, -2]
        sure = [stats.binomtest(int(a), int(a + b)).pvalue <= self.alpha for a, b in zip(first, second, strict=True)]
        return np.where(np.array(sure, dtype=bool), labels, ABSTAINED).astype(np.int64)

    def _ask(
        self, model: Predictor, x: Array, seed: int, units: Sequence[object] | None, decode: Callable[[Array], Any] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(n, k) how often each class was answered, in the selection and in the decision, and the rows asked."""
        xp = array_namespace(x)
        names = range(len(x)) if units is None else units
        if len(names) != len(x):
            raise InvalidData(f"{len(x)} inputs and {len(names)} units")
        if not xp.isdtype(x.dtype, "real floating") or not bool(xp.all(xp.isfinite(x))):
            raise InvalidData("smoothing adds noise to finite floating-point arrays")
        oracle = Oracle(model, Access.LABELS, len(x), self.selection + self.samples, decode)
        noise = [_noise(x, derive(seed, "smoothing", name)) for name in names]
        sizes = [min(BLOCK, self.selection - at) for at in range(0, self.selection, BLOCK)]
        deciding = len(sizes)
        sizes += [min(BLOCK, self.samples - at) for at in range(0, self.samples, BLOCK)]
        counts = [np.zeros((len(x), 2), dtype=np.int64) for _ in range(2)]
        width = max(1, ELEMENTS_AT_ONCE // (max(sizes) * max(1, math.prod(x.shape[1:]))))
        for first in range(0, len(x), width):
            samples = np.arange(first, min(first + width, len(x)))
            for turn, size in enumerate(sizes):
                rows = xp.concat([x[i : i + 1] + self.sigma * noise[i](size) for i in samples])
                labels = oracle.labels(rows, np.repeat(samples, size))
                part = int(turn >= deciding)
                counts = [_widened(each, int(labels.max()) + 1) for each in counts]
                np.add.at(counts[part], (np.repeat(samples, size), labels), 1)
        return counts[0], counts[1], oracle.cost.queries


def _noise(x: Array, seed: int) -> Callable[[int], Array]:
    """A function that draws so many standard normal arrays of one sample's shape, on x's device."""
    shape = tuple(x.shape[1:])
    if hasattr(x, "detach"):
        import torch

        source = torch.Generator(device=x.device).manual_seed(seed)
        return lambda size: torch.randn((size, *shape), generator=source, dtype=x.dtype, device=x.device)
    drawn = generator(seed)
    exact = np.float32 if x.dtype == np.float32 else np.float64
    return lambda size: drawn.standard_normal((size, *shape), dtype=exact).astype(x.dtype, copy=False)


def _widened(counts: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    missing = classes - counts.shape[1]
    return counts if missing <= 0 else np.pad(counts, ((0, 0), (0, missing)))
