"""What a probe is run on: the loaded model and data sets, by content digest, with the facts of the system around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.domain import Norm
from holdfast.core.errors import InvalidData, Unmeasured
from holdfast.core.oracle import Access, Predictor
from holdfast.core.tabular import Relation

Modality = Literal["tabular", "image", "video", "audio", "text", "time_series"]


class Model(Predictor, Protocol):
    """A loaded model. It answers in class indices 0..k-1; `classes` names them.

    Tables go in as DataFrames with the user's own columns, images and arrays as float arrays (n, ...).
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the score columns."""

    @property
    def framework(self) -> str:
        """`scikit-learn`, `torch`, `xgboost`, `lightgbm`, `onnx`, `remote` or `python`."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled rows.

    Attributes:
        name: `train` or `holdout`.
        x: a DataFrame (tables) or a float array (n, ...).
        y: (n,) int64 class indices.
        classes: the class names.
        ids: (n,) row ids, the only thing about a row that evidence may hold.
        sensitive: columns of x that are sensitive.
        groups: (n, g) frame of the columns by which groups are told apart; they need not be model inputs.
        clusters: (n,) what correlated rows share, such as a patient; None when rows are independent.
        digest: of the bytes it came from and of how they were split.
        path: where it came from.
    """

    name: str
    x: Any
    y: NDArray[np.int64]
    classes: tuple[str, ...]
    ids: NDArray[np.str_]
    sensitive: tuple[str, ...] = ()
    groups: pd.DataFrame | None = None
    clusters: NDArray[np.str_] | None = None
    digest: str = ""
    path: Path | None = None

    def __post_init__(self) -> None:
        if not len(self.x) == len(self.y) == len(self.ids):
            raise InvalidData(f"{self.name}: {len(self.x)} inputs, {len(self.y)} labels and {len(self.ids)} row ids")

    def __len__(self) -> int:
        return len(self.y)

    @property
    def is_table(self) -> bool:
        """Whether rows are those of a DataFrame."""
        return isinstance(self.x, pd.DataFrame)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Dataset:
        """The chosen rows, in that order; indices may repeat."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        return replace(
            self,
            x=self.x.iloc[index].reset_index(drop=True) if self.is_table else self.x[index],
            y=self.y[index],
            ids=self.ids[index],
            groups=None if self.groups is None else self.groups.iloc[index].reset_index(drop=True),
            clusters=None if self.clusters is None else self.clusters[index],
        )


class Recipe(Protocol):
    """How the user trains the model, so that shadow models and poisoned twins can be trained the same way."""

    @property
    def digest(self) -> str:
        """Of whatever decides what `fit` does."""

    def fit(self, data: Dataset, seed: int) -> Model:
        """Train a new model on `data`."""


@dataclass(frozen=True, kw_only=True)
class DomainSpec:
    """What the user says an attacker may change; the probes build a `Ball` or a `Tabular` from it.

    Attributes:
        norm, radius: of the change; None means the default for the modality.
        low, high: the box of valid array inputs; None means the range of the data.
        immutable, integer, bounds, costs, relations: for tables, as in `Tabular`.
    """

    norm: Norm | None = None
    radius: float | None = None
    low: float | None = None
    high: float | None = None
    immutable: tuple[str, ...] = ()
    integer: tuple[str, ...] = ()
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Target:
    """The loaded model and data, with the facts that decide what can be measured.

    Attributes:
        name: the system's name.
        model: as it is served, answer hardening included; this is what attacks go through.
        modality: of its inputs.
        train, holdout: rows the model was, and was not, trained on.
        recipe: how to train another; None when unknown.
        domain: what an attacker may change.
        facts: the system's stated facts, each a tuple of values.
        model_path: the file the model was loaded from; None for a callable or an endpoint.
        show_values: whether the user allowed personal values in evidence.
        digests: of model, train, holdout, recipe and system file; `served` is the model with its answer hardening, `data` all
            data sets together, `domain` what an attacker may change.
        notes: what loading had to assume, for the reader of the assessment.
        bare: the model without answer hardening, for an actor who holds the file; `model` itself when nothing hardens it.
        harden: puts the answer hardening of `model` around another model, so that an attacker's shadow models answer in the
            form in which the target does; None when nothing hardens it.
    """

    name: str
    model: Model
    modality: Modality
    holdout: Dataset
    train: Dataset | None = None
    recipe: Recipe | None = None
    domain: DomainSpec = field(default_factory=DomainSpec)
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    model_path: Path | None = None
    show_values: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    bare: Model | None = None
    harden: Callable[[Model], Model] | None = None

    def as_served(self, model: Model) -> Model:
        """Another model of the same recipe as the service would show it.

        Raises:
            Unmeasured: the served model is hardened, and how is not known.
        """
        if self.harden is not None:
            return self.harden(model)
        if self.bare is not None and self.bare is not self.model:
            raise Unmeasured("how the service hardens its answers is not known, so that shadow models cannot answer as it does")
        return model

    @property
    def weights(self) -> Model:
        """The model as somebody who holds its file sees it."""
        return self.bare or self.model

    @property
    def differentiable(self) -> bool:
        """Whether the file's holder can take gradients."""
        return self.weights.access >= Access.GRADIENTS

    def require_train(self) -> Dataset:
        """The training rows.

        Raises:
            Unmeasured: they were not given.
        """
        if self.train is None:
            raise Unmeasured("the rows that the model was trained on were not given", hint="Add a data entry with role: train.")
        return self.train

    def require_recipe(self) -> Recipe:
        """The training recipe.

        Raises:
            Unmeasured: it was not given.
        """
        if self.recipe is None:
            cloned = "clone, or " if hasattr(getattr(self.weights, "estimator", None), "get_params") else ""
            hint = f"Add model.recipe: {cloned}FILE.py:FUNCTION, called with (X, y, seed)."
            raise Unmeasured("how the model is trained was not given", hint=hint)
        return self.recipe
