"""Has a job's first steps made for a preview, by a process that knows no credentials; see core/measuring.py."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from api.readers import Readers
from api.turns import OneOfEach
from core.jobs.inputs import Input
from core.placement import place_inputs
from core.settings import Settings
from core.spec import MethodSpec
from core.storage import Storage

STEP_SECONDS = 2.0


class Measurer:
    """Makes one measurement at a time, for two would slow each other; whose it is, projects take turns."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._settings, self._storage = settings, storage
        self._readers = Readers("core.measuring", at_once=1)
        self._turn = asyncio.Lock()
        self._turns = OneOfEach()
        self.close = self._readers.close

    async def measure(self, project_id: str, spec: MethodSpec, found: Mapping[str, Input]) -> Mapping[str, Any] | str:
        """What the first steps tell, as `core.measuring.Estimate` has it; or why they tell nothing.

        Raises the InvalidSpec, InvalidData or TooLarge that the job would end with. Whoever waits holds no thread.
        """
        async with AsyncExitStack() as turns:
            try:
                async with asyncio.timeout(self._settings.preview_seconds):
                    for turn in (self._turns.of(project_id), self._turn):
                        await turns.enter_async_context(turn)
            except TimeoutError:
                return "other previews are being measured: ask again"
            return await self._readers.in_turn(self._measure, spec, found)

    def _measure(self, spec: MethodSpec, found: Mapping[str, Input]) -> Mapping[str, Any] | str:
        seconds = self._settings.preview_seconds
        with tempfile.TemporaryDirectory(prefix="preview-", dir=self._storage.incoming) as folder:
            order = {
                "spec": spec.model_dump(mode="json"),
                "inputs": place_inputs(found, storage=self._storage, folder=Path(folder) / "inputs"),
                "folder": folder,
                "step_seconds": STEP_SECONDS,
                "threads": self._settings.threads,
                "max_unpacked_bytes": self._settings.max_unpacked_bytes,
                "memory_bytes": None,  # CUDA asks for addresses without end
                "seconds": seconds,
            }
            try:
                told: Mapping[str, Any] | str = self._readers.ask(order, of="a preview")
            except EOFError:
                return f"reading the data and making the first steps crashes, or takes longer than {seconds:g} seconds"
        return told
