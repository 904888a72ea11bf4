"""XGBoost and LightGBM models in their native formats.

Scores are margins, which are exact where probabilities saturate: `binary:logistic` answers one, `multi:softprob` one a
class. A native file is data, not code, but its parsers trust its indices; `models.trees` checks those first.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from holdfast.core.errors import InvalidData, InvalidModel, MissingExtra
from holdfast.models.adapter import Adapter, match_columns
from holdfast.models.answers import Context

XGBOOST_OBJECTIVES = ("binary:logistic", "binary:logitraw", "reg:logistic", "multi:softprob", "multi:softmax")
LIGHTGBM_OBJECTIVES = ("binary", "multiclass", "softmax", "multiclassova", "ova", "multiclass_ova", "ovr", "cross_entropy")


class XGBoostModel(Adapter):
    """An XGBoost booster with a classification objective. Uses `best_iteration` where training recorded one.

    Args:
        booster: an `xgboost.Booster`.
        context: as for every adapter.

    Raises:
        InvalidModel: the objective is none of a classifier.
    """

    framework = "xgboost"

    def __init__(self, booster: Any, context: Context) -> None:
        config = json.loads(booster.save_config())["learner"]
        objective = config["objective"]["name"]
        if objective not in XGBOOST_OBJECTIVES:
            raise InvalidModel(f"its objective is {objective}, not a classifier's", where=context.source)
        booster.set_param({"nthread": 1})
        self._booster = booster
        best = booster.attr("best_iteration")
        self._rounds = (0, int(best) + 1) if best and best.isdecimal() else (0, 0)
        super().__init__(context, output="logits")

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The columns it was trained on; None when it was trained on an array."""
        names = self._booster.feature_names
        return None if names is None else tuple(names)

    @property
    def features(self) -> int:
        """How many columns it was trained on."""
        return int(self._booster.num_features())

    def answer(self, x: Any) -> Any:
        """(n,) or (n, k) margins."""
        import xgboost

        x = columns(x, self.feature_names, self.features, self.source)
        matrix = xgboost.DMatrix(x, enable_categorical=True, nthread=1, feature_names=self.feature_names)
        return self._booster.predict(matrix, output_margin=True, iteration_range=self._rounds)


class LightGBMModel(Adapter):
    """A LightGBM booster with a classification objective.

    Args:
        booster: a `lightgbm.Booster`.
        context: as for every adapter.

    Raises:
        InvalidModel: the objective is none of a classifier.
    """

    framework = "lightgbm"

    def __init__(self, booster: Any, context: Context) -> None:
        text = booster.model_to_string(num_iteration=1)
        objective = next((line.split("=", 1)[1] for line in text.splitlines() if line.startswith("objective=")), "")
        if objective.split(" ")[0] not in LIGHTGBM_OBJECTIVES:
            raise InvalidModel(f"its objective is {objective or 'not stated'}, not a classifier's", where=context.source)
        self._booster = booster
        super().__init__(context, output="logits")

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The columns it was trained on; None when it was trained on an array."""
        names = self._booster.feature_name()
        return None if names == [f"Column_{index}" for index in range(len(names))] else tuple(names)

    @property
    def features(self) -> int:
        """How many columns it was trained on."""
        return int(self._booster.num_feature())

    def answer(self, x: Any) -> Any:
        """(n,) or (n, k) margins."""
        x = columns(x, self.feature_names, self.features, self.source)
        return self._booster.predict(x, raw_score=True, num_threads=1)


def columns(x: Any, names: tuple[str, ...] | None, count: int, source: str) -> Any:
    """The inputs as a booster was trained on them.

    Raises:
        InvalidData: a column is missing, or the number of columns differs.
    """
    if not isinstance(x, pd.DataFrame):
        x = np.asarray(x)
        x = x.reshape(len(x), -1)
    elif names is None:
        x = x.to_numpy(dtype=np.float64)
    else:
        x = x[match_columns(x.columns, names, source)].set_axis(list(names), axis=1)
    if x.shape[1] != count:
        raise InvalidData(f"{x.shape[1]} columns where the model takes {count}", where=source)
    return x


def read_xgboost(data: bytes, source: str) -> Any:
    """A booster from checked JSON or UBJSON bytes.

    Raises:
        InvalidModel: XGBoost refuses them.
        MissingExtra: it is not installed.
    """
    try:
        import xgboost
    except ImportError as error:
        raise MissingExtra.of("xgboost", "xgboost", "An XGBoost model") from error
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(data))
    except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
        raise InvalidModel(f"XGBoost cannot read it: {str(error).splitlines()[0]}", where=source) from error
    return booster


def read_lightgbm(data: bytes, source: str) -> Any:
    """A booster from checked text.

    Raises:
        InvalidModel: LightGBM refuses it.
        MissingExtra: it is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtra.of("lightgbm", "lightgbm", "A LightGBM model") from error
    try:
        return lightgbm.Booster(model_str=data.decode("utf-8"))
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise InvalidModel(f"LightGBM cannot read it: {str(error).splitlines()[0]}", where=source) from error
