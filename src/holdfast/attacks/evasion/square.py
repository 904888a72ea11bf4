"""Square attack: evasion by scores, through random changes of squares, within an exact number of queries each.

1. Start from random stripes (or, under l2, a random pattern of tiles) at the edge of the domain.
2. Replace a random square, which shrinks as queries are spent, by another pattern at the edge.
3. Keep the change if the margin of the true class did not grow; stop when it is negative.

All samples are asked about in one call. After the first queries, each is asked about with several changes at once, of which
the best is kept: most are in vain by then, and few large calls cost less than many small ones. Inputs that are not images,
such as tables, have no neighbours: there, a "square" is a random subset of the features of the same size.

Source: Andriushchenko, Croce, Flammarion and Hein (2020), "Square attack: a query-efficient black-box adversarial attack
via random search", algorithms 1 to 3. Unlike the paper, a change that leaves the margin equal is kept, so that the
search drifts over the plateaus of trees and of rounded scores; and the pattern is drawn by the domain, so that it also
flips categories.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from holdfast.attacks.base import Attack
from holdfast.attacks.evasion.corners import corner_draws
from holdfast.attacks.evasion.frames import margins
from holdfast.core.arrays import Array, as_like, as_numpy, copied
from holdfast.core.domain import Ball, Domain
from holdfast.core.errors import ConfigurationError
from holdfast.core.oracle import Access, Oracle
from holdfast.core.seeds import SampleStreams

Index = NDArray[np.int64]
Floats = NDArray[np.float64]
HALVED_AT = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the queries after which the squares' area is halved; section 5.1."""
DRAWN_AT_ONCE = 2**22
"""Most random numbers that are kept ready."""
SOLE = 10
"""Queries after which two changes are asked about in one call, then three, and so on; at first most changes help."""
AT_ONCE, NUMBERS_AT_ONCE = 16, 2**15
"""Most changes of one sample that are asked about in one call, and most array elements in them; large inputs go one by one."""


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
        pattern = self._pattern(domain, x, layout)
        most = min(AT_ONCE, max(1, NUMBERS_AT_ONCE // layout.features))
        draws = _Draws(streams, len(x), layout.draws)
        best, margin, spent = copied(x), np.full(len(x), np.inf), 0
        while spent < queries:
            active = np.flatnonzero((margin >= 0) & (oracle.remaining() > 0))
            if not len(active):
                break
            count = min(most, max(1, spent // SOLE), queries - spent)
            owner = np.repeat(active, count)
            if spent == 0:
                rows = pattern.start(owner, streams.uniform(active, pattern.first))
            else:
                share = self.share * 0.5 ** sum(spent / queries > at for at in HALVED_AT)
                rows = pattern.change(owner, best[owner], share, draws.next(active, count))
            spent += count
            found = margins(oracle.scores(rows, owner), y[owner]).reshape(len(active), count)
            nearest = found.argmin(axis=1)
            found = found[np.arange(len(active)), nearest]
            kept = np.flatnonzero(found <= margin[active])
            best[active[kept]] = rows[kept * count + nearest[kept]]
            margin[active[kept]] = found[kept]
        return best

    def _pattern(self, domain: Domain, x: Array, layout: _Layout) -> _Pattern:
        if domain.norm != "linf" and math.isfinite(domain.radius):
            return _Tiles(layout, domain, x)
        if isinstance(domain, Ball) and domain.norm == "linf" and not self.inside:
            return _Box(layout, domain, x)
        return _Corners(layout, domain, x, self.inside)


class _Draws:
    """Uniform draws for one change after another, made in blocks; each sample's come from its own stream, in order."""

    def __init__(self, streams: SampleStreams, samples: int, width: int) -> None:
        self.streams, self.at = streams, 0
        self.size = min(256, DRAWN_AT_ONCE // (samples * width))
        self.block = np.empty((samples, 0, width))

    def next(self, active: Index, count: int) -> Floats:
        """(len(active) x count, width) draws; whoever is not active now must not come back."""
        samples, ready, width = self.block.shape
        if self.at + count > ready:
            fresh = np.empty((samples, max(count, self.size), width))
            fresh[active] = self.streams.uniform(active, fresh.shape[1:])
            self.block, self.at = np.concatenate([self.block[:, self.at :], fresh], axis=1), 0
        self.at += count
        return np.asarray(self.block[active, self.at - count : self.at].reshape(-1, width))


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
        self.index = np.moveaxis(np.arange(self.features).reshape(shape), -1, 0) if last else np.arange(self.features)
        self.index = self.index.reshape(self.channels, self.height, self.width)

    def split(self, share: float, draws: Floats) -> tuple[NDArray[np.bool_], Floats]:
        """A random window and, for what lies in it, draws that broadcast against inputs: one a feature, or one a channel."""
        if not self.flat:
            return self.window(share, draws), draws[:, 4:].reshape(-1, *self.colour)
        ends = draws[:, self.features : 2 * self.features].reshape(-1, *self.shape)
        return self.window(share, draws[:, : self.features]), ends

    def window(self, share: float, draws: Floats) -> NDArray[np.bool_]:
        """(n, ...) a random square, or a random subset, of that share of the features; broadcasts against inputs."""
        if self.flat:
            count = max(1, round(share * self.features))
            edge = np.partition(draws, count - 1, axis=1)[:, count - 1 : count]
            return (draws <= edge).reshape(-1, *self.shape)
        side = self.side(share)
        top, left = self.place(side, draws)
        rows, columns = np.arange(self.height) - top, np.arange(self.width) - left
        inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
        return self.spread(inside)

    def cells(self, share: float, draws: Floats) -> Index:
        """(n, channels x cells) where the features of a random square lie in the flat input, one channel after another."""
        side = self.side(share)
        top, left = self.place(side, draws)
        return np.asarray(self.index[0, top, left] + self.index[:, :side, :side].reshape(-1))

    def side(self, share: float) -> int:
        """The side of a square of that share of the image."""
        return int(np.clip(round(math.sqrt(share * self.height * self.width)), 1, min(self.height, self.width)))

    def place(self, side: int, draws: Floats) -> tuple[Index, Index]:
        """(n, 1) the first row and column of a random square."""
        top = (draws[:, :1] * (self.height - side + 1)).astype(np.int64)
        return top, (draws[:, 1:2] * (self.width - side + 1)).astype(np.int64)

    def spread(self, plane: NDArray[Any]) -> NDArray[Any]:
        """(n, height, width) as an array that broadcasts against inputs."""
        return plane.reshape(len(plane), *(size if self.axis <= at < self.axis + 2 else 1 for at, size in enumerate(self.shape)))


class _Pattern(Protocol):
    """How inputs start and change; `owner` says which original each row belongs to.

    Attributes:
        first: the shape of the draws for one start.
    """

    first: tuple[int, ...]

    def start(self, owner: Index, draws: Floats) -> Array:
        """A first input for each row."""

    def change(self, owner: Index, best: Array, share: float, draws: Floats) -> Array:
        """Each row of `best`, which may be overwritten, with one square of that share of the features changed."""


class _Box:
    """Corners of a linf ball, which are the same at each turn: each feature at one end of what it may become."""

    def __init__(self, layout: _Layout, domain: Ball, x: Array) -> None:
        self.layout, self.first, self.xp = layout, layout.stripes, array_namespace(x)
        shape = tuple(x.shape)
        self.ends = self.xp.stack([domain.sample(x, np.zeros(shape)), domain.sample(x, np.ones(shape))])

    def start(self, owner: Index, draws: Floats) -> Array:
        """Vertical stripes in images, any corner else."""
        return self._corner(owner, draws)

    def change(self, owner: Index, best: Array, share: float, draws: Floats) -> Array:
        """One square at a new corner; one end for each channel of an image, one for each other feature."""
        if self.layout.flat:
            inside, ends = self.layout.split(share, draws)
            return self._where(inside, self._corner(owner, ends), best)
        cells = self.layout.cells(share, draws)
        high = (draws[:, 4:] >= 0.5).repeat(cells.shape[1] // self.layout.channels, axis=1).astype(np.int64)
        rows = self.xp.reshape(best, (len(owner), self.layout.features))
        ends = self.xp.reshape(self.ends, (2, -1, self.layout.features))
        rows[np.arange(len(owner))[:, None], cells] = ends[high, owner[:, None], cells]
        return self.xp.reshape(rows, best.shape)

    def _corner(self, owner: Index, draws: Floats) -> Array:
        return self._where(draws < 0.5, self.ends[0, owner], self.ends[1, owner])

    def _where(self, condition: NDArray[np.bool_], yes: Array, no: Array) -> Array:
        given = self.xp.asarray(condition, device=yes.device) if hasattr(yes, "detach") else condition
        return self.xp.where(given, yes, no)


class _Corners:
    """Patterns of any domain's corners: each feature at one end of what it may become, or somewhere inside."""

    def __init__(self, layout: _Layout, domain: Domain, x: Array, inside: float) -> None:
        self.layout, self.domain, self.x, self.inside, self.first = layout, domain, x, inside, layout.stripes

    def start(self, owner: Index, draws: Floats) -> Array:
        """Vertical stripes in images, any corner else."""
        return self.domain.sample(self.x[owner], self._ends(draws))

    def change(self, owner: Index, best: Array, share: float, draws: Floats) -> Array:
        """One square at a new corner; one end for each channel of an image, one for each other feature."""
        x0 = self.x[owner]
        inside, ends = self.layout.split(share, draws)
        corner = self.domain.sample(x0, self._ends(ends))
        return self.domain.project(x0, array_namespace(x0).where(as_like(x0, inside) > 0, corner, best))

    def _ends(self, draws: Floats) -> Floats:
        """Draws next to 0 or 1, in random order, as large as the inputs; a share of them anywhere between."""
        return np.broadcast_to(corner_draws(draws, self.inside), (len(draws), *self.layout.shape))


class _Tiles:
    """Patterns at the edge of an l2 ball, also used inside l1 and l0 balls: budget moves from one square into another."""

    def __init__(self, layout: _Layout, domain: Domain, x: Array) -> None:
        self.layout, self.domain, self.x, self.radius, self.first = layout, domain, x, domain.radius, layout.shape

    def start(self, owner: Index, draws: Floats) -> Array:
        """A bump in each tile of about a fifth of the image's side, with random signs; random signs in other inputs."""
        layout, change, x0 = self.layout, np.where(draws < 0.5, -1.0, 1.0), self.x[owner]
        if not layout.flat:
            side = max(1, min(layout.height, layout.width) // 5)
            rows, columns = np.arange(layout.height), np.arange(layout.width)
            change = change.take(rows // side * side, axis=layout.axis + 1).take(columns // side * side, axis=layout.axis + 2)
            change = change * layout.spread(_bump(side)[rows % side][:, columns % side][None])
        return self.domain.project(x0, x0 + as_like(x0, self.radius * _unit(change)))

    def change(self, owner: Index, best: Array, share: float, draws: Floats) -> Array:
        """Empty two squares; their budget, and what was left of the radius, goes along a new bump into the second."""
        layout, x0 = self.layout, self.x[owner]
        now = as_numpy(best - x0)
        if layout.flat:
            parts = draws.reshape(len(draws), 3, *layout.shape)
            emptied, filled = (layout.window(share, parts[:, at].reshape(len(draws), -1)) for at in (0, 1))
            bump = np.where(parts[:, 2] < 0.5, -1.0, 1.0) * filled
        else:
            emptied, filled = layout.window(share, draws[:, :2]), layout.window(share, draws[:, 2:4])
            bump = self._placed(layout.side(share), draws)
        both = emptied | filled
        budget = np.sqrt(_size(now * both) ** 2 + np.clip(self.radius**2 - _size(now) ** 2, 0, None))
        fresh = _unit(bump) + _unit(now * filled)
        return self.domain.project(x0, x0 + as_like(x0, now * ~both + budget * _unit(fresh)))

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


def _size(change: Floats) -> Floats:
    """(n, 1, ...) the l2 norms."""
    flat = np.sqrt((change.reshape(len(change), -1) ** 2).sum(axis=1))
    return np.asarray(flat.reshape(-1, *[1] * (change.ndim - 1)))


def _unit(change: Floats) -> Floats:
    size = _size(change)
    return np.asarray(change / np.where(size > 0, size, 1.0))
