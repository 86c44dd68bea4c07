"""What a job leaves: checkpoints and samples while it runs, artifacts when it has ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from api.answers.answer import Answer
from api.answers.checkpoints import CheckpointObject, checkpoint_object
from api.answers.events import SampleObject, sample_object
from api.answers.lists import ListOf, page_of, page_of_all
from api.archives import MEDIA_TYPE, send_archive
from api.dependencies import Caller, PageDep, Reader, Server, ServerDep
from api.downloads import BINARY, Download, Responses, documented, send
from core.errors import Conflict, NotFound
from core.jobs import artifacts, checkpointing, store
from core.jobs.events import EventId, get_event, list_events
from core.jobs.models.jobs import Job
from core.jobs.models.results import Artifact
from core.jobs.status import TERMINAL
from core.storage import sample_key

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["artifacts"])

ADAPTER = "adapter/"  # where the peft folder lies among the artifacts
Part = Literal["all", "merged", "adapter"]
WEIGHTS = ("model.safetensors", "adapter_model.safetensors")
TAR: Responses = {
    200: {"content": {MEDIA_TYPE: {"schema": BINARY}}},
    304: {"description": "It is the one that If-None-Match names."},
}


class ArtifactObject(Answer):
    """A file that a job made."""

    path: str
    object: Literal["job.artifact"] = "job.artifact"
    bytes: int
    sha256: str
    media_type: str


class ArtifactsObject(ListOf[ArtifactObject]):
    """All files that a job made; `first_id` and `last_id` are paths."""

    bytes: int


@router.get("/checkpoints")
def list_checkpoints(job_id: str, caller: Reader, server: ServerDep, page: PageDep) -> ListOf[CheckpointObject]:
    """The job's checkpoints that are kept, the newest first."""
    with server.database.read() as session:
        store.get_job(session, caller.project_id, job_id)
        found = [checkpoint_object(row) for row in checkpointing.list_checkpoints(session, job_id)]
    return page_of_all(found, page, noun="checkpoint")


@router.head("/checkpoints/{checkpoint_id}", include_in_schema=False)
@router.get("/checkpoints/{checkpoint_id}", response_class=Response, responses=documented())
def download_checkpoint(
    job_id: str, checkpoint_id: str, request: Request, caller: Reader, server: ServerDep
) -> Response:
    """A checkpoint, also while the job still runs: one safetensors file, the weights under `objects.`."""
    with server.database.read() as session:
        store.get_job(session, caller.project_id, job_id)
        rows = checkpointing.list_checkpoints(session, job_id)
    row = next((row for row in rows if row.id == checkpoint_id), None)
    if row is None:
        raise NotFound(f"the job has no checkpoint '{checkpoint_id}' (any more)", param="checkpoint_id")
    name = f"{job_id}-step-{row.step}.safetensors"
    return send(request, Download(server.storage.stored(row.key), name, row.bytes, row.sha256))


@router.get("/samples")
def list_samples(
    job_id: str,
    caller: Reader,
    server: ServerDep,
    page: PageDep,
    name: Annotated[str | None, Query(max_length=64, description="Only what is shown under this name.")] = None,
) -> ListOf[SampleObject]:
    """Pictures and texts that the job has made so far, the newest first; an attempt that goes on may repeat some."""
    after = EventId.parse(page.after) if page.after else None
    with server.database.read() as session:
        store.get_job(session, caller.project_id, job_id)
        found = list_events(
            session,
            job_id,
            types=["sample"],
            name=name,
            after=after,
            limit=page.limit + 1,
            newest_first=page.order == "desc",
        )
    return page_of([sample_object(event) for event in found], page)


@router.head("/samples/{sample_id}", include_in_schema=False)
@router.get("/samples/{sample_id}", response_class=Response, responses=documented())
def download_sample(job_id: str, sample_id: str, request: Request, caller: Reader, server: ServerDep) -> Response:
    """What a sample shows: a PNG, or text."""
    with server.database.read() as session:
        store.get_job(session, caller.project_id, job_id)
        event = get_event(session, job_id, EventId.parse(sample_id, param="sample_id"), type="sample")
    if event is None:
        raise NotFound(f"the job has no sample '{sample_id}'", param="sample_id")
    data, key = event.data, sample_key(job_id, event.fence, event.data["path"])
    stored = server.storage.stored(key)
    return send(request, Download(stored, data["path"], data["bytes"], data["sha256"], data["media_type"]))


