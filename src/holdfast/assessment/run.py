"""Run an assessment: load, plan, measure in worker processes, quantify, and seal the document.

1. `prepare` reads the system file, loads the target, derives the threats and plans.
2. `Run.measure` gives every planned probe to a worker. Each piece of evidence is written as soon as it is there, so an
   interrupted run loses only what was in the middle; `resume` takes up the evidence of an earlier run with the same key.
3. `Run.finish` quantifies risk and makes the document.

The run's key is the digest of everything that decides the evidence: the system file's place, the target's digests, the seed,
the budget, the probes and the versions of all of them. Evidence of another key is never taken up.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import holdfast
from holdfast.assessment.document import Assessment, DataSummary, SystemSummary
from holdfast.assessment.loading import load_target
from holdfast.assessment.plan import Plan, PlannedProbe, make_plan, probes_by_name
from holdfast.assessment.rehearsal import rehearse
from holdfast.assessment.steadiness import Steadiness
from holdfast.assessment.surroundings import state_folder, versions
from holdfast.assessment.utility import measure_utility
from holdfast.core import registry, seeds
from holdfast.core.errors import CannotMeasure, ConfigurationError, HoldfastError, IntegrityFailure
from holdfast.core.evidence import Evidence
from holdfast.core.files import read_document, write_document
from holdfast.core.probe import Budget
from holdfast.core.progress import Progress, Silent
from holdfast.core.target import Dataset, Target
from holdfast.engine.local import LocalEngine
from holdfast.risk.decisions import decisions_in_force, read_decisions
from holdfast.risk.quantification import able_actors, quantify
from holdfast.threats.derivation import Threat, derive
from holdfast.threats.reader import read_system
from holdfast.threats.system import System


@dataclass(kw_only=True)
class Run:
    """A planned assessment.

    Attributes:
        file: the system file.
        system, target, threats, plan: what was read, loaded, derived and planned.
        seed: decides everything random.
        trust: digests of files that may run code.
        folder: where the run's evidence is kept until the assessment is made.
        measurable: threats that some installed probe measures, with the probes' ids.
    """

    file: Path
    system: System
    target: Target
    threats: tuple[Threat, ...]
    plan: Plan
    seed: int
    trust: tuple[str, ...]
    folder: Path
    measurable: dict[str, tuple[str, ...]]
    evidence: dict[str, Evidence] = field(default_factory=dict)

    def measure(
        self,
        *,
        resume: bool = False,
        workers: int = 1,
        progress: Progress | None = None,
        on_done: Callable[[str, Evidence], None] | None = None,
    ) -> None:
        """Run the planned probes. May be interrupted at any time; what is finished is kept in `folder`.

        Args:
            resume: take up the evidence of an earlier, interrupted run with the same key.
            workers: processes.
            progress: told about each probe's progress.
            on_done: called with each probe's name and evidence.

        Raises:
            ConfigurationError: another run works in the same folder.
            IntegrityFailure: what was measured is not what was planned for; its evidence is dropped.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(f"cannot write: {error.strerror}", where=str(self.folder)) from error
        with _locked(self.folder):
            self._settle_plan(resume)
            for planned in self.plan.probes:
                kept = self._path(planned.name)
                if planned.state != "runs":
                    self._keep(planned.name, self._without_running(planned), on_done)
                elif resume and kept.exists():
                    self._keep(planned.name, read_document(kept, Evidence, "evidence"), on_done)
                else:
                    kept.unlink(missing_ok=True)
            jobs = [
                {"id": planned.name, "seed": self.seed, "budget": vars(self.plan.allowance)}
                for planned in sorted(self.plan.probes, key=lambda planned: planned.seconds)
                if planned.name not in self.evidence
            ]
            if not jobs:
                return
            arguments = {"file": str(self.file.resolve()), "trust": list(self.trust), "show_values": self.target.show_values}
            engine = LocalEngine("holdfast.assessment.run:Session", arguments, workers=workers, log=self.folder / "workers.log")
            by_name = {planned.name: planned for planned in self.plan.probes}
            for result in engine.run(jobs[::-1], progress or Silent()):
                if result.error is None:
                    evidence = Evidence.model_validate(result.result)
                else:
                    evidence = self._stamp(by_name[result.job], status="failed", reason=result.error)
                if evidence.status != "failed":
                    write_document(self._path(result.job), evidence)
                self._keep(result.job, evidence, on_done)

    def discard(self) -> None:
        """Remove the run's folder, once its assessment is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def finish(self, *, started: float, today: date | None = None) -> Assessment:
        """Quantify and seal.

        Args:
            started: `time.monotonic()` when measuring began.
            today: decides which decisions have lapsed; the current date in UTC by default.
        """
        evidence = tuple(self.evidence[planned.name] for planned in self.plan.probes)
        decisions = decisions_in_force(
            read_decisions(self.file),
            self.target.digests.get("served", ""),
            self.target.digests.get("data", ""),
            today,
        )
        register = quantify(self.system, self.threats, evidence, seed=self.seed, decisions=decisions)
        return Assessment(
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            seconds=round(time.monotonic() - started, 3),
            holdfast=holdfast.__version__,
            versions=versions(),
            system=self._summary(),
            data=tuple(_describe(data) for data in (self.target.train, self.target.holdout) if data is not None),
            utility=measure_utility(self.target),
            digests=dict(self.target.digests),
            seed=self.seed,
            budget=self.plan.described_budget,
            threats=self.threats,
            evidence=evidence,
            measurable=self.measurable,
            register=register,
            decisions=decisions,
            personal_values=self.target.show_values,
            notes=tuple(self.target.notes),
        ).sealed()

    def _settle_plan(self, resume: bool) -> None:
        """Keep the plan with the run: a time budget becomes other numbers on a busier machine, and a resumed run must not."""
        kept = self.folder / "plan"
        if resume and kept.exists():
            self.plan = read_document(kept, Plan, "a plan")
        else:
            write_document(kept, self.plan)

    def _summary(self) -> SystemSummary:
        answers = self.system.serving.answers
        return SystemSummary(
            name=self.system.system,
            owner=self.system.owner,
            file=self.file.name,
            model_path=self.system.model.path,
            framework=self.target.model.framework,
            modality=self.target.modality,
            facts=dict(self.system.facts()),
            controls=tuple(self.system.controls),
            answers="as computed" if answers is None else answers if isinstance(answers, str) else json.dumps(answers),
            defaults=tuple(self.system.defaults),
        )

    def _keep(self, name: str, evidence: Evidence, on_done: Callable[[str, Evidence], None] | None) -> None:
        if evidence.digests != self.target.digests:
            self._path(name).unlink(missing_ok=True)
            raise IntegrityFailure(
                "the model, the data or the system file was replaced while it was measured",
                where=str(self.file),
                hint="Run holdfast assess again, and change nothing meanwhile.",
            )
        self.evidence[name] = evidence
        if on_done:
            on_done(name, evidence)

    def _path(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:12]}.json"

    def _without_running(self, planned: PlannedProbe) -> Evidence:
        return self._stamp(planned, status=planned.state, reason=planned.reason)

    def _stamp(self, planned: PlannedProbe, **fields: Any) -> Evidence:
        return Evidence(
            probe=planned.probe,
            threats=planned.threats,
            seed=seeds.derive(self.seed, planned.name),
            digests=dict(self.target.digests),
            versions=versions(),
            **fields,
        )


class Session:
    """What a worker keeps: the loaded target. Called with a job, it runs one probe and returns its evidence as JSON."""

    def __init__(self, file: str, trust: Sequence[str], show_values: bool) -> None:
        path = Path(file)
        self._target = load_target(read_system(path), path, trust=trust, show_values=show_values)

    def __call__(self, job: Mapping[str, Any], progress: Progress) -> Any:
        name, seed = job["id"], seeds.derive(job["seed"], job["id"])
        probe = probes_by_name([name])[name]
        started = time.process_time()
        try:
            steadiness = Steadiness(self._target, probe.access, seed)
            evidence = probe.run(self._target, Budget(**job["budget"]), seed, progress)
            if evidence.status == "measured":
                steadiness.require()
        except CannotMeasure as refusal:
            evidence = Evidence(probe=probe.id, threats=probe.threats, status=refusal.status, reason=str(refusal))
        except HoldfastError as error:
            traceback.print_exc()
            evidence = Evidence(probe=probe.id, threats=probe.threats, status="failed", reason=str(error))
        spent = evidence.spent.model_copy(update={"cpu_seconds": round(time.process_time() - started, 3)})
        stamped = evidence.model_copy(
            update={"seed": seed, "digests": dict(self._target.digests), "versions": versions(), "spent": spent}
        )
        return stamped.model_dump(mode="json")


def prepare(
    file: Path,
    *,
    budget: str = "standard",
    seed: int = 0,
    workers: int | None = None,
    only: Sequence[str] | None = None,
    trust: Collection[str] = (),
    show_values: bool = False,
) -> Run:
    """Read, load, derive and plan.

    Args:
        file: the system file.
        budget: `quick`, `standard`, `thorough` or a time such as `10m`.
        seed: decides everything random.
        workers: processes; the number of cores by default.
        only: registered names of the probes to run; all by default.
        trust: SHA-256 digests of files that may run code when opened, besides those in the user's trust store.
        show_values: put personal values into examples.

    Raises:
        HoldfastError: the system file, the model or the data are not usable.
    """
    system = read_system(file)
    rehearse(system, file, trust)
    target = load_target(system, file, trust=trust, show_values=show_values)
    threats = derive(system)
    installed = probes_by_name()
    chosen = installed if only is None else probes_by_name(only)
    able = {threat.id: able_actors(system, threat) for threat in threats}
    plan = make_plan(target, threats, budget=budget, workers=workers or os.cpu_count() or 1, probes=chosen, actors=able)
    excluded = {threat.id for threat in threats if threat.applicability == "excluded"}
    measurable = {
        threat.id: ids
        for threat in threats
        if threat.id not in excluded and (ids := tuple(sorted({p.id for p in installed.values() if threat.id in p.threats})))
    }
    key = _key(file, system, target, plan, seed)
    return Run(
        file=file,
        system=system,
        target=target,
        threats=threats,
        plan=plan,
        seed=seed,
        trust=tuple(trust),
        folder=state_folder() / "runs" / key,
        measurable=measurable,
    )


def assess(file: Path, *, resume: bool = False, progress: Progress | None = None, **options: Any) -> Assessment:
    """The whole assessment in one call; `options` are those of `prepare`."""
    started = time.monotonic()
    run = prepare(file, **options)
    run.measure(resume=resume, workers=run.plan.workers, progress=progress)
    assessment = run.finish(started=started)
    run.discard()
    return assessment


def _key(file: Path, system: System, target: Target, plan: Plan, seed: int) -> str:
    plugged = registry.distributions("probes")
    content = {
        "file": str(file.resolve()),
        "digests": dict(target.digests),
        "facts": system.model_dump(mode="json", include={"model", "data", "serving", "domain"}),
        "budget": plan.budget,
        "probes": {planned.name: plugged.get(planned.name) for planned in plan.probes},
        "seed": seed,
        "versions": versions(),
        "show_values": target.show_values,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError("another run of the same assessment is at work", where=str(folder)) from error
        yield


def _describe(data: Dataset) -> DataSummary:
    features = data.x.shape[1] if data.is_table else int(data.x[0].size) if len(data) else 0
    groups = tuple(map(str, data.groups.columns)) if data.groups is not None else ()
    return DataSummary(
        name=data.name, rows=len(data), features=features, classes=data.classes, sensitive=data.sensitive, groups=groups
    )
