"""What an attacker makes of raw rows to train models of his own: a matrix of numbers, whatever the target takes.

Categories become codes by falling frequency, of which the `CODES` most frequent are told apart; missing cells stay NaN,
which histogram gradient boosting takes as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CODES = 200
"""Categories told apart in a column; histogram gradient boosting takes at most 255."""


@dataclass(frozen=True)
class Encoder:
    """Encodes rows like those it was made from.

    Attributes:
        categories: for each column of a table, its known values by falling frequency, or None for a number; None for arrays.
    """

    categories: tuple[tuple[Any, dict[Any, int] | None], ...] | None

    @classmethod
    def of(cls, x: Any) -> Encoder:
        """The encoder for rows such as `x`: a DataFrame or an array (n, ...)."""
        if not isinstance(x, pd.DataFrame):
            return cls(None)
        return cls(tuple((name, _codes(x[name])) for name in x.columns))

    @property
    def categorical(self) -> NDArray[np.bool_] | None:
        """Which columns of the result are codes; None when none is."""
        mask = np.array([codes is not None for _, codes in self.categories or ()], dtype=bool)
        return mask if mask.any() else None

    def __call__(self, x: Any) -> NDArray[np.float64]:
        """(n, d) float64 of the rows; NaN where a cell is missing."""
        if self.categories is None:
            return np.asarray(x, dtype=np.float64).reshape(len(x), -1)
        columns = [_number(x[name]) if codes is None else _encode(x[name], codes) for name, codes in self.categories]
        return np.stack(columns, axis=1) if columns else np.empty((len(x), 0))


class Booster:
    """Histogram gradient boosting on what an `Encoder` gives: the attacker's all-round model of a table.

    It takes categories, missing cells and any scale as they are. Columns without a single known cell are left out.

    Args:
        categorical: which columns are codes.
        seed: decides the training.
        settings: for scikit-learn's `HistGradientBoostingClassifier`.
    """

    def __init__(self, categorical: Sequence[bool] | NDArray[np.bool_] | None, seed: int, **settings: Any) -> None:
        self._categorical = categorical
        self._settings: dict[str, Any] = {
            "max_iter": 60,
            "early_stopping": False,
            "min_samples_leaf": 10,
            "l2_regularization": 1.0,
            "random_state": seed % 2**32,
        } | settings

    def fit(self, features: NDArray[np.float64], y: NDArray[np.int64], weights: NDArray[np.float64] | None = None) -> Booster:
        """Learn (n,) classes from (n, d) features."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        self._known = ~np.isnan(features).all(axis=0)
        mask = None if self._categorical is None else np.asarray(self._categorical)[self._known]
        self._model = HistGradientBoostingClassifier(categorical_features=mask, **self._settings)
        self._model.fit(features[:, self._known], y, sample_weight=weights)
        return self

    @property
    def classes(self) -> NDArray[np.int64]:
        """The classes of the training rows, in the order of the columns of `shares`."""
        return np.asarray(self._model.classes_)

    def shares(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, k) class probabilities."""
        return np.asarray(self._model.predict_proba(features[:, self._known]))

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.int64]:
        """(n,) classes."""
        return np.asarray(self._model.predict(features[:, self._known]), dtype=np.int64)


def _codes(column: pd.Series[Any]) -> dict[Any, int] | None:
    if (
        pd.api.types.is_bool_dtype(column)
        or pd.api.types.is_numeric_dtype(column)
        or pd.api.types.is_datetime64_any_dtype(column)
    ):
        return None
    counts = column.astype(str).where(column.notna()).value_counts()
    order = sorted(counts.index, key=lambda value: (-counts[value], value))
    return {value: code for code, value in enumerate(order[:CODES])}


def _encode(column: pd.Series[Any], codes: dict[Any, int]) -> NDArray[np.float64]:
    known = column.astype(str).map(codes).astype(float).fillna(float(len(codes)))
    return np.where(column.isna().to_numpy(), np.nan, known.to_numpy())


def _number(column: pd.Series[Any]) -> NDArray[np.float64]:
    if pd.api.types.is_datetime64_any_dtype(column):
        days = (column - pd.Timestamp(0, tz=column.dt.tz)) / pd.Timedelta(days=1)
        return np.asarray(days, dtype=np.float64)
    return column.to_numpy(dtype=np.float64, na_value=np.nan)
