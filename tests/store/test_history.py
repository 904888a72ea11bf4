"""The history keeps every assessment once, under concurrency, and hides secrets in its errors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from holdfast.core.errors import ConfigurationError
from holdfast.store.history import Entry, History, assessments

ENTRY = Entry(
    seal="a" * 64,
    created="2026-01-01T00:00:00Z",
    system="s",
    budget="quick",
    model_digest="m" * 64,
    data_digest="d" * 64,
    unit="EUR",
    mean_loss=1.5,
    p95_loss=9.0,
    measured=3,
    unmeasured=2,
    document="{}",
)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.in_folder(tmp_path / "state")


def test_recording_is_idempotent_and_newest_comes_first(history: History) -> None:
    later = replace(ENTRY, seal="b" * 64, created="2026-02-01T00:00:00Z", system="t")
    for entry in (ENTRY, later, ENTRY):
        history.record(entry)
    assert [entry.seal[0] for entry in history.entries()] == ["b", "a"]
    assert history.entries(system="s") == [ENTRY]
    assert len(history.entries(limit=1)) == 1


def test_the_migrated_schema_is_the_declared_one(tmp_path: Path) -> None:
    History.in_folder(tmp_path).close()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'history.db'}")
    found = {column["name"]: str(column["type"]) for column in sa.inspect(engine).get_columns("assessments")}
    assert found == {column.name: str(column.type) for column in assessments.columns}
    with engine.connect() as connection:
        assert connection.execute(sa.text("PRAGMA journal_mode")).scalar() == "wal"


def test_several_processes_record_at_once_and_none_is_lost(tmp_path: Path) -> None:
    History.in_folder(tmp_path).close()
    script = (
        "import sys; from pathlib import Path; from dataclasses import replace\n"
        "from holdfast.store.history import Entry, History\n"
        f"base = {ENTRY!r}\n"
        "store = History.in_folder(Path(sys.argv[1]))\n"
        "for n in range(20): store.record(replace(base, seal=f'{sys.argv[2]}-{n}'))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(n)]) for n in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(History.in_folder(tmp_path).entries(limit=1000)) == 60


def test_a_password_never_reaches_an_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        History("postgresql+psycopg://user:hunter2@127.0.0.1:1/db")
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        History.in_folder(tmp_path)
