"""Randomness that a result can be traced back to.

Everything random in Holdfast descends from one integer seed. `derive` names a child of it; `SampleStreams` gives each
sample of a batch its own stream, so that what is drawn for a sample does not depend on the batch it is computed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def derive(seed: int, *labels: object) -> int:
    """A child seed in [0, 2^63) that depends on `seed` and on every label."""
    text = "".join(f"{len(label)}:{label}" for label in [str(seed), *map(str, labels)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *labels: object) -> np.random.Generator:
    """A NumPy generator for the child seed named by `labels`."""
    return np.random.Generator(np.random.Philox(derive(seed, *labels)))


class SampleStreams:
    """One independent random stream for each sample.

    Args:
        seed: the seed of the whole run.
        units: a stable name for each sample, such as its row id; equal (seed, unit) pairs give equal streams.
    """

    def __init__(self, seed: int, units: Sequence[object]) -> None:
        self._streams = [generator(seed, unit) for unit in units]

    def __len__(self) -> int:
        return len(self._streams)

    def part(self, samples: NDArray[np.int64]) -> SampleStreams:
        """The streams of some of the samples, which go on where they are; stream i of the part is that of `samples[i]`."""
        part = SampleStreams(0, ())
        part._streams = [self._streams[i] for i in samples]
        return part

    def normal(self, samples: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Standard normal draws of shape (len(samples), *shape), one stream a sample."""
        return np.stack([self._streams[i].standard_normal(shape) for i in samples]) if len(samples) else np.empty((0, *shape))

    def uniform(self, samples: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Uniform draws in [0, 1) of shape (len(samples), *shape), one stream a sample."""
        return np.stack([self._streams[i].random(shape) for i in samples]) if len(samples) else np.empty((0, *shape))

    def integers(self, samples: NDArray[np.int64], high: int, shape: tuple[int, ...] = ()) -> NDArray[np.int64]:
        """Integer draws in [0, high) of shape (len(samples), *shape), one stream a sample."""
        drawn = [self._streams[i].integers(high, size=shape) for i in samples]
        return np.asarray(drawn, dtype=np.int64).reshape(len(samples), *shape)
