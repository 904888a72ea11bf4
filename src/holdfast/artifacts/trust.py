"""Which files may run code: a list of digests in the user's own configuration, outside every project.

The list lies in `$XDG_CONFIG_HOME/holdfast/trusted.json` (`~/.config` by default), readable and writable by its owner only.
A project cannot vouch for its own files.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from holdfast.core.errors import ConfigurationError
from holdfast.core.files import open_file, parse_document, write_document

LARGEST = 4 << 20
"""Bytes of the longest list that is read."""
DIGEST = re.compile(r"(?:sha256[: ])?([0-9a-fA-F]{64})")


class TrustedFile(BaseModel):
    """One trusted digest, with the name the file had and when it was trusted (RFC 3339, UTC)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    name: str
    added: str


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: int
    files: list[TrustedFile]


def normal_digests(given: Iterable[str]) -> frozenset[str]:
    """Digests in lower-case hex, with or without a leading `sha256:`.

    Raises:
        ConfigurationError: one of them is no SHA-256 digest.
    """
    out = set()
    for text in given:
        match = DIGEST.fullmatch(text.strip())
        if not match:
            raise ConfigurationError(f"{text!r} is no SHA-256 digest", hint="64 hexadecimal digits, as sha256sum prints them.")
        out.add(match[1].lower())
    return frozenset(out)


class TrustStore:
    """The user's list.

    Args:
        path: where it lies; the user's configuration folder by default.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path()

    def files(self) -> tuple[TrustedFile, ...]:
        """The trusted files, in the order in which they were added.

        Raises:
            ConfigurationError: the list is malformed, or others may write to it.
        """
        file = open_file(self.path)
        if file is None:
            return ()
        with file:
            status = os.fstat(file.fileno())
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ConfigurationError(f"larger than {LARGEST >> 20} MiB", where=str(self.path))
        if hasattr(os, "getuid") and (status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_uid not in (os.getuid(), 0)):
            raise ConfigurationError(
                "others may write to the list of trusted files", where=str(self.path), hint=f"Run: chmod 600 {self.path}"
            )
        document = parse_document(content, _Document, "a list of trusted files", self.path)
        normal_digests(entry.sha256 for entry in document.files)
        return tuple(document.files)

    def digests(self, more: Collection[str] = ()) -> frozenset[str]:
        """The trusted digests, and `more` of them."""
        return normal_digests(entry.sha256 for entry in self.files()) | normal_digests(more)

    def add(self, digest: str, name: str) -> None:
        """Trust a digest; twice is once."""
        (digest,) = normal_digests([digest])
        entry = TrustedFile(sha256=digest, name=name, added=datetime.now(UTC).isoformat(timespec="seconds"))
        self._write([*(known for known in self.files() if known.sha256 != digest), entry])

    def remove(self, digest: str) -> None:
        """Trust a digest no longer; its first 8 digits or more suffice.

        Raises:
            ConfigurationError: not exactly one trusted file begins so.
        """
        wanted = digest.strip().lower().removeprefix("sha256:")
        found = [entry for entry in self.files() if len(wanted) >= 8 and entry.sha256.startswith(wanted)]
        if len(found) != 1:
            raise ConfigurationError(
                f"{len(found)} trusted files have a digest that begins with {wanted!r}", hint="See: holdfast trust --list"
            )
        self._write([entry for entry in self.files() if entry != found[0]])

    def _write(self, files: list[TrustedFile]) -> None:
        write_document(self.path, _Document(format=1, files=files), private=True)


def default_path() -> Path:
    """The list's place in the user's configuration."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(configured) if configured.startswith("/") else Path.home() / ".config"
    return base / "holdfast" / "trusted.json"
