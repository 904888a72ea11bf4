"""Certified radii of sequential networks: no change of the input within them can change the decision.

1. Intervals for every neuron are passed forwards (IBP).
2. Under CROWN, linear bounds are passed backwards from every neuron whose rectifier or pool the intervals leave open, and
   from the differences of the logits, through linear relaxations of what lies between, down to the input.
3. What is left is the least value of a linear function over the input's ball, cut by the box of valid inputs.
4. From the smallest difference between the label's logit and another, the margin that the user's own floating-point
   arithmetic may be off is taken away. What remains above zero is certified.

Bounds are computed in float64, whose own rounding is covered by a relative `OUTWARD`. The margin for the user's arithmetic
is a running error bound, gamma_k (|W| |x| + |b|) in each layer, for sums of k terms in any order; it does not cover fast
convolution algorithms with other error constants (Winograd, FFT), nor a network that runs in another type than its weights.

Sources: Gowal et al. (2018), "On the effectiveness of interval bound propagation", section 3; Zhang et al. (2018), "Efficient
neural network robustness certification with general activation functions", section 3 (adaptive slopes); Higham (2002),
"Accuracy and stability of numerical algorithms", section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.certification.layers import Affine, Chain, MaxPool, Rectifier, chain
from holdfast.core.arrays import Array, as_numpy
from holdfast.core.domain import Ball
from holdfast.core.errors import ConfigurationError, InvalidData, InvalidModel
from holdfast.models.torch import TorchModel

Method = Literal["ibp", "crown"]
OUTWARD = 1e-11
"""Relative widening of every computed bound, for float64 rounding in networks of up to a few thousand terms a sum."""
ELEMENTS_AT_ONCE = 2**22
"""Most numbers in one array of linear functions."""
TIGHTENINGS = 15
"""Steps of the search for the best multiplier of an L2 ball that is cut by a box; each value on the way is sound."""


def margin_bounds(network: Any, x: Any, y: NDArray[np.int64], ball: Ball, method: Method = "crown") -> NDArray[np.float64]:
    """How far the label's logit stays above every other one within the ball, at least.

    Args:
        network: a `torch.nn.Sequential` or `TorchModel` of known layers; see `certification.layers`.
        x: (n, ...) float inputs inside the ball's box.
        y: (n,) the labels to be kept.
        ball: linf or l2, with a finite radius.
        method: `crown` is tighter, `ibp` cheaper.

    Returns:
        (n,) lower bounds, with the margin for floating-point rounding taken away; a positive one is a certificate.

    Raises:
        ConfigurationError: another norm, an infinite radius, or an unknown method.
        InvalidData: inputs outside the box, of a wrong shape or not finite; a label that is no class.
        InvalidModel: a layer without known bounds, or a network that does not answer as its layers say.
    """
    prepared = _Certifier(network, x, y, ball, method)
    return prepared.margins(np.full(len(prepared.x), float(ball.radius)))


def certified_radii(
    network: Any, x: Any, y: NDArray[np.int64], ball: Ball, method: Method = "crown", precision: float = 1e-3
) -> NDArray[np.float64]:
    """The largest radius shown to be safe for each sample, by bisection.

    Args:
        network, x, y, method: as for `margin_bounds`.
        ball: its norm and box; its radius is the largest that is looked at.
        precision: of the bisection, as a share of that radius.

    Returns:
        (n,) radii, 0 where nothing is certified, which includes inputs that the network gets wrong. Each was certified as it is.

    Raises:
        ConfigurationError, InvalidData, InvalidModel: as for `margin_bounds`.
    """
    if not 0 < precision < 1:
        raise ConfigurationError(f"a precision of {precision}; it is a share of the radius, above 0 and below 1")
    prepared = _Certifier(network, x, y, ball, method)
    low, high = np.zeros(len(prepared.x)), np.full(len(prepared.x), float(ball.radius))
    whole = prepared.margins(high) > 0
    low[whole] = ball.radius
    for _ in range(math.ceil(math.log2(1 / precision))):
        open_ = np.flatnonzero(low < high)
        if not len(open_):
            break
        middle = (low[open_] + high[open_]) / 2
        safe = prepared.margins(middle, open_) > 0
        low[open_[safe]] = middle[safe]
        high[open_[~safe]] = middle[~safe]
    return low


def logit_bounds(network: Any, x: Any, ball: Ball, method: Method = "crown") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, k) the least and the largest that each logit can become within the ball, without the margin for the user's rounding.

    Raises:
        ConfigurationError, InvalidData, InvalidModel: as for `margin_bounds`.
    """
    prepared = _Certifier(network, x, np.zeros(len(x), dtype=np.int64), ball, method)
    return prepared.logits(np.full(len(prepared.x), float(ball.radius)))


