"""Lists, page by page, as the API answers them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel

from api.answers.answer import Answer
from api.dependencies import Page
from core.errors import NotFound

Item = TypeVar("Item", bound=BaseModel)


class ListOf(Answer, Generic[Item]):
    """A page of a list."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


def page_of(items: Sequence[Item], page: Page) -> ListOf[Item]:
    """A list's page out of `limit + 1` items: the last one only tells that there are more."""
    shown = list(items[: page.limit])
    ids = [str(getattr(item, "id", None)) for item in shown]
    return ListOf[Item](
        data=shown,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=len(items) > page.limit,
    )


def page_of_all(items: Sequence[Item], page: Page, *, noun: str) -> ListOf[Item]:
    """A page of a list that is wholly at hand, the newest first; raises NotFound for an unknown cursor.

    `noun`: what its items are.
    """
    ordered = list(items) if page.order == "desc" else list(reversed(items))
    if page.after is None:
        return page_of(ordered, page)
    ids = [getattr(item, "id", None) for item in ordered]
    if page.after not in ids:
        raise NotFound(f"there is no {noun} '{page.after}'", param="after")
    return page_of(ordered[ids.index(page.after) + 1 :], page)
