"""Decisions: recorded whole, read as hostile, lapsing with what they rest on; and their commands."""

from __future__ import annotations

import json
import multiprocessing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast.core.errors import ConfigurationError
from holdfast.risk.decisions import FILE, decisions_in_force, read_decisions, record_decision

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
TODAY = date(2026, 1, 10)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "holdfast.yaml").write_text("system: s\n")
    return tmp_path / "holdfast.yaml"


def record(file: Path, **more: Any) -> Any:
    fields = {"risk": "T-EVA-02.clerk", "choice": "accept", "who": "The owner", "until": "2026-06-30", **more}
    return record_decision(file, model_digest="m", data_digest="d", now=NOW, **fields)


def test_what_is_recorded_is_read_and_in_force(file: Path) -> None:
    made = record(file, reason="too rare")
    assert read_decisions(file) == (made,)
    assert decisions_in_force([made], "m", "d", TODAY)[0].state == "in force"
    assert (file.parent / FILE).stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in file.parent.iterdir()) == [FILE, "holdfast.yaml"]


@pytest.mark.parametrize(
    ("model", "data", "today", "why"),
    [
        ("other", "d", TODAY, "the model has changed"),
        ("m", "other", TODAY, "the data have changed"),
        ("", "d", TODAY, "the model has changed"),
        ("m", "d", date(2026, 7, 1), "it held until 2026-06-30"),
        ("n", "e", date(2027, 1, 1), "the model has changed; the data have changed; it held until 2026-06-30"),
    ],
)
def test_a_decision_lapses_with_what_it_rests_on(file: Path, model: str, data: str, today: date, why: str) -> None:
    lapsed = decisions_in_force([record(file)], model, data, today)[0]
    assert (lapsed.state, lapsed.lapsed_because) == ("lapsed", why)
    assert decisions_in_force([lapsed], "m", "d", date(2026, 6, 30))[0].state == "in force"


def test_a_later_decision_replaces_an_earlier_one(file: Path) -> None:
    first, second = record(file), record(file, choice="mitigate")
    assert first.id != second.id
    old, new = decisions_in_force(read_decisions(file), "m", "d", TODAY)
    assert (old.state, new.state) == ("lapsed", "in force")
    assert second.id in old.lapsed_because


@pytest.mark.parametrize(
    "wrong", [{"until": "2026-01-09"}, {"until": "tomorrow"}, {"who": "  "}, {"who": "a\x1bb"}, {"reason": "x" * 3000}]
)
def test_unusable_decisions_are_refused_and_nothing_is_written(file: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        record(file, **wrong)
    assert not (file.parent / FILE).exists()


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"not json",
        b"\xff\xfe",
        b'{"format": "holdfast-decisions/2", "decisions": []}',
        b'{"decisions": [{"id": "D"}]}',
        b'{"decisions": [], "extra": 1}',
        b"[" * 100_000,
        b" " * (5 * 1024 * 1024),
    ],
)
def test_a_hostile_file_is_one_clear_error_and_stays_as_it_is(file: Path, content: bytes) -> None:
    (file.parent / FILE).write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_decisions(file)
    assert FILE in str(caught.value)
    with pytest.raises(ConfigurationError):
        record(file)
    assert (file.parent / FILE).read_bytes() == content


def test_a_forged_state_or_date_is_not_believed(file: Path) -> None:
    made = record(file)
    content = json.loads((file.parent / FILE).read_text())
    content["decisions"][0]["state"] = "lapsed"
    (file.parent / FILE).write_text(json.dumps(content))
    assert read_decisions(file) == (made,)
    content["decisions"][0]["until"] = "never"
    (file.parent / FILE).write_text(json.dumps(content))
    with pytest.raises(ConfigurationError):
        read_decisions(file)


def _record_many(path: str) -> None:
    for at in range(5):
        record(Path(path), risk=f"T.{multiprocessing.current_process().name}.{at}")


def test_writers_at_the_same_time_lose_nothing(file: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_record_many, args=(str(file),)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_decisions(file)) == 20


def test_the_commands_record_and_list(file: Path, system: Any, threat: Any, evidence: Any) -> None:
    from holdfast.assessment.document import Assessment, SystemSummary
    from holdfast.cli.decide import register
    from holdfast.core.files import write_document
    from holdfast.risk.quantification import quantify

    typer = pytest.importorskip("typer")
    app = typer.Typer()
    register(app)
    made = quantify(system(), [threat()], [], seed=1, draws=1000)
    assessment = Assessment(
        created="2026-01-10T00:00:00Z", seconds=1, holdfast="0", versions={}, data=(), utility=None, seed=1, budget="quick",
        system=SystemSummary(name="s", file="holdfast.yaml", framework="torch", modality="tabular", facts={}),
        digests={"served": "m", "data": "d"}, threats=(threat(),), evidence=(), register=made,
    )  # fmt: skip
    path = file.parent / "assessment.json"
    write_document(path, assessment.sealed())
    where = ["--assessment", str(path), "--system", str(file)]
    run = CliRunner()
    empty = run.invoke(app, ["decisions", *where])
    assert "No decision" in empty.output
    who = ["--who", "[bold]The owner", "--until", "2999-01-01"]
    done = run.invoke(app, ["decide", "T-EVA-02.curious-clinician", "accept", *who, *where, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.output)["model_digest"] == "m"
    listed = json.loads(run.invoke(app, ["decisions", *where, "--json"]).output)
    assert [(one["state"], one["who"]) for one in listed] == [("in force", "[bold]The owner")]
    assert "[bold]The" in run.invoke(app, ["decisions", *where]).output
    wrong = run.invoke(app, ["decide", "T-EVA-02.curious-clinicain", "accept", *who, *where])
    assert isinstance(wrong.exception, ConfigurationError)
    assert "The ids of that threat's risks: T-EVA-02.curious-clinician" in str(wrong.exception)
