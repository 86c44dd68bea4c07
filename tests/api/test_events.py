"""A job's events: by page, and live without gap or repeat, whatever happens to Redis, the API, or the worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest
import redis

from core.errors import TrainingFailed
from core.jobs import attempts, sweeping
from core.jobs.events import NewEvent
from tests.api.service import Service, Worker, sse, submit, upload, wait_for, work


class Watcher:
    """Reads a job's stream in a thread."""

    def __init__(self, http: httpx.Client, job_id: str, *, after: str | None = None) -> None:
        headers = {"accept": "text/event-stream", **({"last-event-id": after} if after else {})}
        self.ids: list[str] = []
        self.messages: list[dict[str, Any]] = []
        self.arrived: list[float] = []
        self.is_done = False
        self._stream = http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers)
        self.response = self._stream.__enter__()
        assert self.response.status_code == 200
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for place, type_, data in sse(self.response.iter_lines()):
                if data == "[DONE]":
                    self.is_done = True
                    return
                assert (data["id"], data["type"]) == (place, type_)
                self.arrived.append(time.monotonic())
                self.messages.append(data)
                self.ids.append(place)
        except httpx.TransportError:
            return

    def wait_for(self, place: str) -> None:
        wait_for(lambda: place in self.ids)

    def finish(self) -> list[str]:
        self.thread.join(60)
        assert self.is_done
        self._stream.__exit__(None, None, None)
        return self.ids

    def cut(self) -> None:
        """Hang up, as a client that loses its connection."""
        self.response.extensions["network_stream"].get_extra_info("socket").shutdown(2)
        self.thread.join(60)


@pytest.fixture
def worker(http: httpx.Client, service: Service) -> Worker:
    return work(service, submit(http, upload(http)["id"])["id"])


def all_ids(http: httpx.Client, job_id: str) -> list[str]:
    ids, after = [], None
    while True:
        params = {"order": "asc", "limit": 50, **({"after": after} if after else {})}
        page = http.get(f"/v1/jobs/{job_id}/events", params=params).json()
        ids += [event["id"] for event in page["data"]]
        if not page["has_more"]:
            return ids
        after = page["last_id"]


def test_pages(http: httpx.Client, worker: Worker) -> None:
    worker.emit(*(NewEvent("message", f"number {index}") for index in range(5)))
    job_id = worker.claim.job_id
    newest = http.get(f"/v1/jobs/{job_id}/events", params={"limit": 2}).json()
    assert [event["message"] for event in newest["data"]] == ["number 4", "number 3"]
    assert newest["has_more"]
    statuses = http.get(f"/v1/jobs/{job_id}/events", params={"type": "status", "order": "asc"}).json()["data"]
    assert [event["data"]["status"] for event in statuses] == ["queued", "running"]
    assert all_ids(http, job_id) == ["0-1", "1-1", "1-2", "1-3", "1-4", "1-5", "1-6"]
    assert http.get(f"/v1/jobs/{job_id}/events", params={"after": "nonsense"}).status_code == 400
    assert http.get(f"/v1/jobs/{job_id}/events", params={"after": f"1-{'9' * 30}"}).status_code == 400
    assert http.get(f"/v1/jobs/{job_id}/events", params={"type": "odd"}).status_code == 422


def test_a_stream_tells_all_and_ends(http: httpx.Client, worker: Worker) -> None:
    watcher = Watcher(http, worker.claim.job_id)
    assert watcher.response.headers["content-type"].startswith("text/event-stream")
    watcher.wait_for("1-1")
    for step in range(30):
        worker.metrics(step, write=step % 7 == 0)
    worker.flush()
    worker.succeed()
    ids = watcher.finish()
    assert ids == all_ids(http, worker.claim.job_id)
    assert watcher.messages[-1]["data"]["status"] == "succeeded"
    assert Watcher(http, worker.claim.job_id).finish() == ids


def test_events_come_at_once(http: httpx.Client, worker: Worker) -> None:
    watcher = Watcher(http, worker.claim.job_id)
    watcher.wait_for("1-1")
    delays = []
    for step in range(8):
        before = time.monotonic()
        worker.metrics(step, write=False)
        watcher.wait_for(f"1-{step + 2}")
        delays.append(watcher.arrived[-1] - before)
    worker.flush()
    worker.succeed()
    watcher.finish()
    assert min(delays) < 0.5  # each is sent when the one before has come: who only looked now and then met none at once


def test_a_watcher_goes_on_where_it_was_cut(http: httpx.Client, worker: Worker) -> None:
    first = Watcher(http, worker.claim.job_id)
    for step in range(10):
        worker.metrics(step, write=False)
    first.wait_for("1-6")
    first.cut()
    seen = list(first.ids)
    worker.flush()
    second = Watcher(http, worker.claim.job_id, after=seen[-1])
    for step in range(10, 15):
        worker.metrics(step)
    worker.succeed()
    rest = second.finish()
    assert seen + rest == all_ids(http, worker.claim.job_id)


