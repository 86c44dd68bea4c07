"""Fetches: base models on their way from a hub, whoever of this server's processes has them fetched."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from core.errors import NotFound, TooManyRequests, WeightworksError
from core.jobs.database import change_rows, database_now, read_clock
from core.jobs.ids import new_id
from core.jobs.models.files import File, ModelFetch
from core.jobs.models.projects import Project
from core.jobs.pages import Order, page

FETCHING, READY, FAILED = "fetching", "ready", "failed"
MAIN = "main"
LOST_SECONDS = 60.0  # of silence
MOST_AT_ONCE = 8  # of a project, those that wait for their turn among them: each is a thread of a server
RETRY_AFTER_SECONDS = 10.0
KEPT_DAYS = 30
HUB_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REVISION = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,95}"
_NAME = re.compile(f"({HUB_NAME})(?:@({REVISION}))?")


def parse_hub_name(name: str) -> tuple[str, str] | None:
    """Name and revision of `organization/model` or `organization/model@revision`; None of anything else."""
    found = _NAME.fullmatch(name)
    return None if found is None else (found[1], found[2] or MAIN)


def name_here(name: str, revision: str) -> str:
    """What a hub's model is called here."""
    return name if revision == MAIN else f"{name}@{revision}"


def filename_of(fetch: ModelFetch) -> str:
    """What the file is called: by it, less its ending, the model is found."""
    return f"{name_here(fetch.name, fetch.revision)}.zip"


def begin_fetch(session: Session, project_id: str, *, name: str, revision: str) -> tuple[ModelFetch, bool]:
    """The newest fetch of a model that is on its way or here, else a new one; and whether it is new.

    Raises TooManyRequests where the project has as many on their way as it may have.
    """
    # Until the transaction ends, no other one of the project begins any: not the same model, nor one too many.
    session.get_one(Project, project_id, with_for_update={"key_share": True})
    last = last_fetch(session, project_id, name=name, revision=revision)
    if last is not None and last.status in (FETCHING, READY):
        return last, False
    going = (ModelFetch.project_id == project_id, ModelFetch.status == FETCHING)
    if (session.scalar(select(func.count()).select_from(ModelFetch).where(*going)) or 0) >= MOST_AT_ONCE:
        raise TooManyRequests(
            f"the project has {MOST_AT_ONCE} models on their way from the hub: wait until one has come",
            retry_after=RETRY_AFTER_SECONDS,
            code="too_many_fetches",
        )
    return add_fetch(session, project_id, name=name, revision=revision), True


def add_fetch(session: Session, project_id: str, *, name: str, revision: str) -> ModelFetch:
    """Write a fetch that begins now."""
    now = read_clock(session)
    fetch = ModelFetch(
        id=new_id("fetch"),
        project_id=project_id,
        name=name,
        revision=revision,
        status=FETCHING,
        created_at=int(now),
        seen_at=now,
    )
    session.add(fetch)
    session.flush()
    return fetch


def last_fetch(session: Session, project_id: str, *, name: str, revision: str) -> ModelFetch | None:
    """The newest fetch of a model; None also where its file was deleted since."""
    mine = (ModelFetch.project_id == project_id, ModelFetch.name == name, ModelFetch.revision == revision)
    newest = select(ModelFetch).where(*mine).order_by(ModelFetch.created_at.desc(), ModelFetch.id.desc()).limit(1)
    fetch = session.scalar(newest)
    if fetch is not None and fetch.status == READY and session.get(File, fetch.file_id) is None:
        return None
    return fetch


def get_fetch(session: Session, project_id: str, fetch_id: str, *, param: str = "fetch_id") -> ModelFetch:
    """The project's fetch; raises NotFound."""
    fetch = session.get(ModelFetch, fetch_id)
    if fetch is None or fetch.project_id != project_id:
        raise NotFound(f"there is no fetch '{fetch_id}'", param=param)
    return fetch


def list_fetches(
    session: Session, project_id: str, *, after: str | None = None, limit: int = 20, order: Order = "desc"
) -> list[ModelFetch]:
    """The project's fetches by (created_at, id)."""
    cursor = get_fetch(session, project_id, after, param="after") if after else None
    query = select(ModelFetch).where(ModelFetch.project_id == project_id)
    return list(session.scalars(page(query, ModelFetch, cursor=cursor, limit=limit, order=order)))


def has_lost(session: Session) -> bool:
    """Whether there are fetches of servers that are silent."""
    return bool(session.scalar(select(exists().where(*_silent(session)))))


def fail_lost(session: Session) -> None:
    """End the fetches of servers that are silent."""
    lost = WeightworksError(
        "the server that fetched it was ended: ask again, and what it had fetched is not fetched again",
        code="fetch_lost",
    )
    session.execute(update(ModelFetch).where(*_silent(session)).values(status=FAILED, error=lost.as_dict()))


def _silent(session: Session) -> tuple[Any, Any]:
    """The clock is read first: PostgreSQL compares no index with a clock that goes on."""
    return ModelFetch.status == FETCHING, ModelFetch.seen_at < read_clock(session) - LOST_SECONDS


def keep_fetch(session: Session, fetch_id: str, progress: tuple[int, int] | None) -> None:
    """Say that it is still being fetched, and how many bytes have come of how many, once that is known."""
    still = (ModelFetch.id == fetch_id, ModelFetch.status == FETCHING)
    known = {} if progress is None else dict(zip(("bytes_fetched", "bytes_total"), progress, strict=True))
    session.execute(update(ModelFetch).where(*still).values(seen_at=database_now(), **known))


def complete_fetch(session: Session, fetch_id: str, file: File, *, fetched: int) -> None:
    """Say that it has come: so many bytes, which are a file now."""
    _end(session, fetch_id, status=READY, file_id=file.id, error=None, bytes_fetched=fetched, bytes_total=fetched)


def fail_fetch(session: Session, fetch_id: str, error: WeightworksError) -> None:
    """Say why it has not come."""
    _end(session, fetch_id, status=FAILED, error=error.as_dict())


def _end(session: Session, fetch_id: str, **values: Any) -> None:
    session.execute(update(ModelFetch).where(ModelFetch.id == fetch_id).values(**values, seen_at=database_now()))


def drop_fetches(session: Session, *, days: float = KEPT_DAYS) -> int:
    """Forget what failed, or whose file is gone, and ended so many days ago; answers how many."""
    is_gone = and_(ModelFetch.status == READY, ~exists().where(File.id == ModelFetch.file_id))
    over = (or_(ModelFetch.status == FAILED, is_gone), ModelFetch.seen_at < read_clock(session) - days * 86400)
    return change_rows(session, delete(ModelFetch).where(*over))
