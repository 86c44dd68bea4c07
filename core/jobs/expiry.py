"""Files that expire: gone once their time is over, unless a job that has not ended needs them."""

from __future__ import annotations

from sqlalchemy import ColumnElement, String, and_, cast, exists, or_, select

from core.jobs.database import database_now
from core.jobs.models.files import File
from core.jobs.models.jobs import Job
from core.jobs.status import UNFINISHED


def is_there() -> ColumnElement[bool]:
    """Of a File in SQL: whether it has time left, or is needed still."""
    return or_(File.expires_at.is_(None), File.expires_at > database_now(), _is_needed())


def is_over() -> ColumnElement[bool]:
    """The opposite, as an index finds it."""
    return and_(File.expires_at <= database_now(), ~_is_needed())


def _is_needed() -> ColumnElement[bool]:
    """Whether the spec of a job that has not ended names it."""
    named = cast(Job.spec, String).contains('"' + File.id + '"')
    mine = (Job.project_id == File.project_id, Job.status.in_(UNFINISHED), named)
    return exists(select(Job.id).where(*mine).correlate(File))
