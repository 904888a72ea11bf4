"""Models whose gradients or answers mislead an attack, and the network behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from counted import digits_network

from holdfast.models.answers import Context
from holdfast.models.torch import TorchModel

LEVELS = torch.linspace(0, 1, 5)
Mask = Callable[[Any, torch.Tensor], torch.Tensor]


class ZeroBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(gradient)


class RandomBackward(ZeroBackward):
    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return torch.randn_like(gradient)


class BrokenBackward(ZeroBackward):
    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("nan")


def one_hot(scores: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(scores.argmax(1), 10).float()


def batch_shifted(net: Any, x: torch.Tensor) -> torch.Tensor:
    scores = net(x)
    return scores - scores.mean(0) * 0.5


MASKS: dict[str, tuple[Mask, str]] = {
    "logits times 1000": (lambda net, x: 1000 * net(x), "saturated"),
    "five input levels": (lambda net, x: net((x * 4).round() / 4), "steps"),
    "backward zero": (lambda net, x: net(ZeroBackward.apply(x)), "no gradients"),
    "backward random": (lambda net, x: net(RandomBackward.apply(x)), "random gradients"),
    "probabilities in two digits": (lambda net, x: (net(x).softmax(1) * 100).round() / 100, "steps"),
    "labels only, rounded inputs": (lambda net, x: one_hot(net((x * 4).round() / 4)), "steps"),
    "noise": (lambda net, x: net(x + 0.25 * torch.randn_like(x)), "randomised"),
    "backward NaN": (lambda net, x: net(BrokenBackward.apply(x)), "no gradients"),
    "decoy": (lambda net, x: net(x.detach()) + 1e-3 * x.flatten(1)[:, :10], "not those of the scores"),
    "shattered": (lambda net, x: net(x + 0.05 * torch.sin(300 * x)), "shattered"),
    "reversed": (lambda net, x: net(x.detach() * 2 - x), "not those of the scores"),
    "buckets": (lambda net, x: net(LEVELS[(torch.bucketize(x, LEVELS - 0.125) - 1).clamp(0)]), "steps"),
    "bytes": (lambda net, x: net((x * 4 + 0.5).to(torch.uint8).float() / 4), "steps"),
    "thermometer": (lambda net, x: net(torch.stack([(x > at).float() for at in (0.125, 0.375, 0.625, 0.875)]).mean(0)), "steps"),
    "saturated probabilities": (lambda net, x: (1000 * net(x)).softmax(1), "no gradients"),
    "dropout": (lambda net, x: net(torch.nn.functional.dropout(x, 0.2, True)), "randomised"),
    "by the batch": (batch_shifted, "rest of the batch"),
}


class Masked(torch.nn.Module):
    def __init__(self, net: Any, mask: Mask) -> None:
        super().__init__()
        self.net, self.mask = net, mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mask(self.net, x)


def masked(net: Any, mask: Mask, x: torch.Tensor) -> TorchModel:
    rounded = mask is MASKS["probabilities in two digits"][0]
    context = Context(sample=x[:8].numpy(), classes=tuple("0123456789"), fixed=True, output="logits" if rounded else None)
    return TorchModel(Masked(net, mask), context)


def network_and_rows(rows: int) -> tuple[Any, torch.Tensor, np.ndarray]:
    """Only rows that the network gets right."""
    net, x, y = digits_network(rows + 20)
    with torch.no_grad():
        right = (net(x).argmax(1).numpy() == y).nonzero()[0][:rows]
    return net, x[right], y[right]
