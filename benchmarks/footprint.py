"""What installing Holdfast without extras brings, and how soon it answers: `python -m benchmarks.footprint`.

Makes a fresh environment, installs the package with the locked versions and no extra, and looks at what is there. Sizes are
those of the files' contents; `pip` and `setuptools`, which every environment has, are left out. There is no peer; the
limits are the promise of the README.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.recording import Recorder

ROOT = Path(__file__).parent.parent
CLAIM = "install-1"
MOST_BYTES = 400 * 2**20
MOST_SECONDS = 0.5
RUNS = 7
EVERYWHERE = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
"""What a fresh environment may hold before anything is installed."""
HEAVY = {
    "neural-network library": ("torch", "tensorflow", "jax", "keras", "onnxruntime", "xgboost", "lightgbm"),
    "server": ("fastapi", "starlette", "flask", "django", "tornado", "aiohttp", "uvicorn", "gunicorn", "werkzeug"),
    "plotting package": ("matplotlib", "plotly", "seaborn", "bokeh", "altair"),
}


def main(argv: list[str] | None = None) -> int:  # noqa: ARG001
    """Install, measure and record."""
    recorder = Recorder("footprint", ("numpy", "pandas", "scikit-learn", "scipy", "sqlalchemy"))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "environment"
        python = install(home)
        packages = installed(python)
        code, all_files = sizes(home)
        seconds = help_seconds(home / "bin" / "holdfast")
    total, without = sum(all_files.values()), sum((all_files - code).values())
    print(f"{'':<36} {'here':>8} {'limit':>8} {'ratio':>6}")
    print(f"{'MiB installed, with byte code':<36} {total / 2**20:>8.1f} {MOST_BYTES / 2**20:>8.0f} {total / MOST_BYTES:>6.2f}")
    print(f"{'MiB installed, without byte code':<36} {without / 2**20:>8.1f}")
    print(f"{'seconds of holdfast --help':<36} {seconds:>8.2f} {MOST_SECONDS:>8.1f} {seconds / MOST_SECONDS:>6.2f}")
    print("largest: " + ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in all_files.most_common(6)))
    print(f"{len(packages)} packages: {', '.join(sorted(packages))}")
    recorder.holds(CLAIM, "the package itself is installed, with its dependencies", {"holdfast", "scikit-learn"} <= packages)
    for kind, names in HEAVY.items():
        recorder.holds(CLAIM, f"no {kind} is installed", packages.isdisjoint(names))
    recorder.at_most(CLAIM, "MiB installed without extras, byte code included", total / 2**20, MOST_BYTES / 2**20)
    recorder.at_most(CLAIM, "MiB installed without extras, byte code left out", without / 2**20, MOST_BYTES / 2**20)
    recorder.at_most(CLAIM, f"wall seconds of holdfast --help, median of {RUNS}", seconds, MOST_SECONDS)
    return recorder.write()


def install(home: Path) -> Path:
    """A fresh environment with the package and no extra; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = home / "bin" / "python"
    quiet = [str(python), "-m", "pip", "--disable-pip-version-check", "-qq"]
    subprocess.run([*quiet, "install", "-c", str(ROOT / "constraints.txt"), str(ROOT)], check=True)
    return python


def installed(python: Path) -> set[str]:
    """Names of the distributions that an environment holds."""
    listing = [str(python), "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"]
    found = json.loads(subprocess.run(listing, check=True, capture_output=True, text=True).stdout)
    return {entry["name"].lower().replace("_", "-") for entry in found}


def sizes(home: Path) -> tuple[Counter[str], Counter[str]]:
    """Bytes of byte code, and of everything, by the entry of `site-packages` that holds them."""
    code: Counter[str] = Counter()
    everything: Counter[str] = Counter()
    (packages,) = home.glob("lib/python*/site-packages")
    for file in packages.rglob("*"):
        name = file.relative_to(packages).parts[0]
        if name.removesuffix(".dist-info").split("-")[0] in EVERYWHERE or name in EVERYWHERE or not file.is_file():
            continue
        size = file.lstat().st_size
        everything[name] += size
        if file.suffix == ".pyc":
            code[name] += size
    return code, everything


def help_seconds(command: Path) -> float:
    """Median wall time of `holdfast --help`, after one run that is not counted."""
    taken = []
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    for _ in range(1 + RUNS):
        started = time.perf_counter()
        subprocess.run([str(command), "--help"], check=True, stdout=subprocess.DEVNULL, env=environment)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


if __name__ == "__main__":
    sys.exit(main())
