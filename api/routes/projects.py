"""Projects: what they may use, and what they use."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy.orm import Session

from api.answers.answer import Answer
from api.answers.lists import ListOf, page_of
from api.dependencies import Caller, PageDep, Reader, ServerDep, Writer, operator
from core.errors import NotFound
from core.jobs import keys
from core.jobs.models.projects import Project
from core.jobs.quotas import Quotas, usage_of
from core.settings import Settings
from core.spec import Frozen

router = APIRouter(prefix="/v1/projects", tags=["projects"])


class QuotaChanges(Frozen):
    """Quotas to set; what is not named stays. Null: the server's default; 0: no limit."""

    max_running_jobs: int | None = Field(None, ge=0, lt=2**63, description="Jobs that may run at once.")
    max_unfinished_jobs: int | None = Field(None, ge=0, lt=2**63, description="Jobs that may wait, run or be paused.")
    max_stored_bytes: int | None = Field(
        None, ge=0, lt=2**63, description="Bytes of files, checkpoints and artifacts that may be stored."
    )
    max_gpu_seconds: int | None = Field(None, ge=0, lt=2**63, description="Seconds on GPUs in 30 days.")


NO_CHANGES = QuotaChanges()


class QuotasObject(Answer):
    """What a project may use."""

    max_running_jobs: int | None
    max_unfinished_jobs: int | None
    max_stored_bytes: int | None
    max_gpu_seconds: int | None


class ProjectUsageObject(Answer):
    """What a project uses."""

    running_jobs: int
    unfinished_jobs: int
    stored_bytes: int
    gpu_seconds: int = Field(description="In the last 30 days.")


class ProjectObject(Answer):
    """A project, its quotas, and how much of them it uses."""

    id: str
    object: Literal["project"] = "project"
    name: str
    created_at: int
    quotas: QuotasObject = Field(description="Its own; null: the server's default; 0: no limit.")
    limits: QuotasObject = Field(description="What holds for it; null: no limit.")
    usage: ProjectUsageObject


@router.get("")
def list_projects(caller: Reader, server: ServerDep, page: PageDep) -> ListOf[ProjectObject]:
    """The key's own project; all of them for an admin of the project `default`."""
    with server.database.read() as session:
        if caller.is_operator:
            found = keys.list_projects(session, **page.query)
        else:
            after = _visible(session, caller, page.after, param="after") if page.after else None
            found = [] if after else [keys.get_project(session, caller.project_id)]
        return page_of([_project_object(session, project, server.settings) for project in found], page)


@router.get("/{project_id}")
def get_project(project_id: str, caller: Reader, server: ServerDep) -> ProjectObject:
    """A project: its quotas, and how much of them it uses."""
    with server.database.read() as session:
        return _project_object(session, _visible(session, caller, project_id), server.settings)


@router.patch("/{project_id}")
def change_project(
    project_id: str, caller: Writer, server: ServerDep, body: QuotaChanges = NO_CHANGES
) -> ProjectObject:
    """Set a project's quotas; for admins of the project `default`."""
    with server.database.write() as session:
        project = _visible(session, caller, project_id)
        operator(caller)
        for name in body.model_fields_set:
            setattr(project, name, getattr(body, name))
        session.flush()
        return _project_object(session, project, server.settings)


def _visible(session: Session, caller: Caller, project_id: str, *, param: str = "project_id") -> Project:
    if not caller.is_operator and project_id != caller.project_id:
        raise NotFound(f"there is no project '{project_id}'", param=param)
    return keys.get_project(session, project_id, param=param)


def _project_object(session: Session, project: Project, settings: Settings) -> ProjectObject:
    defaults = Quotas.of_server(settings)
    limits = asdict(defaults.of(project))
    return ProjectObject(
        id=project.id,
        name=project.name,
        created_at=project.created_at,
        quotas=QuotasObject(**{name: getattr(project, name) for name in limits}),
        limits=QuotasObject(**{name: limit or None for name, limit in limits.items()}),
        usage=ProjectUsageObject(**asdict(usage_of(session, project.id))),
    )
