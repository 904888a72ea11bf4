"""How commands speak: tables and sentences for people on stdout, one JSON document with `--json`, errors on stderr.

Every string that is printed passes through this module. Names from models, data and files may hold escape sequences and
characters that reorder a line: `Terminal` and `print_error` show them by their code point, and in JSON they are `\\u` escapes.
`plain` is for such text inside markup: it also takes line breaks out, so that no name can write a line of its own.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.text import Text

from holdfast.core.errors import HoldfastError
from holdfast.reports.text import clean, visible

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
SystemFile = Annotated[str, typer.Argument(metavar="SYSTEM", help="The system file.", show_default=True)]
DEFAULT_SYSTEM = "holdfast.yaml"
LONGEST_LINE = 2000
"""Characters of the longest line of an error or a description that is printed whole."""
PIPED_WIDTH = 100
"""Columns of what is written into a file or a pipe."""


class Terminal(Console):
    """A rich console that sends no control character but those that rich itself makes for colours and bars."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, with what a reader cannot see shown by its code point."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def console(*, stderr: bool = False) -> Terminal:
    """The rich console for stdout or stderr; it draws colours and bars on a terminal only."""
    made = Terminal(highlight=False, emoji=False, stderr=stderr)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = PIPED_WIDTH
    return made


def plain(text: object) -> str:
    """One line of text from data, models or files, fit for rich's markup."""
    return escape(clean(str(text)))


def plain_text(text: str, style: str = "") -> Text:
    """The same without markup, for tables."""
    return Text(clean(text, LONGEST_LINE), style=style)


def emit_json(document: Any) -> None:
    """Print a JSON document, or the JSON form of a pydantic model."""
    if hasattr(document, "model_dump"):
        document = document.model_dump(mode="json")
    text = json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False)
    _to_whoever_reads(lambda: sys.stdout.write(escaped(text) + "\n"))


def escaped(text: str) -> str:
    """JSON text whose invisible characters are written as `\\u` escapes; it means the same."""
    return re.sub(r"[^ -~\n]", lambda match: match[0] if visible(match[0]) == match[0] else json.dumps(match[0])[1:-1], text)


def say(text: str = "") -> None:
    """Print a line of rich markup; text that came from data or files goes through `plain` first."""
    _to_whoever_reads(lambda: console().print(text, highlight=False, soft_wrap=True))


def say_lines(text: str) -> None:
    """Print a document of several lines as it is, without markup."""
    _to_whoever_reads(lambda: sys.stdout.write(visible(text)))


def print_error(error: HoldfastError) -> None:
    """Say on stderr what was wrong, where, and what to do; with `--json` also as a document `{"error": ...}` on stdout.

    Only the first line begins at the margin, so that no text in an error can pass for a line of its own.
    """
    lines = [clean(line, LONGEST_LINE) for line in str(error).splitlines() or [""]]
    sys.stderr.write("\n  ".join([f"holdfast: {lines[0]}", *(line.strip() for line in lines[1:])]) + "\n")
    if wants_json():
        emit_json(
            {
                "error": {
                    "kind": type(error).__name__,
                    "what": error.what,
                    "where": error.where,
                    "hint": error.hint,
                    "exit_code": error.exit_code,
                }
            }
        )


def wants_json() -> bool:
    """Whether `--json` was given, also where the command line could not be understood."""
    return "--json" in sys.argv[1:]


def plain_lines() -> bool:
    """Whether long work should print plain lines instead of bars."""
    return bool(os.environ.get("CI")) or not sys.stderr.isatty()


def _to_whoever_reads(write: Callable[[], Any]) -> None:
    """Write to stdout; when its reader is gone, go on silently, so that the exit code stays that of the verdict."""
    try:
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
