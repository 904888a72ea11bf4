"""Image folders: one folder a class, as a float32 array (n, channels, height, width) in [0, 1].

Channels are 1 where every picture is grey and 3 otherwise. Links are not followed. Decoding is limited to four formats and
to `MOST_PIXELS` a picture, which is checked before anything is unpacked.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.core.errors import InvalidData, MissingExtra
from holdfast.core.files import read_file

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MOST_IMAGES = 500_000
MOST_PIXELS = 16_000_000
MOST_FILE_BYTES = 64 << 20
MOST_BYTES = 4 << 30


@dataclass(frozen=True)
class ImageFolder:
    """What a folder holds: (n, c, h, w) pictures, (n,) class names, their content digests and the folder's digest."""

    x: NDArray[np.float32]
    labels: NDArray[np.str_]
    digests: tuple[str, ...]
    digest: str


def read_image_folder(root: Path, source: str) -> ImageFolder:
    """All pictures below the class folders of `root`, in sorted order.

    Raises:
        InvalidData: no class folders, a link, something that is no picture, pictures of different sizes, or too much.
        MissingExtra: Pillow is not installed.
    """
    classes = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    loose = [entry.name for entry in classes if entry.is_symlink() or not entry.is_dir()]
    if loose:
        raise InvalidData(f"{loose[0]!r} is no class folder", where=source, hint="One folder a class, pictures in them.")
    files = [(folder.name, file) for folder in classes for file in _pictures(folder, source)]
    if not files:
        raise InvalidData("no pictures", where=source, hint=f"One folder a class, pictures ({', '.join(SUFFIXES)}) in them.")
    if len(files) > MOST_IMAGES:
        raise InvalidData(f"{len(files):,} pictures; at most {MOST_IMAGES:,}", where=source)
    pictures: list[NDArray[np.uint8]] = []
    digests: list[str] = []
    total = hashlib.sha256()
    size = 0
    for label, file in files:
        where = f"{source}/{label}/{file.name}"
        data = read_file(file, MOST_FILE_BYTES, error=InvalidData, where=where)
        digests.append(hashlib.sha256(data).hexdigest())
        total.update(f"{label}/{file.name}\0{digests[-1]}\n".encode("utf-8", "surrogateescape"))
        pictures.append(_decode(data, where))
        if pictures[-1].shape[:2] != pictures[0].shape[:2]:
            raise InvalidData(
                f"{pictures[-1].shape[1]} x {pictures[-1].shape[0]} pixels where the first picture has "
                f"{pictures[0].shape[1]} x {pictures[0].shape[0]}",
                where=where,
                hint="Resize the pictures to what the model takes.",
            )
        size += 4 * pictures[-1].size
        if size > MOST_BYTES:
            raise InvalidData(f"unpacks to more than {MOST_BYTES >> 30} GiB", where=source)
    return ImageFolder(
        x=_stacked(pictures), labels=np.array([label for label, _ in files]), digests=tuple(digests), digest=total.hexdigest()
    )


def _pictures(folder: Path, source: str) -> list[Path]:
    found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    for entry in found:
        if entry.is_symlink() or not entry.is_file() or entry.suffix.lower() not in SUFFIXES:
            raise InvalidData("no picture", where=f"{source}/{folder.name}/{entry.name}", hint=f"One of {', '.join(SUFFIXES)}.")
    return found


def _decode(data: bytes, where: str) -> NDArray[np.uint8]:
    """(h, w) grey or (h, w, 3) colour bytes."""
    image_module = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", image_module.DecompressionBombWarning)
            image = image_module.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > MOST_PIXELS:
                raise InvalidData(f"{image.width} x {image.height} pixels; at most {MOST_PIXELS:,}", where=where)
            if image.mode.startswith("I"):
                deep = np.asarray(image, dtype=np.float64)
                return np.round(deep / max(65535.0, float(deep.max(initial=0))) * 255).astype(np.uint8)
            return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except InvalidData:
        raise
    except Exception as error:
        raise InvalidData(f"cannot be decoded: {type(error).__name__}", where=where) from error


def _stacked(pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    colour = any(picture.ndim == 3 for picture in pictures)
    height, width = pictures[0].shape[:2]
    out = np.empty((len(pictures), 3 if colour else 1, height, width), dtype=np.float32)
    for index, picture in enumerate(pictures):
        out[index] = picture.transpose(2, 0, 1) if picture.ndim == 3 else picture
    out /= 255
    return out


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra.of("pillow", "images", "An image folder") from error
    return Image