@router.get("/artifacts")
def list_artifacts(job_id: str, caller: Reader, server: ServerDep) -> ArtifactsObject:
    """The manifest: every file with its size, SHA-256 and media type."""
    _, files = _artifacts(server, caller, job_id)
    data = [
        ArtifactObject(path=file.path, bytes=file.bytes, sha256=file.sha256, media_type=file.media_type)
        for file in files
    ]
    return ArtifactsObject(
        data=data,
        first_id=data[0].path if data else None,
        last_id=data[-1].path if data else None,
        has_more=False,
        bytes=sum(file.bytes for file in files),
    )


@router.head("/artifacts/{path:path}", include_in_schema=False)
@router.get("/artifacts/{path:path}", response_class=Response, responses=documented())
def download_artifact(job_id: str, path: str, request: Request, caller: Reader, server: ServerDep) -> Response:
    """One file of the manifest."""
    return _send(server, caller, job_id, path, request)


@router.head("/weights", include_in_schema=False)
@router.get("/weights", response_class=Response, responses=documented())
def download_weights(job_id: str, request: Request, caller: Reader, server: ServerDep) -> Response:
    """The weights: `model.safetensors`, or an adapter's `adapter_model.safetensors`."""
    _, files = _artifacts(server, caller, job_id)
    paths = {file.path for file in files}
    path = next((path for path in WEIGHTS if path in paths), WEIGHTS[0])
    return _send(server, caller, job_id, path, request)


@router.head("/archive", include_in_schema=False)
@router.get("/archive", response_class=Response, responses=TAR)
def download_archive(
    job_id: str,
    request: Request,
    caller: Reader,
    server: ServerDep,
    part: Annotated[Part, Query(description="All artifacts, the model without its adapter, or that alone.")] = "all",
) -> Response:
    """Artifacts as one tar; its length is known beforehand.

    All lie in a folder of the job's id; `merged` and `adapter` unpack to what transformers and peft open, without one.
    """
    job, files = _artifacts(server, caller, job_id)
    if not files:
        raise _nothing_yet(job)
    downloads = [_download(server, file) for file in files]
    time = job.finished_at or job.created_at
    if part == "all":
        return send_archive(request, downloads, name=job_id, time=time)
    chosen = [one for one in downloads if one.filename.startswith(ADAPTER) is (part == "adapter")]
    if not chosen:
        raise NotFound("the job has no adapter: fine_tuning leaves one where its strategy is lora", param="part")
    inside = [replace(one, filename=one.filename.removeprefix(ADAPTER)) for one in chosen]
    return send_archive(request, inside, name=f"{job_id}-{part}", time=time, is_flat=True)


def _send(server: Server, caller: Caller, job_id: str, path: str, request: Request) -> Response:
    job, files = _artifacts(server, caller, job_id)
    found = next((file for file in files if file.path == path), None)
    if found is None and not files:
        raise _nothing_yet(job)
    if found is None:
        names = ", ".join(file.path for file in files[:20])
        raise NotFound(f"the job has no artifact '{path[:200]}'; it has {names}", param="path")
    return send(request, _download(server, found))


def _download(server: Server, file: Artifact) -> Download:
    return Download(server.storage.stored(file.key), file.path, file.bytes, file.sha256, file.media_type)


def _artifacts(server: Server, caller: Caller, job_id: str) -> tuple[Job, list[Artifact]]:
    with server.database.read() as session:
        return _read(session, caller, job_id)


def _read(session: Session, caller: Caller, job_id: str) -> tuple[Job, list[Artifact]]:
    return store.get_job(session, caller.project_id, job_id), artifacts.list_artifacts(session, job_id)


def _nothing_yet(job: Job) -> Conflict | NotFound:
    if job.status in TERMINAL:
        there = f"its checkpoints are at /v1/jobs/{job.id}/checkpoints"
        return NotFound(f"the job is {job.status} and has no artifacts; {there}", param="job_id")
    there = f"until then, its checkpoints are at /v1/jobs/{job.id}/checkpoints"
    return Conflict(f"the job is {job.status}: artifacts come at its end; {there}", param="job_id")
