"""The database: one engine, short transactions, the database's own clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import CursorResult, Delete, Engine, Float, Update, create_engine, event, select
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import GenericFunction

BUSY_SECONDS = 30
IDLE_SECONDS = 15

# What it looks like while the database cannot be reached, is locked, read-only (InternalError), or has no disk left.
AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeout)


class database_now(GenericFunction[float]):  # noqa: N801 - an SQL function
    """Unix seconds by the database's clock, with a fraction; workers' clocks are never trusted."""

    type = Float()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(element: Any, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgresql_now(element: Any, compiler: Any, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


def read_clock(session: Session) -> float:
    """Unix seconds by the database's clock, at this moment."""
    return session.scalars(select(database_now())).one()


def change_rows(session: Session, statement: Update | Delete) -> int:
    """Run an UPDATE or DELETE of many rows, past the objects that the session holds; answers how many it changed."""
    result = session.execute(statement.execution_options(synchronize_session=False))
    assert isinstance(result, CursorResult)  # noqa: S101 - a statement without RETURNING
    return result.rowcount


class Database:
    """Hands out sessions: `read()` for queries, `write()` for one transaction that commits at its end."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session whose transaction is only for reading."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits when the block ends, and rolls back when it raises."""
        with Session(self.engine, expire_on_commit=False) as session:
            session.connection(execution_options={"is_write": True})
            yield session
            session.commit()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def make_engine(url: str) -> Engine:
    """An engine for SQLite (WAL, immediate write transactions) or PostgreSQL (through psycopg)."""
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    url = url.replace("postgresql://", "postgresql+psycopg://", 1).replace("postgres://", "postgresql+psycopg://", 1)
    # Without these a host that vanishes keeps whoever waits for it, a supervisor say, for a quarter of an hour.
    patience = {"connect_timeout": 5, "tcp_user_timeout": 10_000, "keepalives_idle": 10, "keepalives_interval": 5}
    engine = create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20, connect_args=patience)
    engine.dialect.use_insertmanyvalues_wo_returning = True
    event.listen(engine, "connect", _prepare_postgresql)
    event.listen(engine, "do_executemany", _execute_one_by_one)
    return engine


def _execute_one_by_one(cursor: Any, statement: str, rows: Sequence[Any], context: Any) -> bool:
    """What is no INSERT, whose rows SQLAlchemy puts into one statement, is sent row by row.

    psycopg would send it as a pipeline, and in the midst of one PostgreSQL takes no session for idle: a process that is
    stopped there would keep its locks for ever.
    """
    for row in rows:
        cursor.execute(statement, row)
    return True


def _prepare_postgresql(connection: Any, record: Any) -> None:
    """A process that is stopped in the midst of a transaction must not keep its job's row from the sweeper for ever."""
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
    connection.commit()


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite, not by the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    """Take the write lock at once where a transaction will write.

    A deferred transaction that writes after reading fails under contention whatever busy_timeout says.
    """
    is_write = connection.get_execution_options().get("is_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")
