"""API keys: who may do what in a project."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from weightworks.pages import all_pages
from weightworks.records import read
from weightworks.transport import Transport


@dataclass(frozen=True)
class ApiKey:
    """A key. `key` itself is there only in the answer to `create`: the server keeps no copy."""

    id: str
    name: str = ""
    role: str = ""
    project: str | None = None
    hint: str = ""
    created_at: int = 0
    key: str | None = field(default=None, repr=False)
    raw: dict[str, Any] = field(default_factory=dict, repr=False)


class ApiKeys:
    """`/v1/api_keys`; needs a key of role admin."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, *, role: str = "write", project: str | None = None) -> ApiKey:
        """Make a key: `read`, `write` or `admin`. Keep what `key` says; it is shown once."""
        body = {"name": name, "role": role, **({"project": project} if project else {})}
        return read(ApiKey, self._transport.post("/v1/api_keys", body))

    def list(self) -> Iterator[ApiKey]:
        """All keys of the project."""
        return (read(ApiKey, data) for data in all_pages(self._transport, "/v1/api_keys"))

    def delete(self, key_id: str) -> None:
        """Take a key back at once."""
        self._transport.delete(f"/v1/api_keys/{key_id}")