@dataclass(frozen=True)
class _Region:
    """The inputs around each sample: a box, already cut by a linf ball, and the radius of an l2 ball around the centre."""

    centre: Array
    low: Array
    high: Array
    radius: Array | None

    def least(self, rows: Array, owner: Array) -> Array:
        """(m,) a lower bound of each linear function over its owner's region, exact but for the search of the multiplier."""
        rows = rows.flatten(1)
        centre = self.centre[owner]
        low, high = self.low[owner] - centre, self.high[owner] - centre
        start = (rows * centre).sum(1)
        boxed = (rows.clamp_min(0) * low + rows.clamp_max(0) * high).sum(1)
        if self.radius is None:
            return start + boxed
        radius = self.radius[owner]
        length = rows.norm(dim=1)
        best = boxed.maximum(-length * radius)
        small, large = length * 0, length / (2 * radius.clamp_min(1e-300))
        for turn in range(TIGHTENINGS):
            multiplier = large if turn == 0 else (small + large) / 2
            change = (-rows / (2 * multiplier.clamp_min(1e-300))[:, None]).maximum(low).minimum(high)
            value = (rows * change + multiplier[:, None] * change**2).sum(1) - multiplier * radius**2
            best = best.maximum(value)
            outside = (change**2).sum(1) > radius**2
            small, large = multiplier.where(outside, small), large.where(outside, multiplier)
        return start + best


