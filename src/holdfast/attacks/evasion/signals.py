"""What betrays gradients that lead an attack nowhere: signals, each a number held against a bound.

None of them needs to know the defence. Answers: do identical calls agree, does an answer depend on what else is in the batch.
Gradients: are there any, are they numbers, do two backward passes agree, do they agree with differences of the scores at a short
and at a long distance. Ascent: does the loss rise, and do as many samples fall when the logits are first brought to one scale.

Sources: Athalye, Carlini and Wagner (2018), "Obfuscated gradients give a false sense of security", section 3.1; Carlini et al.
(2019), "On evaluating adversarial robustness", section 5; Pintor et al. (2022), "Indicators of attack failure", section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.attacks.evasion.losses import cross_entropy, margin
from holdfast.core.arrays import Array, as_numpy
from holdfast.core.domain import Domain
from holdfast.core.oracle import Access, Oracle, Predictor
from holdfast.core.seeds import SampleStreams

CALLS = 5
"""Identical calls that must agree."""
ROUNDING = 1e-3
"""Share of the spread of the scores that may differ between calls and batches, from floating-point sums in another order."""
DIRECTIONS = 32
"""Random directions in which gradients and differences are compared."""
NEARBY, AFAR = 1e-3, 0.25
"""Distances of the two comparisons: the first in units of the box, the second of the radius."""
SHORTEST = 1e-4
"""A distance, in units of the box, at which scores that can be climbed differ."""
RESCALED = 0.25
"""Share of the samples by which cross-entropy may do worse than on logits of one scale; honest networks reach 0.15."""
SATURATED = "saturated scores: the scale of the logits decides"
STEPS = 20
"""Steps of the ascents."""


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One observation.

    Attributes:
        name: what was looked at.
        value, bound: it fired where value > bound.
        mechanism: what a fired signal says about the model.
    """

    name: str
    value: float
    bound: float
    mechanism: str

    @property
    def fired(self) -> bool:
        """Whether it speaks against the gradients, or against single answers."""
        return self.value > self.bound


