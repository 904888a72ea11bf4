"""How commands speak: tables and sentences for people on stdout, one JSON document with `--json`, errors on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
SystemFile = Annotated[str, typer.Argument(metavar="SYSTEM", help="The system file.", show_default=True)]
DEFAULT_SYSTEM = "holdfast.yaml"


def emit_json(document: Any) -> None:
    """Print a JSON document, or the JSON form of a pydantic model."""
    if hasattr(document, "model_dump"):
        document = document.model_dump(mode="json")
    text = json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False)
    _to_whoever_reads(lambda: sys.stdout.write(text + "\n"))


def say(text: str = "") -> None:
    """Print a line of rich markup; text that came from data or files must be escaped by the caller."""
    _to_whoever_reads(lambda: console().print(text, highlight=False, soft_wrap=True))


def _to_whoever_reads(write: Callable[[], Any]) -> None:
    """Write to stdout; when its reader is gone, go on silently, so that the exit code stays that of the verdict."""
    try:
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console() -> Any:
    """The rich console for stdout; it draws colours and bars on a terminal only."""
    from rich.console import Console

    return Console(highlight=False)


def plain_lines() -> bool:
    """Whether long work should print plain lines instead of bars."""
    return bool(os.environ.get("CI")) or not sys.stderr.isatty()
