"""Checkpoints of fine-tuning as models: what each was like, and which projects may use it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from api.answers.answer import Deleted
from api.answers.lists import ListOf, page_of, page_of_all
from api.dependencies import Admin, Page, PageDep, Reader, ServerDep
from api.fine_tuning.checkpoints import (
    FineTuningCheckpointObject,
    PermissionObject,
    checkpoint_object,
    permission_object,
)
from api.routes.fine_tuning import fine_tuning_job
from core.jobs import checkpointing, permissions
from core.spec import Frozen

router = APIRouter(prefix="/v1/fine_tuning", tags=["fine-tuning"])
PERMISSIONS = "/checkpoints/{fine_tuned_model_checkpoint}/permissions"


class NewPermissions(Frozen):
    """Whom to permit a checkpoint."""

    project_ids: list[Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]] = Field(
        min_length=1, max_length=100, description="Ids or names of projects."
    )


@router.get("/jobs/{job_id}/checkpoints")
def list_fine_tuning_checkpoints(
    job_id: str, caller: Reader, server: ServerDep, page: PageDep
) -> ListOf[FineTuningCheckpointObject]:
    """The job's checkpoints that can be used as models, the newest first: of the last epochs, and of none before."""
    with server.database.read() as session:
        job = fine_tuning_job(session, caller, job_id)
        rows = [row for row in checkpointing.list_checkpoints(session, job_id) if row.is_epoch]
        found = [checkpoint_object(row, job, project=caller.project_name) for row in rows]
        return page_of_all(found, page, noun="checkpoint")


@router.post(PERMISSIONS)
def create_permissions(
    fine_tuned_model_checkpoint: str, body: NewPermissions, caller: Admin, server: ServerDep
) -> ListOf[PermissionObject]:
    """Let other projects use a checkpoint as a model, by the name that it has here. They see nothing else."""
    with server.database.write() as session:
        made = permissions.permit(session, caller.project_id, fine_tuned_model_checkpoint, body.project_ids)
        return page_of([permission_object(row) for row in made], Page(limit=len(made)))


@router.get(PERMISSIONS)
def list_permissions(
    fine_tuned_model_checkpoint: str,
    caller: Admin,
    server: ServerDep,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 10,
    after: Annotated[str | None, Query(min_length=1, max_length=128, description="Id of the last one seen.")] = None,
    order: Annotated[Literal["ascending", "descending"], Query(description="By time.")] = "descending",
    project_id: Annotated[str | None, Query(max_length=128, description="Only this project's.")] = None,
) -> ListOf[PermissionObject]:
    """Who may use a checkpoint as a model."""
    page = Page(limit=limit, after=after, order="asc" if order == "ascending" else "desc")
    with server.database.read() as session:
        checkpoint = permissions.own_checkpoint(session, caller.project_id, fine_tuned_model_checkpoint)
        found = permissions.list_permissions(session, checkpoint, permitted=project_id, **page.query)
        return page_of([permission_object(row) for row in found], page)


@router.delete(PERMISSIONS + "/{permission_id}")
def delete_permission(
    fine_tuned_model_checkpoint: str, permission_id: str, caller: Admin, server: ServerDep
) -> Deleted:
    """Take a permission back; jobs that run go on until they are paused or lose their worker, and others fail."""
    with server.database.write() as session:
        checkpoint = permissions.own_checkpoint(session, caller.project_id, fine_tuned_model_checkpoint)
        session.delete(permissions.get_permission(session, checkpoint, permission_id))
    return Deleted(id=permission_id, object="checkpoint.permission", deleted=True)
