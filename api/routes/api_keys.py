"""API keys: made, listed, revoked. A key sees one project; `read`, `write` and `admin` say what it may do there."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from api.answers.answer import Answer, Deleted
from api.answers.lists import ListOf, page_of
from api.dependencies import Admin, PageDep, ServerDep
from core.errors import Conflict, Forbidden
from core.jobs import keys
from core.jobs.models.projects import ApiKey
from core.jobs.status import Role
from core.spec import Frozen

router = APIRouter(prefix="/v1/api_keys", tags=["api keys"])


class NewApiKey(Frozen):
    """What a new key is to be."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[^\x00]*$", description="Whose it is, or what for.")
    role: Role = Field(Role.WRITE, description="What it may do.")
    project: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_ -]{0,63}$",
        description="Name of another project, made if there is none; for admins of the project `default` only.",
    )


class ApiKeyObject(Answer):
    """An API key, without the key."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    role: Role
    project: str = Field(description="Name of the project that it is for.")
    project_id: str
    hint: str
    created_at: int


class NewApiKeyObject(ApiKeyObject):
    """An API key just made: the only time that `key` is shown."""

    key: str


@router.post("", status_code=201)
def create_api_key(body: NewApiKey, caller: Admin, server: ServerDep) -> NewApiKeyObject:
    """Make a key. It is shown in this answer and never again."""
    with server.database.write() as session:
        project_id, project = caller.project_id, caller.project_name
        if body.project is not None and body.project != project:
            if project != keys.DEFAULT_PROJECT:
                raise Forbidden("only an admin key of the project 'default' makes keys for other projects")
            found = keys.project_named(session, body.project)
            project_id, project = found.id, found.name
        row, key = keys.create_key(session, project_id, name=body.name, role=body.role)
    return NewApiKeyObject(**_key_object(row, project=project).model_dump(), key=key)


@router.get("")
def list_api_keys(caller: Admin, server: ServerDep, page: PageDep) -> ListOf[ApiKeyObject]:
    """The project's keys, without the keys themselves."""
    with server.database.read() as session:
        found = keys.list_keys(session, caller.project_id, **page.query)
    return page_of([_key_object(key, project=caller.project_name) for key in found], page)


@router.delete("/{key_id}")
def delete_api_key(key_id: str, caller: Admin, server: ServerDep) -> Deleted:
    """Revoke a key at once; not the one that asks, so that a project does not lock itself out."""
    if key_id == caller.key_id:
        raise Conflict("a key cannot revoke itself; use another admin key", param="key_id")
    with server.database.write() as session:
        keys.delete_key(session, caller.project_id, key_id)
    return Deleted(id=key_id, object="api_key", deleted=True)


def _key_object(key: ApiKey, *, project: str) -> ApiKeyObject:
    return ApiKeyObject(
        id=key.id,
        name=key.name,
        role=key.role,
        project=project,
        project_id=key.project_id,
        hint=key.hint,
        created_at=key.created_at,
    )
