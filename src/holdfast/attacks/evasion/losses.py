"""What attacks by gradients raise: per-sample losses of the logits, larger where the model is closer to an error or deeper in it.

Source: Croce and Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", equations 6 and 7, for the difference of logits ratio; Carlini and Wagner (2017), "Towards evaluating the robustness
of neural networks", section IV, f6, for the margin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from holdfast.core.arrays import Array

Loss = Literal["ce", "dlr", "targeted", "margin"]
TINY = 1e-12


def cross_entropy(logits: Array, y: Array, _: Array) -> Array:
    """(n,) the negative log-probability of the true class. In float32 its gradient is 0 where the logits lie far apart."""
    import torch

    return torch.nn.functional.cross_entropy(logits, y, reduction="none")


def margin(logits: Array, y: Array, _: Array) -> Array:
    """(n,) the best other logit minus that of the true class; positive where the model errs."""
    import torch

    masked = logits.masked_fill(torch.nn.functional.one_hot(y, logits.shape[1]).bool(), -torch.inf)
    return masked.amax(dim=1) - logits.gather(1, y[:, None])[:, 0]


def difference_of_logits_ratio(logits: Array, y: Array, _: Array) -> Array:
    """(n,) the margin in units of the distance between the first and third logit; the margin itself below three classes."""
    ordered, place = logits.sort(dim=1, descending=True)
    other = ordered[:, 1].where(place[:, 0] == y, ordered[:, 0])
    gap = other - logits.gather(1, y[:, None])[:, 0]
    return gap if logits.shape[1] < 3 else gap / (ordered[:, 0] - ordered[:, 2] + TINY)


def targeted_ratio(logits: Array, y: Array, target: Array) -> Array:
    """(n,) how far the target's logit exceeds the true one's, as a ratio; the plain difference below four classes."""
    ordered = logits.sort(dim=1, descending=True).values
    gap = logits.gather(1, target[:, None])[:, 0] - logits.gather(1, y[:, None])[:, 0]
    return gap if logits.shape[1] < 4 else gap / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + TINY)


LOSSES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "ce": cross_entropy,
    "dlr": difference_of_logits_ratio,
    "targeted": targeted_ratio,
    "margin": margin,
}
"""Each takes (n, k) logits, (n,) true classes and (n,) target classes, which only `targeted` reads."""
