"""What a run keeps, where, and what identifies it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from holdfast.assessment.document import Assessment
from holdfast.assessment.integrity import check_current
from holdfast.assessment.run import assess, prepare
from holdfast.core.errors import ConfigurationError, IntegrityFailure


@pytest.mark.claim("loop-2")
def test_evidence_of_unfinished_runs_is_not_kept_in_the_project(clinic: Path) -> None:
    run = prepare(clinic / "holdfast.yaml", budget="quick", only=["data-audit"])
    assert not run.folder.is_relative_to(clinic)


@pytest.mark.slow
def test_a_time_budget_is_resumed_as_it_was_planned(clinic: Path) -> None:
    system = clinic / "holdfast.yaml"
    first = prepare(system, budget="40s", only=["data-audit"])
    first.measure()
    again = prepare(system, budget="40s", only=["data-audit"])
    assert again.folder == first.folder
    again.plan = again.plan.model_copy(update={"rows": first.plan.rows + 1})
    again.measure(resume=True)
    assert again.plan == first.plan
    assert str(first.plan.rows) in again.plan.described_budget


def test_an_unwritable_state_folder_is_one_clear_error(clinic: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_STATE_HOME", str(blocked))
    with pytest.raises(ConfigurationError, match="cannot write"):
        prepare(clinic / "holdfast.yaml", budget="quick", only=["data-audit"]).measure()


@pytest.mark.slow
def test_two_runs_of_the_same_assessment_do_not_mix(clinic: Path) -> None:
    import fcntl

    run = prepare(clinic / "holdfast.yaml", budget="quick", only=["data-audit"])
    run.folder.mkdir(parents=True)
    with (run.folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="another run"):
            run.measure()


@pytest.mark.slow
def test_other_answers_are_another_model(clinic: Path) -> None:
    system = clinic / "holdfast.yaml"
    document = assess(system, budget="quick", only=["data-audit"], workers=1)
    check_current(document, system)
    system.write_text(system.read_text().replace("returns: scores,", "returns: label, answers: label,"))
    with pytest.raises(IntegrityFailure, match="answers"):
        check_current(document, system)


@pytest.mark.slow
@pytest.mark.claim("loop-2")
def test_a_changed_recipe_or_system_file_is_found(clinic: Path) -> None:
    system = clinic / "holdfast.yaml"
    described = system.read_text()
    document = assess(system, budget="quick", only=["data-audit"], workers=1)
    for old, new, told in (
        ("annual_loss: 250000", "annual_loss: 9000000", "system file"),
        ("recipe: clone", "recipe: 'train.py:fit'", "training recipe"),
    ):
        (clinic / "train.py").write_text("def fit(x, y, seed): raise NotImplementedError\n")
        trust = [hashlib.sha256((clinic / "train.py").read_bytes()).hexdigest()]
        system.write_text(described.replace(old, new))
        with pytest.raises(IntegrityFailure, match=told):
            check_current(document, system, trust)
    system.write_text(described)
    check_current(document, system)


def test_the_published_schema_is_the_documents(pytestconfig: pytest.Config) -> None:
    published = pytestconfig.rootpath / "schemas" / "assessment.schema.json"
    assert json.loads(published.read_text()) == Assessment.model_json_schema()


@pytest.mark.parametrize("name", ["assessment", "system"])
def test_schemas_are_named_by_what_they_are_and_not_by_a_place(pytestconfig: pytest.Config, name: str) -> None:
    schema = json.loads((pytestconfig.rootpath / "schemas" / f"{name}.schema.json").read_text())
    assert schema["$id"] == f"urn:holdfast:schema:{name}:1"
    assert "://" not in json.dumps({key: value for key, value in schema.items() if key != "$schema"})
