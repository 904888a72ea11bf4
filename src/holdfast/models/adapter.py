"""What all adapters share: an answer function turned into labels and scores, checked on every call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.arrays import Array
from holdfast.core.errors import AccessDenied, HoldfastError, Inconclusive, InvalidData, InvalidModel
from holdfast.core.oracle import Access
from holdfast.models.answers import (
    Context,
    Output,
    as_answer,
    as_labels,
    as_scores,
    class_name,
    detect_output,
    shown,
    sorts_words,
    unnamed_classes,
)


class Adapter(ABC):
    """A model that answers in NumPy and gives no gradients.

    A subclass implements `answer`. Classes and the form of the answers are found on `context.sample` when they are
    neither known to the subclass nor stated in the system file.

    Args:
        context: what the model is loaded with.
        names: the class names, when the model itself knows them.
        output: the form of the answers, when the model itself knows it.
    """

    framework = "python"
    access: Access
    classes: tuple[str, ...]
    guessed_order: bool

    def __init__(self, context: Context, names: tuple[str, ...] | None = None, output: Output | None = None) -> None:
        self.source = context.source
        first = as_answer(self._ask(context.sample), len(context.sample), self.source)
        with asking_about_gaps(context.sample):
            self.output: Output = output or context.output or detect_output(first, self.source)
        if self.output == "labels":
            self.access = Access.LABELS
            found = context.classes or names or _label_names(first, context)
            self._index = _label_index(first, found)
            self.classes = found
            with asking_about_gaps(context.sample):
                as_labels(first, self._index, self.source)
        else:
            self.access = Access.SCORES
            with asking_about_gaps(context.sample):
                count = as_scores(first, self.output, self.source).shape[1]
            self.classes = names if names and not context.classes else unnamed_classes(count, context)
            if len(self.classes) != count:
                raise InvalidModel(f"answered {count} scores a row; it has {len(self.classes)} classes", where=self.source)
        counts = self.output != "labels" or pd.api.types.is_integer_dtype(self._index.dtype)
        self.guessed_order = counts and sorts_words(self.classes, names, context)
        if len(self.classes) < 2:
            raise InvalidModel(f"has {len(self.classes)} class; a classifier needs two", where=self.source)

    @abstractmethod
    def answer(self, x: Any) -> Any:
        """The model's own answer to (n, ...) inputs."""

    def labels(self, x: Any) -> NDArray[np.int64]:
        """(n,) class indices.

        Raises:
            InvalidModel: the answer has the wrong form.
            Inconclusive: the model answered NaN.
        """
        if self.output == "labels":
            with asking_about_gaps(x):
                return as_labels(as_answer(self._ask(x), len(x), self.source), self._index, self.source)
        return np.asarray(self._scores(x).argmax(axis=1), dtype=np.int64)

    def scores(self, x: Any) -> Array:
        """(n, k) float64 logits or log-probabilities, in x's array library.

        Raises:
            AccessDenied: the model gives labels only.
            InvalidModel, Inconclusive: as for `labels`.
        """
        if self.output == "labels":
            raise AccessDenied(f"{self.source} gives labels only")
        return like(x, self._scores(x))

    def value_and_gradient(self, x: Any, loss: Callable[[Array], Array]) -> tuple[Array, Array]:  # noqa: ARG002
        """Never: this model is not differentiable.

        Raises:
            AccessDenied: always.
        """
        raise AccessDenied(f"{self.source} gives no gradients")

    def _scores(self, x: Any) -> NDArray[np.float64]:
        with asking_about_gaps(x):
            return as_scores(as_answer(self._ask(x), len(x), self.source), self.output, self.source, len(self.classes))

    def _ask(self, x: Any) -> Any:
        try:
            return self.answer(plain(x))
        except HoldfastError:
            raise
        except Exception as error:
            raise InvalidModel(
                f"failed on {described(x)} with {type(error).__name__}",
                where=self.source,
                hint=f"Give the data in the form that the model was trained on.{gaps(x)}",
            ) from error


def plain(x: Any) -> Any:
    """A torch tensor as a NumPy array; anything else as it is."""
    return x.detach().cpu().numpy() if hasattr(x, "detach") else x


def like(x: Any, values: NDArray[np.float64]) -> Array:
    """The values as a torch tensor when x is one, else as they are."""
    if not hasattr(x, "detach"):
        return values
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(x.device)


def match_columns(columns: Iterable[Any], names: Sequence[str], source: str) -> list[Any]:
    """The column for each of a model's feature names, which LightGBM keeps with underscores for spaces and other signs.

    Raises:
        InvalidData: a column is missing.
    """
    exact = {str(column): column for column in columns}
    loose: dict[str, list[Any]] = {}
    for column in columns:
        loose.setdefault(_simplified(str(column)), []).append(column)
    near = [loose.get(_simplified(name), []) for name in names]
    found = [exact.get(name, close[0] if len(close) == 1 else None) for name, close in zip(names, near, strict=True)]
    missing = [name for name, column in zip(names, found, strict=True) if column is None]
    if missing:
        raise InvalidData(f"the table lacks columns that the model takes: {shown(missing)}", where=source)
    return found


def _simplified(name: str) -> str:
    return "".join(sign if sign.isalnum() else "_" for sign in name)


def described(x: Any) -> str:
    """The form of a batch of inputs, without its values."""
    if isinstance(x, pd.DataFrame):
        return f"a table of {len(x)} rows and {x.shape[1]} columns"
    return f"an array of shape {tuple(np.shape(x))}"


def gaps(x: Any) -> str:
    """A question about the first columns with missing values, for the hint of a failure; empty for what has none."""
    if not isinstance(x, pd.DataFrame):
        return ""
    holding = [str(name) for name in x.columns[x.isna().any(axis=0)]]
    if not holding:
        return ""
    holds = "holds" if len(holding) == 1 else "hold"
    return f" {shown(holding, 4)} {holds} missing values; does the model's pipeline fill them?"


@contextmanager
def asking_about_gaps(x: Any) -> Iterator[None]:
    """What a NaN answer raises, with the question about missing values in the inputs that it answers."""
    try:
        yield
    except Inconclusive as error:
        error.hint = f"{error.hint or ''}{gaps(x)}".strip() or None
        raise


def _label_names(first: NDArray[Any], context: Context) -> tuple[str, ...]:
    """The classes of a model that answers with labels and names none: the data's, which it may name or count from 0."""
    seen = {class_name(value) for value in first.ravel()}
    counted = first.dtype.kind == "b" or all(name.isdecimal() and int(name) < len(context.labels) for name in seen)
    if seen <= set(context.labels) or counted:
        return context.labels
    raise InvalidModel(
        f"answers with labels {shown(sorted(seen))}, but the data have {shown(context.labels)}",
        where=context.source,
        hint="Name the classes: model.classes: [...].",
    )


def _label_index(first: NDArray[Any], names: tuple[str, ...]) -> pd.Index:
    """The class labels in the type that the model answers with; bare indices where it does not use the names."""
    if first.dtype.kind in "US" or isinstance(first.ravel()[0], str):
        return pd.Index(list(names))
    if {class_name(value) for value in first.ravel()} <= set(names):
        if set(names) == {"False", "True"}:
            return pd.Index([name == "True" for name in names])
        if all(name.lstrip("-").isdecimal() for name in names):
            return pd.Index([int(name) for name in names])
    return pd.Index(np.arange(len(names)))
