"""Previews are measured one at a time, by projects in turn, and hold up nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio.to_thread
import pytest

from api.measuring import Measurer
from core.catalog import read_spec
from core.jobs.inputs import FileInput
from core.settings import Settings
from core.storage import DiskStorage, file_key
from tests.api.service import sha256, table

SPEC = read_spec({"method": "pca", "dataset": "file-table", "n_components": 2})


@pytest.fixture
def found(tmp_path: Path) -> dict[str, FileInput]:
    """A data set that lies in storage."""
    with DiskStorage(tmp_path).incoming_file() as (path, file):
        file.write(table())
        file.flush()
        DiskStorage(tmp_path).keep(path, file_key(sha256(table())))
    return {"dataset": FileInput("file-table", "table.csv", sha256(table()), is_model=False)}


def test_projects_take_turns_and_who_waits_holds_no_thread(found: dict[str, FileInput], tmp_path: Path) -> None:
    async def ask_all() -> list[str]:
        measurer, order = Measurer(Settings(preview_seconds=600), DiskStorage(tmp_path)), []
        limiter = anyio.to_thread.current_default_thread_limiter()

        async def ask(project: str) -> None:
            told = await measurer.measure(project, SPEC, found)
            assert not isinstance(told, str), told
            assert limiter.borrowed_tokens == 0
            order.append(project)

        async with asyncio.TaskGroup() as group:
            for project in ("first", "first", "second"):
                group.create_task(ask(project))
        measurer.close()
        return order

    assert asyncio.run(ask_all()) == ["first", "second", "first"]
