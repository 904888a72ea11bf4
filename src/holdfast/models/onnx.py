"""ONNX models by onnxruntime, from bytes: one array input, or one input a column as converters of pipelines make them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.errors import HoldfastError, InvalidData, InvalidModel, MissingExtra
from holdfast.models.adapter import Adapter, described, match_columns
from holdfast.models.answers import Context, Output, class_name

TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


class OnnxModel(Adapter):
    """An ONNX classifier.

    The output is, in this order: a ZipMap (a sequence of class-to-probability maps), the first output of decimals, the
    first output.

    Args:
        data: the bytes of a checked model without external files.
        context: as for every adapter.

    Raises:
        InvalidModel: onnxruntime refuses it, or an input has a type that no table or array fits.
        MissingExtra: onnxruntime is not installed.
    """

    framework = "onnx"

    def __init__(self, data: bytes, context: Context) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtra.of("onnxruntime", "onnx", "An ONNX model") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InvalidModel(f"onnxruntime cannot read it: {str(error).splitlines()[0]}", where=context.source) from error
        self.source = context.source
        self._inputs = self._session.get_inputs()
        strange = [given for given in self._inputs if given.type not in TYPES]
        if strange:
            raise InvalidModel(f"input {strange[0].name!r} is of type {strange[0].type}", where=context.source)
        outputs = self._session.get_outputs()
        maps = [output for output in outputs if output.type.startswith("seq(map")]
        decimals = [output for output in outputs if output.type in ("tensor(float)", "tensor(double)", "tensor(float16)")]
        chosen = (maps or decimals or outputs)[0]
        self._output, self._zipped = chosen.name, bool(maps)
        self._keys: list[Any] = []
        names: tuple[str, ...] | None = None
        output: Output | None = None
        if self._zipped:
            try:
                answered = self._run(context.sample)
            except HoldfastError:
                raise
            except Exception as error:
                failed = f"failed on {described(context.sample)}: {type(error).__name__}"
                raise InvalidModel(failed, where=context.source) from error
            if not answered:
                raise InvalidModel("no rows to find out its classes with", where=context.source)
            self._keys = list(answered[0])
            names, output = tuple(class_name(key) for key in self._keys), "probabilities"
        super().__init__(context, names=names, output=output)

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The columns it takes one by one; None when it takes one array."""
        return None if len(self._inputs) == 1 else tuple(given.name for given in self._inputs)

    def answer(self, x: Any) -> Any:
        """The chosen output."""
        answered = self._run(x)
        if not self._zipped:
            return answered
        return np.array([[row[key] for key in self._keys] for row in answered], dtype=np.float64)

    def _run(self, x: Any) -> Any:
        return self._session.run([self._output], self._feed(x))[0]

    def _feed(self, x: Any) -> dict[str, NDArray[Any]]:
        if len(self._inputs) == 1:
            (given,) = self._inputs
            return {given.name: _shaped(_typed(as_array(x), given.type, given.name), given.shape)}
        if not isinstance(x, pd.DataFrame):
            raise InvalidData(f"an array where the model takes {len(self._inputs)} columns by name", where=self.source)
        places = match_columns(x.columns, [given.name for given in self._inputs], self.source)
        return {
            given.name: _typed(x[place].to_numpy(), given.type, given.name).reshape((len(x), 1)[: max(1, len(given.shape))])
            for given, place in zip(self._inputs, places, strict=True)
        }


def as_array(x: Any) -> NDArray[Any]:
    """A table or array as one array."""
    return x.to_numpy() if isinstance(x, pd.DataFrame) else np.asarray(x)


def _typed(values: NDArray[Any], kind: str, name: str) -> NDArray[Any]:
    if kind == "tensor(string)":
        return np.array([class_name(value) for value in values.ravel()], dtype=object).reshape(values.shape)
    try:
        return np.ascontiguousarray(values.astype(TYPES[kind]))
    except (ValueError, TypeError) as error:
        raise InvalidData(f"input {name!r} takes {kind}, and the data have something else: {error}", where="data") from error


def _shaped(values: NDArray[Any], shape: list[Any]) -> NDArray[Any]:
    """(n, ...) in the rank the model declares, where only the rank differs."""
    wanted = shape[1:]
    if values.ndim == len(shape) or not wanted or not all(isinstance(size, int) for size in wanted):
        return values
    return values.reshape(len(values), *wanted) if int(np.prod(wanted)) == int(np.prod(values.shape[1:])) else values
