"""P-SUP-SCAN: whether the model's file could run code when it is opened, and how well the check that says so works."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from holdfast.artifacts.checking import FileCheck, check_file
from holdfast.core.errors import HoldfastError, NotApplicable
from holdfast.core.evidence import Evidence, Metric, Row
from holdfast.core.probe import Budget, Work
from holdfast.core.progress import Progress
from holdfast.core.statistics import rate
from holdfast.core.target import Target
from holdfast.probes.file_zoo import ZooFile, benign_files, malicious_files

OWN = "the model's own file"
SHOWN = 25
"""Globals that a finding lists at most."""


class UnsafeModelFile:
    """Checks the model's own file, and the check itself on a zoo.

    A row of the evidence is a file. Opening the model's own file either runs something that is not on the allow-list: then that
    decides, and its row is the only one. Or it does not: then a row for each malicious file of the zoo says whether the check
    that says so let that one pass or, worse, ran it. Benign files of the zoo give the false-alarm rate. No file of the zoo is
    ever opened.
    """

    id = "P-SUP-SCAN"
    threats: tuple[str, ...] = ("T-SUP-01", "T-SUP-02")
    access = "files"

    def check(self, target: Target) -> None:
        """Needs a model that comes from a file."""
        if target.model_path is None:
            raise NotApplicable("the model is not loaded from a file")

    def work(self, target: Target, budget: Budget) -> Work:  # noqa: ARG002
        """Building and checking the zoo."""
        return Work(seconds=4.0)

    def run(self, target: Target, budget: Budget, seed: int, progress: Progress) -> Evidence:  # noqa: ARG002
        """Check the own file, then the zoo."""
        self.check(target)
        assert target.model_path is not None
        own = check_file(target.model_path)
        with tempfile.TemporaryDirectory(prefix="holdfast-zoo-") as folder:
            marker = Path(folder) / "marker"
            bad = list(malicious_files(marker))
            passed = {}
            for done, file in enumerate(bad):
                passed[file.technique] = _passes(file, Path(folder), marker)
                progress.advance("malicious files", done + 1, len(bad))
            good = list(benign_files())
            alarms = {file.technique: not _passes(file, Path(folder), marker) for file in good}
            progress.advance("benign files", len(good), len(good))
        rows = [Row(unit=OWN, capability=1.0 if own.unlisted else None, seed=seed, detail={"format": own.format})]
        if not own.unlisted:
            rows += [Row(unit=technique, capability=1.0 if through else None, seed=seed) for technique, through in passed.items()]
        return Evidence(
            probe=self.id,
            threats=self.threats,
            status="measured",
            reason=_summary(own, passed),
            rows=tuple(rows),
            strength="moderate",
            method=f"the file's contents followed symbolically against an allow-list of exact names; {len(bad)} malicious and "
            f"{len(good)} benign files made on the spot and never opened",
            metrics=tuple(_metrics(passed, alarms)),
            findings=tuple(_findings(own, passed, alarms)),
            seed=seed,
        )


def _passes(file: ZooFile, folder: Path, marker: Path) -> bool:
    """Whether the check lets a file through, or runs its payload."""
    path = folder / file.name
    path.write_bytes(file.content)
    try:
        through = check_file(path).allowed
    except HoldfastError:
        through = False
    path.unlink()
    if marker.exists():
        marker.unlink()
        return True
    return through


def _summary(own: FileCheck, passed: dict[str, bool]) -> str:
    if own.unlisted:
        said = f"Opening the model's own {own.format} file runs {len(own.unlisted)} things that are not on the allow-list."
    else:
        said = f"The model's own {own.format} file uses nothing that is not on the allow-list."
    return f"{said} The check let {sum(passed.values())} of {len(passed)} malicious files pass."


def _metrics(passed: dict[str, bool], alarms: dict[str, bool]) -> Iterable[Metric]:
    caught = rate([not through for through in passed.values()])
    false = rate(list(alarms.values()))
    for name, one in (("malicious files refused", caught), ("false alarms on benign files", false)):
        yield Metric(name=name, value=one.value, low=one.low, high=one.high, successes=one.successes, trials=one.trials)
    kinds = dict.fromkeys(technique.split(":")[0].split(" ")[0] for technique in passed)
    for kind in kinds:
        one = rate([not through for technique, through in passed.items() if technique.startswith(kind)])
        yield Metric(
            name="malicious files refused",
            group=kind,
            value=one.value,
            low=one.low,
            high=one.high,
            successes=one.successes,
            trials=one.trials,
        )


def _findings(own: FileCheck, passed: dict[str, bool], alarms: dict[str, bool]) -> Iterable[str]:
    if own.unlisted:
        yield f"Opening the file could run: {_listed(own.unlisted)}. It was opened because its digest is trusted."
    if own.globals:
        yield f"The file refers to {len(own.globals)} names: {_listed(own.globals)}."
    for technique, through in passed.items():
        if through:
            yield f"The check let a malicious file pass: {technique}."
    for technique, alarm in alarms.items():
        if alarm:
            yield f"The check refused a benign file: {technique}."


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
