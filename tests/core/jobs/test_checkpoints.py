"""Checkpoints that jobs start from: what they stand on, on SQLite and PostgreSQL, and two transactions at once."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.orm import Session

from core.catalog import methods
from core.errors import Conflict, NotFound
from core.jobs import (
    asking,
    checkpointing,
    checkpoints,
    deletion,
    files,
    inputs,
    leases,
    permissions,
    publishing,
    store,
)
from core.jobs.database import Database
from core.jobs.models.jobs import Job
from core.jobs.models.projects import Project
from core.jobs.models.results import CheckpointPermission
from core.spec import MethodSpec, ModelReference, model_field
from tests.core.jobs.test_races import race
from tests.core.jobs.test_retention import PROJECT, claim

OTHER = "proj-other"


class Tuning(MethodSpec):
    """What names a model."""

    base: ModelReference = model_field(description="The model.")


@pytest.fixture
def tuning(database: Database) -> leases.Claim:
    """A running job on an uploaded base."""
    with database.write() as session:
        session.add(Project(id=OTHER, name="other", created_at=0))
        job_id = start(session, add_base(session)).id
    return claim(database, job_id)


def add_base(session: Session) -> str:
    told = {"filename": "tiny.zip", "purpose": files.BASE_MODEL, "size": 1, "sha256": "b", "profile": None}
    return files.add_file(session, PROJECT, **told).id


def start(session: Session, base: str, *, project_id: str = PROJECT, name: str | None = None) -> Job:
    spec = Tuning(method="fine_tuning", dataset="file-1", base=base, name=name)
    return store.create_job(session, project_id=project_id, spec=spec, max_attempts=3)


def add(database: Database, held: leases.Claim, step: int, *, is_epoch: bool = True) -> str:
    told = {"key": f"k-{held.job_id}-{step}", "step": step, "size": 1, "sha256": "s", "metrics": {}}
    with database.write() as session:
        return checkpointing.add_checkpoint(session, held, **told, is_epoch=is_epoch).id


def test_a_checkpoint_stands_on_its_jobs_base_and_that_on_its(database: Database, tuning: leases.Claim) -> None:
    first = add(database, tuning, 1)
    with database.write() as session:
        second_job = start(session, first).id
    second = add(database, claim(database, second_job), 1)
    with database.write() as session:
        base = session.get_one(Job, tuning.job_id).spec["base"]
        assert inputs.foundations(session, second) == [second, first, base]
        third = start(session, second)
        found = inputs.resolve_references(
            session, project_id=PROJECT, job_id=third.id, files={}, models={"base": second}
        )["base"]
        assert isinstance(found, inputs.CheckpointInput)
        assert isinstance(found.base, inputs.CheckpointInput)
        assert isinstance(found.base.base, inputs.FileInput)
        assert (found.checkpoint_id, found.base.checkpoint_id, found.base.base.file_id) == (second, first, base)
        publishing.succeed_job(session, tuning, files=[], metrics={}, lineage={})
    for remove in (
        lambda session: files.delete_file(session, PROJECT, base),
        lambda session: deletion.delete_checkpoint(session, PROJECT, tuning.job_id, first),
        lambda session: deletion.delete_job(session, PROJECT, tuning.job_id),
    ):
        with pytest.raises(Conflict, match="starts from"), database.write() as session:
            remove(session)


@pytest.mark.parametrize("removed", ["checkpoint", "job", "base"])
def test_who_starts_from_a_checkpoint_and_who_removes_it_wait_for_each_other(
    database: Database, tuning: leases.Claim, removed: str
) -> None:
    checkpoint = add(database, tuning, 1)
    with database.write() as session:
        publishing.succeed_job(session, tuning, files=[], metrics={}, lineage={})
        base = session.get_one(Job, tuning.job_id).spec["base"]

    def submit(session: Session) -> str:
        checkpoints.lock_checkpoint(session, PROJECT, checkpoint, param="base")
        return start(session, checkpoint).id

    def remove(session: Session) -> Any:
        if removed == "checkpoint":
            return deletion.delete_checkpoint(session, PROJECT, tuning.job_id, checkpoint)
        if removed == "job":
            return deletion.delete_job(session, PROJECT, tuning.job_id)
        return files.delete_file(session, PROJECT, base)

    made: list[str] = []
    assert isinstance(race(database, lambda session: made.append(submit(session)), remove), Conflict)
    with database.write() as session:
        asking.cancel_job(session, PROJECT, made[0])
    assert isinstance(race(database, remove, submit), NotFound)


def test_one_that_another_project_starts_from_outlives_those_that_are_kept(
    database: Database, tuning: leases.Claim
) -> None:
    first = add(database, tuning, 1)
    with database.write() as session:
        session.add(CheckpointPermission(id="perm-1", checkpoint_id=first, project_id=OTHER, created_at=1))
        session.flush()
        checkpoints.lock_checkpoint(session, OTHER, first, param="base")
        job_id = start(session, first, project_id=OTHER).id
    for step in range(2, 7):
        add(database, tuning, step)
    with database.write() as session:
        assert [row.step for row in checkpointing.latest_checkpoints(session, tuning.job_id)] == [6, 5, 4, 1]
        asking.cancel_job(session, OTHER, job_id)
    add(database, tuning, 7, is_epoch=False)
    with database.read() as session:
        assert [row.step for row in checkpointing.latest_checkpoints(session, tuning.job_id)] == [7, 6, 5, 4]
        assert session.get(CheckpointPermission, "perm-1") is None


def test_another_project_keeps_nothing_that_it_may_not_use(database: Database, tuning: leases.Claim) -> None:
    checkpoint = add(database, tuning, 1)
    with database.write() as session:
        publishing.succeed_job(session, tuning, files=[], metrics={}, lineage={})
        base = session.get_one(Job, tuning.job_id).spec["base"]
        (permission,) = permissions.permit(session, PROJECT, checkpoint, [OTHER])
        start(session, base, project_id=OTHER, name=checkpoint)  # is only called so
        theirs = start(session, checkpoint, project_id=OTHER).id
    with database.write() as session:
        for refuse in (
            lambda: deletion.delete_checkpoint(session, PROJECT, tuning.job_id, checkpoint),
            lambda: files.refuse_while_needed(session, PROJECT, base),
        ):
            with pytest.raises(Conflict, match="another project, which has not ended, starts from") as refused:
                refuse()
            assert theirs not in refused.value.message
        session.delete(session.merge(permission))
        session.flush()
        files.refuse_while_needed(session, PROJECT, base)
        deletion.delete_checkpoint(session, PROJECT, tuning.job_id, checkpoint)


def test_all_fields_of_specs_that_may_name_a_checkpoint_are_known() -> None:
    named = {
        name
        for method in methods().values()
        for name, field in method.spec.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("reference") == "model"
    }
    assert named == set(checkpoints.FIELDS)


def test_permissions_are_given_once(database: Database, tuning: leases.Claim) -> None:
    checkpoint = add(database, tuning, 1)
    for _ in range(2):
        with database.write() as session:
            (given,) = permissions.permit(session, PROJECT, checkpoint, ["other", OTHER])[:1]
    with database.read() as session:
        row = permissions.own_checkpoint(session, PROJECT, checkpoint)
        assert [one.id for one in permissions.list_permissions(session, row)] == [given.id]
        with pytest.raises(NotFound):
            permissions.own_checkpoint(session, OTHER, checkpoint)


def test_two_that_permit_the_same_at_once_find_one_permission(database: Database, tuning: leases.Claim) -> None:
    checkpoint = add(database, tuning, 1)
    made: list[str] = []

    def permit(session: Session) -> None:
        made.extend(one.id for one in permissions.permit(session, PROJECT, checkpoint, [OTHER]))

    race(database, permit, permit)
    assert len(made) == 2
    assert len(set(made)) == 1
