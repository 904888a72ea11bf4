"""How long the whole loop takes, and how much memory: the care-management demo, step by step.

`python -m benchmarks.whole_loop`. The demo trains, assesses, retrains, assesses again, compares, reports and gates, then does
a second example. There is no peer that does this; the limit is the promise of the README.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.recording import Recorder

ROOT = Path(__file__).parent.parent
MOST_SECONDS = 240
MOST_BYTES = 2 * 2**30


def main(argv: list[str] | None = None) -> int:  # noqa: ARG001
    """Run the demo in a fresh folder and record time and memory."""
    recorder = Recorder("whole_loop", ("numpy", "pandas", "scikit-learn", "torch", "statsmodels"))
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "examples.care_management", folder],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        meter = Meter(process.pid)
        steps: list[tuple[str, float]] = []
        output = []
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            title = re.search(r"== (.*?)\x1b", line)
            if title:
                steps.append((title[1], time.monotonic() - started))
        code = process.wait()
        total = time.monotonic() - started
        meter.stop()
        reports = [Path(folder) / "report.html", Path(folder) / "digits" / "report.html"]
        sizes = [report.stat().st_size for report in reports if report.exists()]
    if code:
        print("".join(output[-30:]))
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{'step':<52} {'seconds':>8}")
    for (title, start), end in zip(steps, [start for _, start in steps[1:]] + [total], strict=True):
        print(f"{title:<52} {end - start:>8.1f}")
    print(f"{'total':<52} {total:>8.1f}   ({cpu.ru_utime + cpu.ru_stime:.0f} CPU-seconds, {meter.peak / 2**20:.0f} MiB at most)")
    recorder.holds("loop-11", "the demo ends with exit code 0", code == 0)
    recorder.holds("loop-11", "it writes two reports under 2 MB", len(sizes) == 2 and max(sizes) < 2_000_000)
    recorder.at_most("loop-11", "wall seconds", total, MOST_SECONDS)
    recorder.at_most("loop-11", "proportional memory of the process tree, bytes", meter.peak, MOST_BYTES)
    return recorder.write()


class Meter:
    """Samples the memory of a process and its descendants, shared pages divided among them."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End sampling."""
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.2):
            self.peak = max(self.peak, sum(_memory(pid) for pid in _tree(self._pid)))


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def _memory(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


if __name__ == "__main__":
    sys.exit(main())
