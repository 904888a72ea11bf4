"""ONNX files are data, but a runtime follows what stands in them: no tensor in an external file, no operator that loads code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from holdfast.core.errors import InvalidModel

DEEPEST_GRAPH = 20
LOADING_OPERATORS = (b"EPContext", b"PyOp", b"TrtPlugin", b"CustomOp")
GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE, FUNCTION = "graph", "node", "attribute", "tensor", "sparse tensor", "function"
FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: GRAPH, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
    TENSOR: {},
}


def check_onnx(data: bytes, source: str) -> None:
    """Refuse an ONNX file that is malformed, refers to other files, or has operators that load code.

    Raises:
        InvalidModel: as above.
    """
    seen: set[str] = set()
    pending = [("model", 0, len(data), 0)]
    while pending:
        kind, start, end, depth = pending.pop()
        if depth > DEEPEST_GRAPH * 3:
            raise InvalidModel("graphs nested too deeply", where=source)
        seen.add(kind)
        for number, wire, begin, stop in _fields(data, start, end, source):
            if kind == TENSOR and number in (13, 14) and (number == 13 or data[begin] == 1):
                raise InvalidModel(
                    "tensors in an external file", where=source, hint="Save the model with its weights inside: one .onnx file."
                )
            if kind == NODE and number == 4 and data[begin:stop] in LOADING_OPERATORS:
                raise InvalidModel(f"operator {data[begin:stop].decode()} loads other files or code", where=source)
            inner = FIELDS[kind].get(number)
            if inner and wire == 2:
                pending.append((inner, begin, stop, depth + 1))
    if GRAPH not in seen or NODE not in seen:
        raise InvalidModel("no model file that is understood", where=source, hint="scikit-learn, torch, XGBoost, LightGBM, ONNX.")


def _fields(data: bytes, start: int, end: int, source: str) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and bounds of the content of each field of a protobuf message."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end, source)
        wire = tag & 7
        if wire == 0:
            begin = at
            _, at = _varint(data, at, end, source)
        elif wire in (1, 5):
            begin, at = at, at + (8 if wire == 1 else 4)
        elif wire == 2:
            size, begin = _varint(data, at, end, source)
            at = begin + size
        else:
            raise InvalidModel("no model file that is understood", where=source)
        if at > end or not tag >> 3:
            raise InvalidModel("malformed or truncated ONNX file, or of another format", where=source)
        yield tag >> 3, wire, begin, at


def _varint(data: bytes, at: int, end: int, source: str) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at
    raise InvalidModel("malformed or truncated ONNX file, or of another format", where=source)
