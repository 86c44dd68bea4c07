"""What the process says is kept for whoever asked, but not without end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from api.trying_out.exchange import MOST_UNREAD, Exchange
from core.errors import Unavailable


def test_an_answer_that_nobody_reads_is_left() -> None:
    cancelled: list[Sequence[int]] = []

    async def read() -> list[str]:
        exchange = Exchange("project", [7, 8], forget=lambda numbers: None, cancel=cancelled.append)
        for count in range(MOST_UNREAD):
            exchange.put({"type": "piece", "id": 7, "text": str(count)})
        first = await exchange.next()
        assert first is not None
        exchange.put({"type": "piece", "id": 7, "text": "b"})
        exchange.put({"type": "piece", "id": 7, "text": "c"})
        with pytest.raises(Unavailable, match="read faster"):
            await exchange.next()
        return [first["text"]]

    assert asyncio.run(read()) == ["0"]
    assert cancelled == [[7, 8]]
