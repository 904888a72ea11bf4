"""Arrays from NPZ files, without ever unpickling: object arrays are refused, and what a header claims is checked first."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.core.errors import InvalidData

MOST_BYTES = 4 << 30
MOST_MEMBERS = 1000
BOMB_BYTES = 256 << 20
BOMB_RATIO = 200


def read_npz(data: bytes, source: str) -> dict[str, NDArray[Any]]:
    """The arrays of an NPZ file by name.

    Raises:
        InvalidData: malformed, an object array, a header that claims another size than the member has, or a zip bomb.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive, len(data), source)
            return {info.filename.removesuffix(".npy"): _read_member(archive, info, source) for info in archive.infolist()}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise InvalidData(f"not an NPZ file: {error}", where=source) from error


def _check_members(archive: zipfile.ZipFile, size: int, source: str) -> None:
    members = archive.infolist()
    total = sum(info.file_size for info in members)
    if len(members) > MOST_MEMBERS or total > MOST_BYTES or (total > BOMB_BYTES and total > BOMB_RATIO * size):
        raise InvalidData(
            f"{size:,} bytes that claim to unpack to {total:,} in {len(members)} arrays: a zip bomb, or too large", where=source
        )
    names = [info.filename for info in members]
    if len(set(names)) != len(names):
        raise InvalidData("two arrays have one name", where=source)
    strangers = [name for name in names if not name.endswith(".npy")]
    if strangers:
        raise InvalidData(f"holds {strangers[0]!r}, which is no array", where=source)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: str) -> NDArray[Any]:
    where = f"{source}, array {info.filename.removesuffix('.npy')!r}"
    with archive.open(info) as member:
        shape, fortran, dtype, header = array_header(member, where)
        if dtype.hasobject:
            raise InvalidData(
                "an array of Python objects", where=where, hint="Save numbers or fixed-width text; objects would need unpickling."
            )
        claimed = math.prod(shape) * dtype.itemsize
        if claimed != info.file_size - header:
            raise InvalidData(
                f"its header claims {claimed:,} bytes of data, the file holds {info.file_size - header:,}", where=where
            )
        content = member.read()
    if len(content) != claimed:
        raise InvalidData(f"truncated: {len(content):,} of {claimed:,} bytes", where=where)
    values = np.frombuffer(content, dtype=dtype)
    return values.reshape(shape, order="F" if fortran else "C")


def array_header(member: Any, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran order, type, and the number of header bytes of an NPY stream.

    Raises:
        InvalidData: no NPY header, or negative sizes.
    """
    try:
        version = np.lib.format.read_magic(member)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape, fortran, dtype = reader(member)
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise InvalidData("no valid NPY header", where=where) from error
    if any(size < 0 for size in shape):
        raise InvalidData(f"its header claims the shape {shape}", where=where)
    return tuple(shape), bool(fortran), dtype, int(member.tell())
