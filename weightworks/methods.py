"""Methods: how the server can train, and what each may be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from weightworks.pages import all_pages
from weightworks.records import read
from weightworks.transport import Transport


@dataclass(frozen=True)
class Method:
    """A training method. All but its first three fields come with `get` only."""

    id: str
    summary: str
    reads: list[str]
    description: str = ""
    paper: str = ""
    opens_with: str = ""
    spec_schema: dict[str, Any] = field(default_factory=dict)
    example: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict, repr=False)

    def fields_that_name(self, kind: str) -> set[str]:
        """The spec's fields that hold the id of a "file" or a "model"."""
        properties = self.spec_schema.get("properties", {})
        return {name for name, one in properties.items() if one.get("reference") == kind}


class Methods:
    """`/v1/methods`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Method]:
        """Every method, by name."""
        return [read(Method, data) for data in all_pages(self._transport, "/v1/methods")]

    def get(self, name: str) -> Method:
        """One method, with the schema of its spec."""
        return read(Method, self._transport.get(f"/v1/methods/{name}"))
