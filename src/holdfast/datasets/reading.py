"""One data entry of the system file, read and taken apart: inputs, labels, row ids, groups, clusters, split.

Steps, in order: read the file by its content, find the target, split by the split column or the role, take out the columns
that are no inputs, name the rows. Labels stay raw here; `datasets.joining` turns them into the model's class indices.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.core.errors import ConfigurationError, InvalidData
from holdfast.core.files import read_file
from holdfast.datasets.array_files import read_npz
from holdfast.datasets.description import DataDescription
from holdfast.datasets.images import read_image_folder
from holdfast.datasets.table_files import MOST_BYTES, read_arrow, read_csv, read_parquet

Role = Literal["train", "holdout"]
INPUTS = ("x", "X", "images", "data", "features")
LABELS = ("y", "Y", "labels", "target", "label")
MOST_CLASSES = 20_000


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file holds.

    Attributes:
        kind: `table`, `array` or `images`.
        x: a DataFrame with every column, or a float array (n, ...).
        labels: (n,) raw labels of arrays and images; None for tables, whose target is a column.
        columns: further (n,) columns of an NPZ file, by name.
        digest: SHA-256 of the bytes.
    """

    kind: Literal["table", "array", "images"]
    x: Any
    labels: NDArray[Any] | None
    columns: Mapping[str, NDArray[Any]]
    digest: str

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The rows of one role, before their labels are class indices."""

    role: Role
    kind: Literal["table", "array", "images"]
    x: Any
    labels: NDArray[Any]
    ids: NDArray[np.str_]
    sensitive: tuple[str, ...]
    groups: pd.DataFrame | None
    clusters: NDArray[np.str_] | None
    digest: str
    path: Path


def read_contents(path: Path, source: str) -> Contents:
    """Read a CSV, Parquet, Arrow or NPZ file, or an image folder; by content, not by name.

    Raises:
        InvalidData: none of these, malformed or too large.
    """
    if path.is_dir():
        folder = read_image_folder(path, source)
        return Contents(kind="images", x=folder.x, labels=folder.labels, columns={}, digest=folder.digest)
    data = read_file(path, MOST_BYTES, error=InvalidData, where=source)
    digest = hashlib.sha256(data).hexdigest()
    kind = identify_data(data)
    if kind == "npz":
        return _from_arrays(read_npz(data, source), digest, source)
    if kind in ("npy", "pickle", "unknown binary"):
        hint = "Give CSV, Parquet, Arrow, NPZ with arrays x and y, or a folder of pictures."
        raise InvalidData(f"a data file of the kind {kind}", where=source, hint=hint)
    reader = {"parquet": read_parquet, "arrow": read_arrow, "csv": read_csv}[kind]
    return Contents(kind="table", x=reader(data, source), labels=None, columns={}, digest=digest)


def identify_data(data: bytes) -> str:
    """`parquet`, `arrow`, `npz`, `npy`, `pickle`, `unknown binary`, or else `csv`."""
    magic: dict[bytes, str] = {
        b"PAR1": "parquet",
        b"ARROW1": "arrow",
        b"\xff\xff\xff\xff": "arrow",
        b"PK\x03\x04": "npz",
        b"\x93NUMPY": "npy",
        b"\x80\x02": "pickle",
        b"\x80\x03": "pickle",
        b"\x80\x04": "pickle",
        b"\x80\x05": "pickle",
        b"\x89PNG": "unknown binary",
        b"\x89HDF": "unknown binary",
        b"\x1f\x8b": "unknown binary",
        b"FEA1": "unknown binary",
    }
    return next((kind for start, kind in magic.items() if data.startswith(start)), "csv")


def read_parts(section: DataDescription, path: Path) -> tuple[list[Part], list[str]]:
    """The rows of a data entry by role, and what had to be assumed.

    Args:
        section: the entry.
        path: its file or folder, already confined to the project.

    Raises:
        InvalidData, ConfigurationError: the file is malformed, or the entry does not fit it.
    """
    contents = read_contents(path, section.path)
    notes: list[str] = []
    columns: Mapping[str, Any] = contents.x if contents.kind == "table" else contents.columns
    for option, names in _named_columns(section).items():
        for name in names:
            _require_column(name, list(columns), contents, section, option)
    labels = _labels(contents, section)
    ids = _row_ids(contents, section, columns)
    parts = []
    for role, rows in _roles(contents, section, columns, notes):
        parts.append(
            Part(
                role=role,
                kind=contents.kind,
                x=_inputs(contents, section, rows),
                labels=labels[rows],
                ids=ids[rows],
                sensitive=tuple(section.sensitive),
                groups=_groups(section, columns, rows),
                clusters=_text(np.asarray(columns[section.cluster]))[rows] if section.cluster else None,
                digest=_part_digest(contents.digest, section, role),
                path=path,
            )
        )
    return parts, notes


def _from_arrays(arrays: Mapping[str, NDArray[Any]], digest: str, source: str) -> Contents:
    inputs = next((name for name in INPUTS if name in arrays), None)
    labels = next((name for name in LABELS if name in arrays and name != inputs), None)
    if inputs is None or labels is None:
        raise InvalidData(
            f"holds the arrays {', '.join(sorted(arrays)) or 'none'}; x (inputs) and y (labels) are needed", where=source
        )
    x, y = arrays[inputs], arrays[labels]
    if x.ndim < 2 or x.dtype.kind not in "fiub":
        raise InvalidData(f"array {inputs!r} has shape {x.shape} and type {x.dtype}; numbers (n, ...) are needed", where=source)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (len(x),):
        raise InvalidData(f"array {labels!r} has shape {y.shape}; one label for each of {len(x)} rows is needed", where=source)
    if not len(x):
        raise InvalidData("no rows", where=source)
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise InvalidData(f"array {inputs!r} holds {int((~np.isfinite(x)).sum()):,} NaN or infinite values", where=source)
    floats = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    rest = {name: values for name, values in arrays.items() if name not in (inputs, labels) and values.shape == (len(x),)}
    return Contents(kind="array", x=np.ascontiguousarray(floats), labels=y, columns=rest, digest=digest)


def _named_columns(section: DataDescription) -> dict[str, list[str]]:
    single = {"target": section.target, "id": section.id, "cluster": section.cluster, "split": section.split}
    lists = {"groups": section.groups, "sensitive": section.sensitive, "drop": section.drop}
    return {option: [name] for option, name in single.items() if name is not None} | {
        key: list(value) for key, value in lists.items()
    }


def _require_column(name: str, known: list[Any], contents: Contents, section: DataDescription, option: str) -> None:
    if name in known or (contents.kind != "table" and option == "target"):
        return
    close = difflib.get_close_matches(name, [str(column) for column in known], n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Columns: {', '.join(map(str, known[:12])) or 'none'}"
    raise ConfigurationError(f"{section.path} has no column {name!r}", where=f"data.{section.name}.{option}", hint=hint)


def _labels(contents: Contents, section: DataDescription) -> NDArray[Any]:
    if contents.labels is not None:
        labels = contents.labels
    elif section.target is None:
        raise ConfigurationError(
            f"which column of {section.path} is the label is not stated", where=f"data.{section.name}", hint="Add target: COLUMN."
        )
    else:
        column = contents.x[section.target]
        missing = int(column.isna().sum())
        if missing:
            first = int(np.flatnonzero(column.isna())[0]) + 1
            raise InvalidData(f"{missing} rows have no label in {section.target!r}", where=f"{section.path}, row {first}")
        labels = column.to_numpy()
    if labels.dtype.kind == "f" and not (labels == np.round(labels)).all():
        raise InvalidData("the labels are decimals; classes are needed", where=section.path)
    if len(pd.unique(pd.Series(labels))) > MOST_CLASSES:
        raise InvalidData(f"more than {MOST_CLASSES:,} different labels; classes are needed", where=section.path)
    return np.asarray(labels)


def _row_ids(contents: Contents, section: DataDescription, columns: Mapping[str, Any]) -> NDArray[np.str_]:
    """The id column where one is named, else the entry's name and the row's number, which tell nothing about the row."""
    if section.id is None:
        return np.array([f"{section.name}-{row}" for row in range(1, len(contents) + 1)], dtype=np.str_)
    ids = _text(np.asarray(columns[section.id]))
    repeated = pd.Series(ids).duplicated().to_numpy()
    if repeated.any():
        raise InvalidData(
            f"{int(repeated.sum())} rows repeat an id of column {section.id!r}",
            where=f"{section.path}, row {int(np.flatnonzero(repeated)[0]) + 1}",
            hint="An id names one row. For what several rows share, such as a patient, use cluster: COLUMN.",
        )
    return ids


def _roles(
    contents: Contents, section: DataDescription, columns: Mapping[str, Any], notes: list[str]
) -> list[tuple[Role, NDArray[np.int64]]]:
    if section.split is None:
        role = section.role
        if role is None:
            role = "holdout"
            notes.append(f"data {section.name!r} states neither role nor split; its rows count as holdout (not trained on)")
        return [(role, np.arange(len(contents)))]
    if section.role is not None:
        raise ConfigurationError("role and split exclude each other", where=f"data.{section.name}")
    values = _text(np.asarray(columns[section.split]))
    strangers = sorted(set(values) - {"train", "holdout"})
    if strangers:
        raise InvalidData(
            f"column {section.split!r} holds {', '.join(repr(str(value)) for value in strangers[:5])}",
            where=section.path,
            hint="A split column says train or holdout in every row.",
        )
    roles: tuple[Role, Role] = ("train", "holdout")
    return [(role, np.flatnonzero(values == role)) for role in roles if (values == role).any()]


def _inputs(contents: Contents, section: DataDescription, rows: NDArray[np.int64]) -> Any:
    if contents.kind != "table":
        return contents.x[rows] if len(rows) < len(contents) else contents.x
    out = {section.target, section.id, section.cluster, section.split, *section.drop}
    kept = [name for name in contents.x.columns if name not in out]
    if not kept:
        raise InvalidData("no columns are left as inputs", where=section.path)
    return contents.x[kept].iloc[rows].reset_index(drop=True)


def _groups(section: DataDescription, columns: Mapping[str, Any], rows: NDArray[np.int64]) -> pd.DataFrame | None:
    if not section.groups:
        return None
    frame = pd.DataFrame({name: np.asarray(columns[name]) for name in section.groups})
    return frame.iloc[rows].reset_index(drop=True)


def _text(values: NDArray[Any]) -> NDArray[np.str_]:
    return np.array([str(value) for value in values], dtype=np.str_)


def _part_digest(digest: str, section: DataDescription, role: Role) -> str:
    """Of the bytes and of everything in the entry that decides which rows and columns this part has."""
    decides = [section.target, section.split, role, section.id, section.cluster, sorted(section.drop), sorted(section.groups)]
    return hashlib.sha256(json.dumps([digest, *decides]).encode()).hexdigest()
