"""A sequential torch network as a chain of steps that bounds can be passed through, forwards and backwards.

Every step knows its value, how far deviations of its input can spread, how linear functions of its output read as linear
functions of its input, and how much the user's own arithmetic can be off. Weights are copied to float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from holdfast.core.arrays import Array
from holdfast.core.errors import InvalidModel, MissingExtra
from holdfast.models.torch import TorchModel

KNOWN = "Conv2d, Linear, ReLU, BatchNorm1d, BatchNorm2d, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Flatten, Dropout and Identity"
TF32_UNIT = 2.0**-11
"""Unit roundoff of the TF32 arithmetic that CUDA devices may use for convolutions."""


@dataclass(frozen=True, kw_only=True)
class Affine:
    """y = W x + b.

    Attributes:
        run: from (n, *in) to (n, *out).
        widen: |W| r for non-negative r.
        back: from (m, *out) rows a to (m, *in) rows a W.
        offset: (1, *out), b.
        magnitude: (1, *out), the sizes of all constants that are added on the way to b; they are rounded too.
        terms: roundings between an input and an output, at most.
    """

    run: Callable[[Array], Array]
    widen: Callable[[Array], Array]
    back: Callable[[Array], Array]
    offset: Array
    magnitude: Array
    terms: int


@dataclass(frozen=True)
class Rectifier:
    """y = max(x, 0)."""


@dataclass(frozen=True)
class MaxPool:
    """The largest input of each window.

    Attributes:
        pool: from (n, c, h, w) to the maxima and the place in the plane that each came from.
        windows: from (height, width) to (places in a window, *out), the place in the plane; -1 where it is padding.
    """

    pool: Callable[[Array], tuple[Array, Array]]
    windows: Callable[[int, int], Array]


Step = Affine | Rectifier | MaxPool


@dataclass(frozen=True)
class Chain:
    """A network as steps.

    Attributes:
        steps: in order.
        shapes: of one sample before each step, and after the last.
        unit: unit roundoff of the user's own arithmetic.
        device: where the weights are.
    """

    steps: tuple[Step, ...]
    shapes: tuple[tuple[int, ...], ...]
    unit: float
    device: Any

    @property
    def classes(self) -> int:
        """The number of logits; 1 for a network that gives a single one for the second of two classes."""
        return self.shapes[-1][0]

    def run(self, x: Array) -> Array:
        """The logits in float64."""
        for step in self.steps:
            x = value(step, x)
        return x


def value(step: Step, x: Array) -> Array:
    """What a step makes of (n, *in) inputs."""
    if isinstance(step, Rectifier):
        return x.clamp_min(0)
    return step.pool(x)[0] if isinstance(step, MaxPool) else step.run(x)


def chain(network: Any, shape: tuple[int, ...]) -> Chain:
    """Read a network.

    Args:
        network: a `torch.nn.Sequential`, nested or not, of known layers, or a `TorchModel` of one. It is read as in evaluation
            mode, whatever mode it is in, and left as it is. A softmax at its end is left out: it keeps the order.
        shape: of one sample.

    Raises:
        InvalidModel: a layer is of another kind, or the network does not end in one row of logits.
        MissingExtra: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", "torch", "certification of networks") from error
    module = network.module if isinstance(network, TorchModel) else network
    layers = list(_flattened(module, type(module).__name__))
    while layers and type(layers[-1][1]) in (torch.nn.Softmax, torch.nn.LogSoftmax):
        if layers[-1][1].dim not in (1, -1):
            raise InvalidModel(f"layer {layers[-1][0]} is a softmax over axis {layers[-1][1].dim}, not over the classes")
        layers.pop()
    weights = [value for value in module.parameters() if value.is_floating_point()]
    device = weights[0].device if weights else torch.device("cpu")
    unit = float(torch.finfo(weights[0].dtype if weights else torch.float32).eps) / 2
    if device.type == "cuda" and unit < TF32_UNIT and weights[0].dtype == torch.float32:
        unit = TF32_UNIT
    steps: list[Step] = []
    shapes = [tuple(shape)]
    zeros = torch.zeros((1, *shape), dtype=torch.float64, device=device)
    for name, layer in layers:
        try:
            step = _step(layer, zeros)
            if step is None:
                continue
            zeros = (
                zeros if isinstance(step, Rectifier) else (step.pool(zeros)[0] if isinstance(step, MaxPool) else step.run(zeros))
            )
        except (RuntimeError, IndexError, ValueError) as error:
            raise InvalidModel(f"does not take inputs of shape {shapes[-1]}", where=f"layer {name}") from error
        zeros = torch.zeros_like(zeros)
        steps.append(step)
        shapes.append(tuple(zeros.shape[1:]))
    if len(shapes[-1]) != 1 or not steps:
        raise InvalidModel(f"ends in outputs of shape {shapes[-1]}; one row of logits is needed", where=type(module).__name__)
    return Chain(tuple(steps), tuple(shapes), unit, device)


def _flattened(module: Any, name: str) -> list[tuple[str, Any]]:
    import torch

    if type(module) is torch.nn.Sequential:
        return [pair for child, part in module.named_children() for pair in _flattened(part, f"{name}.{child}")]
    return [(f"{name} ({type(module).__name__})", module)]


