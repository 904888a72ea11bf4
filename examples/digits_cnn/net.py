"""The network. Holdfast runs this file only if its digest is trusted, because a PyTorch state dict needs code around it."""

from torch import nn


def build() -> nn.Module:
    """Untrained; takes (n, 1, 8, 8) images in [0, 1] and gives 10 logits."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
