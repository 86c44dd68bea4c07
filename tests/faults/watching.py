"""A watcher: follows a job's events over HTTP to their end, however often it must connect again."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

SILENT_SECONDS = 20.0  # the API sends something every 15
AGAIN_SECONDS = 0.1


@dataclass(frozen=True)
class Seen:
    """An event as it came."""

    id: str
    type: str
    data: dict[str, Any]

    @property
    def place(self) -> tuple[int, int]:
        """Its fence, and its number under that fence."""
        fence, _, seq = self.id.partition("-")
        return int(fence), int(seq)


class Watcher(threading.Thread):
    """Reads `GET /v1/jobs/{id}/events` as server-sent events; a cut connection is taken up by `Last-Event-ID`."""

    def __init__(self, http: httpx.Client, addresses: Sequence[str], job_id: str) -> None:
        super().__init__(name=f"watcher of {job_id}", daemon=True)
        self.events: list[Seen] = []
        self.is_done = False
        self.connections = 0
        self.refusals: list[str] = []
        self._http = http
        self._addresses = addresses
        self._job_id = job_id
        self._is_stopped = threading.Event()

    def run(self) -> None:
        """Until [DONE], or told to stop."""
        for address in itertools.cycle(self._addresses):
            try:
                self._follow(address)
            except httpx.HTTPError:
                self._is_stopped.wait(AGAIN_SECONDS)
            except RuntimeError:  # the client was closed: the stack is gone
                return
            if self.is_done or self._is_stopped.is_set():
                return

    def stop(self) -> None:
        """Do not connect again."""
        self._is_stopped.set()

    def _follow(self, address: str) -> None:
        headers = {"accept": "text/event-stream"}
        if self.events:
            headers["last-event-id"] = self.events[-1].id
        timeout = httpx.Timeout(5, read=SILENT_SECONDS)
        url = f"{address}/v1/jobs/{self._job_id}/events"
        with self._http.stream("GET", url, headers=headers, timeout=timeout) as answer:
            if answer.status_code != 200:
                if answer.status_code < 500 and answer.status_code != 429:
                    self.refusals.append(f"{answer.status_code} for a watcher")
                self._is_stopped.wait(AGAIN_SECONDS)
                return
            self.connections += 1
            self._read(answer)

    def _read(self, answer: httpx.Response) -> None:
        """Take events that are whole: the connection may be cut in the midst of one."""
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
                continue
            if fields.get("data") == "[DONE]":
                self.is_done = True
                return
            if "id" in fields:
                self.events.append(Seen(fields["id"], fields["event"], json.loads(fields["data"])))
            fields = {}
