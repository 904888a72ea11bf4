"""Compressed pickles and torch archives, opened within limits and without trusting what their headers claim."""

from __future__ import annotations

import bz2
import io
import lzma
import zipfile
import zlib
from typing import Any

from holdfast.core.errors import InvalidModel

MOST_BYTES = 4 << 30
FREE_BYTES = 64 << 20
"""Below this, the ratio does not matter."""
MOST_RATIO = 100
STEP = 1 << 20
MOST_MEMBERS = 100_000


def unpack(data: bytes, source: str) -> bytes:
    """The content of a zlib, gzip, bzip2, LZMA or xz stream.

    Raises:
        InvalidModel: malformed, truncated, or a bomb: more than `MOST_BYTES`, or far more than a model packs.
    """
    limit = min(MOST_BYTES, max(FREE_BYTES, MOST_RATIO * len(data)))
    try:
        decompressor = _decompressor(data, source)
        out = bytearray()
        if isinstance(decompressor, (bz2.BZ2Decompressor, lzma.LZMADecompressor)):
            pending = data
            while not decompressor.eof:
                piece = decompressor.decompress(pending, STEP)
                if not piece and decompressor.needs_input:
                    raise InvalidModel("truncated compressed data", where=source)
                pending = b""
                out += piece
                _within(len(out), limit, len(data), source)
        else:
            pending = data
            while not decompressor.eof:
                piece = decompressor.decompress(pending, STEP)
                pending = decompressor.unconsumed_tail
                if not piece and not pending and not decompressor.eof:
                    raise InvalidModel("truncated compressed data", where=source)
                out += piece
                _within(len(out), limit, len(data), source)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise InvalidModel(f"malformed compressed data: {error}", where=source) from error
    if decompressor.unused_data:
        raise InvalidModel(f"{len(decompressor.unused_data):,} bytes after the compressed data", where=source)
    return bytes(out)


def torch_pickles(data: bytes, source: str) -> list[tuple[str, bytes]]:
    """Name and bytes of every pickle in a torch archive.

    torch reads the first of two members with one name and Python the last; archives that readers could see differently are
    refused: duplicate names, names that leave the folder, compression, encryption, bytes before the archive, and local
    headers that contradict the directory.

    Raises:
        InvalidModel: as above, or malformed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members, data, source)
            return [(info.filename, archive.read(info)) for info in members if _is_pickle(info, data)]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise InvalidModel(f"malformed archive: {error}", where=source) from error


def _check_members(members: list[zipfile.ZipInfo], data: bytes, source: str) -> None:
    if len(members) > MOST_MEMBERS:
        raise InvalidModel(f"{len(members):,} members", where=source)
    names = [info.filename for info in members]
    if len({name.casefold() for name in names}) != len(names):
        raise InvalidModel("two members have one name", where=source)
    roots = {name.split("/", 1)[0] for name in names}
    if len(roots) != 1:
        raise InvalidModel(f"{len(roots)} folders where a torch archive has one", where=source)
    if members and min(info.header_offset for info in members) != 0:
        raise InvalidModel("bytes before the archive", where=source)
    for info in members:
        parts = info.filename.split("/")
        if ".." in parts or info.filename.startswith("/") or "\\" in info.filename or "\0" in info.orig_filename:
            raise InvalidModel(f"path traversal: member {info.filename!r} leaves the archive's folder", where=source)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1 or info.file_size != info.compress_size:
            raise InvalidModel(
                f"member {info.filename!r} is compressed or encrypted, which torch does not write: a zip bomb?", where=source
            )
        if info.header_offset + info.file_size > len(data):
            raise InvalidModel(f"member {info.filename!r} claims {info.file_size:,} bytes beyond the file's end", where=source)
        local = data[info.header_offset : info.header_offset + 30]
        name = data[info.header_offset + 30 : info.header_offset + 30 + int.from_bytes(local[26:28], "little")]
        if local[:4] != b"PK\x03\x04" or name != info.filename.encode("utf-8") or int.from_bytes(local[8:10], "little"):
            raise InvalidModel(f"member {info.filename!r} has a local header that contradicts the directory", where=source)


def _is_pickle(info: zipfile.ZipInfo, data: bytes) -> bool:
    """Whatever is named or looks like one; tensors' bytes lie in `data/` under numbers and are never unpickled."""
    if info.filename.endswith((".pkl", ".pickle")):
        return True
    start = info.header_offset + 30
    local = data[info.header_offset : start]
    start += int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    folder = info.filename.split("/")[1:-1]
    return (
        folder != ["data"] and data[start : start + 1] == b"\x80" and data[start + 1 : start + 2] in (b"\2", b"\3", b"\4", b"\5")
    )


def _decompressor(data: bytes, source: str) -> Any:
    if data.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31)
    if data.startswith(b"BZh"):
        return bz2.BZ2Decompressor()
    if data.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=512 << 20)
    if data.startswith(b"\x5d\x00\x00"):
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=512 << 20)
    if data.startswith(b"\x04\x22\x4d\x18"):
        raise InvalidModel("compressed with LZ4, which is not supported", where=source, hint="Save it with compress='zlib'.")
    return zlib.decompressobj()


def _within(size: int, limit: int, packed: int, source: str) -> None:
    if size > limit:
        raise InvalidModel(
            f"a zip bomb: {packed:,} bytes unpack to more than {limit:,}",
            where=source,
            hint="A model packs far less tightly. Save it without compression if it is yours.",
        )
