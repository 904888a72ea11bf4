"""Tables for attacks by gradients: the model and the domain of a table over torch tensors of its encoding.

The encoding of a number is affine, so its gradient follows from the model's own by one factor a column. What is asked is
always a valid row, decoded into the very numbers that the model would read off the user's frame; whole numbers and relations
between them stand in no gradient's way, because the search itself moves over the real numbers (`EncodedDomain.relaxed`) and
each of its points is asked at the valid row next to it, whose gradient stands for that of the point.

Source: Bengio, Leonard and Courville (2013), "Estimating or propagating gradients through stochastic neurons for conditional
computation", section 4, for the gradient that passes straight through the rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.arrays import Array, as_like, as_numpy
from holdfast.core.domain import Norm
from holdfast.core.oracle import Access, Predictor
from holdfast.core.table import Floats, Table
from holdfast.core.tabular import Tabular


def reads_numbers(frame: pd.DataFrame) -> bool:
    """Whether each column is a number or a boolean, so that a model takes the frame as one array of numbers."""
    return all(pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns)


class EncodedModel:
    """A differentiable model of a table's numbers, as a model of its encoding.

    Args:
        model: takes the frame, and for gradients the tensor of the frame's numbers in the order of its columns.
        table: the columns, numbers and booleans only.
    """

    def __init__(self, model: Predictor, table: Table) -> None:
        self._model, self._table = model, table
        self.access: Access = model.access
        self._slope = _slopes(table)

    def labels(self, x: Any) -> NDArray[np.int64]:
        """(n,) class indices of the decoded frame."""
        return self._model.labels(self._table.decode(as_numpy(x)))

    def scores(self, x: Any) -> Array:
        """(n, k) scores of the decoded frame, as a tensor."""
        import torch

        return torch.as_tensor(self._model.scores(self._table.decode(as_numpy(x))))

    def value_and_gradient(self, x: Any, loss: Callable[[Array], Array]) -> tuple[Array, Array]:
        """The loss (n,) at the decoded numbers, and its gradient with respect to the encoding; 0 for what nobody may change."""
        import torch

        numbers = torch.from_numpy(self._table.decode(as_numpy(x)).to_numpy(dtype=np.float64))
        value, gradient = self._model.value_and_gradient(numbers, loss)
        return value.to(x.dtype), gradient.to(x.dtype) @ torch.from_numpy(self._slope).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class EncodedDomain:
    """A table's domain over torch tensors.

    Attributes:
        tabular: what may be changed.
    """

    tabular: Tabular

    @property
    def norm(self) -> Norm:
        """How costs add up."""
        return self.tabular.norm

    @property
    def radius(self) -> float:
        """The budget."""
        return self.tabular.radius

    @property
    def relaxed(self) -> EncodedDomain:
        """The same bounds, costs and budget over the real numbers, without relations: what gradients can move in."""
        table = self.tabular.table
        free = [replace(f, kind="number") if f.kind == "integer" else f for f in table.features]
        real = Table(free, dict.fromkeys(table.columns))
        return EncodedDomain(tabular=replace(self.tabular, table=real, relations=()))

    def repair(self, x0: Array, x: Array) -> Array:
        """As the table's, in tensors."""
        return as_like(x, self.tabular.repair(as_numpy(x0), as_numpy(x)))

    def project(self, x0: Array, x: Array) -> Array:
        """As the table's, in tensors."""
        return as_like(x, self.tabular.project(as_numpy(x0), as_numpy(x)))

    def distance(self, x0: Array, x: Array) -> Floats:
        """(n,) what the change costs."""
        return self.tabular.distance(as_numpy(x0), as_numpy(x))

    def contains(self, x0: Array, x: Array) -> NDArray[np.bool_]:
        """Whether a row is valid, exactly, and within the budget."""
        return self.tabular.contains(as_numpy(x0), as_numpy(x))

    def sample(self, x0: Array, uniform: Floats) -> Array:
        """As the table's, in tensors."""
        return as_like(x0, self.tabular.sample(as_numpy(x0), uniform))

    def within(self, radius: float) -> EncodedDomain:
        """The same constraints with another budget."""
        return EncodedDomain(tabular=self.tabular.within(radius))


def _slopes(table: Table) -> Floats:
    """(columns, width) how much each number of the frame moves with each column of the encoding that may be changed."""
    slope = np.zeros((len(table.features), table.width))
    for index, feature in enumerate(table.features):
        if feature.mutable:
            place = table.columns[feature.name]
            slope[index, place] = [float(value) for value in feature.values] if feature.one_hot else feature.unit
    return slope
