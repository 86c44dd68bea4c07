"""What the process says is kept for whoever asked, but not without end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from api.trying_out.process import MOST_UNREAD, Exchange, ServingProcess
from core.errors import Unavailable
from core.settings import Settings
from core.storage import DiskStorage


def test_an_answer_that_nobody_reads_is_left(tmp_path: Path) -> None:
    async def read() -> list[str]:
        serving = ServingProcess(Settings(), DiskStorage(tmp_path))
        exchange = Exchange(serving, "project", [7, 8])
        for count in range(MOST_UNREAD):
            exchange.put({"type": "piece", "id": 7, "text": str(count)})
        first = await exchange.next()
        assert first is not None
        exchange.put({"type": "piece", "id": 7, "text": "b"})
        exchange.put({"type": "piece", "id": 7, "text": "c"})
        try:
            with pytest.raises(Unavailable, match="read faster"):
                await exchange.next()
        finally:
            serving.close()
        return [first["text"]]

    assert asyncio.run(read()) == ["0"]
