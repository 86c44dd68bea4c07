"""Whether the server is alive, and whether what it needs can be reached."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.answers.answer import Answer
from api.dependencies import ServerDep

router = APIRouter(tags=["health"])


class HealthObject(Answer):
    """Whether the server is well."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]


@router.get("/healthz")
async def alive() -> HealthObject:
    """The process answers, even while all its threads wait for a database that hangs."""
    return HealthObject(status="ok", checks={})


@router.get("/readyz", responses={503: {"model": HealthObject}})
def ready(server: ServerDep, response: Response) -> HealthObject:
    """Database, Redis and storage can be reached; 503 and which one cannot."""
    checks = {"database": _database(server), "redis": _redis(server), "storage": _storage(server)}
    is_ready = all(answer == "ok" for answer in checks.values())
    response.status_code = 200 if is_ready else 503
    return HealthObject(status="ok" if is_ready else "unavailable", checks=checks)


def _database(server: ServerDep) -> str:
    try:
        with server.database.read() as session:
            session.execute(text("SELECT id FROM projects LIMIT 1"))
    except SQLAlchemyError as error:
        return f"unreachable: {type(error).__name__}"
    return "ok"


def _redis(server: ServerDep) -> str:
    return "ok" if server.publisher.ping() else "unreachable"


def _storage(server: ServerDep) -> str:
    try:
        server.storage.check()
    except OSError as error:
        return f"not writable: {error.strerror}"
    return "ok"
