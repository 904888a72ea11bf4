"""Universal Binary JSON, as XGBoost writes it, read within limits. Source: the format's draft 12, ubjson.org."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from holdfast.core.errors import InvalidModel

DEEPEST = 40
MOST_VALUES = 20_000_000
NUMBERS = {b"i": ">b", b"U": ">B", b"I": ">h", b"l": ">i", b"L": ">q", b"d": ">f", b"D": ">d"}
SIZES = (b"i", b"U", b"I", b"l", b"L")


def decode_ubjson(data: bytes, source: str) -> Any:
    """The document; typed arrays of numbers come as NumPy arrays.

    Raises:
        InvalidModel: malformed, truncated or too deep.
    """
    reader = _Reader(data, source)
    try:
        value = reader.value(reader.take(1), 0)
    except (struct.error, UnicodeDecodeError, KeyError) as error:
        raise reader.malformed() from error
    if reader.at != len(data):
        raise InvalidModel(f"{len(data) - reader.at:,} bytes after the document", where=source)
    return value


class _Reader:
    def __init__(self, data: bytes, source: str) -> None:
        self.data = data
        self.source = source
        self.at = 0
        self.values = 0

    def malformed(self) -> InvalidModel:
        return InvalidModel(f"malformed or truncated UBJSON at byte {self.at:,}", where=self.source)

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise self.malformed()
        self.at += count
        return self.data[self.at - count : self.at]

    def value(self, marker: bytes, depth: int) -> Any:
        self.values += 1
        if depth > DEEPEST or self.values > MOST_VALUES:
            raise InvalidModel("UBJSON nested too deeply, or too long", where=self.source)
        if marker in NUMBERS:
            return struct.unpack(NUMBERS[marker], self.take(struct.calcsize(NUMBERS[marker])))[0]
        if marker in (b"Z", b"T", b"F"):
            return {b"Z": None, b"T": True, b"F": False}[marker]
        if marker == b"S":
            return self.text()
        if marker == b"C":
            return self.take(1).decode("ascii")
        if marker == b"[":
            return self.array(depth)
        if marker == b"{":
            return self.object(depth)
        raise self.malformed()

    def size(self, marker: bytes) -> int:
        if marker not in SIZES:
            raise self.malformed()
        size = int(struct.unpack(NUMBERS[marker], self.take(struct.calcsize(NUMBERS[marker])))[0])
        if size < 0:
            raise self.malformed()
        return size

    def text(self, marker: bytes | None = None) -> str:
        return self.take(self.size(marker or self.take(1))).decode("utf-8")

    def counted(self) -> tuple[bytes | None, int | None]:
        """The type and count that may stand before a container's content."""
        kind = None
        if self.data[self.at : self.at + 1] == b"$":
            self.take(1)
            kind = self.take(1)
            if self.data[self.at : self.at + 1] != b"#":
                raise self.malformed()
        if self.data[self.at : self.at + 1] == b"#":
            self.take(1)
            return kind, self.size(self.take(1))
        return kind, None

    def array(self, depth: int) -> Any:
        kind, count = self.counted()
        if kind in NUMBERS and count is not None:
            dtype = np.dtype(NUMBERS[kind])
            return np.frombuffer(self.take(count * dtype.itemsize), dtype=dtype)
        out = []
        if count is not None:
            for _ in range(count):
                out.append(self.value(kind or self.take(1), depth + 1))
            return out
        while (marker := self.take(1)) != b"]":
            out.append(self.value(marker, depth + 1))
        return out

    def object(self, depth: int) -> dict[str, Any]:
        kind, count = self.counted()
        out: dict[str, Any] = {}
        while count is None or len(out) < count:
            marker = self.take(1)
            if count is None and marker == b"}":
                break
            key = self.text(marker)
            if key in out:
                raise InvalidModel(f"UBJSON with two keys {key!r}", where=self.source)
            out[key] = self.value(kind or self.take(1), depth + 1)
        return out
