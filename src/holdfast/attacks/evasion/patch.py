"""Adversarial patch: a rectangle that may look like anything, at a given or a random place of the image.

Without rows of the attacker's own, each sample gets a patch of its own at its place, by steps up the loss. With rows, one patch
is learned that works on images it has not seen and, unless a place is given, wherever it lies: each step averages the gradient
over rows with the patch at random places. The questions about the rows are charged to the attacked samples in turn. It is then
tried at some places of each sample, one query each.

The domain must allow the whole rectangle: l0 with a radius of at least its features, or any norm without a radius.

Source: Brown, Mané, Roy, Abadi and Gilmer (2017), "Adversarial patch", section 2, with places as the only transformation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.ascent import Ascent
from holdfast.attacks.evasion.directions import require_torch, span
from holdfast.attacks.evasion.minimal import annealed
from holdfast.attacks.evasion.universal import Turns, capped_loss, require_held_out, require_own_rows
from holdfast.core.arrays import Array, as_like, as_numpy
from holdfast.core.domain import Ball, Domain
from holdfast.core.errors import ConfigurationError, InvalidData
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams, generator

Index = NDArray[np.int64]
FIRST_STEP, LAST_STEP = 0.1, 0.01
"""Lengths of the steps, as shares of what a pixel can vary."""


@dataclass(frozen=True, kw_only=True)
class Patch(Attack):
    """A patch on images (n, channels, height, width), (n, height, width, channels) or (n, height, width); torch tensors.

    Attributes:
        height, width: of the patch, in pixels.
        place: its first row and column; random for each sample if None.
        steps: of a sample's own patch, or of the one for all.
        tries: places of the one patch on each sample.
        rows, labels: the attacker's own, from which one patch for all is learned.
        batch: rows in one step.
        seed: of the rows' order and places.
    """

    height: int
    width: int
    place: tuple[int, int] | None = None
    steps: int = 100
    tries: int = 1
    rows: Any = field(default=None, repr=False, compare=False)
    labels: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    batch: int = 64
    seed: int = 0
    access = Access.GRADIENTS

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.steps, self.tries, self.batch) < 1:
            raise ConfigurationError("a patch needs at least one pixel, step, place and row in a batch")
        if (self.rows is None) != (self.labels is None):
            raise ConfigurationError("rows of the attacker's own come with their labels")
        if self.labels is not None:
            require_own_rows(self.rows, self.labels)

    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams) -> Array:
        """Each sample with a patch.

        Raises:
            ConfigurationError: the domain does not allow a patch of that size, or it does not fit into the images.
            InvalidData: a sample is one of the attacker's rows, or inputs are no images.
        """
        require_torch(x)
        images = _Images(self, tuple(x.shape[1:]))
        features = self.height * self.width * images.channels
        if not isinstance(domain, Ball) or not (math.isinf(domain.radius) or (domain.norm == "l0" and domain.radius >= features)):
            raise ConfigurationError(
                f"a patch changes {features} features as far as they go",
                hint=f"Use an l0 ball with a radius of at least {features}.",
            )
        if self.labels is None:
            return self._own(oracle, x, y, domain, streams, images)
        require_held_out(x, self.rows)
        patch = self.learn(oracle, x, domain)
        result, open_ = x.clone(), np.arange(len(x))
        for attempt in range(self.tries):
            open_ = open_[oracle.remaining(open_) > 0] if self.tries > 1 else open_
            if not len(open_):
                break
            inside = images.window(images.places(streams.uniform(open_, (2,))))
            result[open_] = domain.repair(x[open_], images.paste(x[open_], patch, inside))
            if attempt < self.tries - 1:
                scores = oracle.scores(result[open_], open_)
                open_ = open_[np.asarray(scores.argmax(dim=1).cpu()) == y[open_]]
        return result

    def learn(self, oracle: Oracle, x: Array, domain: Ball) -> Array:
        """The patch for all, (channels, height, width), learned for as long as the samples of `oracle` can pay."""
        import torch

        images, turns = _Images(self, tuple(x.shape[1:])), Turns(oracle)
        rows, labels = self.rows.to(x), torch.as_tensor(self.labels, device=x.device)
        random = generator(self.seed, "patch")
        wide = float(span(domain, rows[:1])[0])
        low, high = float(as_numpy(domain.low).max()), float(as_numpy(domain.high).min())
        bounds = (low, high) if low < high and math.isfinite(high - low) else (float(rows.min()), float(rows.max()))
        shape = (images.channels, self.height, self.width)
        patch = as_like(x, bounds[0] + (bounds[1] - bounds[0]) * random.random(shape))
        for turn in range(self.steps):
            chosen = random.permutation(len(rows))[: self.batch]
            inside = images.window(images.places(random.random((len(chosen), 2))))
            shown = domain.repair(rows[chosen], images.paste(rows[chosen], patch, inside))
            gradient = turns.gradient(shown, capped_loss(labels[chosen]))
            if gradient is None:
                break
            length = wide * annealed(FIRST_STEP, LAST_STEP, turn / self.steps)
            patch = (patch + length * images.cut(gradient, inside).mean(dim=0).sign()).clamp(*bounds)
        return patch

    def _own(
        self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams, images: _Images
    ) -> Array:
        """A patch for each sample, from random noise."""
        everyone, result = np.arange(len(x)), x.clone()
        inside = images.mask(images.window(images.places(streams.uniform(everyone, (2,)))), x)
        free = domain.within(math.inf)
        noise = free.sample(x, streams.uniform(everyone, tuple(x.shape[1:])))
        run = Ascent(oracle, x, y, free, everyone, noise.where(inside, x), "margin")
        run.state |= {"inside": inside, "wide": span(free, x)}
        for turn in range(self.steps):
            run.settle(run.unaffordable(), result)
            if not len(run.samples):
                return result
            run.settle(run.look(), result)
            state = run.state
            length = state["wide"].reshape(-1, *[1] * (x.ndim - 1)) * annealed(FIRST_STEP, LAST_STEP, turn / self.steps)
            ahead = run.now + length * state["gradient"].sign()
            state["now"] = free.repair(run.x, ahead.where(state["inside"], run.x))
        result[run.samples] = run.now
        return result


class _Images:
    """Where a patch lies in images of a shape; works on planes (n, channels, height, width)."""

    def __init__(self, attack: Patch, shape: tuple[int, ...]) -> None:
        if len(shape) not in (2, 3):
            raise InvalidData(f"inputs of shape {shape} are no images")
        self._flat, self._last = len(shape) == 2, len(shape) == 3 and shape[2] <= 4 < shape[0]
        self.channels = 1 if self._flat else shape[2] if self._last else shape[0]
        self._room = shape[:2] if self._flat or self._last else shape[1:]
        self._size, self._place = (attack.height, attack.width), attack.place
        top, left = attack.place or (0, 0)
        if min(top, left) < 0 or top + attack.height > self._room[0] or left + attack.width > self._room[1]:
            raise ConfigurationError(
                f"a patch of {attack.height} x {attack.width} at {top}, {left} of {self._room[0]} x {self._room[1]}"
            )

    def places(self, uniform: NDArray[np.float64]) -> Index:
        """(n, 2) first rows and columns, from draws in [0, 1)."""
        if self._place is not None:
            return np.tile(np.array(self._place, dtype=np.int64), (len(uniform), 1))
        room = np.array(self._room) - np.array(self._size) + 1
        return np.asarray(uniform * room, dtype=np.int64)

    def window(self, places: Index) -> tuple[Index, Index, Index]:
        """Indices (n, 1, 1), (n, height, 1) and (n, 1, width) of the patch's pixels."""
        rows = places[:, :1, None] + np.arange(self._size[0])[None, :, None]
        columns = places[:, 1:, None] + np.arange(self._size[1])[None, None, :]
        return np.arange(len(places))[:, None, None], rows, columns

    def paste(self, x: Array, patch: Array, inside: tuple[Index, Index, Index]) -> Array:
        """The images with the patch (channels, height, width) at each one's place."""
        planes = self._planes(x.clone())
        sample, rows, columns = inside
        planes[sample, :, rows, columns] = patch.permute(1, 2, 0)
        return self._back(planes)

    def cut(self, x: Array, inside: tuple[Index, Index, Index]) -> Array:
        """(n, channels, height, width) what lies at each one's place."""
        sample, rows, columns = inside
        return self._planes(x)[sample, :, rows, columns].permute(0, 3, 1, 2)

    def mask(self, inside: tuple[Index, Index, Index], x: Array) -> Array:
        """(n, ...) true at each one's place."""
        sample, rows, columns = inside
        planes = self._planes(x.new_zeros(x.shape).bool())
        planes[sample, :, rows, columns] = True
        return self._back(planes)

    def _planes(self, x: Array) -> Array:
        return x[:, None] if self._flat else x.movedim(-1, 1) if self._last else x

    def _back(self, planes: Array) -> Array:
        return planes[:, 0] if self._flat else planes.movedim(1, -1) if self._last else planes
