"""Runs migrations against the database that the settings name."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection

from core.jobs.database import make_engine
from core.jobs.models.base import Base
from core.settings import settings


def migrate(connection: Connection) -> None:
    """Run the migrations in one transaction.

    SQLite's foreign keys are off meanwhile: batch mode copies a table and drops the old one, and ON DELETE CASCADE
    would empty its children.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite:
        driver = connection.connection.driver_connection
        assert driver is not None  # noqa: S101 - just connected
        driver.execute("PRAGMA foreign_keys=OFF")  # no effect inside a transaction, so past SQLAlchemy
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=is_sqlite,
        compare_type=True,
        include_object=_is_comparable,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


def _is_comparable(thing: Any, name: str | None, *_: Any) -> bool:
    """Whether a database can tell what it has: SQLite hides that an index descends, so a test compares that one."""
    return name != "ix_jobs_claim"


engine = make_engine(context.config.get_main_option("sqlalchemy.url") or settings().database_url)
with engine.connect().execution_options(is_write=True) as connection:
    migrate(connection)
engine.dispose()
