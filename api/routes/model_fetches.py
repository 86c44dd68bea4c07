"""Base models fetched from a hub by name, where the settings allow it."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from api.answers.answer import Answer
from api.answers.errors import ErrorObject, error_object
from api.answers.lists import ListOf, page_of
from api.dependencies import PageDep, Reader, ServerDep, Writer
from core.jobs import fetches
from core.jobs.models.files import ModelFetch
from core.spec import Frozen

router = APIRouter(prefix="/v1", tags=["models"])


class FetchRequest(Frozen):
    """A model of the hub."""

    name: str = Field(pattern=f"^{fetches.HUB_NAME}$", description="Its name there: organization/model.")
    revision: str = Field(
        fetches.MAIN, pattern=f"^{fetches.REVISION}$", description="A branch, a tag, or a commit of it."
    )


class FetchObject(Answer):
    """A model that is on its way from a hub, or has come, or could not."""

    id: str
    object: Literal["model.fetch"] = "model.fetch"
    created_at: int
    name: str
    revision: str
    status: Literal["fetching", "ready", "failed"]
    error: ErrorObject | None = Field(description="Why it could not, and what would help.")
    bytes_fetched: int | None = Field(description="How much has come, with what an earlier try had fetched.")
    bytes_total: int | None = Field(description="How much there is; null until the hub has told.")
    file: str | None = Field(description="The base model's file, once it is ready.")
    model: str | None = Field(description="What the model is called here, once it is ready.")


def fetch_object(fetch: ModelFetch) -> FetchObject:
    """A fetch."""
    is_ready = fetch.status == fetches.READY
    return FetchObject(
        id=fetch.id,
        created_at=fetch.created_at,
        name=fetch.name,
        revision=fetch.revision,
        status=fetch.status,
        error=None if fetch.error is None else error_object(fetch.error),
        bytes_fetched=fetch.bytes_fetched,
        bytes_total=fetch.bytes_total,
        file=fetch.file_id,
        model=fetches.filename_of(fetch).removesuffix(".zip") if is_ready else None,
    )


@router.post("/models", status_code=202)
def fetch_model(body: FetchRequest, caller: Writer, server: ServerDep) -> FetchObject:
    """Have a base model fetched from the hub; one that is on its way, or here already, is not fetched again.

    Its weights are safetensors or GGUF, never pickles, and are checked as an upload's are. What an earlier try had
    fetched when it failed is not fetched again.
    """
    fetch_id = server.fetcher.fetch(server, caller.project_id, name=body.name, revision=body.revision)
    with server.database.read() as session:
        return fetch_object(fetches.get_fetch(session, caller.project_id, fetch_id))


@router.get("/model_fetches")
def list_fetches(caller: Reader, server: ServerDep, page: PageDep) -> ListOf[FetchObject]:
    """The project's fetches."""
    with server.database.read() as session:
        found = fetches.list_fetches(session, caller.project_id, **page.query)
        return page_of([fetch_object(one) for one in found], page)


@router.get("/model_fetches/{fetch_id}")
def get_fetch(fetch_id: str, caller: Reader, server: ServerDep) -> FetchObject:
    """One fetch: whether the model has come, or why not."""
    with server.database.read() as session:
        return fetch_object(fetches.get_fetch(session, caller.project_id, fetch_id))
