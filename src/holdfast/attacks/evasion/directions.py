"""Where attacks by gradients step: the steepest direction of each norm, and the nearest point of a ball for each sample.

Torch tensors of shape (n, ...), one step length or radius a sample. Under linf a step goes along the signs, under l2 along the
gradient; under l1 along the signs of the largest components that the box still lets move, which is where a step of that length
gains most; under l0 it exchanges features: the most promising go to their bound, and the least worth among those changed go back.

Source: Croce and Hein (2021), "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", section 3, for l1;
Duchi et al. (2008), "Efficient projections onto the l1-ball for learning in high dimensions", figure 1, for its projection.
"""

from __future__ import annotations

import math

from holdfast.core.arrays import Array
from holdfast.core.domain import Domain, Norm
from holdfast.core.errors import ConfigurationError, InvalidData, MissingExtra

WIDE = 1e3
"""A change that leaves any box that means something, in units of the largest feature and one."""


def require_torch(x: Array) -> None:
    """Return if x is a torch tensor.

    Raises:
        MissingExtra: torch is not installed.
        InvalidData: x is another kind of array.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", "torch", "evasion by gradients") from error
    if not isinstance(x, torch.Tensor):
        raise InvalidData("evasion by gradients works on torch tensors", hint="Convert the inputs with torch.as_tensor.")


def require_radius(domain: Domain, attack: str) -> None:
    """Return if the domain says how far to go.

    Raises:
        ConfigurationError: it does not.
    """
    if not math.isfinite(domain.radius):
        raise ConfigurationError(f"{attack} searches within a radius", hint="Declare domain.radius.")


def column(values: Array, like: Array) -> Array:
    """(n,) numbers as a tensor that multiplies one sample of `like` each."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def sizes(change: Array, norm: Norm) -> Array:
    """(n,) the norms."""
    flat = change.flatten(1)
    if norm == "l0":
        return (flat != 0).sum(dim=1).to(change.dtype)
    return flat.norm(p={"linf": math.inf, "l2": 2, "l1": 1}[norm], dim=1)


def dual(norm: Norm) -> Norm:
    """The norm of a gradient whose quotient is a distance in `norm`; for l0, the largest gain of one feature."""
    duals: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf", "l0": "linf"}
    return duals[norm]


def step(domain: Domain, x: Array, now: Array, gradient: Array, size: Array, share: Array | None = None) -> Array:
    """A step up from `now`, not yet projected.

    Args:
        domain: its norm decides the direction, its box which features can still move under l1 and l0.
        x: the originals.
        gradient: of what is to rise.
        size: (n,) the step's length in the domain's norm; under l0, how many features may be set anew.
        share: (n,) under l1, the share of the features that a step moves.
    """
    if domain.norm == "linf":
        return now + column(size, x) * gradient.sign()
    if domain.norm == "l2":
        return now + column(size / sizes(gradient, "l2").clamp_min(1e-30), x) * gradient
    if domain.norm == "l1":
        return _sparse_step(domain, x, now, gradient, size, share)
    return _exchange(domain, x, now, gradient, size)


def _sparse_step(domain: Domain, x: Array, now: Array, gradient: Array, size: Array, share: Array | None) -> Array:
    signs = gradient.sign()
    free = domain.repair(x, now + column(size, x) * signs) != now
    features = gradient[0].numel()
    count = (share * features).round() if share is not None else 0.01 * features * size.new_ones(len(x))
    chosen = largest((gradient.abs() * free).flatten(1), count.clamp_min(1)).reshape(x.shape)
    moves = signs * chosen
    return now + column(size / sizes(moves, "l1").clamp_min(1), x) * moves


def _exchange(domain: Domain, x: Array, now: Array, gradient: Array, size: Array) -> Array:
    bound = domain.repair(x, now + WIDE * (1 + column(sizes(x, "linf"), x)) * gradient.sign())
    gain = gradient * (bound - now)
    budget = size.new_full((len(x),), math.floor(domain.radius))
    moved = bound.where(largest(gain.flatten(1), size.ceil().clamp_min(1).minimum(budget)).reshape(x.shape), now)
    changed = moved != x
    worth = (gradient * (moved - x)).masked_fill(~changed, -math.inf).flatten(1)
    rank = worth.argsort(dim=1, descending=True).argsort(dim=1).reshape(x.shape)
    return moved.where(changed & (rank < column(budget, x)), x)


def largest(values: Array, count: Array) -> Array:
    """Where the `count` largest positive values of each row are; equals of the last one come along."""
    ordered = values.sort(dim=1, descending=True).values
    place = (count.long() - 1).clamp(0, values.shape[1] - 1)
    return (values >= ordered.gather(1, place[:, None])) & (values > 0) & (count > 0)[:, None]


def span(domain: Domain, x: Array) -> Array:
    """(n,) the most that the box lets any feature of a sample vary; without a box, twice the largest feature and one."""
    reach = 1 + sizes(x, "linf")
    far = column(WIDE * reach, x)
    wide = sizes(domain.repair(x, x + far) - domain.repair(x, x - far), "linf")
    return wide.where(wide < WIDE * reach, 2 * reach)


def into_ball(change: Array, radius: Array, norm: Norm) -> Array:
    """The nearest change of at most that norm, one radius a sample; under l0 the largest `floor(radius)` features stay."""
    if norm == "linf":
        limit = column(radius, change)
        return change.clamp(-limit, limit)
    if norm == "l2":
        return change * column((radius / sizes(change, "l2").clamp_min(1e-30)).clamp_max(1), change)
    flat = change.flatten(1)
    if norm == "l0":
        rank = flat.abs().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        return flat.where(rank < radius.floor()[:, None], flat.new_zeros(())).reshape(change.shape)
    return _into_l1(flat, radius).reshape(change.shape)


def _into_l1(flat: Array, radius: Array) -> Array:
    import torch

    ordered = flat.abs().sort(dim=1, descending=True).values
    excess = ordered.cumsum(dim=1) - radius[:, None]
    index = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype)
    count = (ordered * index > excess).sum(dim=1).clamp_min(1)
    threshold = (excess.gather(1, count[:, None] - 1)[:, 0] / count).clamp_min(0)
    return flat.sign() * (flat.abs() - threshold[:, None]).clamp_min(0)
