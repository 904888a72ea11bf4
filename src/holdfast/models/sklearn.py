"""Scikit-learn estimators and pipelines, and whatever speaks their language, on raw DataFrames or arrays.

Labels are the estimator's own `predict`. Scores are, in this order, `predict_proba` as log-probabilities in float64 (a
probability of 0 is `LOG_ZERO`, never -inf), `decision_function` as logits, or nothing: then the model gives labels only.
The estimator is never changed: joblib is held to one worker during calls by its context, not by setting `n_jobs`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.arrays import Array
from holdfast.core.errors import AccessDenied, HoldfastError, InvalidModel
from holdfast.core.oracle import Access
from holdfast.models.adapter import described, gaps, like, match_columns, plain
from holdfast.models.answers import (
    LOG_ZERO,
    Context,
    as_answer,
    as_labels,
    as_scores,
    class_name,
    log_probabilities,
    shown,
)


class SklearnModel:
    """A fitted classifier.

    Args:
        estimator: fitted, with `predict` and `classes_`.
        context: `context.classes` with `context.fixed` keeps the classes of the model that this one is a retrained copy of.

    Raises:
        InvalidModel: not a fitted single-output classifier.
    """

    def __init__(self, estimator: Any, context: Context) -> None:
        self.source = context.source
        self.estimator = estimator
        own = _own_classes(estimator, context.source)
        names = tuple(class_name(value) for value in own)
        self._values = pd.Index(own)
        self.classes = context.classes if context.classes is not None else names
        self._place = _places(names, self.classes, context)
        self._method = _score_method(estimator)
        self.access = Access.LABELS if self._method is None else Access.SCORES
        self.output = {None: "labels", "predict_proba": "probabilities", "decision_function": "logits"}[self._method]
        self.framework = _framework(estimator)
        if len(context.sample):
            self.labels(context.sample)

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The columns it was fitted on; None when it was fitted on an array."""
        names = getattr(self.estimator, "feature_names_in_", None)
        if names is None and hasattr(self.estimator, "get_booster"):
            names = self.estimator.get_booster().feature_names
        if names is not None and list(names) == [f"Column_{index}" for index in range(len(names))]:
            return None
        return None if names is None else tuple(str(name) for name in names)

    @property
    def features(self) -> int | None:
        """How many columns it was fitted on; None when it does not say."""
        count = getattr(self.estimator, "n_features_in_", None)
        return None if count is None else int(count)

    def values(self, y: NDArray[np.int64]) -> NDArray[Any]:
        """(n,) class indices as the labels the estimator was fitted on."""
        back = {place: index for index, place in enumerate(self._place)}
        return np.asarray(self._values)[[back[int(label)] for label in y]]

    def labels(self, x: Any) -> NDArray[np.int64]:
        """(n,) class indices of `predict`.

        Raises:
            InvalidModel: the estimator failed, or its answer has the wrong form.
            Inconclusive: it answered NaN.
        """
        if not len(x):
            return np.empty(0, dtype=np.int64)
        found = as_labels(as_answer(self._call(self.estimator.predict, x), len(x), self.source), self._values, self.source)
        return self._place[found]

    def scores(self, x: Any) -> Array:
        """(n, k) float64 log-probabilities, or `decision_function` as logits, in x's array library.

        Raises:
            AccessDenied: the estimator gives labels only.
            InvalidModel, Inconclusive: as for `labels`.
        """
        if self._method is None:
            raise AccessDenied(f"{self.source} gives labels only")
        if not len(x):
            return like(x, np.empty((0, len(self.classes))))
        answer = as_answer(self._call(getattr(self.estimator, self._method), x), len(x), self.source)
        if self._method == "predict_proba":
            own = log_probabilities(as_scores(answer, "logits", self.source, len(self._values)), self.source)
        else:
            own = as_scores(answer, "logits", self.source, len(self._values))
        if len(self.classes) == len(self._values) and (self._place == np.arange(len(self._place))).all():
            return like(x, own)
        full = np.full((len(own), len(self.classes)), LOG_ZERO if self._method == "predict_proba" else -np.inf)
        full[:, self._place] = own
        return like(x, full)

    def value_and_gradient(self, x: Any, loss: Callable[[Array], Array]) -> tuple[Array, Array]:  # noqa: ARG002
        """Never: the estimator is not differentiable.

        Raises:
            AccessDenied: always.
        """
        raise AccessDenied(f"{self.source} gives no gradients")

    def inputs(self, x: Any) -> Any:
        """The inputs as the estimator was fitted on them: its columns in its order, or a flat array.

        Raises:
            InvalidData: a column is missing.
        """
        x = plain(x)
        if isinstance(x, pd.DataFrame):
            names = self.feature_names
            if names is None:
                return x if self.features is None else x.to_numpy()
            if tuple(x.columns) == names:
                return x
            return x[match_columns(x.columns, names, self.source)].set_axis(list(names), axis=1)
        return x.reshape(len(x), -1) if np.ndim(x) > 2 else x

    def _call(self, method: Callable[[Any], Any], x: Any) -> Any:
        from joblib import parallel_config

        try:
            with parallel_config("sequential"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return method(self.inputs(x))
        except HoldfastError:
            raise
        except Exception as error:
            raise InvalidModel(
                f"failed on {described(x)} with {type(error).__name__}",
                where=self.source,
                hint=f"Give the columns, types and shapes that the model was fitted on.{gaps(x)}",
            ) from error


def _own_classes(estimator: Any, source: str) -> NDArray[Any]:
    if not hasattr(estimator, "predict"):
        raise InvalidModel(f"{type(estimator).__name__} has no predict method", where=source)
    try:
        own = estimator.classes_
    except AttributeError as error:
        hint = "Save the fitted classifier. Regressors, clusterings and detectors have no classes."
        raise InvalidModel(f"{type(estimator).__name__} is no fitted classifier", where=source, hint=hint) from error
    if isinstance(own, list) or np.ndim(own) != 1:
        raise InvalidModel("predicts several outputs at once; one class a row is supported", where=source)
    own = np.asarray(own)
    if len(own) < 2:
        raise InvalidModel(f"knows {len(own)} class; a classifier needs two", where=source)
    return own


def _places(names: tuple[str, ...], classes: tuple[str, ...], context: Context) -> NDArray[np.int64]:
    """Where each of the estimator's own classes stands among `classes`."""
    if set(names) <= set(classes) and (context.fixed or len(names) == len(classes)):
        return np.array([classes.index(name) for name in names], dtype=np.int64)
    if len(names) == len(classes) and names == tuple(str(index) for index in range(len(names))):
        return np.arange(len(names), dtype=np.int64)
    raise InvalidModel(f"has the classes {shown(names)}, but model.classes names {shown(classes)}", where=context.source)


def _score_method(estimator: Any) -> str | None:
    if hasattr(estimator, "predict_proba"):
        return "predict_proba"
    final = estimator
    while hasattr(final, "steps") or hasattr(final, "best_estimator_"):
        final = final.best_estimator_ if hasattr(final, "best_estimator_") else final.steps[-1][1]
    one_column_a_class = getattr(final, "decision_function_shape", "ovr") == "ovr"
    return "decision_function" if hasattr(estimator, "decision_function") and one_column_a_class else None


def _framework(estimator: Any) -> str:
    package = type(estimator).__module__.split(".")[0]
    return package if package in ("xgboost", "lightgbm") else "scikit-learn"
