"""Lists that are longer than one answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from weightworks.transport import Transport

PAGE = 100


def all_pages(transport: Transport, path: str, params: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Every entry of a list, fetched page by page as they are used."""
    after = None
    while True:
        page = transport.get(path, {"limit": PAGE, **(params or {}), "after": after})
        yield from page["data"]
        if not page.get("has_more"):
            return
        after = page["last_id"]
