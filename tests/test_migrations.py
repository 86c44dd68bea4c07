"""The migrations make exactly the tables that the code declares, up and down, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from core.jobs.database import make_engine
from core.jobs.models import Base

ROOT = Path(__file__).parent.parent


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
