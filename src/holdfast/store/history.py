"""The history of assessments: one row each, in SQLite by default or any database that SQLAlchemy reaches by URL.

SQLite runs in write-ahead mode with a busy timeout, so that several runs may record at once. The schema is made and moved
on by Alembic when the store is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import SQLAlchemyError

from holdfast.core.errors import ConfigurationError

MIGRATIONS = Path(__file__).parent / "migrations"

metadata = sa.MetaData()
assessments = sa.Table(
    "assessments",
    metadata,
    sa.Column("seal", sa.String(64), primary_key=True),
    sa.Column("created", sa.String(20), nullable=False, index=True),
    sa.Column("system", sa.Text, nullable=False, index=True),
    sa.Column("budget", sa.Text, nullable=False),
    sa.Column("model_digest", sa.String(64), nullable=False),
    sa.Column("data_digest", sa.String(64), nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("mean_loss", sa.Float, nullable=False),
    sa.Column("p95_loss", sa.Float, nullable=False),
    sa.Column("measured", sa.Integer, nullable=False),
    sa.Column("unmeasured", sa.Integer, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One assessment as the history keeps it; `document` is its JSON."""

    seal: str
    created: str
    system: str
    budget: str
    model_digest: str
    data_digest: str
    unit: str
    mean_loss: float
    p95_loss: float
    measured: int
    unmeasured: int
    document: str


class History:
    """The store of one project.

    Args:
        url: a SQLAlchemy URL, such as `sqlite:///path/history.db` or `postgresql+psycopg://...`.

    Raises:
        ConfigurationError: the database cannot be opened or its schema is newer than this version of Holdfast.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = sa.create_engine(url)
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _prepare_sqlite)
            self._migrate()
        except (SQLAlchemyError, ModuleNotFoundError, OSError) as error:
            raise ConfigurationError(
                f"the history cannot be opened: {type(error).__name__}", where=_without_secret(url)
            ) from error

    @classmethod
    def in_folder(cls, folder: Path) -> History:
        """The SQLite history in a project's state folder."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the history cannot be opened: {error.strerror}", where=str(folder)) from error
        return cls(f"sqlite:///{folder / 'history.db'}")

    def record(self, entry: Entry) -> None:
        """Add an assessment; recording the same one again changes nothing.

        Raises:
            ConfigurationError: the database refused.
        """
        try:
            with self._engine.begin() as connection:
                known = connection.execute(sa.select(assessments.c.seal).where(assessments.c.seal == entry.seal)).first()
                if known is None:
                    connection.execute(assessments.insert().values(**vars(entry)))
        except SQLAlchemyError as error:
            raise ConfigurationError(f"the assessment was not recorded: {type(error).__name__}", where="history") from error

    def entries(self, system: str | None = None, limit: int = 50) -> Sequence[Entry]:
        """The latest entries, newest first."""
        query = sa.select(assessments).order_by(assessments.c.created.desc(), assessments.c.seal).limit(limit)
        if system is not None:
            query = query.where(assessments.c.system == system)
        try:
            with self._engine.connect() as connection:
                return [Entry(**row._mapping) for row in connection.execute(query)]
        except SQLAlchemyError as error:
            raise ConfigurationError(f"the history cannot be read: {type(error).__name__}", where="history") from error

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def _without_secret(url: str) -> str:
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "history"
