"""`client.fine_tuning.jobs.checkpoints` and `client.fine_tuning.checkpoints.permissions`."""

from __future__ import annotations

from typing import Any

from asking import Place, answer, everything, saw


async def try_checkpoints(place: Place, job: Any) -> None:
    """A job of two epochs has a checkpoint for each; another project may be let use one."""
    found = await everything(place.client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    assert [one.step_number for one in found] == [4, 2]
    last = found[0]
    assert last.fine_tuning_job_id == job.id
    assert last.fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-4"
    assert last.metrics.train_loss is not None
    assert last.metrics.full_valid_loss is not None or last.metrics.valid_loss is not None
    saw("fine_tuning.jobs.checkpoints.list", names=[one.fine_tuned_model_checkpoint for one in found])
    await _permissions(place, last.fine_tuned_model_checkpoint)


async def _permissions(place: Place, name: str) -> None:
    permissions = place.client.fine_tuning.checkpoints.permissions
    (made,) = await everything(permissions.create(name, project_ids=[place.other_project]))
    assert made.project_id == place.other_project
    saw("fine_tuning.checkpoints.permissions.create", id=made.id)
    if hasattr(permissions, "list"):
        assert [one.id for one in await everything(permissions.list(name))] == [made.id]
        saw("fine_tuning.checkpoints.permissions.list", ids=[made.id])
    else:
        kept = await answer(permissions.retrieve(name, project_id=place.other_project))
        assert [one.id for one in kept.data] == [made.id]
        saw("fine_tuning.checkpoints.permissions.retrieve", ids=[made.id])
    gone = await answer(permissions.delete(made.id, fine_tuned_model_checkpoint=name))
    assert (gone.id, gone.deleted) == (made.id, True)
    saw("fine_tuning.checkpoints.permissions.delete", id=gone.id)
