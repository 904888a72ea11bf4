"""Whether an assessment is about the model and data that are there now."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from holdfast.assessment.document import Assessment
from holdfast.assessment.loading import load_target
from holdfast.assessment.rehearsal import rehearse
from holdfast.core.errors import IntegrityFailure
from holdfast.threats.reader import read_system

CHECKED = {
    "model": "model",
    "train": "training data",
    "holdout": "holdout data",
    "served": "form in which the model answers",
    "domain": "domain of allowed changes",
    "recipe": "training recipe",
    "system": "system file",
}
"""What is compared, the most telling first. Actors, impact and appetite, on which the losses rest, stand in the system file."""


def check_current(assessment: Assessment, system_file: Path, trust: Collection[str] = ()) -> None:
    """Compare the digests of an assessment with those of the system file and of what it describes now.

    Raises:
        IntegrityFailure: the model, its answers, the data, the recipe or the system file are not those that were measured.
        HoldfastError: the system file or what it names cannot be read.
    """
    system = read_system(system_file)
    rehearse(system, system_file, trust)
    current = load_target(system, system_file, trust=trust).digests
    for name, meaning in CHECKED.items():
        if assessment.digests.get(name) != current.get(name):
            raise IntegrityFailure(
                f"the {meaning} is not the one that was assessed", where=str(system_file), hint="Run holdfast assess again."
            )
