"""Has answers graded by processes of their own: whoever compares long texts would hold up everybody here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anyio import CapacityLimiter, to_thread

from api.readers import Readers
from api.turns import OneOfEach
from core.errors import InvalidRequest
from core.forking import TOO_DEMANDING
from core.graders import Grade, Grader

AT_ONCE = 2
SECONDS = 30
MEMORY_BYTES = 2**30


class Grading:
    """Grades by readers that inspect, too; an answer of each project at a time."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._places = CapacityLimiter(AT_ONCE)
        self._turns = OneOfEach()

    async def grade(self, project_id: str, grader: Grader, item: Mapping[str, Any], text: str) -> Grade:
        """What the text is worth; raises InvalidRequest where that takes too long to tell."""
        order = {"grader": grader.model_dump(mode="json"), "item": item, "text": text}
        async with self._turns.of(project_id):
            return await to_thread.run_sync(self._ask, order, limiter=self._places)

    def _ask(self, order: Mapping[str, Any]) -> Grade:
        try:
            limits = {"seconds": SECONDS, "memory_bytes": MEMORY_BYTES}
            return Grade(**self._readers.ask({**order, **limits}, of="an answer"))
        except EOFError:
            raise InvalidRequest(
                f"grading this takes more than {SECONDS} seconds: shorten the texts, or take fewer graders",
                code=TOO_DEMANDING,
            ) from None
