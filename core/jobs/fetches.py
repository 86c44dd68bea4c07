"""Fetches: base models on their way from a hub, whoever of this server's processes has them fetched."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from core.errors import NotFound, WeightworksError
from core.jobs.database import database_now, read_clock
from core.jobs.models import File, ModelFetch, new_id
from core.jobs.store import Order, page

FETCHING, READY, FAILED = "fetching", "ready", "failed"
MAIN = "main"
LOST_SECONDS = 60.0  # of silence
HUB_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REVISION = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,95}"
_NAME = re.compile(f"({HUB_NAME})(?:@({REVISION}))?")


def parse_hub_name(name: str) -> tuple[str, str] | None:
    """Name and revision of `organization/model` or `organization/model@revision`; None of anything else."""
    found = _NAME.fullmatch(name)
    return None if found is None else (found[1], found[2] or MAIN)


def filename_of(fetch: ModelFetch) -> str:
    """What the file is called: by it, less its ending, the model is found."""
    return fetch.name + ("" if fetch.revision == MAIN else f"@{fetch.revision}") + ".zip"


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
    return bool(session.scalar(select(exists().where(*_silent()))))


def fail_lost(session: Session) -> None:
    """End the fetches of servers that are silent."""
    lost = WeightworksError(
        "the server that fetched it was ended: ask again, and what it had fetched is not fetched again",
        code="fetch_lost",
    )
    session.execute(update(ModelFetch).where(*_silent()).values(status=FAILED, error=lost.as_dict()))


def _silent() -> tuple[Any, Any]:
    return ModelFetch.status == FETCHING, ModelFetch.seen_at < database_now() - LOST_SECONDS


def keep_fetch(session: Session, fetch_id: str) -> None:
    """Say that it is still being fetched."""
    still = (ModelFetch.id == fetch_id, ModelFetch.status == FETCHING)
    session.execute(update(ModelFetch).where(*still).values(seen_at=database_now()))


def end_fetch(
    session: Session, fetch_id: str, *, file: File | None = None, error: WeightworksError | None = None
) -> None:
    """Say what came of it."""
    told = None if error is None else error.as_dict()
    status = FAILED if file is None else READY
    values = {
        "status": status,
        "file_id": None if file is None else file.id,
        "error": told,
        "seen_at": database_now(),
    }
    session.execute(update(ModelFetch).where(ModelFetch.id == fetch_id).values(**values))
