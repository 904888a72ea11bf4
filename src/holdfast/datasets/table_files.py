"""Tables from files: CSV, Parquet, Arrow and Feather, as DataFrames with unique text column names.

A file is input from outside. It is read once, within limits, and what is wrong with it is said with the row it is wrong
in. Column names and cells are text and stay text: nothing in them is evaluated, here or later.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import pandas as pd

from holdfast.core.errors import InvalidData, MissingExtra

MOST_BYTES = 2 << 30
MOST_COLUMNS = 20_000
MOST_CELLS = 2_000_000_000


def read_csv(data: bytes, source: str) -> pd.DataFrame:
    """A frame from CSV bytes: UTF-8, a header, and rows as wide as it; `,`, `;` or tab between fields.

    Raises:
        InvalidData: empty, not UTF-8, only a header, ragged, a NUL byte, a huge field, unbalanced quotes, or two columns of
            one name.
    """
    text = _decoded(data, source)
    separator = _separator(text)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    count = 0
    try:
        for fields in rows:
            if not fields:
                continue
            if not header:
                header = checked_names(fields, source)
                continue
            count += 1
            if len(fields) != len(header):
                raise InvalidData(
                    f"{len(fields)} fields where the header has {len(header)}", where=f"{source}, line {rows.line_num}"
                )
    except csv.Error as error:
        raise InvalidData(f"not CSV: {error}", where=f"{source}, line {rows.line_num}") from error
    if not count:
        raise InvalidData("no rows below the header", where=source)
    try:
        frame = pd.read_csv(io.StringIO(text), sep=separator, index_col=False, low_memory=False, header=0, names=header)
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        raise InvalidData(f"not CSV: {error}", where=source) from error
    if len(frame) != count:
        raise InvalidData(f"{count} rows by one reading and {len(frame)} by another; are quotes balanced?", where=source)
    return frame


def read_parquet(data: bytes, source: str) -> pd.DataFrame:
    """A frame from Parquet bytes.

    Raises:
        InvalidData: malformed, empty, or far larger than the file.
        MissingExtra: pyarrow is not installed.
    """
    pa, parquet, _ = _pyarrow()
    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        meta = file.metadata
        groups = [meta.row_group(index) for index in range(meta.num_row_groups)]
        if sum(max(0, group.total_byte_size) for group in groups) > MOST_BYTES or meta.num_rows * meta.num_columns > MOST_CELLS:
            raise InvalidData(f"unpacks to more than {MOST_BYTES >> 30} GiB or {MOST_CELLS:,} cells", where=source)
        table = file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise InvalidData(f"not Parquet: {_short(error)}", where=source) from error
    return _from_arrow(table, source)


def read_arrow(data: bytes, source: str) -> pd.DataFrame:
    """A frame from the bytes of an Arrow IPC file (Feather version 2) or stream.

    Raises:
        InvalidData: malformed, empty, or far larger than the file.
        MissingExtra: pyarrow is not installed.
    """
    pa, _, ipc = _pyarrow()
    try:
        buffer = pa.BufferReader(data)
        reader = ipc.open_file(buffer) if data[:6] == b"ARROW1" else ipc.open_stream(buffer)
        table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise InvalidData(f"not Arrow: {_short(error)}", where=source) from error
    if table.nbytes > MOST_BYTES:
        raise InvalidData(f"unpacks to more than {MOST_BYTES >> 30} GiB", where=source)
    return _from_arrow(table, source)


def checked_names(names: list[str], source: str) -> list[str]:
    """The column names, if they are unique, not empty and not too many."""
    if len(names) > MOST_COLUMNS:
        raise InvalidData(f"{len(names):,} columns; at most {MOST_COLUMNS:,}", where=source)
    empty = [index for index, name in enumerate(names, 1) if not name.strip()]
    if empty:
        raise InvalidData(f"column {empty[0]} has no name", where=f"{source}, header")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidData(f"two columns are named {name!r}", where=f"{source}, header")
        seen.add(name)
    return names


def _separator(text: str) -> str:
    """The first of comma, semicolon and tab that splits header and first row into equally many fields, more than one.

    Where none does, the comma: a table of one column, or a ragged one that the reader will complain about.
    """
    for separator in (",", ";", "\t"):
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            header, first = (len(next((row for row in rows if row), [])) for _ in range(2))
        except csv.Error:
            continue
        if header == first > 1:
            return separator
    return ","


def _decoded(data: bytes, source: str) -> str:
    if not data.strip():
        raise InvalidData("the file is empty", where=source)
    if b"\0" in data:
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        line = data[: data.index(b"\0")].count(b"\n") + 1
        hint = "It looks like UTF-16; save it as UTF-8." if utf16 else "Is this a text file?"
        raise InvalidData("a NUL byte", where=f"{source}, line {line}", hint=hint)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidData(
            f"byte 0x{data[error.start]:02x} is not UTF-8", where=f"{source}, line {line}", hint="Save the file as UTF-8."
        ) from error


def _from_arrow(table: Any, source: str) -> pd.DataFrame:
    kept = [name for name in table.column_names if not name.startswith("__index_level_")]
    checked_names(kept, source)
    if not table.num_rows or not kept:
        raise InvalidData("no rows", where=source)
    nested = [field.name for field in table.schema if field.name in kept and field.type.num_fields]
    if nested:
        raise InvalidData(f"column {nested[0]!r} is nested; a cell must be one value", where=source)
    frame = table.select(kept).to_pandas(ignore_metadata=True, use_threads=False)
    return frame if isinstance(frame, pd.DataFrame) else pd.DataFrame(frame)


def _pyarrow() -> tuple[Any, Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import ipc, parquet
    except ImportError as error:
        raise MissingExtra.of("pyarrow", "parquet", "A Parquet or Arrow file") from error
    return pa, parquet, ipc


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
