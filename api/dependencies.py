"""What routes ask for: the parts of this server, and who is asking."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypedDict

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from api.announcing import Announcer
from api.checking import Checker
from api.gathering import Gatherer
from api.grading import Grading
from api.inspecting import Inspector
from api.limiting import Buckets, network_of
from api.measuring import Measurer
from api.reading import EventReader
from api.stopping import Stopping
from api.trying_out.process import ServingProcess
from api.webhooks.sending import Sender
from core.errors import Forbidden, Unauthenticated
from core.jobs.database import Database
from core.jobs.ending import has_deliveries
from core.jobs.events import added_events
from core.jobs.keys import DEFAULT_PROJECT, Holder, find_keys
from core.jobs.pages import Order
from core.jobs.status import Role
from core.progress import Publisher, Tail
from core.settings import Settings
from core.storage import Storage

if TYPE_CHECKING:
    from api.answers.jobs import JobObject
    from api.fetching import Fetcher
    from api.submitting import Submission


@dataclass
class Server:
    """The parts of a running API process."""

    settings: Settings
    database: Database
    storage: Storage
    publisher: Publisher
    announcer: Announcer
    tail: Tail
    reader: EventReader
    inspector: Inspector
    grading: Grading
    fetcher: Fetcher
    checker: Checker
    measurer: Measurer
    serving: ServingProcess
    stopping: Stopping
    sender: Sender
    holders: Gatherer[str, Holder | None]  # of keys that are shown
    submissions: Gatherer[Submission, JobObject]
    requests: Buckets  # by key
    strangers: Buckets  # by address: of those who show no key that is known

    def announce(self, session: Session, *, wake: Sequence[str] = ()) -> None:
        """After a commit: publish the events that the transaction wrote, wake workers, have webhooks sent."""
        self.announcer.announce(added_events(session), wake)
        if has_deliveries(session):
            self.sender.nudge()


def find_holders(database: Database, secrets: Sequence[str]) -> list[Holder | None]:
    """Who holds each of these keys, if it is known."""
    with database.read() as session:
        found = find_keys(session, secrets)
    return [found.get(secret) for secret in secrets]


@dataclass(frozen=True)
class Caller:
    """Who is asking: the project that the key belongs to, and what the key may do."""

    key_id: str
    project_id: str
    project_name: str
    role: Role

    @property
    def is_operator(self) -> bool:
        """Whether they run the server: admins of the project `default`."""
        return self.role is Role.ADMIN and self.project_name == DEFAULT_PROJECT


_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="An API key: `Authorization: Bearer ww-...`")


async def get_server(request: Request) -> Server:
    """The server's parts."""
    server: Server = request.app.state.server
    return server


async def shown_key(
    request: Request,
    server: Annotated[Server, Depends(get_server)],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    """The API key that is shown, which may be any; raises Unauthenticated, or TooManyRequests before all else."""
    if credentials is None:
        server.strangers.take(_address(request))
        raise Unauthenticated("give an API key: Authorization: Bearer ww-...")
    server.requests.take(hashlib.sha256(credentials.credentials.encode()).hexdigest())
    return credentials.credentials


def _address(request: Request) -> str:
    return network_of(request.client.host) if request.client else ""


def caller_with(needed: Role) -> Callable[..., Awaitable[Caller]]:
    """A dependency that finds the caller by the key, and refuses one whose role does not include `needed`."""

    async def find(
        request: Request,
        server: Annotated[Server, Depends(get_server)],
        secret: Annotated[str, Depends(shown_key)],
    ) -> Caller:
        found = await server.holders.ask(secret)
        if found is None:
            server.strangers.take(_address(request))
            raise Unauthenticated("this API key is not known here; it may have been deleted")
        if not found.role.allows(needed):
            raise Forbidden(f"this needs a key of role '{needed}', and this one's is '{found.role}'")
        return Caller(found.key_id, found.project_id, found.project_name, found.role)

    return find


def operator(caller: Annotated[Caller, Depends(caller_with(Role.ADMIN))]) -> Caller:
    """The caller, if an admin of the project `default`: who runs the server."""
    if not caller.is_operator:
        raise Forbidden(f"this needs an admin key of the project '{DEFAULT_PROJECT}'")
    return caller


ServerDep = Annotated[Server, Depends(get_server)]
Reader = Annotated[Caller, Depends(caller_with(Role.READ))]
Writer = Annotated[Caller, Depends(caller_with(Role.WRITE))]
Admin = Annotated[Caller, Depends(caller_with(Role.ADMIN))]
Operator = Annotated[Caller, Depends(operator)]


class PageQuery(TypedDict):
    """What the database is asked for a page."""

    after: str | None
    limit: int
    order: Order


@dataclass(frozen=True)
class Page:
    """Which part of a list is wanted."""

    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20
    after: Annotated[str | None, Query(min_length=1, max_length=128, description="Id of the last one seen.")] = None
    order: Annotated[Order, Query(description="By time: newest first (desc) or oldest first (asc).")] = "desc"

    @property
    def query(self) -> PageQuery:
        """What to ask for: one more than is shown tells that there are more."""
        return {"after": self.after, "limit": self.limit + 1, "order": self.order}


@dataclass(frozen=True)
class LongPage(Page):
    """Of lists that clients of the hosted API ask for in larger parts."""

    limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 20


@dataclass(frozen=True)
class WholePage(Page):
    """Of lists of which the openai client asks for one page, and takes it for all there is."""

    limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 1000


@dataclass(frozen=True)
class FilesPage(Page):
    """Of files, of which the hosted API gives out so many at once."""

    limit: Annotated[int, Query(ge=1, le=10_000, description="How many at most.")] = 20


PageDep = Annotated[Page, Depends()]
LongPageDep = Annotated[LongPage, Depends()]
WholePageDep = Annotated[WholePage, Depends()]
FilesPageDep = Annotated[FilesPage, Depends()]
