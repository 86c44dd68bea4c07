"""Permissions: a checkpoint that other projects may use as a model. They see nothing else of its job."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from core.errors import InvalidRequest, NotFound
from core.jobs.database import read_clock
from core.jobs.ids import new_id
from core.jobs.models.jobs import Job
from core.jobs.models.projects import Project
from core.jobs.models.results import Checkpoint, CheckpointPermission
from core.jobs.names import find_named
from core.jobs.pages import Order, page

PARAM = "fine_tuned_model_checkpoint"


def own_checkpoint(session: Session, project_id: str, name: str) -> Checkpoint:
    """The project's own checkpoint of that name; raises NotFound, also for one that is permitted to it."""
    found = find_named(session, project_id, name, param=PARAM)
    if not isinstance(found, Checkpoint) or session.get_one(Job, found.job_id).project_id != project_id:
        raise NotFound(f"there is no checkpoint '{name[:200]}' in this project", param=PARAM)
    return found


def permit(session: Session, project_id: str, name: str, projects: Sequence[str]) -> list[CheckpointPermission]:
    """Let these projects, by id or name, use the project's checkpoint; answers a permission for each, old or new."""
    checkpoint = own_checkpoint(session, project_id, name)
    if session.get(Checkpoint, checkpoint.id, with_for_update={"key_share": True}) is None:  # one permits at a time
        raise NotFound(f"there is no checkpoint '{name[:200]}' in this project", param=PARAM)
    granted = []
    for given in dict.fromkeys(projects):
        project = session.scalar(select(Project).where(or_(Project.id == given, Project.name == given)))
        if project is None:
            raise NotFound(f"there is no project '{given[:200]}'", param="project_ids")
        if project.id == project_id:
            raise InvalidRequest(f"'{given}' is the project whose checkpoint it is: it may use it", param="project_ids")
        granted.append(_permission(session, checkpoint.id, project.id))
    return granted


def _permission(session: Session, checkpoint_id: str, project_id: str) -> CheckpointPermission:
    mine = (CheckpointPermission.checkpoint_id == checkpoint_id, CheckpointPermission.project_id == project_id)
    if (known := session.scalar(select(CheckpointPermission).where(*mine))) is not None:
        return known
    told = {"checkpoint_id": checkpoint_id, "project_id": project_id, "created_at": int(read_clock(session))}
    permission = CheckpointPermission(id=new_id("perm"), **told)
    session.add(permission)
    session.flush()
    return permission


def list_permissions(
    session: Session,
    checkpoint: Checkpoint,
    *,
    permitted: str | None = None,
    after: str | None = None,
    limit: int = 20,
    order: Order = "desc",
) -> list[CheckpointPermission]:
    """Who may use the checkpoint, by (created_at, id). `permitted`: only this project, by id."""
    cursor = get_permission(session, checkpoint, after, param="after") if after else None
    query = select(CheckpointPermission).where(CheckpointPermission.checkpoint_id == checkpoint.id)
    if permitted is not None:
        query = query.where(CheckpointPermission.project_id == permitted)
    return list(session.scalars(page(query, CheckpointPermission, cursor=cursor, limit=limit, order=order)))


def get_permission(
    session: Session, checkpoint: Checkpoint, permission_id: str, *, param: str = "permission_id"
) -> CheckpointPermission:
    """The permission; raises NotFound for one of another checkpoint."""
    permission = session.get(CheckpointPermission, permission_id)
    if permission is None or permission.checkpoint_id != checkpoint.id:
        raise NotFound(f"there is no permission '{permission_id}' of this checkpoint", param=param)
    return permission