class _Certifier:
    """One network and its samples, checked."""

    def __init__(self, network: Any, x: Any, y: NDArray[np.int64], ball: Ball, method: Method) -> None:
        import torch

        if method not in ("ibp", "crown"):
            raise ConfigurationError(f"unknown method {method!r}", hint="One of crown, ibp.")
        if ball.norm not in ("linf", "l2") or not math.isfinite(ball.radius):
            raise ConfigurationError(
                f"certification of a {ball.norm} ball of radius {ball.radius:g}", hint="Give linf or l2 and a finite radius."
            )
        self.ball, self.method = ball, method
        given = torch.as_tensor(x).detach()
        if not given.is_floating_point() or given.ndim < 2 or not bool(torch.isfinite(given).all()):
            raise InvalidData("certification takes a batch of finite decimal inputs (n, ...)")
        self.chain = chain(network, tuple(given.shape[1:]))
        self.x = given.to(self.chain.device, torch.float64)
        self.low, self.high = (
            torch.as_tensor(as_numpy(side), device=self.chain.device).expand(self.x.shape[1:]) for side in (ball.low, ball.high)
        )
        if len(given) and not bool(((self.x >= self.low) & (self.x <= self.high)).all()):
            raise InvalidData(
                "inputs lie outside the declared domain",
                hint="Declare low and high in the units that the network takes; a normalised input is not in pixels.",
            )
        self.y = torch.as_tensor(np.asarray(y, dtype=np.int64), device=self.chain.device)
        if len(self.y) != len(given):
            raise InvalidData(f"{len(given)} inputs and {len(self.y)} labels")
        if len(self.y) and not 0 <= int(self.y.min()) <= int(self.y.max()) < max(self.chain.classes, 2):
            raise InvalidData(f"labels from {int(self.y.min())} to {int(self.y.max())} of {max(self.chain.classes, 2)} classes")
        _require_same(network, self.chain, given, self.x)

    def margins(self, radius: NDArray[np.float64], samples: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """(n,) certified margins of the chosen samples, each within its own radius."""
        import torch

        chosen = np.arange(len(self.x)) if samples is None else samples
        if not len(chosen):
            return np.zeros(0)
        y = self.y[torch.as_tensor(chosen, device=self.x.device)]
        bounds = self._bounds(radius, chosen)
        count = len(chosen)
        if self.chain.classes == 1:
            rows = (2.0 * y - 1)[:, None].double()
            owner = torch.arange(count, device=self.x.device)
            slack = bounds.error
        else:
            others = torch.arange(self.chain.classes, device=y.device).expand(count, -1)
            owner, other = (others != y[:, None]).nonzero(as_tuple=True)
            eye = torch.eye(self.chain.classes, dtype=torch.float64, device=y.device)
            rows = eye[y[owner]] - eye[other]
            slack = bounds.error[owner, y[owner]] + bounds.error[owner, other]
        size = bounds.low[-1].abs().maximum(bounds.high[-1].abs()).amax(1)[owner]
        slack = slack.reshape(-1) + 8 * self.chain.unit * (1 + size)
        least = bounds.least(rows, owner, len(self.chain.steps)) - slack
        least = least.nan_to_num(nan=-math.inf)
        return as_numpy(
            torch.full((count,), math.inf, dtype=torch.float64, device=y.device).scatter_reduce(0, owner, least, "amin")
        )

    def logits(self, radius: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n, k) bounds of the logits."""
        import torch

        count, classes = len(self.x), self.chain.classes
        bounds = self._bounds(radius, np.arange(count))
        owner = torch.arange(count, device=self.x.device).repeat_interleave(classes)
        eye = torch.eye(classes, dtype=torch.float64, device=self.x.device).repeat(count, 1)
        low = bounds.least(eye, owner, len(self.chain.steps))
        high = -bounds.least(-eye, owner, len(self.chain.steps))
        return as_numpy(low.reshape(count, classes)), as_numpy(high.reshape(count, classes))

    def _bounds(self, radius: NDArray[np.float64], samples: NDArray[np.int64]) -> _Bounds:
        import torch

        x = self.x[torch.as_tensor(samples, device=self.x.device)]
        size = torch.as_tensor(radius, device=x.device).reshape(-1, *[1] * (x.ndim - 1))
        low, high = (x - size).maximum(self.low), (x + size).minimum(self.high)
        region = _Region(x.flatten(1), low.flatten(1), high.flatten(1), size.flatten() if self.ball.norm == "l2" else None)
        return _Bounds(self.chain, region, low, high, tight=self.method == "crown")


class _Bounds:
    """Bounds of every neuron over each sample's region.

    Attributes:
        low, high: before each step, (n, ...).
        error: (n, k) how far the user's own arithmetic may be off in each logit.
    """

    def __init__(self, steps: Chain, region: _Region, low: Array, high: Array, *, tight: bool) -> None:
        self.chain, self.region, self.tight = steps, region, tight
        self.low, self.high = [low], [high]
        self.error = low * 0
        for index, step in enumerate(steps.steps):
            if not isinstance(step, Affine):
                self._tighten(index, step)
            low, high, error = self.low[-1], self.high[-1], self.error
            if isinstance(step, Affine):
                largest = low.abs().maximum(high.abs()) + error
                rounding = step.terms * steps.unit / (1 - step.terms * steps.unit) * (step.widen(largest) + step.magnitude)
                self.error = step.widen(error) + rounding
                middle, half = step.run((low + high) / 2), step.widen((high - low) / 2)
                self.low.append(_down(middle - half, middle.abs() + half))
                self.high.append(-_down(-middle - half, middle.abs() + half))
            elif isinstance(step, Rectifier):
                self.low.append(low.clamp_min(0))
                self.high.append(high.clamp_min(0))
            else:
                self.low.append(step.pool(low)[0])
                self.high.append(step.pool(high)[0])
                self.error = step.pool(error)[0]

    def least(self, rows: Array, owner: Array, index: int) -> Array:
        """(m,) lower bounds of linear functions of the values before step `index`, each over its owner's region."""
        import torch

        width = max(1, ELEMENTS_AT_ONCE // max(math.prod(shape) for shape in self.chain.shapes))
        shape = self.chain.shapes[index]
        parts = [
            self._pulled(part.reshape(-1, *shape), owned, index)
            for part, owned in zip(rows.split(width), owner.split(width), strict=True)
        ]
        return torch.cat(parts) if parts else rows.new_zeros(0)

    def _pulled(self, rows: Array, owner: Array, index: int) -> Array:
        """The functions, pulled backwards: to the input, or without `tight` to the last step that is no affine one."""
        total = rows.new_zeros(len(rows))
        size = rows.new_zeros(len(rows))
        while index:
            step = self.chain.steps[index - 1]
            if not isinstance(step, Affine) and not self.tight:
                low, high = self.low[index][owner], self.high[index][owner]
                value = (rows.clamp_min(0) * low + rows.clamp_max(0) * high).flatten(1).sum(1)
                size = size + (rows.abs() * low.abs().maximum(high.abs())).flatten(1).sum(1)
                return _down(total + value, total.abs() + size)
            index -= 1
            low, high = self.low[index], self.high[index]
            if isinstance(step, Affine):
                total = total + (rows * step.offset).flatten(1).sum(1)
                size = size + (rows.abs() * step.offset.abs()).flatten(1).sum(1)
                rows = step.back(rows)
            elif isinstance(step, Rectifier):
                rows, constant = _through_rectifier(rows, low[owner], high[owner])
                total, size = total + constant, size + constant.abs()
            else:
                rows, constant = _through_pool(step, rows, low, high, owner)
                total, size = total + constant, size + constant.abs()
        size = size + (rows.flatten(1).abs() * self._reach()[owner]).sum(1)
        return _down(total + self.region.least(rows, owner), total.abs() + size)

    def _reach(self) -> Array:
        return self.region.low.abs().maximum(self.region.high.abs())

    def _tighten(self, index: int, step: Rectifier | MaxPool) -> None:
        """Better bounds for the neurons before a step, where they can matter to it."""
        affine_only = all(isinstance(earlier, Affine) for earlier in self.chain.steps[:index])
        if not (self.tight or (affine_only and self.region.radius is not None)) or index == 0:
            return
        low, high = self.low[index], self.high[index]
        if not isinstance(self.chain.steps[index - 1], Affine) and isinstance(step, MaxPool):
            return
        flat_low, flat_high = low.flatten(1), high.flatten(1)
        open_ = (flat_low < 0) & (flat_high > 0) if isinstance(step, Rectifier) else flat_low < flat_high
        if not self.tight:
            open_ = flat_low < flat_high
        owner, neuron = open_.nonzero(as_tuple=True)
        width = max(1, ELEMENTS_AT_ONCE // max(math.prod(shape) for shape in self.chain.shapes))
        flat_low, flat_high = flat_low.clone(), flat_high.clone()
        for at, unit in zip(owner.split(width), neuron.split(width), strict=True):
            rows = flat_low.new_zeros(len(at), flat_low.shape[1])
            rows.scatter_(1, unit[:, None], 1.0)
            rows = rows.reshape(-1, *low.shape[1:])
            flat_low[at, unit] = flat_low[at, unit].maximum(self._pulled(rows, at, index))
            flat_high[at, unit] = flat_high[at, unit].minimum(-self._pulled(-rows, at, index))
        self.low[index], self.high[index] = flat_low.reshape(low.shape), flat_high.reshape(high.shape)


def _through_rectifier(rows: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Rows on max(x, 0) as rows on x and a constant, from below. The lower line has slope 1 where high > -low, else 0."""
    open_ = (low < 0) & (high > 0)
    active = (low >= 0).double()
    slope = (high / (high - low).where(open_, high * 0 + 1)).where(open_, active)
    under = (high > -low).double().where(open_, active)
    falling = rows.clamp_max(0)
    constant = (falling * (-slope * low).where(open_, low * 0)).flatten(1).sum(1)
    return rows.clamp_min(0) * under + falling * slope, constant


def _through_pool(step: MaxPool, rows: Array, low: Array, high: Array, owner: Array) -> tuple[Array, Array]:
    """Rows on window maxima as rows on the inputs and a constant, from below.

    A maximum is at least the input with the largest lower bound, and equal to it where no other input of the window can
    exceed that bound; else it is at most the largest upper bound.
    """
    best, place = step.pool(low)
    flat_high = high.flatten(2)
    top = step.pool(high)[0]
    decided = best > -math.inf
    for window in step.windows(*low.shape[2:]).to(low.device):
        rival = flat_high[:, :, window.clamp_min(0).flatten()].reshape(place.shape)
        decided = decided & ((rival <= best) | (window == place) | (window < 0))
    falling = rows.clamp_max(0)
    fixed = decided[owner]
    kept = rows.clamp_min(0) + falling * fixed
    constant = (falling * ~fixed * top[owner]).flatten(1).sum(1)
    spread = rows.new_zeros(len(rows), *flat_high.shape[1:])
    spread.scatter_add_(2, place[owner].flatten(2), kept.flatten(2))
    return spread.reshape(len(rows), *low.shape[1:]), constant


def _down(value: Array, size: Array) -> Array:
    """A bound, moved outwards by the rounding of numbers of that size."""
    return value - OUTWARD * size


def _require_same(network: Any, steps: Chain, given: Array, x: Array) -> None:
    """Return if the network answers as its layers say, on the first samples.

    Raises:
        InvalidModel: it does not, for instance because of a hook.
    """
    import torch

    module = network.module if isinstance(network, TorchModel) else network
    weights = next((value.dtype for value in module.parameters() if value.is_floating_point()), given.dtype)
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        with torch.no_grad():
            answer = module(given[:8].to(steps.device, weights)).double()
    finally:
        for part in training:
            part.training = True
    ours = steps.run(x[:8].to(weights).double())
    last = next(reversed(list(module.modules())))
    if isinstance(last, (torch.nn.Softmax, torch.nn.LogSoftmax)):
        ours, answer = ours.log_softmax(1), answer if isinstance(last, torch.nn.LogSoftmax) else answer.log()
        ours, answer = ours.clamp_min(-10), answer.clamp_min(-10)
    scale = ours.abs().amax().clamp_min(1) if len(ours) else 1.0
    if answer.shape != ours.shape or not bool(((answer - ours).abs() <= 1e4 * steps.unit * scale).all()):
        raise InvalidModel(
            "the network does not answer as its layers say", hint="Remove hooks and reparametrisations, or certify by smoothing."
        )
