"""Run the example: `python -m examples.care_management [FOLDER]`. Each step is a command that you could type yourself."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from examples.care_management.train import write
from examples.digits_cnn.train import write as write_digits

HERE = Path(__file__).parent
HOLDFAST = [sys.executable, "-m", "holdfast.cli.main"]


def step(title: str, *arguments: str, folder: Path, allowed: tuple[int, ...] = (0,)) -> None:
    """Show and run one command."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}== {title}{plain}\n$ holdfast {' '.join(arguments)}\n", flush=True)
    code = subprocess.run([*HOLDFAST, *arguments], cwd=folder, check=False).returncode
    if code not in allowed:
        sys.exit(code)


def main() -> None:
    """Describe, measure, control, measure again, compare, gate."""
    started = time.monotonic()
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "out"
    print("Preparing 20,190 person-years of the RAND Health Insurance Experiment and training a forest ...", flush=True)
    write(folder)
    shutil.copy(HERE / "holdfast.yaml", folder)
    shutil.copy(HERE / "policy.yaml", folder)
    step("1. Which threats apply?", "threats", "holdfast.yaml", folder=folder)
    step("2. Attack the model and quantify", "assess", "--budget", "quick", "--output", "before.json", folder=folder)
    step(
        "3. Apply a control: retrain with larger leaves",
        "harden",
        "retrain",
        "holdfast.yaml",
        "--output",
        "hardened.yaml",
        folder=folder,
    )
    step(
        "4. Measure again, with the same rows and seeds",
        "assess",
        "hardened.yaml",
        "--budget",
        "quick",
        "--output",
        "after.json",
        folder=folder,
    )
    step(
        "5. What did the control really do?", "compare", "before.json", "after.json", "--output", "comparison.json", folder=folder
    )
    step(
        "6. The report",
        "report",
        "after.json",
        "--compare",
        "comparison.json",
        "--html",
        "report.html",
        "--sarif",
        "report.sarif",
        folder=folder,
    )
    step(
        "7. Would this pass in continuous integration? A breach is meant: the policy asks for more than this model gives",
        "gate",
        "after.json",
        "--policy",
        "policy.yaml",
        folder=folder,
        allowed=(0, 1, 3),
    )
    images = folder / "digits"
    print("\nA second, smaller example: a convolutional network on scikit-learn's digits.", flush=True)
    write_digits(images)
    step(
        "8. The same command on images",
        *("assess", "holdfast.yaml", "--budget", "quick", "--trust", (images / "net.sha256").read_text().strip()),
        *("--only", "evasion-white-box", "--only", "evasion-labels", "--only", "natural-shift", "--html", "report.html"),
        folder=images,
    )
    print(f"\nDone in {time.monotonic() - started:.0f} seconds.")
    print(f"Report of the health model: {(folder / 'report.html').resolve()}")
    print(f"Report of the image model:  {(images / 'report.html').resolve()}")


if __name__ == "__main__":
    main()
