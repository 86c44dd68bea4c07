"""Workers: which there are, and which are to take no more jobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from weightworks.pages import all_pages
from weightworks.records import read
from weightworks.transport import Transport


@dataclass(frozen=True)
class Worker:
    """A slot of a worker: it trains one job at a time. `job`: the one it holds, unless that is another project's."""

    id: str
    host: str = ""
    has_gpu: bool = False
    started_at: int = 0
    seen_at: int = 0
    drain_requested: bool = False
    is_draining: bool = False
    is_busy: bool = False
    job: str | None = None
    raw: dict[str, Any] = field(default_factory=dict, repr=False)


class Workers:
    """`/v1/workers`; to drain one needs an admin key of the project `default`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Worker]:
        """The workers that run, newest first."""
        return (read(Worker, data) for data in all_pages(self._transport, "/v1/workers"))

    def drain(self, worker_id: str) -> Worker:
        """Have a worker give its job back, with a checkpoint, and take no more."""
        return read(Worker, self._transport.post(f"/v1/workers/{worker_id}/drain"))

    def resume(self, worker_id: str) -> Worker:
        """Have a drained worker take jobs again."""
        return read(Worker, self._transport.post(f"/v1/workers/{worker_id}/resume"))
