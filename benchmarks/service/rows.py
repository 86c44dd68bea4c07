"""Many jobs in a table at once, by bulk inserts: what benchmarks measure on, and tests ask for plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.jobs.database import Database
    from core.jobs.leases import Claim

PROJECTS, METHODS = 10, 5  # jobs belong to them in turn
EVENTS = 1000  # of the job that is looked at; each other has one
SPEC = '{"method": "m0", "dataset": "file-1", "name": null, "seed": 0, "epochs": 10, "learning_rate": 0.001}'
NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {count}) ",
    "postgresql": "WITH numbers AS (SELECT i FROM generate_series(1, {count}) AS i) ",
}
# Of ten jobs in age's order one waits, one failed, one was cancelled, and seven have succeeded; none is paused.
JOBS = """
INSERT INTO jobs (id, project_id, method, spec, metadata, device, priority, status, created_at, claimable_at, fence,
    attempt, max_attempts, cancel_requested, pause_requested, lacks_weights, metrics)
{numbers} SELECT 'job-' || (1000000000 + i), 'proj-' || (i / 10 % {projects}), 'm' || (i / 100 % {methods}),
    {spec}, {nothing}, 'auto', 0,
    CASE i % 10 WHEN 0 THEN 'queued' WHEN 1 THEN 'failed' WHEN 2 THEN 'cancelled' ELSE 'succeeded' END,
    1000000000 + i / 10, 1000000000 + i / 10, 0, 0, 3, {no}, {no}, {no}, {nothing} FROM numbers
"""
JOBS_EVENTS = """
INSERT INTO events (job_id, fence, seq, created_at, type, level, message, data)
{numbers} SELECT 'job-' || (1000000000 + i), 0, 1, 0, 'status', 'info', 'The job waits.', {data} FROM numbers
"""
ONE_JOBS_EVENTS = """
INSERT INTO events (job_id, fence, seq, created_at, type, level, message, data)
{numbers} SELECT 'job-1000000003', 1, i, 0, 'metrics', 'info', '', {data} FROM numbers
"""


def fill(url: str, jobs: int, *, key_sha256: str | None = None) -> None:
    """So many jobs in an empty database of ours, with their events, as bulk inserts; the key is proj-0's."""
    from sqlalchemy import text

    from core.jobs.database import Database
    from core.jobs.models.projects import ApiKey, Project
    from core.jobs.status import Role

    opened = Database(url)
    kind = opened.engine.dialect.name
    cast = "" if kind == "sqlite" else "::json"
    words = {"projects": PROJECTS, "methods": METHODS, "spec": f"'{SPEC}'{cast}", "nothing": f"'{{}}'{cast}"}
    data = f"""'{{"step": 1, "values": {{"loss": 0.5}}}}'{cast}"""
    with opened.write() as session:
        session.add_all([Project(id=f"proj-{index}", name=f"p{index}", created_at=0) for index in range(PROJECTS)])
        session.flush()
        if key_sha256 is not None:
            key = {"id": "key-1", "project_id": "proj-0", "name": "k", "role": Role.ADMIN, "hint": "", "created_at": 0}
            session.add(ApiKey(**key, sha256=key_sha256))
            session.flush()
        for statement, count in ((JOBS, jobs), (JOBS_EVENTS, jobs), (ONE_JOBS_EVENTS, EVENTS)):
            numbers = NUMBERS[kind].format(count=count)
            no = "0" if kind == "sqlite" else "false"
            filled = statement.format(numbers=numbers, no=no, data=data, **words)
            session.connection().exec_driver_sql(filled.replace("%", "%%") if kind == "postgresql" else filled)
    if kind == "postgresql":
        with opened.write() as session:
            session.execute(text("ANALYZE"))  # as its daemon does by itself within a minute
    opened.close()


def claimed_job(database: Database) -> Claim:
    """A job of the only project there is, in the hands of whoever plays its worker's part."""
    from sqlalchemy import select

    from core.jobs import claiming, store
    from core.jobs.models.projects import Project
    from core.spec import MethodSpec

    with database.write() as session:
        project_id = session.scalars(select(Project.id)).one()
        spec = MethodSpec(method="pca", dataset="file-1")
        store.create_job(session, project_id=project_id, spec=spec, max_attempts=1)
    with database.write() as session:
        claim = claiming.claim_job(session, owner="benchmark", devices=("auto",), lease_seconds=600)
    assert claim is not None
    return claim
