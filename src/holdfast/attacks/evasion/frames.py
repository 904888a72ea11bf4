"""What the attacks without gradients share: random orthonormal directions, and margins of scores."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from holdfast.core.arrays import Array, as_numpy
from holdfast.core.seeds import SampleStreams

FEW = 16
"""Features up to which random frames are drawn uniformly; signs alone would leave too few different ones."""
Index = NDArray[np.int64]
Floats = NDArray[np.float64]


def frames(streams: SampleStreams, samples: Index, count: int, features: int) -> Callable[[Index], Floats]:
    """Random directions that are orthonormal in each block of `features`, for each sample from its own stream.

    Few features: frames that are uniform among all. Many: the cosine basis with random signs for each sample, which takes
    as many draws as features.

    Source: Choromanski, Rowland, Sindhwani, Turner and Weller (2018), "Structured evolution with compact architectures for
    scalable policy optimization", section 3.2, with cosines in the place of Hadamard's matrix, which needs a power of two.

    Args:
        count: how many directions a sample are needed.

    Returns:
        From (m,) numbers below `count` to (n, m, features) of the directions.
    """
    blocks = -(-count // features)
    if features <= FEW:
        turned, triangle = np.linalg.qr(streams.normal(samples, (blocks, features, features)))
        turned *= np.where(np.diagonal(triangle, axis1=2, axis2=3) < 0, -1.0, 1.0)[..., None, :]
        flat = np.swapaxes(turned, 2, 3).reshape(len(samples), blocks * features, features)
        return lambda numbers: np.asarray(flat[:, numbers])
    signs = np.where(streams.uniform(samples, (blocks, features)) < 0.5, -1.0, 1.0)

    def mixed(numbers: Index) -> Floats:
        row = numbers[:, None] % features
        basis = np.cos(np.pi / features * row * (np.arange(features) + 0.5))
        basis *= np.where(row == 0, math.sqrt(1 / features), math.sqrt(2 / features))
        return np.asarray(signs[:, numbers // features] * basis)

    return mixed


def margins(scores: Array, y: Index) -> Floats:
    """(n,) how much the true class's score exceeds the best other one; negative where misclassified."""
    plain = as_numpy(scores).clip(-1e30, 1e30)
    rows = np.arange(len(y))
    true = plain[rows, y]
    plain[rows, y] = -np.inf
    return np.asarray(true - plain.max(axis=1))
