"""A model that turns into another while it is measured proves nothing, whichever probe asks it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.assessment.files import read_assessment
from holdfast.assessment.run import Session, prepare
from holdfast.attacks.privacy.separability import row_digests
from holdfast.core.errors import IntegrityFailure
from holdfast.core.oracle import Access
from holdfast.core.progress import Silent
from holdfast.core.target import Target
from holdfast.probes.footing import alike
from made_targets import forest, made_target, people

QUICK = {"level": "quick", "rows": 64, "queries": 300, "repeats": 3, "shadows": 4}
PROBES = ("membership", "attribute-inference", "model-copying", "natural-shift", "unequal-harm")


class Turning:
    """A model that becomes another after it was asked about so many rows."""

    access, classes, framework = Access.SCORES, ("no", "yes"), "python"

    def __init__(self, model: Any, into: str, after: float) -> None:
        self.model, self.into, self.after, self.asked = model, into, after, 0

    def scores(self, x: Any) -> Any:
        self.asked += len(x)
        honest = np.asarray(self.model.scores(x))
        if self.asked <= self.after:
            return honest
        if self.into == "constant":
            return np.tile(np.log([0.9, 0.1]), (len(x), 1))
        if self.into == "flat":
            return np.where(np.arange(2) == honest.argmax(axis=1)[:, None], np.log(0.9), np.log(0.1))
        share = np.random.default_rng(len(x)).random((len(x), 1))
        return np.log(np.hstack([share, 1 - share]) + 1e-9)

    def labels(self, x: Any) -> Any:
        return self.scores(x).argmax(axis=1)


class Caching(Turning):
    """A service that still knows its answers to what it was asked, and has one for all else once a quota is spent."""

    def __init__(self, model: Any, quota: int) -> None:
        super().__init__(model, "constant", np.inf)
        self.quota, self.known = quota, {}

    def scores(self, x: Any) -> Any:
        keys = row_digests(x).tolist()
        honest = np.asarray(self.model.scores(x))
        for key, answer in zip(keys, honest, strict=True):
            if key not in self.known and len(self.known) < self.quota:
                self.known[key] = answer
        return np.stack([self.known.get(key, np.log([0.9, 0.1])) for key in keys])


def measured(probe: str, target: Target) -> dict[str, Any]:
    session = object.__new__(Session)
    session._target = target
    return session({"id": probe, "seed": 3, "budget": QUICK}, Silent())


@pytest.fixture(scope="module")
def target() -> Target:
    made = made_target(forest(), people(1600, 0), train=800, recipe=False)
    return replace(
        made,
        train=replace(made.train, groups=made.train.x[["smoker"]]),
        holdout=replace(made.holdout, groups=made.holdout.x[["smoker"]], sensitive=("smoker",)),
    )


@pytest.mark.slow
@pytest.mark.claim("loop-2")
@pytest.mark.parametrize("probe", PROBES)
def test_a_model_that_turns_on_the_way_measures_nothing(target: Target, probe: str) -> None:
    steady = Turning(target.model, "constant", np.inf)
    honest = measured(probe, replace(target, model=steady))
    assert honest["status"] == "measured", honest["reason"]
    for into in ("constant", "flat", "noise"):
        for share in (0.3, 0.5, 0.75):
            turning = Turning(target.model, into, share * steady.asked)
            found = measured(probe, replace(target, model=turning))
            assert found["status"] in ("inconclusive", "unmeasured"), (into, share, found["findings"])


@pytest.mark.slow
@pytest.mark.claim("loop-2")
@pytest.mark.parametrize("probe", ["membership", "model-copying"])
@pytest.mark.parametrize("quota", [600, 900, 1200])
def test_a_service_that_only_knows_what_it_was_asked_measures_nothing(target: Target, probe: str, quota: int) -> None:
    found = measured(probe, replace(target, model=Caching(target.model, quota)))
    assert found["status"] in ("inconclusive", "unmeasured"), found["findings"]


@pytest.mark.parametrize(("scale", "steady"), [(1e-6, True), (1e-2, False)])
def test_last_digits_of_large_scores_are_rounding(scale: float, steady: bool) -> None:
    random = np.random.default_rng(2)
    logits = 25 * random.normal(size=(200, 100))
    assert alike(logits, logits + 25 * scale * random.normal(size=logits.shape)).all() == steady


@pytest.mark.slow
@pytest.mark.claim("loop-2")
def test_a_model_swapped_while_it_is_measured_is_no_evidence(clinic: Path) -> None:
    run = prepare(clinic / "holdfast.yaml", budget="quick", only=["data-audit"])
    shutil.copy(clinic / "holdout.csv", clinic / "kept.csv")
    with (clinic / "holdout.csv").open("a") as file:
        file.write((clinic / "kept.csv").read_text().splitlines()[1] + "\n")
    with pytest.raises(IntegrityFailure, match="replaced"):
        run.measure()
    assert not list(run.folder.glob("????????????.json"))


@pytest.mark.slow
@pytest.mark.claim("loop-2")
def test_evidence_of_another_model_is_refused(clinic: Path, tmp_path: Path) -> None:
    run = prepare(clinic / "holdfast.yaml", budget="quick", only=["data-audit"])
    run.measure()
    document = run.finish(started=0.0)
    other = document.evidence[0].model_copy(update={"digests": {**document.digests, "model": "0" * 64}})
    forged = document.model_copy(update={"evidence": (other, *document.evidence[1:])}).sealed()
    path = tmp_path / "forged.json"
    path.write_text(forged.model_dump_json())
    with pytest.raises(IntegrityFailure, match="another model"):
        read_assessment(path)
