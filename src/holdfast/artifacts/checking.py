"""Whether opening a model file could run code: a verdict on its bytes, without importing or executing anything in its name.

1. Read the file once; everything later uses these bytes, so that nothing can change between check and load.
2. Identify the format by content.
3. Formats with pickles: follow each pickle symbolically and collect the globals and how they are used.
4. Programs (TorchScript, exported) are code by nature; formats that are not understood are not judged clean.
5. Native formats: check that indices and sizes hold, because their parsers trust them.
6. Allowed: nothing beyond the allow-list, or the file's digest is trusted.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.artifacts.allowlist import allowed_uses
from holdfast.artifacts.archives import torch_pickles, unpack
from holdfast.artifacts.formats import Format, identify
from holdfast.artifacts.lightgbm_files import check_lightgbm
from holdfast.artifacts.onnx_files import check_onnx
from holdfast.artifacts.pickles import Walk, walk_pickle
from holdfast.artifacts.xgboost_files import check_xgboost_json, check_xgboost_ubj
from holdfast.core.errors import InvalidData, InvalidModel, UnsafeFile
from holdfast.core.files import read_file
from holdfast.datasets.array_files import array_header

MOST_BYTES = 8 << 30
NATIVE = {
    "onnx": check_onnx,
    "xgboost json": check_xgboost_json,
    "xgboost ubj": check_xgboost_ubj,
    "lightgbm": check_lightgbm,
}
HINTS: dict[str, str] = {
    "torch legacy": "Save it again with a current torch.save.",
    "keras": "Export it to ONNX.",
    "hdf5": "Export it to ONNX.",
    "safetensors": "Save the state dict with torch.save and name a factory.",
    "skops": "Save the fitted estimator with joblib.dump.",
    "gguf": "Language models are not assessed yet.",
    "npz": "That is a data file; model.path names a model.",
}


@dataclass(frozen=True, kw_only=True)
class FileCheck:
    """A verdict on a model file.

    Attributes:
        path: the file.
        format: by content.
        digest: SHA-256 of the bytes, in hex; what `holdfast trust` records.
        size: in bytes.
        globals: every name the file refers to, `module.name`, sorted.
        unlisted: what opening it could run that is not on the allow-list, sorted; empty for a clean file.
        trusted: whether the digest is among the trusted ones.
        data: the bytes that were judged.
    """

    path: Path
    format: Format
    digest: str
    size: int
    globals: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    trusted: bool = False
    data: bytes = field(repr=False)

    @property
    def allowed(self) -> bool:
        """Whether the file may be opened."""
        return self.trusted or not self.unlisted

    def require(self) -> FileCheck:
        """This check, if the file may be opened.

        Raises:
            UnsafeFile: it may not; names what it could run and the digest that would have to be trusted.
        """
        if self.allowed:
            return self
        listed = ", ".join(self.unlisted[:8]) + (f" and {len(self.unlisted) - 8} more" if len(self.unlisted) > 8 else "")
        raise UnsafeFile(
            f"opening this {self.format} file could run code: {listed}",
            where=str(self.path),
            hint=f"If you know where it comes from, run: holdfast trust {self.path}\n  sha256 {self.digest}",
        )


def check_file(path: Path, trusted: Collection[str] = ()) -> FileCheck:
    """Judge a model file.

    Args:
        path: the file.
        trusted: SHA-256 digests, in hex.

    Raises:
        InvalidModel: no such file, too large, malformed, or of a format that is not understood.
    """
    source = path.name
    data = read_file(path, MOST_BYTES, error=InvalidModel)
    if not data:
        raise InvalidModel("the file is empty", where=str(path))
    digest = hashlib.sha256(data).hexdigest()
    kind = identify(data)
    names, unlisted = _judge(kind, data, source)
    return FileCheck(
        path=path,
        format=kind,
        digest=digest,
        size=len(data),
        globals=names,
        unlisted=unlisted,
        trusted=digest in trusted,
        data=data,
    )


def pickle_bytes(check: FileCheck) -> tuple[bytes, int]:
    """The unpacked pickle stream of a checked pickle, compressed pickle or NPY file, and where it begins."""
    if check.format == "compressed pickle":
        return unpack(check.data, check.path.name), 0
    return check.data, _object_array_start(check.data, check.path.name) if check.format == "npy" else 0


def unlisted_uses(walk: Walk) -> tuple[str, ...]:
    """What a walk found that the allow-list does not have, sorted."""
    allowed = allowed_uses()
    out = []
    for key, uses in walk.uses.items():
        shown = key.replace(":", ".")
        if key not in allowed:
            out.append(shown)
        elif not uses <= allowed[key]:
            out.append(f"{shown} ({', '.join(sorted(uses - allowed[key]))})")
    return tuple(sorted(out))


def _judge(kind: Format, data: bytes, source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if kind in NATIVE:
        NATIVE[kind](data, source)
        return (), ()
    if kind in ("torchscript", "torch export"):
        return (), (f"a {kind} program",)
    if kind in ("pickle", "compressed pickle", "npy"):
        content = unpack(data, source) if kind == "compressed pickle" else data
        start = _object_array_start(data, source) if kind == "npy" else 0
        if content[start : start + 1] not in (b"\x80", *(bytes([sign]) for sign in b"(]}cIFVKNG)")):
            raise InvalidModel("holds no pickle", where=source)
        walk = walk_pickle(content, source, start=start)
        if walk.end != len(content):
            raise InvalidModel(f"{len(content) - walk.end:,} bytes after the end of the pickle", where=source)
        return _names([walk]), unlisted_uses(walk)
    if kind == "torch":
        walks = [walk_pickle(content, f"{source}/{name}", storages=True) for name, content in torch_pickles(data, source)]
        found = sorted({name for walk in walks for name in unlisted_uses(walk)})
        return _names(walks), tuple(found)
    raise InvalidModel(f"a {kind} file is no model that can be loaded", where=source, hint=HINTS.get(kind))


def _names(walks: list[Walk]) -> tuple[str, ...]:
    return tuple(sorted({key.replace(":", ".") for walk in walks for key in walk.uses}))


def _object_array_start(data: bytes, source: str) -> int:
    """Where the pickle of an object array begins in an NPY file."""
    stream = io.BytesIO(data)
    try:
        shape, _, dtype, start = array_header(stream, source)
    except InvalidData as error:
        raise InvalidModel(error.what, where=source) from error
    if not dtype.hasobject:
        raise InvalidModel(f"an array of {dtype} and shape {shape}, not a model", where=source)
    return start
