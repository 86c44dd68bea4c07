"""Has uploaded files read by processes of their own, a few at once; see core/inspecting.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from api.readers import Readers
from core.errors import InvalidData
from core.forking import TOO_DEMANDING
from core.settings import Settings

AT_ONCE = 4


class Inspector:
    """Inspects in processes that are forked from one that is there from the beginning."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.readers = Readers("core.inspecting", at_once=AT_ONCE)
        self.readers.start()
        self.in_turn = self.readers.in_turn
        self.close = self.readers.close

    def inspect(self, path: Path, *, is_model: bool) -> dict[str, Any] | None:
        """The profile of a data set, None of a base model; raises InvalidData or TooLarge for what is wrong in it."""
        memory_bytes, seconds = self._settings.inspection_memory_bytes, self._settings.inspection_seconds
        order = {
            "path": str(path),
            "is_model": is_model,
            "max_unpacked_bytes": self._settings.max_unpacked_bytes,
            "memory_bytes": memory_bytes,
            "seconds": seconds,
        }
        try:
            profile: dict[str, Any] | None = self.readers.ask(order, of="an upload")
        except EOFError:
            raise InvalidData(
                f"it cannot be read within {seconds} seconds and {memory_bytes // 2**20:,} MiB of memory, or it is "
                "broken in a way that crashes its reader: write it anew, or send it in parts",
                code=TOO_DEMANDING,
            ) from None
        return profile
