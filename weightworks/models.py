"""Models: what training made, and what the next training can start from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from weightworks.pages import all_pages
from weightworks.records import read
from weightworks.transport import Transport


@dataclass(frozen=True)
class Model:
    """A trained model, and where it comes from."""

    id: str
    created_at: int = 0
    name: str | None = None
    method: str | None = None
    job: str | None = None
    bytes: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict, repr=False)


class Models:
    """`/v1/models`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Model]:
        """All models of the project, newest first."""
        return (read(Model, data) for data in all_pages(self._transport, "/v1/models"))

    def get(self, model_id: str) -> Model:
        """One model."""
        return read(Model, self._transport.get(f"/v1/models/{model_id}"))

    def delete(self, model_id: str) -> None:
        """Delete a model and its files."""
        self._transport.delete(f"/v1/models/{model_id}")
