"""Pipelines: several jobs in one POST, one taking another's weights by its local name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from weightworks.jobs import Job
from weightworks.pages import all_pages
from weightworks.records import read
from weightworks.transport import Transport


@dataclass(frozen=True)
class Pipeline:
    """Jobs that were posted together."""

    id: str
    created_at: int = 0
    name: str | None = None
    status: str = ""
    raw: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def jobs(self) -> dict[str, Job]:
        """Each job by its local name."""
        return {name: read(Job, data) for name, data in self.raw["jobs"].items()}


class Pipelines:
    """`/v1/pipelines`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Pipeline:
        """Submit a pipeline: all of its jobs, or none and a reason."""
        return read(Pipeline, self._transport.post("/v1/pipelines", dict(spec), idempotency_key=idempotency_key))

    def get(self, pipeline_id: str) -> Pipeline:
        """A pipeline and its jobs as they are now."""
        return read(Pipeline, self._transport.get(f"/v1/pipelines/{pipeline_id}"))

    def list(self) -> Iterator[Pipeline]:
        """All pipelines of the project, newest first."""
        return (read(Pipeline, data) for data in all_pages(self._transport, "/v1/pipelines"))
