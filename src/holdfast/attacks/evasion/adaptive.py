"""What an attacker who knows the defence does about gradients that are random, wrong or not there: models around the model.

- `EOT` asks a randomised model several times and goes by the average answer and the average gradient.
- `BPDA` takes gradients through a step that has none by those of a differentiable step that stands for it.
- `Twin` takes the whole gradient from another model, such as the one without the defence, or one trained on the answers.

Each is a `Predictor`, so that every attack takes it. Answers always come from the true model; only gradients are replaced. The
loss of an attack may be called more than once for one question: its last call has the answers that decide.

Source: Athalye, Carlini and Wagner (2018), "Obfuscated gradients give a false sense of security", sections 4.1 and 4.2; Athalye,
Engstrom, Ilyas and Kwok (2018), "Synthesizing robust adversarial examples", section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.core.arrays import Array, as_like, as_numpy
from holdfast.core.errors import AccessDenied, ConfigurationError, InvalidModel
from holdfast.core.oracle import Access, Predictor


class EOT:
    """A randomised model as its average over several calls.

    Its label is the one given most often, so that no single lucky draw counts; among equals, the smallest.

    Args:
        model: answers with fresh randomness in each call.
        draws: calls for each question. An oracle charges each row as often.

    Attributes:
        price: what one answer costs, in queries.
    """

    def __init__(self, model: Predictor, draws: int = 20) -> None:
        if draws < 1:
            raise ConfigurationError(f"an average over {draws} draws")
        self._model, self.price = model, draws

    @property
    def access(self) -> Access:
        """As the model's."""
        return self._model.access

    def labels(self, x: Any) -> NDArray[np.int64]:
        """(n,) the most frequent class indices."""
        votes = np.stack([np.asarray(self._model.labels(x), dtype=np.int64) for _ in range(self.price)])
        counts = np.stack([(votes == label).sum(axis=0) for label in range(int(votes.max(initial=0)) + 1)])
        return np.asarray(counts.argmax(axis=0), dtype=np.int64)

    def scores(self, x: Any) -> Array:
        """(n, k) log-probabilities of the average answer."""
        return _log_mean([self._model.scores(x) for _ in range(self.price)])

    def value_and_gradient(self, x: Any, loss: Callable[[Array], Array]) -> tuple[Array, Array]:
        """The averages of the loss (n,) and of its gradient, over the draws."""
        seen: list[Array] = []

        def spied(logits: Array) -> Array:
            seen.append(logits.detach())
            return loss(logits)

        value, gradient = self._model.value_and_gradient(x, spied)
        for _ in range(self.price - 1):
            more, slope = self._model.value_and_gradient(x, spied)
            value, gradient = value + more, gradient + slope
        loss(_log_mean(seen))
        return value / self.price, gradient / self.price


class BPDA:
    """A model behind a step without a useful gradient, such as rounding, a median or a decoder.

    Args:
        model: takes what the step gives, and has gradients.
        forward: the true step, from the attack's arrays (n, ...) to the model's inputs.
        backward: a differentiable stand-in, from torch tensors to torch tensors of the step's shape; its gradient at the true
            input is used. None passes gradients straight through.
    """

    def __init__(
        self, model: Predictor, forward: Callable[[Array], Any], backward: Callable[[Array], Array] | None = None
    ) -> None:
        self._model, self._forward, self._backward = model, forward, backward

    @property
    def access(self) -> Access:
        """As the model's."""
        return self._model.access

    def labels(self, x: Any) -> NDArray[np.int64]:
        """(n,) class indices behind the true step."""
        return self._model.labels(self._forward(x))

    def scores(self, x: Any) -> Array:
        """(n, k) scores behind the true step."""
        return self._model.scores(self._forward(x))

    def value_and_gradient(self, x: Any, loss: Callable[[Array], Array]) -> tuple[Array, Array]:
        """The loss (n,) behind the true step, and its gradient through the stand-in, in x's shape.

        Raises:
            InvalidModel: step and stand-in give different shapes.
        """
        import torch

        with torch.no_grad():
            entered = self._forward(x.detach())
        value, gradient = self._model.value_and_gradient(entered, loss)
        if self._backward is None:
            if gradient.shape != x.shape:
                shapes = f"{tuple(x.shape)} into {tuple(gradient.shape)}"
                raise InvalidModel(f"the step turns shape {shapes}", hint="Give a differentiable stand-in of it.")
            return value, gradient.to(x.dtype)
        leaf = x.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            stood = self._backward(leaf)
        if stood.shape != gradient.shape:
            raise InvalidModel(f"the stand-in gives shape {tuple(stood.shape)}, the step {tuple(gradient.shape)}")
        (through,) = torch.autograd.grad(stood, leaf, grad_outputs=gradient.to(stood.dtype), allow_unused=True)
        return value, torch.zeros_like(x) if through is None else through.detach()


class Twin:
    """The answers of one model with the gradients of another.

    Args:
        model: what is attacked; labels suffice.
        twin: takes the same inputs, has as many classes, and gives gradients.
    """

    access = Access.GRADIENTS

    def __init__(self, model: Predictor, twin: Predictor) -> None:
        if twin.access < Access.GRADIENTS:
            raise AccessDenied("the twin gives no gradients")
        self._model, self._twin = model, twin
        self.price = getattr(model, "price", 1)

    def labels(self, x: Any) -> NDArray[np.int64]:
        """(n,) class indices of the true model."""
        return self._model.labels(x)

    def scores(self, x: Any) -> Array:
        """(n, k) scores of the true model; where it gives labels only, 1 for the label and 0 else."""
        if self._model.access >= Access.SCORES:
            return self._model.scores(x)
        return self._one_hot(x, self._twin.scores(x).shape[1])

    def value_and_gradient(self, x: Any, loss: Callable[[Array], Array]) -> tuple[Array, Array]:
        """The true model's loss (n,), or where it gives labels only the twin's, and the gradient of the twin's loss."""
        import torch

        classes: list[int] = []

        def spied(logits: Array) -> Array:
            classes.append(logits.shape[1])
            return loss(logits)

        value, gradient = self._twin.value_and_gradient(x, spied)
        if self._model.access < Access.SCORES:
            loss(self._one_hot(x, classes[-1]))
            return value, gradient
        true = torch.as_tensor(self._model.scores(x)).to(device=x.device, dtype=x.dtype)
        return loss(true), gradient

    def _one_hot(self, x: Any, classes: int) -> Array:
        """(n, classes) the true model's labels, in x's library."""
        return as_like(x, np.eye(classes)[self._model.labels(x)])


def _log_mean(scores: list[Array]) -> Array:
    """(n, k) the logarithm of the average probabilities, in the first one's library."""
    if hasattr(scores[0], "detach"):
        import torch

        each = torch.stack([answer.detach().log_softmax(dim=1) for answer in scores])
        return each.logsumexp(dim=0) - float(np.log(len(scores)))
    plain = np.stack([as_numpy(answer) for answer in scores])
    plain -= np.logaddexp.reduce(plain, axis=2, keepdims=True)
    return as_like(scores[0], np.logaddexp.reduce(plain, axis=0) - np.log(len(scores)))
