"""A job that is submitted and watched through the proxy, and what must be true of it in the end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.compose.engine import until
from tests.faults.watching import Watcher
from weightworks import Client
from weightworks.jobs import Job

PATIENCE = 600.0
PAGE = 100


class Watched:
    """A job, and those who read its events as they happen."""

    def __init__(self, client: Client, http: httpx.Client, job: Job, *, watchers: int = 1) -> None:
        self.client = client
        self.http = http
        self.id = job.id
        self.label = job.label
        self.watchers = [Watcher(http, [client.connection.base_url], job.id) for _ in range(watchers)]
        for watcher in self.watchers:
            watcher.start()

    def now(self) -> Job:
        """The job as it is."""
        return self.client.jobs.get(self.id)

    def until_seen(self, kind: str) -> None:
        """Wait until the first watcher has seen an event of this type after whatever it has seen so far."""
        events = self.watchers[0].events
        seen = len(events)
        until(
            lambda: any(event.type == kind for event in events[seen:]) or self.now().is_over,
            seconds=PATIENCE,
            what=f"for a {kind} event of {self.label}",
        )
        if (job := self.now()).is_over:
            raise AssertionError(f"{self.label} {job.status} before it could be disturbed: {job.error}")

    def until_succeeded(self, *, attempts: int) -> Job:
        """Wait for its end, and hold it to what it must be then."""
        job = self.client.jobs.wait(self.id, timeout=PATIENCE)
        assert job.status == "succeeded", f"{self.label} {job.status}: {job.error}"
        assert job.attempt == attempts, f"{self.label} counts {job.attempt} attempts instead of {attempts}"
        stored = [event["id"] for event in self._stored()]
        for watcher in self.watchers:
            until(lambda watcher=watcher: watcher.is_done, seconds=60, what="for the end of the stream")
            assert not watcher.refusals, watcher.refusals
            self._assert_no_gaps(watcher, stored)
        return job

    def _assert_no_gaps(self, watcher: Watcher, stored: list[str]) -> None:
        """Each event follows the one before, and the watcher saw all that the database has, once."""
        last = (0, 0)
        for event in watcher.events:
            fence, number = event.place
            follows = (fence, number) == (last[0], last[1] + 1) or (fence > last[0] and number == 1)
            assert follows, f"{self.label}: event {fence}-{number} after {last[0]}-{last[1]}"
            last = (fence, number)
        seen = [event.id for event in watcher.events]
        assert seen == stored, f"{self.label}: {len(seen)} events seen, {len(stored)} stored"

    def _stored(self) -> Iterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            answer = self.http.get(
                f"{self.client.connection.base_url}/v1/jobs/{self.id}/events",
                params={"limit": PAGE, "order": "asc", **after},
            )
            page = answer.raise_for_status().json()
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}

    def download(self, folder: Path) -> dict[str, str]:
        """Bring all its files home; answers the SHA-256 of each, which are those that the API promised."""
        self.client.jobs.download(self.id, folder)
        promised = {one.path: one.sha256 for one in self.client.jobs.artifacts(self.id)}
        found = {path: hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in promised}
        assert found == promised, f"{self.label}: {found} instead of {promised}"
        return found
