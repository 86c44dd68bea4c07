"""What models are called: the names of the fine-tuning API, and how any name that a user gives finds its model."""

from __future__ import annotations

import re
from difflib import get_close_matches

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.jobs.checkpoints import refuse_unless_model
from core.jobs.expiry import is_there
from core.jobs.fetches import name_here, parse_hub_name
from core.jobs.files import BASE_MODEL
from core.jobs.inputs import get_file, may_use
from core.jobs.models.files import File
from core.jobs.models.jobs import Job
from core.jobs.models.results import Checkpoint, TrainedModel
from core.spec import FINE_TUNED

ENDINGS = ("", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".gguf", ".gguf.zip")  # of uploaded base models
AT_STEP = "ckpt-step-"
MOST_NAMES = 200  # that are looked through for one that is nearly right


def fine_tuned_name(job: Job, project_name: str) -> str:
    """`ft:<base>:<project>:<suffix>:<id>`: what the model that the job makes is called."""
    request = job.request or {}
    base = request.get("model") or job.spec.get("base")
    suffix = _plain(str(request.get("suffix") or ""))
    words = (_base_name(str(base)), _word(project_name), suffix, job.id.removeprefix("job-"))
    return FINE_TUNED + ":".join(words)


def checkpoint_name(job: Job, project_name: str, step: int) -> str:
    """`ft:...:ckpt-step-<n>`: what the model that the job was at a step is called."""
    return f"{fine_tuned_name(job, project_name)}:{AT_STEP}{step}"


def _base_name(base: str) -> str:
    """Of a model that was itself fine-tuned, the name of what that was made from."""
    return _word(base.split(":")[1] if base.startswith(FINE_TUNED) and base.count(":") >= 2 else base)


def _word(name: str) -> str:
    """The last part of a path, plain."""
    return _plain(name.rpartition("/")[2])


def _plain(text: str) -> str:
    """Without what separates the parts of a name, or means something in an address."""
    return re.sub(r"[^\w.-]+", "-", text)


def find_named(
    session: Session, project_id: str, name: str, *, param: str | None = "model"
) -> File | TrainedModel | Checkpoint:
    """The model that a project calls so: by its id, by the name of the fine-tuning API, or as its file is called.

    A checkpoint may be another project's that permits it. Raises NotFound.
    """
    model = session.get(TrainedModel, name) if name.startswith("model-") else None
    if model is not None and model.project_id == project_id:
        return model
    if name.startswith("file-"):
        return _base_model(session, project_id, name, param)
    if name.startswith("ckpt-"):
        found = session.get(Checkpoint, name)
        return _permitted(session, project_id, found, name, param)
    if name.startswith(FINE_TUNED):
        return _fine_tuned(session, project_id, name, param)
    return _uploaded(session, project_id, name, param)


def _base_model(session: Session, project_id: str, file_id: str, param: str | None) -> File:
    file = get_file(session, project_id, file_id, param=param)
    if file.purpose != BASE_MODEL:
        raise NotFound(f"'{file_id}' is a data set, not a model", param=param)
    return file


def _fine_tuned(session: Session, project_id: str, name: str, param: str | None) -> TrainedModel | Checkpoint:
    made, _, last = name.rpartition(":")
    if not last.startswith(AT_STEP):
        mine = (TrainedModel.project_id == project_id, TrainedModel.alias == name)
        if (model := session.scalar(select(TrainedModel).where(*mine))) is None:
            raise _unknown(session, project_id, name, param)
        return model
    step = last.removeprefix(AT_STEP)
    if not (step.isascii() and step.isdigit() and len(step) < 12):
        raise _unknown(session, project_id, name, param)
    at_step = (Checkpoint.job_id == f"job-{made.rpartition(':')[2]}", Checkpoint.step == int(step))
    return _permitted(session, project_id, session.scalar(select(Checkpoint).where(*at_step)), name, param)


def _permitted(
    session: Session, project_id: str, checkpoint: Checkpoint | None, name: str, param: str | None
) -> Checkpoint:
    if checkpoint is None or not may_use(session, project_id, checkpoint):
        raise _unknown(session, project_id, name, param)
    refuse_unless_model(checkpoint, param=param)
    return checkpoint


def _uploaded(session: Session, project_id: str, name: str, param: str | None) -> File:
    """The newest base model that was uploaded, or fetched, under this name."""
    asked = parse_hub_name(name)
    names = {name} if asked is None else {name, name_here(*asked)}
    mine = (File.project_id == project_id, File.purpose == BASE_MODEL, is_there())
    called = File.filename.in_([one + ending for one in names for ending in ENDINGS])
    newest = select(File).where(*mine, called).order_by(File.created_at.desc(), File.id.desc()).limit(1)
    if (file := session.scalar(newest)) is None:
        raise _unknown(session, project_id, name, param)
    return file


def _unknown(session: Session, project_id: str, name: str, param: str | None) -> NotFound:
    near = get_close_matches(name, _names(session, project_id), n=2)
    cure = (
        f"did you mean {' or '.join(map(repr, near))}?"
        if near
        else "name one that GET /v1/models lists, or upload it under that name (purpose "
        f"'{BASE_MODEL}', a zip of a Hugging Face folder, or GGUF)"
    )
    return NotFound(f"there is no model '{name[:200]}': {cure}", param=param)


def _names(session: Session, project_id: str) -> list[str]:
    """What the newest of a project's models are called."""
    bases = select(File.filename).where(File.project_id == project_id, File.purpose == BASE_MODEL, is_there())
    made = select(TrainedModel.alias).where(TrainedModel.project_id == project_id, TrainedModel.alias.is_not(None))
    files = session.scalars(bases.order_by(File.created_at.desc(), File.id.desc()).limit(MOST_NAMES))
    models = session.scalars(made.order_by(TrainedModel.created_at.desc(), TrainedModel.id.desc()).limit(MOST_NAMES))
    return [*map(base_name_of, files), *(alias for alias in models if alias)]


def base_name_of(filename: str) -> str:
    """What a base is called whose file is called so."""
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if ending and filename.endswith(ending):
            return filename.removesuffix(ending)
    return filename
