"""The migrations make exactly the tables that the code declares, up and down, and keep every row, on both databases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, Boolean, Column, Engine, Float, Integer, MetaData, Table, insert, inspect, select, text

from core.jobs.database import make_engine
from core.jobs.models.base import Base

ROOT = Path(__file__).parent.parent
ROWS = 3
RENAMED = {("jobs", "queued_at"): "claimable_at"}

Rows = dict[str, list[dict[str, Any]]]  # by table, in order of their first column


@pytest.fixture
def config(database_url: str) -> Config:
    config = Config(ROOT / "alembic.ini")
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config


def test_there_is_one_head() -> None:
    assert len(ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).get_heads()) == 1


def test_upgrade_check_downgrade(config: Config, database_url: str) -> None:
    command.upgrade(config, "head")
    command.check(config)
    command.downgrade(config, "base")
    engine = make_engine(database_url)
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    engine.dispose()
    command.upgrade(config, "head")


def test_the_index_of_the_claim_is_the_one_declared(config: Config, database_url: str) -> None:
    command.upgrade(config, "head")
    migrated = _claim_index(database_url)
    command.downgrade(config, "base")
    engine = make_engine(database_url)
    Base.metadata.create_all(engine)
    engine.dispose()
    assert _claim_index(database_url) == migrated
    assert "DESC" in migrated


def _claim_index(url: str) -> str:
    engine = make_engine(url)
    table, column = ("sqlite_master", "sql") if engine.dialect.name == "sqlite" else ("pg_indexes", "indexdef")
    name = "name" if engine.dialect.name == "sqlite" else "indexname"
    with engine.connect() as connection:
        found = connection.scalar(text(f"SELECT {column} FROM {table} WHERE {name} = 'ix_jobs_claim'"))
    engine.dispose()
    return str(found)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


def test_every_migration_keeps_what_is_there(config: Config, engine: Engine) -> None:
    revisions = [found.revision for found in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    for number, revision in enumerate(revisions):
        before = rows_of(engine)
        command.upgrade(config, revision)
        assert_kept(before, rows_of(engine), may_drop=False)
        assert_sound(engine)
        fill(engine, number)
    filled = rows_of(engine)
    assert filled.keys() == set(Base.metadata.tables)
    assert all(len(rows) % ROWS == 0 for rows in filled.values())
    assert len(filled["events"]) == ROWS * len(revisions)
    for revision in [*revisions[-2::-1], "base"]:
        before = rows_of(engine)
        command.downgrade(config, revision)
        assert_kept(before, rows_of(engine), may_drop=True)
        assert_sound(engine)
    assert rows_of(engine) == {}


def rows_of(engine: Engine) -> Rows:
    """All that is in the database, but for Alembic's own table."""
    tables = reflected(engine)
    with engine.connect() as connection:
        return {
            name: [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]
            for name, table in tables.items()
        }


def reflected(engine: Engine) -> Mapping[str, Table]:
    metadata = MetaData()
    metadata.reflect(engine)
    return {table.name: table for table in metadata.sorted_tables if table.name != "alembic_version"}


def assert_kept(before: Rows, after: Rows, *, may_drop: bool) -> None:
    """The same rows, under their columns' new names. What a revision brought, whole tables or columns, goes with it."""
    assert may_drop or before.keys() <= after.keys()
    for name in before.keys() & after.keys():
        assert len(after[name]) == len(before[name]) > 0, name
        for old, new in zip(before[name], after[name], strict=True):
            kept = {column: renamed(name, column, new) for column in old}
            assert may_drop or set(kept.values()) <= new.keys(), name
            for column in kept:
                assert kept[column] not in new or new[kept[column]] == old[column], (name, column)


def renamed(table: str, column: str, row: Mapping[str, Any]) -> str:
    """What a column is called in `row`, which is of the revision behind, or before."""
    for (of, old), new in RENAMED.items():
        if of == table and column in (old, new) and column not in row:
            return old if column == new else new
    return column


def assert_sound(engine: Engine) -> None:
    """No key points at nothing; PostgreSQL sees to that by itself."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []


def fill(engine: Engine, number: int) -> None:
    """Put rows into every table, with nothing in what may be null in the last of them; their keys hold `number`."""
    with engine.connect().execution_options(is_write=True) as connection:
        for table in reflected(engine).values():
            for row in range(ROWS):
                place, is_sparse = number * ROWS + row, row == ROWS - 1
                columns = [column for column in table.columns if not (is_sparse and column.nullable)]
                connection.execute(insert(table).values({column.name: value_of(column, place) for column in columns}))
        connection.commit()


def value_of(column: Column[Any], place: int) -> Any:
    """A value that tells its column and its row; that of a foreign key is the row of the same place over there."""
    for key in column.foreign_keys:
        return value_of(key.column, place)
    if isinstance(column.type, Boolean):
        return place % 2 == 0
    if isinstance(column.type, JSON):
        return {"place": place}
    if isinstance(column.type, Float):
        return place + 0.5
    if isinstance(column.type, Integer):
        return place + 1
    return f"{place} {column.table.name}.{column.name}"[: getattr(column.type, "length", None)]