def answer_signals(model: Predictor, x: Array, domain: Domain, streams: SampleStreams) -> tuple[Signal, ...]:
    """Whether answers can be repeated: in identical calls, and in other company.

    They are looked at on the samples and on random points of their domains, where they flip more easily.
    """
    drawn = domain.sample(x, streams.uniform(np.arange(len(x)), tuple(x.shape[1:])))
    rows = _together(x, drawn)
    ask = _answers(model)
    first = ask(rows)
    spread = max(float(np.ptp(first[np.isfinite(first)])) if np.isfinite(first).any() else 0.0, 1e-30)

    def changed(other: NDArray[np.float64]) -> float:
        same = np.isclose(first, other, rtol=0, atol=ROUNDING * spread) | (first == other)
        return float((~same).reshape(len(first), -1).any(axis=1).mean())

    again = max(changed(ask(rows)) for _ in range(CALLS - 1))
    backwards = np.arange(len(rows))[::-1].copy()
    reversed_ = ask(rows[backwards])[backwards]
    parts = np.concatenate([ask(rows[part]) for part in np.array_split(np.arange(len(rows)), max(2, len(rows) // 4))])
    company = 0.0 if again > 0 else max(changed(reversed_), changed(parts))
    return (
        Signal(name="answers that differ between identical calls", value=again, bound=0.0, mechanism="randomised answers"),
        Signal(
            name="answers that depend on the batch",
            value=company,
            bound=0.02,
            mechanism="answers depend on the rest of the batch",
        ),
    )


def gradient_signals(
    model: Predictor, x: Array, y: NDArray[np.int64], domain: Domain, streams: SampleStreams, *, random: bool
) -> tuple[Signal, ...]:
    """What gradients are like at the samples and at random points around them.

    Args:
        x: (n, ...) torch inputs that the model gets right.
        random: answers are random, so that neither repeats nor differences say anything.
    """
    drawn = domain.sample(x, streams.uniform(np.arange(len(x)), tuple(x.shape[1:])))
    rows, labels = _together(x, drawn), np.concatenate([y, y])
    oracle = Oracle(model, Access.GRADIENTS, len(rows))
    value, slope = oracle.value_and_gradient(rows, _of(margin, labels, rows))
    plain = as_numpy(slope).reshape(len(rows), -1)
    bad = ~np.isfinite(plain).all(axis=1) | ~np.isfinite(as_numpy(value))
    none = ~bad & (plain == 0).all(axis=1)
    found = [
        Signal(name="gradients that are no numbers", value=float(bad.mean()), bound=0.02, mechanism="non-finite gradients"),
        Signal(name="gradients of zero", value=float(none.mean()), bound=0.1, mechanism="zero gradients"),
    ]
    flat = as_numpy(oracle.value_and_gradient(rows, _of(cross_entropy, labels, rows))[1]).reshape(len(rows), -1)
    lost = float((~none & ~bad & (flat == 0).all(axis=1)).mean())
    found.append(Signal(name="cross-entropy without a gradient", value=lost, bound=0.1, mechanism=SATURATED))
    if random:
        return tuple(found)
    again = as_numpy(oracle.value_and_gradient(rows, _of(margin, labels, rows))[1]).reshape(len(rows), -1)
    usable = ~bad & ~none & np.isfinite(again).all(axis=1)
    agreement = _cosines(plain, again)
    unsteady = float((agreement[usable] < 0.99).mean()) if usable.any() else 0.0
    found.append(
        Signal(name="backward passes that disagree", value=unsteady, bound=0.02, mechanism="random gradients from equal answers")
    )
    if usable.any() and unsteady <= 0.02:
        found += _difference_signals(model, rows[np.flatnonzero(usable)], labels[usable], plain[usable], domain)
    return tuple(found)


def _difference_signals(
    model: Predictor, x: Array, y: NDArray[np.int64], slope: NDArray[np.float64], domain: Domain
) -> list[Signal]:
    """Gradients against differences of the margin in random directions."""
    random = np.random.Generator(np.random.Philox(0)).standard_normal((DIRECTIONS, slope.shape[1]))
    random /= np.abs(random).max(axis=1, keepdims=True)
    wide = float(np.ptp(as_numpy(x)))
    long = AFAR * domain.radius if domain.norm == "linf" else AFAR * domain.radius / math.sqrt(slope.shape[1])
    predicted = slope @ random.T
    near = _cosines(_differences(model, x, y, random, NEARBY * wide), predicted)
    far = _cosines(_differences(model, x, y, random, long), predicted)
    neither = float(((near < 0.6) & (far < 0.6)).mean())
    return [
        Signal(
            name="gradients unlike differences", value=neither, bound=0.25, mechanism="gradients that are not those of the scores"
        ),
        Signal(
            name="gradients unlike differences across the radius",
            value=float(((near >= 0.6) & (far < 0.4)).mean()),
            bound=0.4,
            mechanism="shattered gradients, true only next to each point",
        ),
    ]


def _differences(
    model: Predictor, x: Array, y: NDArray[np.int64], directions: NDArray[np.float64], size: float
) -> NDArray[np.float64]:
    """(n, m) central differences of the margin, all in one call."""
    import torch

    steps = torch.as_tensor(directions * size, dtype=x.dtype, device=x.device).reshape(1, -1, *x.shape[1:])
    owners = np.repeat(np.arange(len(x)), len(directions))
    ends = []
    for sign in (1.0, -1.0):
        rows = (x[:, None] + sign * steps).flatten(0, 1)
        scores = torch.as_tensor(_answers(model)(rows))
        ends.append(as_numpy(margin(scores, torch.as_tensor(y[owners]), scores)).reshape(len(x), -1))
    return np.asarray(np.nan_to_num(ends[0] - ends[1], nan=0.0, posinf=0.0, neginf=0.0))


def hidden_signals(model: Predictor, x: Array, domain: Domain, streams: SampleStreams) -> tuple[Signal, ...]:
    """What a model that gives no gradients hides: none were there, since answers go in steps, or smooth scores have some."""
    if model.access < Access.SCORES:
        return (Signal(name="no gradients", value=1.0, bound=0.0, mechanism="no gradients and no scores: labels alone"),)
    uniform = streams.uniform(np.arange(len(x)), (4, *x.shape[1:]))
    ask = _answers(model)
    still = np.zeros(len(x))
    for turn in range(0, 4, 2):
        base, other = domain.sample(x, uniform[:, turn]), domain.sample(x, uniform[:, turn + 1])
        longest = float(np.abs(as_numpy(other - base)).max())
        short = min(1.0, SHORTEST * float(np.ptp(as_numpy(x))) / max(longest, 1e-30))
        still += (ask(base + short * (other - base)) == ask(base)).all(axis=1) / 2
    steps = float(still.mean())
    return (
        Signal(name="no gradients", value=1.0, bound=0.0, mechanism="no gradients: they are zero, or cut off"),
        Signal(name="scores that stay equal nearby", value=steps, bound=0.5, mechanism="answers in steps, such as rounding"),
    )


def ascent_signals(model: Predictor, x: Array, y: NDArray[np.int64], domain: Domain) -> tuple[tuple[Signal, ...], float]:
    """Whether following the gradients gets anywhere, and the share that plain PGD by cross-entropy leaves standing."""
    stuck, _ = _climbed(model, x, y, domain, lambda logits, labels: margin(logits, labels, labels))
    _, entropy = _climbed(model, x, y, domain, lambda logits, labels: cross_entropy(logits, labels, labels))
    _, scaled = _climbed(model, x, y, domain, lambda logits, labels: cross_entropy(_one_scale(logits), labels, labels))
    gained = float((entropy & ~scaled).sum() - (scaled & ~entropy).sum()) / len(x)
    return (
        Signal(
            name="losses that do not rise", value=float(stuck.mean()), bound=0.25, mechanism="a loss that gradients do not raise"
        ),
        Signal(
            name="more samples that fall once logits are rescaled",
            value=gained,
            bound=RESCALED,
            mechanism=SATURATED,
        ),
    ), float(entropy.mean())


def _climbed(
    model: Predictor, x: Array, y: NDArray[np.int64], domain: Domain, loss: Callable[[Array, Array], Array]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(n,) where no step raised the loss, and where the model was right after each step."""
    import torch

    labels = torch.as_tensor(y, device=x.device)
    oracle = Oracle(model, Access.GRADIENTS, len(x))
    signed = domain.norm == "linf"
    now, first, best = x, None, torch.full((len(x),), -math.inf)
    standing = np.ones(len(x), dtype=bool)
    for _ in range(STEPS + 1):
        seen: list[Array] = []

        def spied(logits: Array, seen: list[Array] = seen) -> Array:
            seen.append(logits.detach())
            return loss(logits, labels)

        value, gradient = oracle.value_and_gradient(now, spied)
        standing &= as_numpy(seen[-1].argmax(dim=1)) == y
        value, gradient = value.detach().cpu().double().nan_to_num(-math.inf), gradient.nan_to_num(0.0, 0.0, 0.0)
        if first is None:
            first = value
        else:
            best = best.maximum(value)
        length = gradient.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
        direction = gradient.sign() if signed else gradient / length.clamp_min(1e-30)
        now = domain.project(x, now + 2.5 * domain.radius / STEPS * direction)
    assert first is not None
    return np.asarray((best <= first).numpy()), standing


def _one_scale(logits: Array) -> Array:
    """Logits whose largest and smallest differ by 10, so that cross-entropy neither saturates nor goes flat."""
    spread = (logits.amax(dim=1, keepdim=True) - logits.amin(dim=1, keepdim=True)).detach()
    return 10 * logits / spread.clamp_min(1e-30)


def _of(loss: Callable[[Array, Array, Array], Array], y: NDArray[np.int64], like: Array) -> Callable[[Array], Array]:
    import torch

    labels = torch.as_tensor(y, device=like.device)
    return lambda logits: loss(logits, labels, labels)


def _answers(model: Predictor) -> Callable[[Array], NDArray[np.float64]]:
    if model.access >= Access.SCORES:
        return lambda rows: as_numpy(Oracle(model, Access.SCORES, len(rows)).scores(rows))
    return lambda rows: Oracle(model, Access.LABELS, 0).judge(rows).astype(np.float64)


def _together(first: Any, second: Any) -> Any:
    if not hasattr(first, "detach"):
        return np.concatenate([first, second])
    import torch

    return torch.cat([first, second])


def _cosines(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) of rows; 0 where one of them is zero. Scaled first, so that squares neither vanish nor overflow."""
    first, second = (each / np.maximum(np.abs(each).max(axis=1, keepdims=True), 1e-300) for each in (first, second))
    sizes = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(axis=1) / np.where(sizes > 0, sizes, 1.0))
