"""Where jobs' data and models come from, for a page of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from api.answers.answer import Answer
from core.catalog import methods
from core.jobs.details import Details
from core.jobs.inputs import rows_of
from core.jobs.models.files import File
from core.jobs.models.jobs import Job
from core.jobs.models.results import Checkpoint


class Origin(Answer):
    """Where a data set or a model comes from."""

    file: str | None = None
    filename: str | None = None
    sha256: str | None = None
    model: str | None = None
    checkpoint: str | None = None
    step: int | None = None
    job: str | None = None


def lineages_of(session: Session, jobs: Sequence[Job], details: Mapping[str, Details]) -> dict[str, dict[str, Origin]]:
    """By job, then by the spec's field: what its worker noted; before the job has made a model, what is there now."""
    references = {job.id: dict(_references(job)) for job in jobs if details[job.id].model is None}
    named = {value for mine in references.values() for value in mine.values()}
    rows = rows_of(session, jobs[0].project_id, named) if named else {}
    found = {}
    for job in jobs:
        mine = details[job.id]
        if mine.model is not None:
            found[job.id] = origins_of(mine.model.lineage)
            continue
        found[job.id] = {field: _origin(value, rows.get(value)) for field, value in references[job.id].items()}
        found[job.id] |= {need.field: Origin(job=need.job_id) for need in mine.needs}
    return found


def origins_of(lineage: Mapping[str, Any]) -> dict[str, Origin]:
    """What a worker noted, by the spec's field."""
    return {field: Origin(**origin) for field, origin in lineage.items() if isinstance(origin, dict)}


def _references(job: Job) -> Iterator[tuple[str, str]]:
    """The fields of the job's spec that name a file or a model, and its id."""
    method = methods().get(job.method)
    for name, field in method.spec.model_fields.items() if method else ():
        value, extra = job.spec.get(name), field.json_schema_extra
        if isinstance(value, str) and isinstance(extra, dict) and "reference" in extra:
            yield name, value


def _origin(value: str, row: Any) -> Origin:
    if isinstance(row, File):
        return Origin(file=row.id, filename=row.filename, sha256=row.sha256)
    if isinstance(row, Checkpoint):
        return Origin(checkpoint=row.id, step=row.step, job=row.job_id)
    if row is not None:
        return Origin(model=row.id, job=row.job_id)
    if value.startswith("ckpt-"):
        return Origin(checkpoint=value)
    return Origin(file=value) if value.startswith("file-") else Origin(model=value)
