"""A worker process: loads a session once, then does the jobs it is given, one after the other.

It speaks JSON lines: on stdin the set-up and then one job a line; on its original stdout progress and results. What the
user's model prints goes to stderr instead, so that it cannot disturb the conversation. When stdin closes, because the
parent is gone, the worker and all that it started end at once, in the middle of a job if need be.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from typing import Any, TextIO

from holdfast.core.errors import HoldfastError


class Channel:
    """The way back to the parent."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def send(self, message: dict[str, Any]) -> None:
        """Write one line."""
        self._stream.write(json.dumps(message) + "\n")
        self._stream.flush()

    def advance(self, task: str, done: int, total: int) -> None:
        """Forward progress; this makes a channel a `Progress`."""
        self.send({"kind": "progress", "task": task, "done": done, "total": total})


def main() -> None:
    """Serve jobs until stdin closes."""
    channel = Channel(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    setup = json.loads(lines.get())
    try:
        module, _, name = setup["entry"].partition(":")
        session = getattr(importlib.import_module(module), name)(**setup["arguments"])
    except Exception as error:
        channel.send({"kind": "broken", "error": _describe(error)})
        return
    channel.send({"kind": "ready"})
    while True:
        job = json.loads(lines.get())
        try:
            channel.send({"kind": "done", "job": job["id"], "result": session(job, channel)})
        except Exception as error:
            traceback.print_exc()
            channel.send({"kind": "failed", "job": job["id"], "error": _describe(error)})


def _read(lines: queue.Queue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _describe(error: Exception) -> str:
    if isinstance(error, HoldfastError):
        return str(error)
    return f"{type(error).__name__}; its text may hold data and is in the run's log only"


if __name__ == "__main__":
    main()
