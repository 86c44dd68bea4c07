"""Fetches of models from a hub, on SQLite and PostgreSQL, and two transactions at once."""

from __future__ import annotations

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from core.errors import TooManyRequests, WeightworksError
from core.jobs import fetches, files
from core.jobs.database import Database
from core.jobs.models.files import File, ModelFetch
from core.jobs.models.projects import Project
from tests.core.jobs.test_races import race
from tests.core.jobs.test_retention import PROJECT

OTHER = "proj-other"


def add_base(session: Session) -> File:
    told = {"filename": "a/b.zip", "purpose": files.BASE_MODEL, "size": 1, "sha256": "b", "profile": None}
    return files.add_file(session, PROJECT, **told)


def begin(session: Session, name: str = "a/b", *, project_id: str = PROJECT) -> tuple[ModelFetch, bool]:
    return fetches.begin_fetch(session, project_id, name=name, revision="main")


def test_a_fetch_that_is_silent_is_lost_and_one_that_has_come_is_found(database: Database) -> None:
    with database.write() as session:
        lost = fetches.add_fetch(session, PROJECT, name="a/b", revision="main")
        lost.seen_at -= fetches.LOST_SECONDS + 1
        session.flush()
        assert fetches.has_lost(session)
        fetches.fail_lost(session)
        fetches.keep_fetch(session, lost.id, (1, 2))
        session.refresh(lost)
        assert (lost.status, lost.error and lost.error["code"]) == ("failed", "fetch_lost")
        assert not fetches.has_lost(session)
        again = fetches.add_fetch(session, PROJECT, name="a/b", revision="main")
        file = add_base(session)
        fetches.complete_fetch(session, again.id, file, fetched=7)
        session.refresh(again)
        assert fetches.last_fetch(session, PROJECT, name="a/b", revision="main") is again
        assert (again.status, again.file_id) == ("ready", file.id)
        session.delete(file)
        session.flush()
        assert fetches.last_fetch(session, PROJECT, name="a/b", revision="main") is None
        assert [one.id for one in fetches.list_fetches(session, PROJECT)] == [again.id, lost.id]


def test_a_project_has_so_many_on_their_way_and_no_more(database: Database) -> None:
    with database.write() as session:
        session.add(Project(id=OTHER, name="other", created_at=0))
        session.flush()
        made = [begin(session, f"a/{number}") for number in range(fetches.MOST_AT_ONCE)]
        assert all(is_new for _, is_new in made)
        with pytest.raises(TooManyRequests, match="wait until one has come"):
            begin(session)
        assert begin(session, "a/0") == (made[0][0], False)
        assert begin(session, project_id=OTHER)[1]
        fetches.complete_fetch(session, made[0][0].id, add_base(session), fetched=7)
        session.expire_all()
        assert begin(session)[1]


def test_two_who_ask_at_once_have_it_fetched_once(database: Database) -> None:
    found: list[tuple[ModelFetch, bool]] = []
    second, is_new = race(database, lambda session: found.append(begin(session)), begin)
    assert (second.id, is_new) == (found[0][0].id, False)


def test_old_fetches_are_forgotten_but_those_whose_model_is_here(database: Database) -> None:
    with database.write() as session:
        ids = {name: begin(session, f"a/{name}")[0].id for name in ("failed", "young", "here", "gone", "going")}
        here, gone = add_base(session), add_base(session)
        fetches.fail_fetch(session, ids["failed"], WeightworksError("no"))
        fetches.fail_fetch(session, ids["young"], WeightworksError("no"))
        fetches.complete_fetch(session, ids["here"], here, fetched=7)
        fetches.complete_fetch(session, ids["gone"], gone, fetched=7)
        session.delete(gone)
        session.flush()
        session.expire_all()
        for name, fetch_id in ids.items():
            days = fetches.KEPT_DAYS + (-1 if name == "young" else 1)
            age = {"seen_at": ModelFetch.seen_at - days * 86400}
            session.execute(update(ModelFetch).where(ModelFetch.id == fetch_id).values(**age))
        assert fetches.drop_fetches(session) == 2
        session.expire_all()
        assert {one.id for one in fetches.list_fetches(session, PROJECT)} == {
            ids[one] for one in ("young", "here", "going")
        }
