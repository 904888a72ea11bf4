"""How a benchmark writes down what it found: checks with bounds, versions and the machine's load."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Check:
    """One row of a result: a claim's check, the value found and the bound it is held against."""

    claim: str
    check: str
    value: float
    bound: str
    ok: bool


class Recorder:
    """Collects checks and writes `results/<name>.json`.

    Args:
        name: of the benchmark.
        packages: whose versions decide the numbers.
    """

    def __init__(self, name: str, packages: tuple[str, ...] = ("numpy", "scipy", "scikit-learn")) -> None:
        self.name = name
        self.checks: list[Check] = []
        self._packages = packages

    def at_most(self, claim: str, check: str, value: float, bound: float) -> bool:
        """Record that `value` should be at most `bound`."""
        return self._add(claim, check, value, f"<= {bound:g}", value <= bound)

    def at_least(self, claim: str, check: str, value: float, bound: float) -> bool:
        """Record that `value` should be at least `bound`."""
        return self._add(claim, check, value, f">= {bound:g}", value >= bound)

    def between(self, claim: str, check: str, value: float, low: float, high: float) -> bool:
        """Record that `value` should lie in [low, high]."""
        return self._add(claim, check, value, f"in [{low:g}, {high:g}]", low <= value <= high)

    def holds(self, claim: str, check: str, condition: bool) -> bool:
        """Record a condition that should be true."""
        return self._add(claim, check, float(condition), "true", condition)

    def write(self) -> int:
        """Write the results, print each check, and return 0 if all held, else 1."""
        RESULTS.mkdir(exist_ok=True)
        document = {
            "benchmark": self.name,
            "versions": {"python": platform.python_version(), **_versions(self._packages)},
            "load": [round(value, 2) for value in os.getloadavg()],
            "rows": [asdict(check) for check in self.checks],
        }
        (RESULTS / f"{self.name}.json").write_text(json.dumps(document, indent=2) + "\n")
        print()
        for check in self.checks:
            print(f"{'ok  ' if check.ok else 'SHORT'} {check.claim:10} {check.check}: {check.value:.4g} ({check.bound})")
        return 0 if all(check.ok for check in self.checks) else 1

    def _add(self, claim: str, check: str, value: float, bound: str, ok: bool) -> bool:
        self.checks.append(Check(claim, check, float(value), bound, bool(ok)))
        return bool(ok)


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
