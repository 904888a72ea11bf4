"""Small networks for digits, and masks that make gradients or answers mislead an attack; torch alone, for every environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Mask = Callable[[Any, torch.Tensor], torch.Tensor]
CLASSES = 10


class ZeroBackward(torch.autograd.Function):
    """The identity with a gradient of zero."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(gradient)


class RandomBackward(ZeroBackward):
    """The identity with a random gradient."""

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return torch.randn_like(gradient)


def rounded(x: torch.Tensor) -> torch.Tensor:
    """Five levels."""
    return (x * 4).round() / 4


def labels_alone(net: Any, x: torch.Tensor) -> torch.Tensor:
    """One for the class and zero else, with a path for a gradient of zero."""
    scores = net(rounded(x))
    return torch.nn.functional.one_hot(scores.argmax(1), CLASSES).to(scores) + 0 * scores


MASKS: dict[str, Mask] = {
    "logits x1000": lambda net, x: 1000 * net(x),
    "input rounded to 5 levels": lambda net, x: net(rounded(x)),
    "backward = 0": lambda net, x: net(ZeroBackward.apply(x)),
    "backward = random": lambda net, x: net(RandomBackward.apply(x)),
    "probabilities rounded to 2 digits": lambda net, x: (net(x).softmax(1) * 100).round() / 100,
    "labels alone, input rounded": labels_alone,
    "noise 0.25 at inference": lambda net, x: net(x + 0.25 * torch.randn_like(x)),
    "decoy gradients": lambda net, x: net(x.detach()) + 1e-3 * x.flatten(1)[:, :CLASSES],
}
ROUNDING = ("input rounded to 5 levels", "labels alone, input rounded")
RANDOM = ("noise 0.25 at inference",)
HONEST = ("natural", "adversarially trained", "smooth, in probabilities", "normalised")


class Masked(nn.Module):
    """A network behind a mask."""

    def __init__(self, net: Any, mask: Mask) -> None:
        super().__init__()
        self.net, self.mask = net, mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mask(self.net, x)


def network(kind: str) -> nn.Sequential:
    """An untrained network of one of the honest kinds; masks stand before the natural one."""
    if kind == "smooth, in probabilities":
        parts = [
            nn.Flatten(),
            nn.Linear(64, 100),
            nn.Tanh(),
            nn.Linear(100, 100),
            nn.GELU(),
            nn.Linear(100, CLASSES),
            nn.Softmax(1),
        ]
        return nn.Sequential(*parts)
    if kind == "normalised":
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(128, CLASSES),
        )
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, CLASSES),
    )


def model(name: str, nets: dict[str, Any]) -> nn.Module:
    """The honest network, or the natural one behind the mask."""
    return nets[name] if name in HONEST else Masked(nets["natural"], MASKS[name])
