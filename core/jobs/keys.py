"""Projects and their API keys: 256 random bits, stored as a hash, found by it, shown once."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.jobs.ids import new_id
from core.jobs.models.projects import ApiKey, Project
from core.jobs.pages import Order, page
from core.jobs.status import Role

DEFAULT_PROJECT = "default"
PREFIX = "ww-"


def create_key(session: Session, project_id: str, *, name: str, role: Role) -> tuple[ApiKey, str]:
    """A new key's row, and the key itself, which is kept nowhere."""
    secret = PREFIX + secrets.token_urlsafe(32)
    return _add_key(session, project_id, secret, name=name, role=role), secret


@dataclass(frozen=True)
class Holder:
    """Whose key it is, and what it may do."""

    key_id: str
    role: Role
    project_id: str
    project_name: str


def find_keys(session: Session, secrets: Collection[str]) -> dict[str, Holder]:
    """Who holds each of these keys that someone shows; one that is not known is missing.

    They are looked up by their hashes: how long that takes says nothing of the keys.
    """
    shown = {_hash(secret): secret for secret in secrets}
    columns = select(ApiKey.sha256, ApiKey.id, ApiKey.role, Project.id, Project.name)
    query = columns.join(Project, Project.id == ApiKey.project_id).where(ApiKey.sha256.in_(shown))
    return {shown[row[0]]: Holder(row[1], row[2], row[3], row[4]) for row in session.execute(query)}


def get_key(session: Session, project_id: str, key_id: str, *, param: str = "key_id") -> ApiKey:
    """The project's key; raises NotFound."""
    key = session.get(ApiKey, key_id)
    if key is None or key.project_id != project_id:
        raise NotFound(f"there is no API key '{key_id}'", param=param)
    return key


def list_keys(
    session: Session, project_id: str, *, after: str | None = None, limit: int = 20, order: Order = "desc"
) -> list[ApiKey]:
    """The project's keys by (created_at, id)."""
    cursor = get_key(session, project_id, after, param="after") if after else None
    query = select(ApiKey).where(ApiKey.project_id == project_id)
    return list(session.scalars(page(query, ApiKey, cursor=cursor, limit=limit, order=order)))


def delete_key(session: Session, project_id: str, key_id: str) -> None:
    """Take a key back at once; raises NotFound."""
    session.delete(get_key(session, project_id, key_id))
    session.flush()


def project_named(session: Session, name: str) -> Project:
    """The project of that name, made if there is none."""
    query = select(Project).where(Project.name == name)
    project = session.scalar(query)
    if project is not None:
        return project
    project = Project(id=new_id("proj"), name=name, created_at=int(time.time()))
    try:
        with session.begin_nested():
            session.add(project)
    except IntegrityError:  # someone else made it meanwhile
        return session.scalars(query).one()
    return project


def get_project(session: Session, project_id: str, *, param: str = "project_id") -> Project:
    """The project of that id; raises NotFound."""
    project = session.get(Project, project_id)
    if project is None:
        raise NotFound(f"there is no project '{project_id}'", param=param)
    return project


def list_projects(
    session: Session, *, after: str | None = None, limit: int = 20, order: Order = "desc"
) -> list[Project]:
    """All projects by (created_at, id)."""
    cursor = get_project(session, after, param="after") if after else None
    return list(session.scalars(page(select(Project), Project, cursor=cursor, limit=limit, order=order)))


def ensure_admin_key(session: Session, secret: str) -> None:
    """Let `secret` be a key of role admin in the project `default`, whether or not it was one before."""
    if find_keys(session, [secret]):
        return
    project = project_named(session, DEFAULT_PROJECT)
    try:
        with session.begin_nested():
            _add_key(session, project.id, secret, name="admin", role=Role.ADMIN)
    except IntegrityError:  # another process starts at the same moment
        return


def _add_key(session: Session, project_id: str, secret: str, *, name: str, role: Role) -> ApiKey:
    key = ApiKey(
        id=new_id("key"),
        project_id=project_id,
        name=name,
        role=role,
        sha256=_hash(secret),
        hint=f"{PREFIX}...{secret[-4:]}",
        created_at=int(time.time()),
    )
    session.add(key)
    session.flush()
    return key


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