def _step(layer: Any, zeros: Array) -> Step | None:
    """The step of a layer, None where it changes nothing; subclasses may do anything, so their parents say nothing."""
    from torch import nn

    kind = type(layer)
    if kind in (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout):
        return None
    if kind is nn.ReLU:
        return Rectifier()
    if kind is nn.MaxPool2d:
        return _max_pool(layer)
    makers: dict[Any, Callable[[Any, Array], Affine]] = {
        nn.Linear: _linear,
        nn.Conv2d: _convolution,
        nn.BatchNorm1d: _normalisation,
        nn.BatchNorm2d: _normalisation,
        nn.AvgPool2d: _average,
        nn.AdaptiveAvgPool2d: _average,
        nn.Flatten: _reshape,
    }
    if kind not in makers:
        raise InvalidModel(f"no bounds are known for a layer of type {kind.__name__}", hint=f"Known layers: {KNOWN}.")
    return makers[kind](layer, zeros)


def _linear(layer: Any, zeros: Array) -> Affine:
    if zeros.ndim != 2:
        raise InvalidModel(f"a Linear layer meets inputs of shape {tuple(zeros.shape[1:])}", hint="Put a Flatten before it.")
    weight = layer.weight.detach().double()
    bias = weight[:, 0] * 0 if layer.bias is None else layer.bias.detach().double()
    return Affine(
        run=lambda x: x @ weight.T + bias,
        widen=lambda r: r @ weight.abs().T,
        back=lambda a: a @ weight,
        offset=bias[None],
        magnitude=bias.abs()[None],
        terms=weight.shape[1] + 1,
    )


def _convolution(layer: Any, zeros: Array) -> Affine:
    import torch
    from torch.nn import functional

    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise InvalidModel("convolutions are known with zero padding in numbers only", hint="Write padding as a number.")
    weight = layer.weight.detach().double()
    bias = None if layer.bias is None else layer.bias.detach().double()
    sizes = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "groups": layer.groups}
    offset = functional.conv2d(zeros, weight, bias, **sizes)
    shape = tuple(zeros.shape[1:])

    def back(a: Array) -> Array:
        return torch.ops.aten.convolution_backward(
            a,
            zeros.expand(len(a), *shape),
            weight,
            None,
            layer.stride,
            layer.padding,
            layer.dilation,
            False,
            [0, 0],
            layer.groups,
            [True, False, False],
        )[0]

    return Affine(
        run=lambda x: functional.conv2d(x, weight, bias, **sizes),
        widen=lambda r: functional.conv2d(r, weight.abs(), None, **sizes),
        back=back,
        offset=offset,
        magnitude=offset.abs(),
        terms=weight[0].numel() + 1,
    )


def _normalisation(layer: Any, zeros: Array) -> Affine:
    import torch

    if layer.running_mean is None or layer.running_var is None:
        raise InvalidModel("a BatchNorm layer without running statistics answers by the batch, so nothing can be certified")
    if zeros.shape[1] != layer.num_features:
        raise ValueError("channels")
    scale = 1 / torch.sqrt(layer.running_var.detach().double() + layer.eps)
    mean, shift = layer.running_mean.detach().double(), torch.zeros_like(scale)
    if layer.affine:
        scale, shift = scale * layer.weight.detach().double(), layer.bias.detach().double()
    spread = (1, -1, *[1] * (zeros.ndim - 2))
    scale, mean, shift = (value.reshape(spread) for value in (scale, mean, shift))
    size = scale.abs()
    return Affine(
        run=lambda x: (x - mean) * scale + shift,
        widen=lambda r: r * size,
        back=lambda a: a * scale,
        offset=(shift - mean * scale).expand_as(zeros),
        magnitude=(shift.abs() + mean.abs() * size).expand_as(zeros),
        terms=8,
    )


def _average(layer: Any, zeros: Array) -> Affine:
    import torch

    def back(a: Array) -> Array:
        x = zeros.expand(len(a), *zeros.shape[1:]).clone().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(layer.forward(x), x, a)
        return gradient

    nothing = torch.zeros_like(layer.forward(zeros))
    terms = zeros[0, 0].numel() + 1
    return Affine(run=layer.forward, widen=layer.forward, back=back, offset=nothing, magnitude=nothing, terms=terms)


def _reshape(layer: Any, zeros: Array) -> Affine:
    import torch

    if layer.start_dim != 1 or layer.end_dim not in (-1, zeros.ndim - 1):
        raise InvalidModel("a Flatten layer must keep the samples and nothing else")
    nothing = torch.zeros_like(zeros.flatten(1))

    def flat(x: Array) -> Array:
        return x.flatten(1)

    return Affine(
        run=flat, widen=flat, back=lambda a: a.reshape(-1, *zeros.shape[1:]), offset=nothing, magnitude=nothing, terms=0
    )


def _max_pool(layer: Any) -> MaxPool:
    import torch
    from torch.nn import functional

    if layer.ceil_mode:
        raise InvalidModel("a MaxPool2d layer with ceil_mode has no known bounds")
    sizes = {key: getattr(layer, key) for key in ("kernel_size", "stride", "padding", "dilation")}

    def pool(x: Array) -> tuple[Array, Array]:
        found: tuple[Array, Array] = functional.max_pool2d(x, return_indices=True, **sizes)
        return found

    def windows(height: int, width: int) -> Array:
        places = torch.arange(1, height * width + 1, dtype=torch.float64).reshape(1, 1, height, width)
        seen = functional.unfold(places, **sizes)[0].long() - 1
        return seen.reshape(-1, *pool(places)[0].shape[2:])

    return MaxPool(pool, windows)
