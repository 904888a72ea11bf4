"""Run all benchmarks, one after the other: `python -m benchmarks [--data DIR] [--quick]`."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = (
    "intervals",
    "risk_calibration",
    "membership",
    "label_only",
    "whole_loop",
    "footprint",
    "white_box",
    "certification",
    "masking",
)


def main() -> int:
    """Run each with the given arguments; 1 if any fell short."""
    codes = []
    for name in BENCHMARKS:
        print(f"\n=== {name}", flush=True)
        codes.append(importlib.import_module(f"benchmarks.{name}").main(sys.argv[1:]))
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
