"""Models are found by every name that they have, and by nobody whose they are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.jobs.database import Database
from core.jobs.files import BASE_MODEL, add_file
from core.jobs.models.jobs import Job
from core.jobs.models.projects import Project
from core.jobs.models.results import Checkpoint, CheckpointPermission, TrainedModel
from core.jobs.names import checkpoint_name, find_named, fine_tuned_name
from core.jobs.status import Status

MINE, THEIRS = "project-mine", "project-theirs"


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.write() as session:
        for project_id in (MINE, THEIRS):
            session.add(Project(id=project_id, name=project_id.removeprefix("project-"), created_at=1))
        session.flush()
        yield session
        session.rollback()


def add_job(session: Session, **request: Any) -> Job:
    job = Job(
        id="job-1",
        project_id=MINE,
        method="fine_tuning",
        spec={"base": "file-1"},
        tags={},
        device="auto",
        priority=0,
        status=Status.RUNNING,
        created_at=1,
        claimable_at=1.0,
        max_attempts=3,
        metrics={},
        request=request or None,
    )
    session.add(job)
    session.flush()
    return job


def add_checkpoint(session: Session, job: Job, *, step: int) -> Checkpoint:
    told = {"fence": 1, "step": step, "key": "k", "bytes": 1, "sha256": "s", "metrics": {}, "created_at": 1}
    row = Checkpoint(id=f"ckpt-{step}", job_id=job.id, is_epoch=True, **told)
    session.add(row)
    session.flush()
    return row


def upload(session: Session, filename: str, *, purpose: str = BASE_MODEL, project_id: str = MINE) -> str:
    return add_file(session, project_id, filename=filename, purpose=purpose, size=1, sha256="s", profile=None).id


def test_a_name_tells_base_project_suffix_and_job(session: Session) -> None:
    job = add_job(session, model="organization/tiny:v2", suffix="kind")
    assert fine_tuned_name(job, "a:b/c") == "ft:tiny-v2:c:kind:1"
    assert checkpoint_name(job, "mine", 20) == "ft:tiny-v2:mine:kind:1:ckpt-step-20"


def test_what_is_tuned_again_keeps_the_name_of_its_first_base(session: Session) -> None:
    job = add_job(session, model="ft:tiny:mine:kind:0", suffix=None)
    assert fine_tuned_name(job, "mine") == "ft:tiny:mine::1"
    job.request = {"model": "org/Tiny (v2)?", "suffix": "a/b: what #1"}
    assert fine_tuned_name(job, "mine") == "ft:Tiny-v2-:mine:a-b-what-1:1"
    assert fine_tuned_name(Job(id="job-2", spec={"base": "file-1"}), "mine") == "ft:file-1:mine::2"


@pytest.mark.parametrize("filename", ["gpt.zip", "gpt.tar.gz", "gpt.gguf", "gpt"])
def test_a_base_is_found_as_its_file_is_called(session: Session, filename: str) -> None:
    upload(session, "gpt.csv", purpose="dataset")
    upload(session, filename, project_id=THEIRS)
    upload(session, filename)
    newest = upload(session, filename)
    assert find_named(session, MINE, "gpt").id == newest
    assert find_named(session, MINE, newest).id == newest
    with pytest.raises(NotFound, match="upload it under that name"):
        find_named(session, MINE, "llama")


def test_what_came_from_a_hub_is_found_with_and_without_its_revision(session: Session) -> None:
    main, other = upload(session, "org/tiny.zip"), upload(session, "org/tiny@v1.zip")
    for name, file_id in (("org/tiny", main), ("org/tiny@main", main), ("org/tiny@v1", other)):
        assert find_named(session, MINE, name).id == file_id
    with pytest.raises(NotFound):
        find_named(session, MINE, "org/tiny@v2")


def test_a_name_that_is_nearly_right_is_told(session: Session) -> None:
    upload(session, "SmolLM2-135M-Instruct.zip")
    upload(session, "SmolLM2-135M-Chat.zip", project_id=THEIRS)
    upload(session, "model-of-mine.zip")
    for asked, meant in (("smollm2-135M-instruct", "SmolLM2-135M-Instruct"), ("model-of-me", "model-of-mine")):
        with pytest.raises(NotFound, match=f"did you mean '{meant}'[?]$"):
            find_named(session, MINE, asked)
        assert find_named(session, MINE, meant)


def test_a_trained_model_is_found_by_its_name_within_its_project(session: Session) -> None:
    job = add_job(session, model="tiny", suffix="kind")
    name = fine_tuned_name(job, "mine")
    session.add(
        TrainedModel(
            id="model-1",
            project_id=MINE,
            job_id=job.id,
            alias=name,
            method=job.method,
            bytes=1,
            metrics={},
            lineage={},
            created_at=1,
        )
    )
    session.flush()
    assert {find_named(session, MINE, one).id for one in (name, "model-1")} == {"model-1"}
    for project_id, unknown in ((THEIRS, name), (THEIRS, "model-1"), (MINE, name + "1")):
        with pytest.raises(NotFound):
            find_named(session, project_id, unknown)


def test_a_checkpoint_is_found_by_its_project_and_by_those_who_may(session: Session) -> None:
    job = add_job(session, model="tiny", suffix=None)
    row = add_checkpoint(session, job, step=20)
    name = checkpoint_name(job, "mine", 20)
    assert {find_named(session, MINE, one).id for one in (name, row.id)} == {row.id}
    for unknown in (name + "0", name[:-2] + "x", "ft:tiny:mine::1", "ckpt-step-20"):
        with pytest.raises(NotFound):
            find_named(session, MINE, unknown)
    with pytest.raises(NotFound):
        find_named(session, THEIRS, name)
    session.add(CheckpointPermission(id="perm-1", checkpoint_id=row.id, project_id=THEIRS, created_at=1))
    session.flush()
    assert find_named(session, THEIRS, name).id == row.id
