"""A twin of a torch model with the gradients that its arithmetic has, whatever its own backward pass says.

1. Record the basic operations of one forward pass. What a model does to its backward pass (custom gradients, detached parts)
   leaves no trace there.
2. Give operations without a useful derivative, such as rounding and comparing, the derivative of what they approximate.
3. Read the logits where the recording first holds them: the earliest table of one number a class whose largest is the class
   that the model answers. Scaling, rounding and hardening of the scores come later.

The twin only leads an attack; whether an input is misclassified is asked of the model itself. This is BPDA without being told
what to replace.

Source: Athalye, Carlini and Wagner (2018), "Obfuscated gradients give a false sense of security", sections 3 and 4.1;
Bengio, Leonard and Courville (2013), section 4, for the straight-through estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.core.arrays import Array
from holdfast.core.oracle import Access, Predictor

SHARPNESS = 10.0
"""Slope of the sigmoid that stands for a comparison in the backward pass."""
AGREEING = 0.97
"""Share of answers in which a table must agree with a model that always gives the same ones."""
LEEWAY = 0.1
"""How much less than with itself a table may agree with a model that does not."""
CHECKED = 256
"""Rows on which it is checked."""
IDENTITIES = ("round", "floor", "ceil", "trunc", "sign", "sgn", "detach", "alias", "lift_fresh_copy", "heaviside", "fix")
WHOLE = ("floor_divide", "bitwise_and", "bitwise_or", "bitwise_xor", "__and__", "__or__", "bucketize", "searchsorted")
COMPARISONS = {"gt": 1.0, "ge": 1.0, "lt": -1.0, "le": -1.0}
LOOKUPS = ("index", "gather", "embedding", "take", "index_select")


class StraightThrough:
    """The model for an attack: its own labels, the twin's scores and gradients. Made by `straight_through`."""

    access = Access.GRADIENTS

    def __init__(self, model: Predictor, recording: _Recording, place: int) -> None:
        self.model, self._recording, self._place = model, recording, place

    def labels(self, x: Any) -> NDArray[np.int64]:
        """The model's own."""
        return self.model.labels(x)

    def scores(self, x: Any) -> Array:
        """(n, k) the twin's logits."""
        import torch

        with torch.no_grad():
            return self._recording.tables(x)[self._place]

    def value_and_gradient(self, x: Any, loss: Callable[[Array], Array]) -> tuple[Array, Array]:
        """The loss of the twin's logits and its straight-through gradient."""
        import torch

        leaf = x.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            value = loss(self._recording.tables(leaf)[self._place])
            (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
        return value.detach(), torch.zeros_like(x) if gradient is None else gradient.detach()


def straight_through(model: Predictor, x: Array, classes: int) -> StraightThrough | None:
    """The twin of a model, or None where its forward pass cannot be recorded or holds no logits.

    Args:
        model: one with a torch module in `module`, or one that gives gradients of its logits.
        x: (n, ...) torch inputs like those that will be attacked, varied enough to tell the classes apart.
        classes: how many there are.
    """
    import torch

    if model.access < Access.GRADIENTS and not hasattr(model, "module"):
        return None
    rows = x[:CHECKED]
    # A module may do anything while it is recorded, and raise anything; then there is no twin.
    try:
        recording = _Recording(model, rows, classes)
        own, again = model.labels(rows), model.labels(rows)
        with torch.no_grad():
            tables = recording.tables(rows)
    except Exception:
        return None
    steady = float((own == again).mean())
    needed = AGREEING if steady == 1 else steady - LEEWAY
    for place, table in enumerate(tables):
        if float((table.argmax(dim=1).cpu().numpy() == own).mean()) >= needed:
            twin = StraightThrough(model, recording, place)
            return twin if _leads(twin, rows) else None
    return None


def _leads(twin: StraightThrough, x: Array) -> bool:
    """Whether the twin has gradients at all."""
    try:
        _, gradient = twin.value_and_gradient(x, lambda logits: logits[:, 0] - logits[:, -1])
    except (RuntimeError, NotImplementedError):
        return False
    return bool((gradient.isfinite() & (gradient != 0)).any())


class _Recording:
    """Recorded forward passes, one for each padded batch size."""

    def __init__(self, model: Predictor, sample: Array, classes: int) -> None:
        import torch

        self.run, self.sample, self.classes = _forward(model), sample, classes
        self.graphs: dict[int, Any] = {}
        self.devices = [sample.device.index or 0] if sample.device.type == "cuda" else []
        with torch.random.fork_rng(devices=self.devices):
            torch.manual_seed(0)
            self.state = self._random_state()

    def tables(self, x: Array) -> list[Array]:
        """Every (n, classes) table of numbers that the forward pass goes through, in order, with straight-through gradients."""
        count = len(x)
        size = 1 << max(3, (count - 1).bit_length())
        padded = x if count == size else x[np.arange(size) % count]
        with self._own_randomness():
            if size not in self.graphs:
                self.graphs[size] = _recorded(self.run, self.sample[np.arange(size) % len(self.sample)].detach())
            found = _replay(self.graphs[size], padded * 1, size, self.classes)
        return [table[:count] for table in found]

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """What the recording draws comes from a stream of its own, and the user's does not move."""
        import torch

        with torch.random.fork_rng(devices=self.devices):
            torch.set_rng_state(self.state[0])
            for device, state in zip(self.devices, self.state[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
            self.state = self._random_state()

    def _random_state(self) -> list[Array]:
        import torch

        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self.devices)]


def _forward(model: Predictor) -> Callable[[Array], Array]:
    """The model's forward pass as a function of tensors."""
    module = getattr(model, "module", None)
    if module is not None:
        weights = [value for value in (*module.parameters(), *module.buffers()) if value.is_floating_point()]

        def call(x: Array) -> Array:
            with _evaluating(module):
                return module(x.to(weights[0].device, weights[0].dtype) if weights else x)

        return call

    def spied(x: Array) -> Array:
        seen: list[Array] = []

        def loss(logits: Array) -> Array:
            seen.append(logits)
            return logits.sum(dim=1)

        model.value_and_gradient(x, loss)
        return seen[-1]

    return spied


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _recorded(run: Callable[[Array], Array], x: Array) -> Any:
    """The graph of basic operations of one call."""
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    with _plain_one_hot(), torch.enable_grad():
        try:
            graph = make_fx(torch.func.functionalize(run))(x)
        except (RuntimeError, TypeError, NotImplementedError):
            graph = make_fx(run)(x)
    graph.graph.eliminate_dead_code()
    return graph


def _plain_one_hot() -> Any:
    """One-hot coding by comparison, which can be recorded; torch's own looks at the values."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            named = {"num_classes": -1, **(kwargs or {})}
            if func is torch.nn.functional.one_hot:
                count = args[1] if len(args) > 1 else named["num_classes"]
                if count > 0:
                    return (args[0][..., None] == torch.arange(count, device=args[0].device)).long()
            return func(*args, **(kwargs or {}))

    return Mode()


def _replay(graph: Any, x: Array, size: int, classes: int) -> list[Array]:
    """Run a recording with straight-through gradients; returns its tables."""
    import torch

    tables: list[Array] = []
    soft: dict[Any, Array] = {}
    moved: set[Any] = set()

    class Replay(torch.fx.Interpreter):
        def run_node(self, node: Any) -> Any:
            if node.op == "placeholder" or any(each in moved for each in node.all_input_nodes):
                moved.add(node)
            if node.op != "call_function" or not hasattr(node.target, "overloadpacket"):
                return super().run_node(node)
            name = node.target.overloadpacket.__name__
            args, kwargs = self.fetch_args_kwargs_from_env(node)
            listed = node.all_input_nodes if name in LOOKUPS else node.args
            firsts = [each for each in listed if isinstance(each, torch.fx.Node)]
            result = _straight(name, node.target, args, kwargs, [soft.get(each) for each in firsts], firsts, soft, node)
            if node in moved:
                tables.extend(_as_table(result, size, classes))
            return result

    Replay(graph).run(x)
    return tables


def _straight(
    name: str,
    target: Any,
    args: Any,
    kwargs: Any,
    softs: list[Array | None],
    firsts: list[Any],
    soft: dict[Any, Array],
    node: Any,
) -> Any:
    """One operation, with a derivative. `soft` holds, for whole numbers and truth values, the decimal number they stand for."""
    first = args[0] if args else None
    lead = next((value for value in softs if value is not None), None)
    if name in ("bernoulli", "empty", "rand_like", "randn_like", "zeros_like", "ones_like"):
        return target(*args, **kwargs)
    if name in IDENTITIES and _decimal(first):
        if name in ("detach", "alias", "lift_fresh_copy"):
            return first
        return _keeping(target(*args, **kwargs), first)
    if name in ("remainder", "fmod") and _decimal(first):
        return target(*args, **kwargs).detach()
    if name in COMPARISONS and _decimal(first):
        soft[node] = torch_sigmoid(COMPARISONS[name] * SHARPNESS * (first - args[1]))
        return target(*args, **kwargs)
    if name == "_to_copy" and hasattr(first, "dtype"):
        return _cast(target, args, kwargs, first, lead, soft, node)
    if name in WHOLE:
        source = lead if lead is not None else next((value for value in args if _decimal(value)), None)
        result = target(*args, **kwargs)
        if source is not None and source.shape == result.shape:
            soft[node] = source / args[1] if name == "floor_divide" and not hasattr(args[1], "shape") else source
            return _keeping(result, soft[node]) if result.is_floating_point() else result
        return result
    if name == "where" and softs and softs[0] is not None and len(args) == 3 and first is not None:
        share = _keeping(first.to(softs[0].dtype), softs[0])
        return share * args[1] + (1 - share) * args[2]
    if lead is not None:
        return _carried(name, target, args, kwargs, firsts, lead, soft, node)
    return target(*args, **kwargs)


def _cast(target: Any, args: Any, kwargs: Any, first: Array, lead: Array | None, soft: dict[Any, Array], node: Any) -> Any:
    """A change of type; whole numbers remember the decimals they came from, and decimals get them back."""
    result = target(*args, **kwargs)
    if result.is_floating_point():
        return result if lead is None else _keeping(result, lead.to(result.dtype))
    if lead is not None or first.is_floating_point():
        soft[node] = first if lead is None else lead
    return result


def _carried(
    name: str, target: Any, args: Any, kwargs: Any, firsts: list[Any], lead: Array, soft: dict[Any, Array], node: Any
) -> Any:
    """An operation on whole numbers or truth values that stand for decimals."""
    result = target(*args, **kwargs)
    if not hasattr(result, "shape"):
        return result
    if name in LOOKUPS and result.is_floating_point():
        return _keeping(result, lead.to(result.dtype)) if lead.shape == result.shape else result
    try:
        values = {each: _keeping(value.to(lead.dtype), soft[each]) for each, value in _pairs(firsts, args, soft)}
        places = iter(firsts)
        swapped = tuple(values.get(next(places), value) if hasattr(value, "shape") else value for value in args)
        floated = target(*swapped, **kwargs)
    except (RuntimeError, TypeError, StopIteration):
        return result
    if result.is_floating_point():
        return _keeping(result, floated.to(result.dtype))
    soft[node] = floated
    return result


def _pairs(firsts: list[Any], args: Any, soft: dict[Any, Array]) -> list[tuple[Any, Array]]:
    tensors = [value for value in args if hasattr(value, "shape")]
    return [(each, value) for each, value in zip(firsts, tensors, strict=False) if each in soft]


def _keeping(hard: Array, source: Array) -> Array:
    """The value of one and the derivative of the other, where their shapes allow it."""
    return hard.detach() + (source - source.detach()) if hard.shape == source.shape else hard


def _decimal(value: Any) -> bool:
    return hasattr(value, "is_floating_point") and value.is_floating_point()


def torch_sigmoid(value: Array) -> Array:
    """The sigmoid of a tensor."""
    import torch

    return torch.sigmoid(value)


def _as_table(result: Any, size: int, classes: int) -> list[Array]:
    """The result as logits, if it can be some; one number a row is that of the second of two classes."""
    import torch

    if not isinstance(result, torch.Tensor) or not result.is_floating_point():
        return []
    if result.shape == (size, classes):
        return [result]
    if classes == 2 and result.shape in ((size,), (size, 1)):
        single = result.reshape(size, 1)
        return [torch.cat([torch.zeros_like(single), single], dim=1)]
    return []
