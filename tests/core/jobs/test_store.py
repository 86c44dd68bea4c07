"""Jobs and events as they are found and listed."""

from __future__ import annotations

import pytest

from core.errors import NotFound
from core.jobs import store
from core.jobs.database import Database
from core.jobs.events import NewEvent, as_row, insert_events
from tests.core.jobs.lines import PROJECT, claim, events_of, submit


def test_jobs_without_metadata_are_listed_by_themselves(database: Database) -> None:
    bare, marked = submit(database), submit(database, metadata={"a": ""})
    with database.read() as session:
        for wanted, found in ((None, {bare, marked}), (False, {bare}), (True, {marked})):
            assert {job.id for job in store.list_jobs(session, PROJECT, has_metadata=wanted)} == found


def test_repeated_events_are_written_once(database: Database) -> None:
    job_id = submit(database)
    held = claim(database)
    rows = [as_row(job_id, held.fence, seq, NewEvent("log", f"line {seq}"), now=1.0) for seq in (2, 3)]
    for _ in range(2):
        with database.write() as session:
            insert_events(session, rows)
    assert [place for place, _ in events_of(database, job_id)] == ["0-1", "1-1", "1-2", "1-3"]


def test_projects_do_not_see_each_other(database: Database) -> None:
    job_id = submit(database)
    with pytest.raises(NotFound), database.read() as session:
        store.get_job(session, "proj-other", job_id)


def test_listing_pages_without_gap_or_repeat(database: Database) -> None:
    jobs = [submit(database, metadata={"run": str(index % 2)}) for index in range(7)]
    with database.read() as session:
        seen: list[str] = []
        after = None
        while page := store.list_jobs(session, PROJECT, limit=3, order="asc", after=after):
            seen += [job.id for job in page]
            after = page[-1].id
        assert seen == jobs
        odd = store.list_jobs(session, PROJECT, metadata={"run": "1"}, order="asc")
        assert [job.id for job in odd] == jobs[1::2]
