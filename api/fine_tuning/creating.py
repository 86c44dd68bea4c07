"""A job that the fine-tuning API is asked for: its model is found by name, its `auto` resolved, its data checked."""

from __future__ import annotations

import secrets

from starlette.concurrency import run_in_threadpool

from api.dependencies import Server
from api.fetching import fetch_for_job
from api.fine_tuning.automatic import DataSize
from api.fine_tuning.requests import JobRequest
from api.fine_tuning.translating import in_its_words, translate
from api.idempotency import Envelope
from api.submitting import Submission
from core.errors import InvalidRequest, NotFound
from core.jobs.inputs import get_file
from core.jobs.models.files import File
from core.jobs.models.results import Checkpoint, TrainedModel
from core.jobs.names import find_named
from core.networks.pretrained import MAX_TOKENS


async def create_job(server: Server, envelope: Envelope, asked: JobRequest) -> str:
    """Submit the job, once however often it is sent; answers its id. Errors name the fields of the fine-tuning API."""
    project_id = envelope.caller.project_id
    seed = secrets.randbelow(2**31) if asked.seed is None else asked.seed
    base, examples = await run_in_threadpool(_look_up, server, project_id, asked)
    draft = translate(asked, base, seed=seed, size=_size(asked, examples))
    verdict = await server.checker.judge(project_id, draft.spec)
    if verdict.findings is not None:
        found = verdict.findings
        size = _size(asked, found.examples, found.tokens, found.width)
        draft = translate(asked, base, seed=seed, size=size)
    sent = asked.model_dump(mode="json")
    try:
        made = await server.submissions.ask(Submission(envelope, draft.spec, verdict, request=draft.request, sent=sent))
    except InvalidRequest as error:
        raise in_its_words(error, asked.method.type) from None
    return made.id


def _look_up(server: Server, project_id: str, asked: JobRequest) -> tuple[File | TrainedModel | Checkpoint, int]:
    """The model to start from, and how many examples there are to learn from. Raises NotFound."""
    base = _base(server, project_id, asked.model)
    with server.database.read() as session:
        file = get_file(session, project_id, asked.training_file, param="training_file")
    return base, max(1, (file.profile or {}).get("examples", 1))


def _size(asked: JobRequest, examples: int, tokens: int | None = None, width: int | None = None) -> DataSize:
    """What there is to learn, without the part that is held out; `tokens`: of all, if they were counted."""
    held_out = asked.native.get("validation_fraction") or 0.0
    learned = max(1, round(examples * (1 - held_out)))
    share = None if tokens is None else round(tokens * learned / examples)
    return DataSize(learned, share, row_tokens=asked.native.get("max_length") or MAX_TOKENS, width=width)


def _base(server: Server, project_id: str, name: str) -> File | TrainedModel | Checkpoint:
    """The model of that name; one that only the hub has is fetched first: raises BeingFetched, or NotFound."""
    try:
        with server.database.read() as session:
            return find_named(session, project_id, name)
    except NotFound:
        fetch_for_job(server, project_id, name, param="model")
    with server.database.read() as session:
        return find_named(session, project_id, name)
