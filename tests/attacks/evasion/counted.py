"""Models for the evasion tests, with counters that stand outside the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from holdfast.core.oracle import Access


class Counted:
    """A torch function of scores as a predictor; remembers every row it answered."""

    def __init__(self, score: Callable[[torch.Tensor], torch.Tensor], access: Access = Access.GRADIENTS) -> None:
        self.score, self.access = score, access
        self.seen: list[np.ndarray] = []

    @property
    def rows(self) -> np.ndarray:
        return np.concatenate(self.seen)

    def scores(self, x: Any) -> Any:
        self.seen.append(np.array(x))
        with torch.no_grad():
            answer = self.score(torch.as_tensor(x))
        return answer if isinstance(x, torch.Tensor) else answer.numpy()

    def labels(self, x: Any) -> np.ndarray:
        return np.asarray(self.scores(x)).argmax(axis=1)

    def value_and_gradient(self, x: Any, loss: Callable[[Any], Any]) -> tuple[Any, Any]:
        self.seen.append(x.detach().numpy().copy())
        x = x.detach().requires_grad_(True)
        value = loss(self.score(x))
        (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient


class Linear(Counted):
    """k classes by k linear scores, times a factor."""

    def __init__(self, weights: np.ndarray, offsets: np.ndarray, factor: float = 1.0, **more: Any) -> None:
        self.weights, self.offsets = weights, offsets
        super().__init__(
            lambda x: factor * (x @ torch.as_tensor(weights.T, dtype=x.dtype) + torch.as_tensor(offsets, dtype=x.dtype)), **more
        )

    def distances(self, x: np.ndarray, norm: str) -> np.ndarray:
        """(n,) to the nearest decision boundary, in closed form."""
        scores = x @ self.weights.T + self.offsets
        label = scores.argmax(axis=1)
        found = []
        for row, true in zip(scores, label, strict=True):
            others = [other for other in range(len(self.offsets)) if other != true]
            slopes = self.weights[true] - self.weights[others]
            sizes = np.abs(slopes).sum(axis=1) if norm == "linf" else np.linalg.norm(slopes, axis=1)
            found.append(((row[true] - row[others]) / sizes).min())
        return np.array(found)


def linear(classes: int, features: int, samples: int, seed: int = 0, **more: Any) -> tuple[Linear, np.ndarray, np.ndarray]:
    """A random linear model with inputs and its labels of them."""
    generator = np.random.default_rng(seed)
    model = Linear(generator.normal(size=(classes, features)), generator.normal(size=classes) * 0.1, **more)
    x = generator.uniform(-1, 1, size=(samples, features))
    return model, x, (x @ model.weights.T + model.offsets).argmax(axis=1)


def digits_network(rows: int = 40) -> tuple[torch.nn.Module, torch.Tensor, np.ndarray]:
    """A small convolutional network trained on digits, with rows it was not trained on."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = torch.tensor(bunch.images[order] / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(bunch.target[order])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Dropout(0.1),
            torch.nn.Linear(128, 10),
        )
        optimiser = torch.optim.Adam(network.parameters(), 0.01)
        for _ in range(8):
            for batch in torch.randperm(1200).split(64):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
                optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return network.eval(), images[1200 : 1200 + rows], labels[1200 : 1200 + rows].numpy()
