"""What a run stands in: the versions that decide its results, and the folder for what only this user needs."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import holdfast

STATE_VARIABLE = "XDG_STATE_HOME"
DECIDING_PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "torch", "xgboost", "lightgbm", "onnxruntime")


def versions() -> dict[str, str]:
    """Versions of what decides results."""
    found = {"holdfast": holdfast.__version__, "python": platform.python_version()}
    for package in DECIDING_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def state_folder() -> Path:
    """With the user and not with the project, whose author must not supply what is kept there."""
    state = os.environ.get(STATE_VARIABLE)
    return (Path(state) if state else Path.home() / ".local" / "state") / "holdfast"
