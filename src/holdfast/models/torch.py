"""PyTorch: modules built by a factory from a state dict, TorchScript and exported programs.

The user's module is left as it was found: every submodule's training flag, the random state, `param.grad`, the inputs.
A module that draws random numbers in its forward pass draws them from a stream of its own, so that a randomised model
stays random from call to call and the user's stream does not move.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.arrays import Array
from holdfast.core.errors import AccessDenied, HoldfastError, InvalidData, InvalidModel, MissingExtra
from holdfast.core.oracle import Access
from holdfast.models.adapter import asking_about_gaps, described
from holdfast.models.answers import (
    LOG_ZERO,
    Context,
    Output,
    as_answer,
    as_labels,
    as_scores,
    detect_output,
    sorts_words,
    unnamed_classes,
)

ELEMENTS_A_CALL = 1 << 22
"""Input elements passed forward at once, so that a large batch does not need the memory of all its activations."""


class TorchModel:
    """A module, script module or exported program.

    Args:
        module: takes (n, ...) and answers (n, k) logits or probabilities, (n,) or (n, 1) for two classes, or (n,) labels.
        context: `context.sample` decides the form of the answers and whether the module is differentiable.

    Raises:
        InvalidModel: it fails on the sample or answers in another form.
        MissingExtra: torch is not installed.
    """

    framework = "torch"

    def __init__(self, module: Any, context: Context) -> None:
        torch = import_torch()
        self.source = context.source
        self.module = module
        weights = [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
        self._dtype = weights[0].dtype if weights else torch.float32
        self._device = weights[0].device if weights else torch.device("cpu")
        with torch.random.fork_rng(devices=self._random_devices()):
            torch.manual_seed(0)
            self._random = self._random_state()
        with torch.no_grad():
            first = as_answer(self._forward(self._tensor(context.sample)), len(context.sample), self.source)
        with asking_about_gaps(context.sample):
            self._understand(first, context)

    def _understand(self, first: NDArray[Any], context: Context) -> None:
        """The form of the answers, the classes and the access, by the answers to the sample."""
        self.output: Output = context.output or self._detect(first)
        if self.output == "labels":
            self.access = Access.LABELS
            self.classes = context.classes or context.labels
            self.guessed_order = sorts_words(self.classes, None, context)
            self._index = pd.Index(np.arange(len(self.classes)))
            as_labels(first, self._index, self.source)
            return
        scores = as_scores(first, self.output, self.source)
        self.classes = unnamed_classes(scores.shape[1], context)
        self.guessed_order = sorts_words(self.classes, None, context)
        self.access = Access.GRADIENTS if self._differentiable(context.sample, scores) else Access.SCORES

    def labels(self, x: Any) -> NDArray[np.int64]:
        """(n,) class indices.

        Raises:
            InvalidModel: the module failed, or its answer has the wrong form.
            Inconclusive: it answered NaN.
        """
        if not len(x):
            return np.empty(0, dtype=np.int64)
        answer = self._answer(x)
        with asking_about_gaps(x):
            if self.output == "labels":
                return as_labels(answer, self._index, self.source)
            return np.asarray(as_scores(answer, self.output, self.source, len(self.classes)).argmax(axis=1), dtype=np.int64)

    def scores(self, x: Any) -> Array:
        """(n, k) float64 logits or log-probabilities: NumPy for NumPy and tables, a tensor for a tensor.

        Raises:
            AccessDenied: the module gives labels only.
            InvalidModel, Inconclusive: as for `labels`.
        """
        if self.output == "labels":
            raise AccessDenied(f"{self.source} gives labels only")
        answer = self._answer(x) if len(x) else np.empty((0, len(self.classes)))
        with asking_about_gaps(x):
            scores = as_scores(answer, self.output, self.source, len(self.classes)) if len(x) else answer
        if not hasattr(x, "detach"):
            return scores
        torch = import_torch()
        return torch.from_numpy(scores).to(x.device)

    def value_and_gradient(self, x: Any, loss: Callable[[Array], Array]) -> tuple[Array, Array]:
        """The loss (n,) of the logits and its gradient in x's shape and type; tensors, whatever x is.

        Raises:
            AccessDenied: the module is not differentiable.
            InvalidModel: it failed.
        """
        if self.access < Access.GRADIENTS:
            raise AccessDenied(f"{self.source} gives no gradients")
        torch = import_torch()
        leaf = torch.as_tensor(np.asarray(x) if not hasattr(x, "detach") else x).detach().clone()
        leaf = (leaf if leaf.is_floating_point() else leaf.to(self._dtype)).requires_grad_(True)
        with torch.enable_grad():
            value = loss(self._logits(self._forward(leaf.to(device=self._device, dtype=self._dtype)), len(leaf)).to(leaf.device))
            if value.shape != (len(leaf),):
                raise InvalidData(f"the loss gave shape {tuple(value.shape)} for {len(leaf)} rows")
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient.detach()

    def _logits(self, answer: Any, rows: int) -> Any:
        """The differentiable form of `as_scores`."""
        torch = import_torch()
        answer = answer.reshape(rows, -1)
        if self.output == "probabilities":
            floor = max(float(np.exp(LOG_ZERO)), torch.finfo(answer.dtype).tiny)
            answer = torch.cat([1 - answer, answer], dim=1) if answer.shape[1] == 1 else answer
            return answer.clamp_min(floor).log()
        return torch.cat([torch.zeros_like(answer), answer], dim=1) if answer.shape[1] == 1 else answer

    def _detect(self, first: NDArray[Any]) -> Output:
        """The form of the answers; one number a row in [0, 1] may be a logit too, unless a sigmoid made it."""
        output = detect_output(first, self.source)
        parts = [part for part in self.module.modules() if not list(part.children())]
        sigmoid = bool(parts) and getattr(parts[-1], "original_name", type(parts[-1]).__name__) == "Sigmoid"
        if output == "probabilities" and first.size == len(first) and not sigmoid:
            raise InvalidModel(
                "answers one number a row, which may be a probability or a logit",
                where=self.source,
                hint="Say which: model.output: probabilities, or logits.",
            )
        return output

    def _differentiable(self, sample: Any, scores: NDArray[np.float64]) -> bool:
        """Whether a random direction of the answers has a gradient with respect to the inputs that is not all zero."""
        torch = import_torch()
        weights = torch.from_numpy(np.random.default_rng(0).standard_normal(scores.shape))
        leaf = self._tensor(sample).detach().clone().requires_grad_(True)
        with torch.enable_grad():
            answer = self._forward(leaf)
            if not (answer.requires_grad and answer.is_floating_point()):
                return False
            try:
                value = (self._logits(answer, len(leaf)) * weights.to(answer.device, answer.dtype)).sum()
                (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
            except (RuntimeError, NotImplementedError):
                return False
        return gradient is not None and bool(torch.isfinite(gradient).all()) and bool((gradient != 0).any())

    def _answer(self, x: Any) -> NDArray[Any]:
        torch = import_torch()
        tensor = self._tensor(x)
        rows = max(1, ELEMENTS_A_CALL // max(1, tensor[0].numel()))
        with torch.no_grad():
            parts = [as_answer(self._forward(part), len(part), self.source) for part in tensor.split(rows)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _tensor(self, x: Any) -> Any:
        torch = import_torch()
        if isinstance(x, pd.DataFrame):
            text = [str(name) for name in x.columns if not pd.api.types.is_numeric_dtype(x[name])]
            if text:
                raise InvalidData(
                    f"the module takes numbers; column {text[0]!r} has none",
                    where=self.source,
                    hint="Drop the column, encode it in the data, or wrap encoding and module in an entry FILE.py:FUNCTION.",
                )
            x = x.to_numpy(dtype=np.float64)
        if not hasattr(x, "detach"):
            x = torch.from_numpy(np.array(x, copy=True))
        return x.detach().to(device=self._device, dtype=self._dtype)

    def _forward(self, tensor: Any) -> Any:
        with self._evaluating(), self._own_randomness():
            try:
                answer = self.module(tensor)
            except HoldfastError:
                raise
            except Exception as error:
                raise InvalidModel(
                    f"failed on {described(tensor)}: {type(error).__name__}: {_first_lines(error)}",
                    where=self.source,
                    hint="Give the data in the shape that the module takes, such as (n, channels, height, width).",
                ) from error
        if isinstance(answer, Mapping):
            answer = answer.get("logits", next(iter(answer.values()), None))
        elif isinstance(answer, (tuple, list)) and answer:
            answer = answer[0]
        if not hasattr(answer, "detach"):
            raise InvalidModel(f"answered {type(answer).__name__}; a tensor was expected", where=self.source)
        return answer

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode, and afterwards every submodule's own mode again."""
        training = [part for part in self.module.modules() if part.training]
        for part in training:
            part.training = False
        try:
            yield
        finally:
            for part in training:
                part.training = True

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        users = self._random_state()
        self._set_random_state(self._random)
        try:
            yield
        finally:
            self._random = self._random_state()
            self._set_random_state(users)

    def _random_devices(self) -> list[int]:
        return [self._device.index or 0] if self._device.type == "cuda" else []

    def _random_state(self) -> tuple[Any, ...]:
        torch = import_torch()
        return torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in self._random_devices())

    def _set_random_state(self, state: tuple[Any, ...]) -> None:
        torch = import_torch()
        torch.set_rng_state(state[0])
        for index, part in zip(self._random_devices(), state[1:], strict=True):
            torch.cuda.set_rng_state(part, index)


