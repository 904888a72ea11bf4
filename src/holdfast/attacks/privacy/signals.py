"""What a model's answer to a record says about its membership: how sure the model is of the record's own label.

From scores the signal is the logit of the true class, log p_y - log(1 - p_y), computed in float64 as the score of the
class minus the log-sum-exp of the others, so that it neither overflows nor loses digits near 1 (Carlini et al. 2022,
section IV-C). From labels alone it is whether the answer is right.

An interface that answers probabilities of exactly 0 or 1, or rounds them, has run out of resolution there: the true
signal is only known to lie beyond. `censor` puts such extreme values a factor of two beyond the nearest resolved ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from holdfast.core.errors import InvalidData
from holdfast.core.oracle import Access, Oracle
from holdfast.core.target import Dataset

Floats = NDArray[np.float64]
BATCH = 4096
SAME = 1e-6
"""Signals closer than this are one value: rounding noise around an answer of exactly 0 or 1."""


def true_class_logit(scores: Any, y: NDArray[np.int64]) -> Floats:
    """(n,) log p_y - log(1 - p_y) from (n, k) logits or log-probabilities; infinite where a probability is exactly 0 or 1."""
    plain = np.asarray(scores.detach().cpu().numpy() if hasattr(scores, "detach") else scores, dtype=np.float64)
    if plain.ndim != 2 or plain.shape[1] < 2 or len(plain) != len(y):
        raise InvalidData(f"scores of shape {plain.shape} for {len(y)} labels")
    own = np.take_along_axis(plain, y[:, None], axis=1)[:, 0]
    others = plain.copy()
    np.put_along_axis(others, y[:, None], -np.inf, axis=1)
    with np.errstate(divide="ignore"):
        rest = logsumexp(others, axis=1)
    return np.where(np.isneginf(own), -np.inf, own - np.where(np.isneginf(own), 0.0, rest))


def signals(oracle: Oracle, data: Dataset) -> Floats:
    """(n,) the membership signal of each row, one query each, from what the oracle's access shows."""
    parts = []
    for start in range(0, len(data), BATCH):
        owner = np.arange(start, min(start + BATCH, len(data)))
        rows = data.take(owner)
        if oracle.access >= Access.SCORES:
            parts.append(true_class_logit(oracle.scores(rows.x, owner), rows.y))
        else:
            parts.append((oracle.labels(rows.x, owner) == rows.y).astype(np.float64))
    return np.concatenate(parts) if parts else np.zeros(0)


def censor(values: Floats) -> tuple[Floats, float]:
    """Pull the unresolved extremes to log 2 beyond the nearest resolved value, and the share of values that were.

    An extreme counts as unresolved when it is infinite, or when at least two values share it. The order of values is
    kept, so thresholds and ranks do not change; only moments do. All signals that are compared go in together.
    """
    if not len(values.ravel()):
        return values, 0.0
    high, touched_high = _pull(values)
    low, touched_low = _pull(-high)
    return -low, float((touched_high | touched_low).mean())


def _pull(values: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    top = float(values.max())
    extreme = values == top if np.isinf(top) else values > top - SAME
    resolved = values[~extreme & np.isfinite(values)]
    if np.isfinite(top) and (int(extreme.sum()) < 2 or not len(resolved)):
        return values, np.zeros(values.shape, dtype=bool)
    beyond = float(resolved.max()) + float(np.log(2)) if len(resolved) else 0.0
    pulled = min(top, beyond)
    moved = extreme if pulled < top else np.zeros(values.shape, dtype=bool)
    return np.where(extreme, pulled, values), moved