def test_a_stream_survives_a_redis_that_forgets_everything(
    http: httpx.Client, worker: Worker, redis_client: redis.Redis
) -> None:
    watcher = Watcher(http, worker.claim.job_id)
    watcher.wait_for("1-1")
    for step in range(40):
        worker.metrics(step, write=step % 5 == 4)
        if step % 10 == 7:
            redis_client.flushall()
    worker.emit(NewEvent("message", "Redis never hears this."), publish=False)
    watcher.wait_for("1-42")
    worker.metrics(50)
    worker.succeed()
    assert watcher.finish() == all_ids(http, worker.claim.job_id)


def test_a_stream_goes_on_with_the_next_fence(http: httpx.Client, service: Service, worker: Worker) -> None:
    watcher = Watcher(http, worker.claim.job_id)
    worker.metrics(1)
    with service.database.write() as session:
        attempts.release_job(session, worker.claim)
    again = work(service, worker.claim.job_id)
    assert again.claim.fence == 2
    again.metrics(2)
    again.succeed()
    assert watcher.finish() == all_ids(http, worker.claim.job_id)


def test_what_a_lost_worker_told_only_redis_is_not_skipped(
    http: httpx.Client, service: Service, worker: Worker
) -> None:
    """A watcher that comes between the loss and the next claim reads the last fence's end from Redis."""
    job_id = worker.claim.job_id
    worker.metrics(1)
    worker.metrics(2, write=False)
    worker.metrics(3, write=False)
    with service.database.write() as session:
        held = [lease for lease in sweeping.held_leases(session) if lease.job_id == job_id]
        assert sweeping.sweep_expired(session, held).requeued == [job_id]
    watcher = Watcher(http, job_id)
    watcher.wait_for("2-1")
    assert watcher.ids == ["0-1", "1-1", "1-2", "1-3", "1-4", "2-1"]
    http.post(f"/v1/jobs/{job_id}/cancel")
    watcher.finish()


def test_a_replay_passes_over_an_end_that_was_retried(http: httpx.Client, worker: Worker) -> None:
    job_id = worker.claim.job_id
    with worker.service.database.write() as session:
        attempts.fail_job(session, worker.claim, TrainingFailed("diverged"), is_retryable=False)
    assert Watcher(http, job_id).finish()[-1] == "1-2"
    http.post(f"/v1/jobs/{job_id}/retry")
    watcher = Watcher(http, job_id)
    watcher.wait_for("1-3")
    work(worker.service, job_id).succeed()
    assert watcher.finish() == all_ids(http, job_id)


def test_a_slow_reader_misses_nothing(http: httpx.Client, worker: Worker) -> None:
    """It reads nothing while more events come than its queue and its socket hold."""
    job_id = worker.claim.job_id
    headers = {"accept": "text/event-stream"}
    with http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
        for _ in range(20):
            worker.emit(*(NewEvent("log", "x" * 2000, data={"attempt": 1}) for _ in range(100)))
        worker.succeed()
        ids = [place for place, _, data in sse(response.iter_lines()) if data != "[DONE]"]
    assert ids == all_ids(http, job_id)


def test_a_missing_job_has_no_stream(http: httpx.Client) -> None:
    answer = http.get("/v1/jobs/job-none/events", headers={"accept": "text/event-stream"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_many_watchers_see_the_same(service: Service, http: httpx.Client, worker: Worker) -> None:
    limits = httpx.Limits(max_connections=100)
    with service.client(http.headers["authorization"].split()[1], limits=limits) as many:
        watchers = [Watcher(many, worker.claim.job_id) for _ in range(60)]
        for step in range(20):
            worker.metrics(step, publish=step % 3 > 0)
        worker.succeed()
        expected = all_ids(http, worker.claim.job_id)
        for watcher in watchers:
            assert watcher.finish() == expected


def test_the_api_may_stop_and_another_goes_on(service: Service, http: httpx.Client, worker: Worker) -> None:
    """A second API process on the same database is stopped while it streams; it ends at once and cleanly."""
    key = http.headers["authorization"]
    with httpx.Client(base_url=service.other_api.base_url, headers={"authorization": key}, timeout=90) as other:
        watcher = Watcher(other, worker.claim.job_id)
        worker.metrics(1)
        watcher.wait_for("1-2")
        service.other_api.process.terminate()
        watcher.thread.join(60)
        assert not watcher.thread.is_alive()
        assert not watcher.is_done
        wait_for(lambda: service.other_api.process.status() == psutil.STATUS_ZOMBIE)
    worker.metrics(2)
    worker.succeed()
    rest = Watcher(http, worker.claim.job_id, after=watcher.ids[-1]).finish()
    assert watcher.ids + rest == all_ids(http, worker.claim.job_id)


def test_a_job_whose_announcement_redis_refuses_is_still_accepted(
    http: httpx.Client, redis_client: redis.Redis
) -> None:
    dataset = upload(http)["id"]
    with paused(redis_client):
        job = submit(http, dataset)
        watcher = Watcher(http, job["id"])
        watcher.wait_for("0-1")
    http.post(f"/v1/jobs/{job['id']}/cancel")
    assert watcher.finish() == ["0-1", "0-2"]


@contextmanager
def paused(client: redis.Redis) -> Iterator[None]:
    """Redis accepts and says nothing: stopped as by SIGSTOP."""
    process = psutil.Process(client.info("server")["process_id"])
    process.suspend()
    try:
        yield
    finally:
        process.resume()
