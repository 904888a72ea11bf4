"""Square attack: evasion by scores, through random changes of squares, within an exact number of queries each.

1. Start from random stripes (or, under l2, a random pattern of tiles) at the edge of the domain.
2. Replace a random square, which shrinks as queries are spent, by another pattern at the edge.
3. Keep the change if the margin of the true class did not grow; stop when it is negative.

All samples are asked about in one call. Inputs that are not images, such as tables, have no neighbours: there, a
"square" is a random subset of the features of the same size.

Source: Andriushchenko, Croce, Flammarion and Hein (2020), "Square attack: a query-efficient black-box adversarial attack
via random search", algorithms 1 to 3. Unlike the paper, a change that leaves the margin equal is kept, so that the
search drifts over the plateaus of trees and of rounded scores; and the pattern is drawn by the domain, so that it also
flips categories.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.corners import corner_draws
from holdfast.core.arrays import Array, as_like, as_numpy, copied
from holdfast.core.domain import Domain
from holdfast.core.errors import ConfigurationError
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams

Index = NDArray[np.int64]
Floats = NDArray[np.float64]
HALVED_AT = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the queries after which the squares' area is halved; section 5.1."""
DRAWN_AT_ONCE = 2**22
"""Most random numbers that are kept ready."""


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search on squares, by the margin of the scores.

    Attributes:
        queries: most queries for one sample where the run has no budget; also sets how fast squares shrink.
        share: of an input's features that the first squares cover.
        inside: share of the changes inside a linf ball that go anywhere between its corners; trees have pockets there.
    """

    queries: int = 1000
    share: float = 0.8
    inside: float = 0.0
    access = Access.SCORES

    def __post_init__(self) -> None:
        if self.queries < 1 or not 0 < self.share <= 1 or not 0 <= self.inside <= 1:
            raise ConfigurationError("Square needs at least one query, a share of the features in (0, 1] and inside in [0, 1]")

    def perturb(self, oracle: Oracle, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams) -> Array:
        """The input with the smallest margin found for each sample."""
        queries = self.queries if oracle.budget is None else oracle.budget
        layout = _Layout(tuple(x.shape[1:]))
        round_ = domain.norm != "linf" and math.isfinite(domain.radius)
        pattern = _Tiles(layout, domain.radius) if round_ else _Corners(layout, self.inside)
        everyone = np.arange(len(x))
        draws = _Draws(streams, len(x), layout.draws)
        best = copied(x)
        margin = np.full(len(x), np.inf)
        for turn in range(queries):
            active = everyone[(margin >= 0) & (oracle.remaining() > 0)]
            if not len(active):
                break
            x0 = x[active]
            if turn == 0:
                rows = pattern.start(domain, x0, streams.uniform(active, pattern.first))
            else:
                share = self.share * 0.5 ** sum(turn / queries > at for at in HALVED_AT)
                rows = pattern.change(domain, x0, best[active], share, draws.next(active))
            found = _margins(oracle.scores(rows, active), y[active])
            kept = found <= margin[active]
            best[active[kept]] = rows[np.flatnonzero(kept)]
            margin[active[kept]] = found[kept]
        return best


class _Draws:
    """Uniform draws for one turn after another, made in blocks; each sample's come from its own stream, in order."""

    def __init__(self, streams: SampleStreams, samples: int, width: int) -> None:
        self.streams = streams
        self.turns = max(1, min(64, DRAWN_AT_ONCE // (samples * width)))
        self.block = np.empty((samples, self.turns, width))
        self.turn = 0

    def next(self, active: Index) -> Floats:
        """(len(active), width) draws; whoever is not active now must not come back."""
        at = self.turn % self.turns
        if at == 0:
            self.block[active] = self.streams.uniform(active, self.block.shape[1:])
        self.turn += 1
        return np.asarray(self.block[active, at])


class _Layout:
    """Where an input has its height, width and channels; an input with one axis has only features.

    Three axes are channels, height, width, or height, width, channels if only the last is short enough for channels.

    Attributes:
        stripes: the shape of one column of pixels beside another.
        draws: how many draws make one change: two squares' places and a sign for each channel, or three for a feature.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.flat = len(shape) not in (2, 3)
        self.features = math.prod(shape)
        if self.flat:
            self.stripes, self.draws = shape, 3 * self.features
            return
        last = len(shape) == 3 and shape[2] <= 4 < shape[0]
        self.axis = 0 if last else len(shape) - 2
        self.height, self.width = shape[self.axis : self.axis + 2]
        self.channels = math.prod(shape) // (self.height * self.width)
        self.colour = tuple(1 if self.axis <= at < self.axis + 2 else size for at, size in enumerate(shape))
        self.stripes = tuple(1 if at == self.axis else size for at, size in enumerate(shape))
        self.draws = 4 + self.channels

    def window(self, share: float, draws: Floats) -> Floats:
        """(n, ...) ones in a random square, or a random subset, of that share of the features; zeros elsewhere."""
        if self.flat:
            count = max(1, round(share * self.features))
            rank = np.argsort(np.argsort(draws, axis=1), axis=1)
            return (rank < count).astype(float).reshape(-1, *self.shape)
        side = self.side(share)
        top, left = self.place(side, draws)
        rows, columns = np.arange(self.height), np.arange(self.width)
        inside = ((rows >= top) & (rows < top + side))[:, :, None] & ((columns >= left) & (columns < left + side))[:, None, :]
        return self.spread(inside.astype(float))

    def side(self, share: float) -> int:
        """The side of a square of that share of the image."""
        return int(np.clip(round(math.sqrt(share * self.height * self.width)), 1, min(self.height, self.width)))

    def place(self, side: int, draws: Floats) -> tuple[Index, Index]:
        """(n, 1) the first row and column of a random square."""
        top = (draws[:, :1] * (self.height - side + 1)).astype(np.int64)
        return top, (draws[:, 1:2] * (self.width - side + 1)).astype(np.int64)

    def spread(self, plane: Floats) -> Floats:
        """(n, height, width) as an array that broadcasts against inputs."""
        return plane.reshape(len(plane), *(size if self.axis <= at < self.axis + 2 else 1 for at, size in enumerate(self.shape)))


class _Corners:
    """Patterns of the domain's corners: each feature at one end of what it may become, or somewhere inside."""

    def __init__(self, layout: _Layout, inside: float) -> None:
        self.layout, self.first, self.inside = layout, layout.stripes, inside

    def start(self, domain: Domain, x0: Array, draws: Floats) -> Array:
        """Vertical stripes in images, any corner else."""
        return domain.sample(x0, self._ends(draws))

    def change(self, domain: Domain, x0: Array, best: Array, share: float, draws: Floats) -> Array:
        """One square of each sample at a new corner; one end for each channel of an image, one for each other feature."""
        layout = self.layout
        inside = layout.window(share, draws[:, : layout.features] if layout.flat else draws)
        ends = draws[:, layout.features : 2 * layout.features] if layout.flat else draws[:, 4:].reshape(-1, *layout.colour)
        corner = domain.sample(x0, self._ends(ends.reshape(len(draws), *layout.shape) if layout.flat else ends))
        return domain.project(x0, array_namespace(x0).where(as_like(x0, inside) > 0, corner, best))

    def _ends(self, draws: Floats) -> Floats:
        """Draws next to 0 or 1, in random order, as large as the inputs; a share of them anywhere between."""
        return np.broadcast_to(corner_draws(draws, self.inside), (len(draws), *self.layout.shape))


class _Tiles:
    """Patterns at the edge of an l2 ball, also used inside l1 and l0 balls: budget moves from one square into another."""

    def __init__(self, layout: _Layout, radius: float) -> None:
        self.layout, self.radius, self.first = layout, radius, layout.shape

    def start(self, domain: Domain, x0: Array, draws: Floats) -> Array:
        """A bump in each tile of about a fifth of the image's side, with random signs; random signs in other inputs."""
        layout, change = self.layout, np.where(draws < 0.5, -1.0, 1.0)
        if not layout.flat:
            side = max(1, min(layout.height, layout.width) // 5)
            rows, columns = np.arange(layout.height), np.arange(layout.width)
            change = change.take(rows // side * side, axis=layout.axis + 1).take(columns // side * side, axis=layout.axis + 2)
            change = change * layout.spread(_bump(side)[rows % side][:, columns % side][None])
        return domain.project(x0, x0 + as_like(x0, self.radius * _unit(change)))

    def change(self, domain: Domain, x0: Array, best: Array, share: float, draws: Floats) -> Array:
        """Empty two squares; their budget, and what was left of the radius, goes along a new bump into the second."""
        layout = self.layout
        now = as_numpy(best - x0)
        if layout.flat:
            parts = draws.reshape(len(draws), 3, *layout.shape)
            emptied, filled = (layout.window(share, parts[:, at].reshape(len(draws), -1)) for at in (0, 1))
            bump = np.where(parts[:, 2] < 0.5, -1.0, 1.0) * filled
        else:
            emptied, filled = layout.window(share, draws[:, :2]), layout.window(share, draws[:, 2:4])
            bump = self._placed(layout.side(share), draws)
        both = np.maximum(emptied, filled)
        budget = np.sqrt(_size(now * both) ** 2 + np.clip(self.radius**2 - _size(now) ** 2, 0, None))
        fresh = _unit(bump) + _unit(now * filled)
        return domain.project(x0, x0 + as_like(x0, now * (1 - both) + budget * _unit(fresh)))

    def _placed(self, side: int, draws: Floats) -> Floats:
        """(n, ...) a bump in each sample's second square, upright or on its side, with a random sign for each channel."""
        layout = self.layout
        top, left = layout.place(side, draws[:, 2:4])
        plane = np.zeros((len(draws), layout.height, layout.width))
        square = np.arange(side)
        upright = (draws[:, 4] * 2**20 % 1 < 0.5)[:, None, None]
        sample = np.arange(len(draws))[:, None, None]
        plane[sample, (top + square)[:, :, None], (left + square)[:, None, :]] = np.where(upright, _bump(side), _bump(side).T)
        return layout.spread(plane) * np.where(draws[:, 4:] < 0.5, -1.0, 1.0).reshape(-1, *layout.colour)


def _bump(side: int) -> Floats:
    """(side, side) two pyramids of opposite sign beside each other; equation 2 and section 4.4 of the paper."""
    half = side // 2
    return np.concatenate([_pyramid(side, half), -_pyramid(side, side - half)], axis=1)


def _pyramid(height: int, width: int) -> Floats:
    middle = height // 2
    rows = np.abs(np.arange(height) - middle)[:, None]
    columns = np.abs(np.arange(width) - width // 2)[None, :]
    level = middle - np.maximum(rows, columns)
    steps = np.concatenate([[0.0], np.cumsum(1 / (middle + 1 - np.arange(middle + 1)) ** 2)])
    return np.asarray(steps[np.clip(level + 1, 0, middle + 1)])


def _margins(scores: Array, y: NDArray[np.int64]) -> Floats:
    """(n,) how much the true class's score exceeds the best other one; negative where misclassified."""
    plain = np.clip(as_numpy(scores), -1e30, 1e30)
    rows = np.arange(len(y))
    true = plain[rows, y].copy()
    plain[rows, y] = -np.inf
    return np.asarray(true - plain.max(axis=1))


def _size(change: Floats) -> Floats:
    """(n, 1, ...) the l2 norms."""
    flat = np.sqrt((change.reshape(len(change), -1) ** 2).sum(axis=1))
    return np.asarray(flat.reshape(-1, *[1] * (change.ndim - 1)))


def _unit(change: Floats) -> Floats:
    size = _size(change)
    return np.asarray(change / np.where(size > 0, size, 1.0))