def import_torch() -> Any:
    """The torch package.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", "torch", "A PyTorch model") from error
    return torch


def read_weights(data: bytes, source: str) -> Any:
    """The tensors of a checked torch file, by the restricted unpickler of torch.

    Raises:
        InvalidModel: torch refuses or cannot read it.
    """
    torch = import_torch()
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise InvalidModel(f"torch cannot read it: {_first_lines(error)}", where=source) from error


def module_with_weights(module: Any, weights: Any, source: str) -> Any:
    """The module that the factory built, with the weights of a state dict or of a checkpoint that holds one.

    Raises:
        InvalidModel: the two do not fit, or the file holds no state dict.
    """
    torch = import_torch()
    if not isinstance(module, torch.nn.Module):
        raise InvalidModel(f"the factory returned {type(module).__name__}, not a torch.nn.Module", where=source)
    if isinstance(weights, Mapping):
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(weights.get(key), Mapping):
                weights = weights[key]
                break
    if not isinstance(weights, Mapping) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise InvalidModel(
            "the file holds no state dict", where=source, hint="Save it with torch.save(model.state_dict(), FILE)."
        )
    try:
        module.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise InvalidModel(f"the state dict does not fit the factory's module: {_first_lines(error)}", where=source) from error
    return module.eval()


def read_program(data: bytes, kind: str, source: str) -> Any:
    """A trusted TorchScript (`torchscript`) or exported (`torch-export`) program, as a module.

    Raises:
        InvalidModel: torch cannot read it.
    """
    torch = import_torch()
    try:
        if kind == "torchscript":
            return torch.jit.load(io.BytesIO(data), map_location="cpu")
        return torch.export.load(io.BytesIO(data)).module()
    except Exception as error:
        raise InvalidModel(f"torch cannot read it: {_first_lines(error)}", where=source) from error


def _first_lines(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
