"""Progress of a run on a terminal (bars with the time left) or in a log (plain lines)."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from holdfast.cli.output import console, plain_lines
from holdfast.reports.text import clean


class Watcher:
    """A `Progress` for people, used as a context manager; everything goes to stderr.

    Args:
        probes: how many probes will run.
        expected: estimated seconds for all of them.
    """

    def __init__(self, probes: int, expected: float) -> None:
        self._probes = probes
        self._expected = expected
        self._finished = 0
        self._started = time.monotonic()
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        if not plain_lines():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            self._bars = Progress(
                TextColumn("{task.description:<42}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> Watcher:
        if self._bars:
            self._bars.start()
            self._tasks[""] = self._bars.add_task("all probes", total=self._probes)
        else:
            self._line(f"measuring with {self._probes} probes, about {duration(self._expected)}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars:
            self._bars.stop()

    def advance(self, task: str, done: int, total: int) -> None:
        """Move a probe's bar."""
        if not self._bars:
            return
        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(f"  {clean(task)}", total=total)
        self._bars.update(self._tasks[task], completed=done, total=total)

    def finished(self, name: str, status: str, summary: str) -> None:
        """Say that a probe is done."""
        self._finished += 1
        if self._bars:
            self._bars.update(self._tasks[""], completed=self._finished)
            self._bars.console.print(clean(f"{name:<28} {status:<15} {summary}".rstrip()), markup=False)
        else:
            self._line(f"[{self._finished}/{self._probes}] {name}: {status}{': ' if summary else ''}{summary}")

    def _line(self, text: str) -> None:
        sys.stderr.write(f"{duration(time.monotonic() - self._started):>6}  {clean(text)}\n")
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """`45 s`, `3 min` or `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
