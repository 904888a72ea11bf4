"""Train the network on half of scikit-learn's digits and write what an assessment needs."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from examples.digits_cnn.net import build

HERE = Path(__file__).parent
EPOCHS = 25


def write(folder: Path) -> None:
    """Write `train.npz`, `holdout.npz`, `model.pt`, the network's code with its digest, and the system file."""
    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    order = np.random.default_rng(0).permutation(len(images))
    inside, outside = order[: len(order) // 2], order[len(order) // 2 :]
    np.savez(folder / "train.npz", x=images[inside], y=digits.target[inside])
    np.savez(folder / "holdout.npz", x=images[outside], y=digits.target[outside])
    torch.save(fit(images[inside], digits.target[inside]).state_dict(), folder / "model.pt")
    shutil.copy(HERE / "net.py", folder)
    shutil.copy(HERE / "holdfast.yaml", folder)
    (folder / "net.sha256").write_text(hashlib.sha256((folder / "net.py").read_bytes()).hexdigest() + "\n")


def fit(x: np.ndarray, y: np.ndarray, seed: int = 0) -> torch.nn.Module:
    """Adam for a few seconds on one core."""
    torch.manual_seed(seed)
    network = build()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    return network.eval()
