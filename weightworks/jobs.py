"""Jobs: submit, watch, pause, cancel, take the weights home."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from weightworks.downloads import fetch, inside
from weightworks.errors import NoSuchPart, WaitedTooLong
from weightworks.events import Event, follow
from weightworks.pages import all_pages
from weightworks.records import read
from weightworks.transport import Transport

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
FIRST_LOOK, LONGEST_LOOK = 0.1, 2.0

ADAPTER = "adapter/"  # where the peft folder lies among the artifacts

OnBytes = Callable[[int], None]
Part = Literal["all", "merged", "adapter"]


@dataclass(frozen=True)
class Job:
    """A job as it is now."""

    id: str
    method: str
    status: str
    created_at: int
    name: str | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    started_at: int | None = None
    finished_at: int | None = None
    progress: dict[str, Any] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    model: str | None = None
    attempt: int = 0
    max_attempts: int = 0
    cancel_requested: bool = False
    pause_requested: bool = False
    pipeline: str | None = None
    pipeline_step: str | None = None
    raw: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_over(self) -> bool:
        """Whether it has succeeded, failed or been cancelled."""
        return self.status in TERMINAL

    @property
    def label(self) -> str:
        """What people would call it."""
        return self.name or self.pipeline_step or self.method


@dataclass(frozen=True)
class Artifact:
    """A file that a job made."""

    path: str
    bytes: int
    sha256: str
    media_type: str = ""
    raw: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Checkpoint:
    """Where a job could go on from; it can be downloaded while the job runs."""

    id: str
    step: int
    bytes: int
    sha256: str
    created_at: int = 0
    is_epoch: bool = False  # it can be used as a model
    metrics: dict[str, float] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Sample:
    """A picture or a text that a job made at a step."""

    id: str
    name: str
    step: int
    bytes: int
    sha256: str
    media_type: str = ""
    caption: str = ""
    created_at: float = 0.0
    raw: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def filename(self) -> str:
        """What to call its file."""
        return f"{self.name}-{self.step:09d}{'.txt' if self.media_type.startswith('text/') else '.png'}"


@dataclass(frozen=True)
class Series:
    """A metric over the steps."""

    steps: list[int]
    values: list[float]


class Jobs:
    """`/v1/jobs`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Submit a job. Raises Invalid, naming the field, for a spec that cannot be trained as written."""
        return read(Job, self._transport.post("/v1/jobs", dict(spec), idempotency_key=idempotency_key))

    def preview(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """What would be done: the whole spec, the data set's profile, and estimates. Nothing is stored."""
        answer: dict[str, Any] = self._transport.post("/v1/jobs/preview", dict(spec))
        return answer

    def get(self, job_id: str) -> Job:
        """A job as it is now."""
        return read(Job, self._transport.get(f"/v1/jobs/{job_id}"))

    def list(
        self, *, status: str | None = None, method: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> Iterator[Job]:
        """The project's jobs, newest first."""
        pairs = {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        return self._list({"status": status, "method": method, **pairs})

    def _list(self, params: Mapping[str, Any]) -> Iterator[Job]:
        return (read(Job, data) for data in all_pages(self._transport, "/v1/jobs", params))

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop; what it has learned until then can be downloaded."""
        return read(Job, self._transport.post(f"/v1/jobs/{job_id}/cancel"))

    def pause(self, job_id: str) -> Job:
        """Leave a job off, with a checkpoint; no attempt is used up."""
        return read(Job, self._transport.post(f"/v1/jobs/{job_id}/pause"))

    def resume(self, job_id: str) -> Job:
        """Queue a paused job again, from its last checkpoint; or take back a pause that has not come yet."""
        return read(Job, self._transport.post(f"/v1/jobs/{job_id}/resume"))

    def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again, from its last checkpoint."""
        return read(Job, self._transport.post(f"/v1/jobs/{job_id}/retry"))

    def delete(self, job_id: str) -> None:
        """Delete a job that is over, with its model, artifacts, checkpoints, samples and events."""
        self._transport.delete(f"/v1/jobs/{job_id}")

    def delete_checkpoint(self, job_id: str, checkpoint_id: str) -> None:
        """Delete a checkpoint of a job that is over."""
        self._transport.delete(f"/v1/jobs/{job_id}/checkpoints/{checkpoint_id}")

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """The job once it is over, however it ended. Raises WaitedTooLong."""
        ends_at = time.monotonic() + timeout if timeout is not None else None
        look = FIRST_LOOK
        while not (job := self.get(job_id)).is_over:
            if ends_at is not None and time.monotonic() >= ends_at:
                raise WaitedTooLong(f"{job_id} is still {job.status} after {timeout:g} seconds")
            time.sleep(look if ends_at is None else max(0.0, min(look, ends_at - time.monotonic())))
            look = min(look * 1.5, LONGEST_LOOK)
        return job

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[Event]:
        """Every event from the beginning, or behind `after`, then live until the job is over; see `follow`."""
        return follow(self._transport, job_id, after=after)

    def metrics(self, job_id: str, *, names: Sequence[str] = (), max_points: int | None = None) -> dict[str, Series]:
        """Each metric over the steps, by its name; down-sampled by the server to `max_points`."""
        params = {"names": ",".join(names) or None, "max_points": max_points}
        found = self._transport.get(f"/v1/jobs/{job_id}/metrics", params)
        return {one["name"]: Series(one["steps"], one["values"]) for one in found["series"]}

    def logs(self, job_id: str) -> Iterator[dict[str, Any]]:
        """The trainer's own output, line by line, each with its attempt."""
        return all_pages(self._transport, f"/v1/jobs/{job_id}/logs")

    def checkpoints(self, job_id: str) -> Sequence[Checkpoint]:
        """What the job could go on from, newest first."""
        return [read(Checkpoint, data) for data in self._data(f"/v1/jobs/{job_id}/checkpoints")]

    def samples(self, job_id: str, *, name: str | None = None) -> Iterator[Sample]:
        """Pictures and texts that the job has made so far, newest first."""
        params = {"name": name}
        return (read(Sample, data) for data in all_pages(self._transport, f"/v1/jobs/{job_id}/samples", params))

    def download_samples(self, job_id: str, folder: str | Path) -> Sequence[Path]:
        """Bring them into `folder`, each checked; where an attempt repeated some, the newest."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        newest: dict[str, Sample] = {}
        for one in self.samples(job_id):
            newest.setdefault(one.filename, one)
        paths = []
        for filename, one in sorted(newest.items()):
            url, target = f"/v1/jobs/{job_id}/samples/{one.id}", inside(folder, filename)
            paths.append(fetch(self._transport, url, target, size=one.bytes, sha256=one.sha256))
        return paths

    def artifacts(self, job_id: str, *, part: Part = "all") -> Sequence[Artifact]:
        """The files that the job made, or those of a part. Raises NoSuchPart if it made no adapter."""
        found = [read(Artifact, data) for data in self._data(f"/v1/jobs/{job_id}/artifacts")]
        if part == "all":
            return found
        chosen = [one for one in found if one.path.startswith(ADAPTER) is (part == "adapter")]
        if found and not chosen:
            raise NoSuchPart(f"{job_id} made no adapter: fine_tuning leaves one where its strategy is lora")
        return chosen

    def _data(self, path: str) -> Sequence[dict[str, Any]]:
        data: Sequence[dict[str, Any]] = self._transport.get(path)["data"]
        return data

    def download(
        self, job_id: str, folder: str | Path, *, part: Part = "all", on_bytes: OnBytes | None = None
    ) -> Sequence[Path]:
        """Bring the files that the job made into `folder`, each checked against its SHA-256.

        `part`: `adapter` brings the peft folder alone, `merged` all but that. Files that are there already are not
        fetched again; a file that was cut is gone on with.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for one in self.artifacts(job_id, part=part):
            url = f"/v1/jobs/{job_id}/artifacts/{quote(one.path)}"
            target = inside(folder, one.path.removeprefix(ADAPTER) if part == "adapter" else one.path)
            paths.append(fetch(self._transport, url, target, size=one.bytes, sha256=one.sha256, on_bytes=on_bytes))
        return paths
