"""How the user trains the model: clone and refit what was loaded, or call the user's own function.

A recipe keeps the target's classes: what it trains answers with the same columns, and a class that its training rows lack
has probability 0.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from holdfast.core.errors import ConfigurationError, HoldfastError, InvalidModel
from holdfast.core.seeds import derive
from holdfast.core.target import Dataset, Model
from holdfast.models.adapter import plain
from holdfast.models.answers import Context
from holdfast.models.loading import model_from_object
from holdfast.models.sklearn import SklearnModel


class CloneRecipe:
    """Refits an unfitted clone of a scikit-learn estimator or pipeline, or of a wrapper that follows its conventions.

    Every `random_state` is set from the seed. `memory` is cleared, since a cache directory named by a model file could hold
    pickles; `n_jobs` becomes 1; early stopping on rows that are not there is replaced by the number of rounds it found.

    Args:
        model: the fitted model.
        context: what it was loaded with.
        digest: of the model's file.

    Raises:
        ConfigurationError: the model is no scikit-learn estimator.
    """

    def __init__(self, model: Model, context: Context, digest: str) -> None:
        from sklearn.base import clone

        if not isinstance(model, SklearnModel) or not hasattr(model.estimator, "get_params"):
            raise ConfigurationError(
                f"a {model.framework} model of type {type(model).__name__} cannot be cloned and refitted",
                where="model.recipe",
                hint="Give the training as FILE.py:FUNCTION, called with (X, y, seed).",
            )
        self._model = model
        self._context = replace(context, classes=model.classes, output=None, fixed=True)
        self.digest = hashlib.sha256(f"clone:{digest}".encode()).hexdigest()
        try:
            self.estimator = clone(model.estimator)
        except (TypeError, RuntimeError) as error:
            raise ConfigurationError(f"scikit-learn cannot clone the model: {error}", where="model.recipe") from error
        _detach_from_surroundings(self.estimator, model.estimator)

    def fit(self, data: Dataset, seed: int) -> Model:
        """Train a new model on `data`.

        Raises:
            InvalidModel: training failed.
        """
        from sklearn.base import clone

        estimator = clone(self.estimator)
        seeds = {
            name: derive(seed, name) % 2**31
            for name in sorted(estimator.get_params(deep=True))
            if name == "random_state" or name.endswith("__random_state")
        }
        estimator.set_params(**seeds)
        with seeded(seed), _failing("clone", self._context.source):
            from joblib import parallel_config

            with parallel_config("sequential"):
                estimator.fit(self._model.inputs(data.x), self._model.values(data.y))
        return SklearnModel(estimator, replace(self._context, sample=data.x[:2]))


class FunctionRecipe:
    """The user's own training function: (X, y, seed) to a fitted estimator, a `torch.nn.Module` or a callable.

    `X` is the data as the model takes them. `y` holds the values of `classes_` for scikit-learn models and class indices for
    all others. Python's, NumPy's and torch's global random states are seeded for the call and put back afterwards.

    Args:
        function: the training function.
        model: the target's model.
        context: what it was loaded with.
        digest: of the function's file.
        source: what to call the recipe in errors.
    """

    def __init__(self, function: Callable[..., Any], model: Model, context: Context, digest: str, source: str) -> None:
        try:
            inspect.signature(function).bind(None, None, 0)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"the recipe cannot be called with (X, y, seed): {error}",
                where=source,
                hint="Define it as def train(X, y, seed).",
            ) from error
        self._function = function
        self._options: dict[str, Any] = {}
        self._model = model
        self._context = replace(
            context,
            classes=model.classes,
            output=None if isinstance(model, SklearnModel) else getattr(model, "output", None),
            fixed=True,
            source=source,
        )
        self._source = source
        self.digest = digest

    def fit(self, data: Dataset, seed: int) -> Model:
        """Train a new model on `data`.

        Raises:
            InvalidModel: training failed, or what it returned is no model.
        """
        x, y = plain(data.x), data.y
        if isinstance(self._model, SklearnModel):
            x, y = self._model.inputs(x), self._model.values(y)
        with seeded(seed), _failing("the training function", self._source):
            trained = self._function(x.copy(), y.copy(), seed, **self._options)
        return model_from_object(trained, replace(self._context, sample=data.x[:8]))

    def accepts(self, option: str) -> bool:
        """Whether the function has a keyword argument of that name."""
        return option in inspect.signature(self._function).parameters

    def with_option(self, option: str, value: float) -> FunctionRecipe:
        """The same training with a keyword argument set."""
        bound = copy.copy(self)
        bound._options = {**self._options, option: value}
        bound.digest = hashlib.sha256(f"{self.digest}:{option}={value!r}".encode()).hexdigest()
        return bound


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global random states derived from `seed`, put back afterwards; torch's only where it is already imported."""
    import sys

    torch = sys.modules.get("torch")
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    before = torch.get_rng_state() if torch else None
    random.seed(derive(seed, "python"))
    np.random.seed(derive(seed, "numpy") % 2**32)  # noqa: NPY002
    if torch:
        torch.manual_seed(derive(seed, "torch"))
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if torch:
            torch.set_rng_state(before)


@contextmanager
def _failing(what: str, source: str) -> Iterator[None]:
    try:
        yield
    except HoldfastError:
        raise
    except Exception as error:
        raise InvalidModel(f"{what} failed: {type(error).__name__}: {error}", where=source) from error


def _detach_from_surroundings(estimator: Any, fitted: Any) -> None:
    """Nothing outside the training rows may decide what `fit` does."""
    settings: dict[str, Any] = {}
    for name, value in estimator.get_params(deep=True).items():
        leaf = name.rsplit("__", 1)[-1]
        if (leaf == "memory" and value is not None) or leaf == "callbacks":
            settings[name] = None
        elif leaf in ("n_jobs", "nthread") and value is not None:
            settings[name] = 1
        elif leaf == "early_stopping_rounds" and value is not None:
            settings[name] = None
            part = fitted
            for step in name.split("__")[:-1]:
                part = part.named_steps[step] if hasattr(part, "named_steps") else getattr(part, step)
            best = getattr(part, "best_iteration", None)
            if best is not None:
                settings[name.removesuffix(leaf) + "n_estimators"] = int(best) + 1
    estimator.set_params(**settings)
