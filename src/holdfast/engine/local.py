"""Runs jobs in worker processes on this machine.

A worker that dies takes only its own job with it: the job is reported as failed and another worker is started for the
rest. Each worker computes on one thread, so that results do not depend on how many cores there are. No worker, and no process
that the user's model starts in one, imports anything from the current folder (PYTHONSAFEPATH): a file beside a system file must
not run because it is named like a module. When a worker ends, for whatever reason, the processes that it started end with it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.core.errors import HoldfastError
from holdfast.core.progress import Progress

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


class WorkerError(HoldfastError):
    """No worker could be set up."""


@dataclass(frozen=True)
class Result:
    """The outcome of one job: its result, or the error that ended it."""

    job: str
    result: Any = None
    error: str | None = None


class LocalEngine:
    """A pool of worker processes that share one kind of session.

    Args:
        entry: `module:callable`; called with `arguments`, it returns the session, a callable of (job, progress).
        arguments: plain values for it.
        workers: how many processes; the number of cores by default.
        log: a file that collects what workers and the user's model print.
    """

    def __init__(self, entry: str, arguments: Mapping[str, Any], *, workers: int | None = None, log: Path | None = None) -> None:
        self._setup = json.dumps({"entry": entry, "arguments": dict(arguments)})
        self._workers = workers or os.cpu_count() or 1
        self._log = log

    def run(self, jobs: Sequence[Mapping[str, Any]], progress: Progress) -> Iterator[Result]:
        """Do the jobs, and yield each result as it comes. Every job has a string `id`.

        Raises:
            WorkerError: the session cannot be set up.
        """
        waiting = list(jobs)[::-1]
        events: queue.Queue[tuple[_Worker, dict[str, Any]]] = queue.Queue()
        pool = [_Worker(self._setup, self._log, events) for _ in range(min(self._workers, len(waiting)))]
        left = len(waiting)
        try:
            while left:
                worker, event = events.get()
                kind = event["kind"]
                if kind == "progress":
                    progress.advance(f"{worker.job}: {event['task']}", event["done"], event["total"])
                    continue
                if kind == "broken":
                    raise WorkerError(f"a worker could not start: {event['error']}")
                if kind == "gone":
                    pool.remove(worker)
                    if worker.job is None:
                        if worker.ready:
                            continue
                        raise WorkerError(f"a worker ended with status {event['status']} before it was ready", hint=self._hint())
                    left -= 1
                    yield Result(worker.job, error=f"the worker process died ({_status(event['status'])})")
                    if waiting:
                        pool.append(_Worker(self._setup, self._log, events))
                    continue
                if kind == "ready":
                    worker.ready = True
                else:
                    left -= 1
                    worker.job = None
                    yield Result(event["job"], event.get("result"), event.get("error"))
                if waiting:
                    worker.give(waiting.pop())
                else:
                    worker.kill()
        finally:
            for worker in pool:
                worker.kill()

    def _hint(self) -> str | None:
        return f"See {self._log}" if self._log else None


class _Worker:
    """One process, and the thread that listens to it."""

    def __init__(self, setup: str, log: Path | None, events: queue.Queue[tuple[_Worker, dict[str, Any]]]) -> None:
        self.job: str | None = None
        self.ready = False
        sink = log.open("ab") if log else None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "holdfast.engine.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink if sink else subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,
            env={**os.environ, **ONE_THREAD, "PYTHONSAFEPATH": "1"},
        )
        if sink:
            sink.close()
        self._write(setup)
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()
        threading.Thread(target=self._clear, daemon=True).start()

    def give(self, job: Mapping[str, Any]) -> None:
        """Hand over a job."""
        self.job = str(job["id"])
        self._write(json.dumps(dict(job)))

    def kill(self) -> None:
        """End the process and those that it started, whatever they are doing, and wait until it is gone."""
        if self._process.poll() is None:
            self._end_group()
        self._process.wait()

    def _clear(self) -> None:
        """What a worker that is gone has started must not hold its output open, or go on."""
        self._process.wait()
        self._end_group()

    def _end_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _write(self, line: str) -> None:
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass

    def _listen(self, events: queue.Queue[tuple[_Worker, dict[str, Any]]]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                events.put((self, json.loads(line)))
            except ValueError:
                break
        events.put((self, {"kind": "gone", "status": self._process.wait()}))


def _status(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
