"""Damaged ONNX files end in a clear error or a model that answers."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from holdfast.artifacts.onnx_files import check_onnx
from holdfast.core.errors import HoldfastError, InvalidModel
from holdfast.models.answers import Context
from holdfast.models.loading import model_from_native

pytest.importorskip("onnxruntime")
X, Y = load_iris(return_X_y=True)
X = X.astype(np.float32)


def content() -> bytes:
    return bytes(pytest.importorskip("skl2onnx").to_onnx(LogisticRegression(max_iter=300).fit(X, Y), X[:1]).SerializeToString())


def test_inputs_of_another_width_end_in_a_clear_error() -> None:
    with pytest.raises(InvalidModel, match="failed on"):
        model_from_native("onnx", content(), Context(sample=X[:8, :3], labels=("0", "1", "2"), source="m"))


def test_flipped_bytes_end_in_a_clear_error_or_a_model() -> None:
    good, draw = content(), random.Random(5)
    for _ in range(150):
        data = bytearray(good)
        data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            check_onnx(bytes(data), "m")
            model_from_native("onnx", bytes(data), Context(sample=X[:8], labels=("0", "1", "2"), source="m")).labels(X)
        except HoldfastError:
            continue
