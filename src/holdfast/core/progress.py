"""How long work tells where it is, without knowing who is watching."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the state of long work; implementations draw bars, print lines or forward to another process."""

    def advance(self, task: str, done: int, total: int) -> None:
        """Say that `done` of `total` steps of `task` are finished."""


class Silent:
    """A `Progress` that shows nothing."""

    def advance(self, task: str, done: int, total: int) -> None:
        """Ignore the news."""
