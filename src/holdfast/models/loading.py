"""From a loaded object, or the bytes of a checked native file, to the adapter that fits it."""

from __future__ import annotations

import sys
from typing import Any

from holdfast.core.errors import InvalidModel
from holdfast.core.target import Model
from holdfast.models.answers import Context


def model_from_object(value: Any, context: Context) -> Model:
    """The adapter for a fitted estimator, a booster, a `torch.nn.Module` or a callable.

    Raises:
        InvalidModel: it is none of these.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.nn.Module):
        from holdfast.models.torch import TorchModel

        return TorchModel(value, context)
    kind = f"{type(value).__module__.split('.')[0]}.{type(value).__name__}"
    if kind == "xgboost.Booster":
        from holdfast.models.boosting import XGBoostModel

        return XGBoostModel(value, context)
    if kind == "lightgbm.Booster":
        from holdfast.models.boosting import LightGBMModel

        return LightGBMModel(value, context)
    if hasattr(value, "predict"):
        from holdfast.models.sklearn import SklearnModel

        return SklearnModel(value, context)
    if isinstance(value, dict) and any(hasattr(part, "predict") for part in value.values()):
        named = next(str(name) for name, part in value.items() if hasattr(part, "predict"))
        hint = f"Save the model by itself, or as one Pipeline: joblib.dump(bundle[{named!r}], FILE)."
        raise InvalidModel("holds a dictionary of objects, not a model", where=context.source, hint=hint)
    if callable(value) and not isinstance(value, type):
        from holdfast.models.python import PythonModel

        return PythonModel(value, context)
    raise InvalidModel(f"holds a {type(value).__name__}, which is no model", where=context.source)


def model_from_native(kind: str, data: bytes, context: Context) -> Model:
    """The adapter for the bytes of a native file: `onnx`, `xgboost-json`, `xgboost-ubj` or `lightgbm`.

    Raises:
        InvalidModel: the library refuses the bytes.
    """
    if kind == "onnx":
        from holdfast.models.onnx import OnnxModel

        return OnnxModel(data, context)
    from holdfast.models.boosting import LightGBMModel, XGBoostModel, read_lightgbm, read_xgboost

    if kind == "lightgbm":
        return LightGBMModel(read_lightgbm(data, context.source), context)
    return XGBoostModel(read_xgboost(data, context.source), context)
