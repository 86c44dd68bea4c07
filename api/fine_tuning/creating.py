"""A job that the fine-tuning API is asked for: its model is found by name, its `auto` resolved, its data checked."""

from __future__ import annotations

import secrets

from starlette.concurrency import run_in_threadpool

from api.dependencies import Server
from api.fine_tuning.automatic import DataSize
from api.fine_tuning.requests import JobRequest
from api.fine_tuning.translating import in_its_words, translate
from api.idempotency import Envelope
from api.submitting import Submission
from core.errors import InvalidRequest
from core.jobs.inputs import get_file
from core.jobs.models import Checkpoint, File, TrainedModel
from core.jobs.names import find_named


async def create_job(server: Server, envelope: Envelope, asked: JobRequest) -> str:
    """Submit the job, once however often it is sent; answers its id. Errors name the fields of the fine-tuning API."""
    project_id = envelope.caller.project_id
    seed = secrets.randbelow(2**31) if asked.seed is None else asked.seed
    base, examples = await run_in_threadpool(_look_up, server, project_id, asked)
    found = translate(asked, base, seed=seed, size=DataSize(examples))
    try:
        made = await server.submissions.ask(
            Submission(envelope, found.spec, request=found.request, sent=asked.model_dump(mode="json"))
        )
    except InvalidRequest as error:
        raise in_its_words(error, asked.method.type) from None
    return made.id


def _look_up(server: Server, project_id: str, asked: JobRequest) -> tuple[File | TrainedModel | Checkpoint, int]:
    """The model to start from, and how many examples there are to learn from. Raises NotFound."""
    with server.database.read() as session:
        base = find_named(session, project_id, asked.model)
        file = get_file(session, project_id, asked.training_file, param="training_file")
    return base, max(1, (file.profile or {}).get("examples", 1))
