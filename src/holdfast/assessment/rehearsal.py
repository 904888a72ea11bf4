"""Opening a model in a process of its own first.

Checks refuse every forgery that is known. What compiled code does with one that is not known may end its process without a
word; that process must not be the user's command. A file that was opened once with the installed versions is not rehearsed
again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from holdfast.artifacts.checking import check_file
from holdfast.artifacts.loading import load_object
from holdfast.artifacts.paths import resolve_inside
from holdfast.assessment.loading import load_target
from holdfast.assessment.surroundings import state_folder, versions
from holdfast.core.errors import InvalidModel
from holdfast.core.progress import Progress, Silent
from holdfast.engine.local import LocalEngine
from holdfast.threats.reader import read_system
from holdfast.threats.system import System


def rehearse(system: System, file: Path, trust: Collection[str] = ()) -> None:
    """Load what a system file describes, its model's first predictions included, and see the process survive.

    Every other failure is left to the caller's own loading, which says it better.

    Raises:
        InvalidModel: the process died.
        ConfigurationError, InvalidModel, UnsafeFile: the model's file cannot be read.
    """
    if system.model.path is not None:
        path = resolve_inside(file.resolve().parent, system.model.path, "model.path")
        _survive(path, {"file": str(file.resolve()), "trust": list(trust)}, system.model.path)


def rehearse_file(path: Path) -> None:
    """Open a model's file alone.

    Raises:
        InvalidModel: the process died.
    """
    _survive(path, {"model": str(path.resolve())}, path.name)


def _survive(path: Path, arguments: Mapping[str, Any], source: str) -> None:
    if path.is_dir():
        return
    opened = {"file": check_file(path).digest, "versions": versions(), "alone": "model" in arguments}
    mark = state_folder() / "opened" / hashlib.sha256(json.dumps(opened, sort_keys=True).encode()).hexdigest()[:32]
    if mark.exists():
        return
    engine = LocalEngine("holdfast.assessment.rehearsal:Rehearsal", arguments, workers=1)
    for result in engine.run([{"id": "opening"}], Silent()):
        if result.error is not None:
            raise InvalidModel(
                f"opening it, or its first predictions, ended the process: {result.error}",
                where=source,
                hint="The file is damaged, forged, or of another library version. Do not use it before you know which.",
            )
        if not result.result:
            return
    with suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        mark.touch(mode=0o600)


class Rehearsal:
    """What the process does: load, and keep silent about errors."""

    def __init__(self, file: str = "", trust: Sequence[str] = (), model: str = "") -> None:
        self._file, self._trust, self._model = Path(file), trust, model

    def __call__(self, job: Mapping[str, Any], progress: Progress) -> bool:  # noqa: ARG002
        """Whether it was loaded; a process that dies says nothing."""
        with suppress(Exception):
            if self._model:
                load_object(check_file(Path(self._model)))
            else:
                load_target(read_system(self._file), self._file, trust=self._trust)
            return True
        return False
