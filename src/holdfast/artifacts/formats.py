"""What a file is, by its content; its name decides nothing."""

from __future__ import annotations

import io
import zipfile
from typing import Literal

Format = Literal[
    "pickle",
    "compressed pickle",
    "npy",
    "npz",
    "torch",
    "torch legacy",
    "torchscript",
    "torch export",
    "onnx",
    "xgboost json",
    "xgboost ubj",
    "lightgbm",
    "keras",
    "hdf5",
    "safetensors",
    "gguf",
    "skops",
    "zip",
    "unknown",
]
LEGACY_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"\x93NUMPY", "npy"),
    (b"\x89HDF\r\n", "hdf5"),
    (b"GGUF", "gguf"),
    (b"\x1f\x8b", "compressed pickle"),
    (b"BZh", "compressed pickle"),
    (b"\xfd7zXZ\x00", "compressed pickle"),
    (b"\x5d\x00\x00", "compressed pickle"),
    (b"\x04\x22\x4d\x18", "compressed pickle"),
    (b"tree\n", "lightgbm"),
)


def identify(data: bytes) -> Format:
    """The format of a model file's bytes."""
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _identify_zip(data)
    for start, kind in MAGIC:
        if data.startswith(start):
            return kind
    head = data[:4096]
    if data[:1] == b"\x80" and data[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "torch legacy" if head[2:].startswith(LEGACY_TORCH) else "pickle"
    if data[:1] == b"x" and len(data) > 1 and int.from_bytes(data[:2], "big") % 31 == 0:
        return "compressed pickle"
    stripped = head.lstrip()
    if stripped[:1] == b"{" and b'"learner"' in data:
        return "xgboost json"
    if data[:1] == b"{" and b"learner" in head:
        return "xgboost ubj"
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        return "safetensors"
    if data[:1] == b"\x08" and len(data) > 8:
        return "onnx"
    if data[:1] in b"(]}cIFVKNG)" and data.rstrip()[-1:] == b"." and data:
        return "pickle"
    return "unknown"


def _identify_zip(data: bytes) -> Format:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return "zip"
    leaves = {name.split("/", 1)[1] for name in names if "/" in name}
    if "archive_format" in leaves or "models/model.json" in leaves or "serialized_exported_program.json" in names:
        return "torch export"
    if "constants.pkl" in leaves and any(name.startswith("code/") for name in leaves):
        return "torchscript"
    if "data.pkl" in leaves:
        return "torch"
    if "schema.json" in names:
        return "skops"
    if {"config.json", "metadata.json"} <= set(names):
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    return "zip"
