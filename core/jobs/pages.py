"""Pages of lists, in order of (created_at, id)."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Select, tuple_

Order = Literal["asc", "desc"]


def page(query: Select[Any], table: Any, *, cursor: Any, limit: int, order: Order) -> Select[Any]:
    """`query` in order of (created_at, id), from behind `cursor`, `limit` rows long.

    `cursor`: a row, or the id of one that was deleted: ids sort by the time they were made.
    """
    descending = order == "desc"
    if cursor is not None:
        is_gone = isinstance(cursor, str)
        place = table.id if is_gone else tuple_(table.created_at, table.id)
        edge = cursor if is_gone else tuple_(cursor.created_at, cursor.id)
        query = query.where(place < edge if descending else place > edge)
    by = (table.created_at.desc(), table.id.desc()) if descending else (table.created_at, table.id)
    return query.order_by(*by).limit(limit)
