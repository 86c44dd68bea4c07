"""What routes ask for: the parts of this server, and who is asking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from core import queue
from core.errors import Forbidden, Unauthenticated
from core.jobs.database import Database
from core.jobs.events import added_events
from core.jobs.keys import find_key
from core.jobs.models import Event
from core.jobs.status import Role
from core.jobs.store import Order
from core.progress import Publisher, Tail
from core.settings import Settings
from core.storage import Storage


@dataclass
class Server:
    """The parts of a running API process."""

    settings: Settings
    database: Database
    storage: Storage
    publisher: Publisher
    tail: Tail

    def announce(self, session: object, *, wake: str | None = None) -> None:
        """After a commit: publish the events that the transaction wrote, and wake a worker for that device."""
        events: list[Event] = added_events(session)  # type: ignore[arg-type]
        if wake is not None:
            queue.wake(wake)
        self.publisher.publish(events)


@dataclass(frozen=True)
class Caller:
    """Who is asking: the project that the key belongs to, and what the key may do."""

    project_id: str
    project_name: str
    role: Role


_bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer ww-...`")


def get_server(request: Request) -> Server:
    """The server's parts."""
    server: Server = request.app.state.server
    return server


def caller_with(needed: Role) -> Callable[..., Caller]:
    """A dependency that finds the caller by the key, and refuses one whose role does not include `needed`."""

    def find(
        server: Annotated[Server, Depends(get_server)],
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Caller:
        if credentials is None:
            raise Unauthenticated("give an API key: Authorization: Bearer ww-...")
        with server.database.read() as session:
            found = find_key(session, credentials.credentials)
        if found is None:
            raise Unauthenticated("this API key is not known here; it may have been deleted")
        key, project = found
        if not key.role.allows(needed):
            raise Forbidden(f"this needs a key of role '{needed}', and this one's is '{key.role}'")
        return Caller(project.id, project.name, key.role)

    return find


ServerDep = Annotated[Server, Depends(get_server)]
Reader = Annotated[Caller, Depends(caller_with(Role.READ))]
Writer = Annotated[Caller, Depends(caller_with(Role.WRITE))]
Admin = Annotated[Caller, Depends(caller_with(Role.ADMIN))]


@dataclass(frozen=True)
class Page:
    """Which part of a list is wanted."""

    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20
    after: Annotated[str | None, Query(max_length=128, description="Id of the last one seen.")] = None
    order: Annotated[Order, Query(description="By time of creation.")] = "desc"


PageDep = Annotated[Page, Depends()]
