"""Has base models fetched from the hub that the settings name, each by a process of its own; see core/hub.py."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from api import intake
from api.dependencies import Server
from api.fetch_progress import TOTAL, beating
from api.turns import LOOK_SECONDS, Turns
from core.environment import hub_environment
from core.errors import BeingFetched, NotFound, Unavailable, WeightworksError
from core.forking import TOO_DEMANDING
from core.jobs import fetches
from core.jobs.database import AWAY, read_clock
from core.jobs.fetches import FAILED, READY
from core.jobs.files import BASE_MODEL
from core.jobs.models.files import File, ModelFetch
from core.storage import refusal_of

ROOT = Path(__file__).parents[1]
AT_ONCE = 2
END_SECONDS = 10.0  # that the server waits, when it ends, for fetches that do not
FRESH_SECONDS = 60  # a failure this young is told again, instead of trying again
SOONEST, LATEST = 10, 60  # seconds after which a client is to ask again
# Failures that another try would only repeat.
LASTING = frozenset(
    {
        "hub_model_not_found",
        "hub_no_revision",
        "hub_model_gated",
        "hub_no_weights",
        "too_large",
        "invalid_data",
        TOO_DEMANDING,
    }
)

log = logging.getLogger("weightworks.api")


class FetchError(WeightworksError):
    """Why a model could not be fetched, as the process told it."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        super().__init__(told["message"], param=told["param"], code=told["code"])
        self._told = dict(told)

    def as_dict(self) -> dict[str, Any]:
        """What the process said."""
        return self._told


class Fetcher:
    """Threads that have models fetched, two at once, by projects in turn; each writes what comes of its fetch."""

    def __init__(self) -> None:
        self._turns = Turns(AT_ONCE)
        self._closing = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()  # of the threads

    def fetch(self, server: Server, project_id: str, *, name: str, revision: str) -> str:
        """Begin to fetch a model, unless it is on its way or here; answers the fetch's id.

        Raises NotFound where the settings name no hub, QuotaUsedUp, and TooManyRequests.
        """
        refuse_without_hub(server, name)
        intake.refuse_when_full(server, project_id)
        with server.database.write() as session:
            fetch, is_new = fetches.begin_fetch(session, project_id, name=name, revision=revision)
        if is_new:
            thread = threading.Thread(target=self._run, args=(server, fetch), name=f"fetch-{fetch.id}", daemon=True)
            with self._lock:
                self._threads = {one for one in self._threads if one.is_alive()} | {thread}
                thread.start()
        return fetch.id

    def stop(self) -> None:
        """End what is being fetched: it is said to have failed, and what has come is kept for another try."""
        self._closing.set()

    def join(self) -> None:
        """Wait for what was stopped, but not for long: what goes on is lost with the server, by its silence."""
        ends_at = time.monotonic() + END_SECONDS
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, ends_at - time.monotonic()))

    def _run(self, server: Server, fetch: ModelFetch) -> None:
        try:
            self._fetch(server, fetch)
            return
        except Exception as failure:
            error = self._told(fetch, failure)
        with suppress(*AWAY), server.database.write() as session:
            fetches.fail_fetch(session, fetch.id, error)

    def _told(self, fetch: ModelFetch, failure: Exception) -> WeightworksError:
        if self._closing.is_set():  # whatever it looks like
            return _stopped()
        if isinstance(failure, WeightworksError):
            return failure
        log.error("the fetch of %s failed", fetch.name, exc_info=failure)
        return refusal_of(failure) or WeightworksError("the server failed to fetch it; its log says more")

    def _fetch(self, server: Server, fetch: ModelFetch) -> None:
        folder = _folder(server, fetch)
        with (
            beating(server.database, fetch.id, folder),
            self._turns.turn(fetch.project_id, check=self._refuse_when_closing),
            server.storage.incoming_file() as (archive, _),
        ):
            answer = self._ask(server, fetch, folder, archive)
            whole = intake.Whole(fetches.filename_of(fetch), BASE_MODEL, answer["bytes"], answer["sha256"])
            done = partial(_done, fetch.id, answer["fetched"])
            self._refuse_when_closing()
            intake.take_in(server, fetch.project_id, archive, whole, note=done)

    def _ask(self, server: Server, fetch: ModelFetch, folder: Path, archive: Path) -> dict[str, Any]:
        """What the process answers; it is ended where it takes too long, or the server ends."""
        settings = server.settings
        ends_at = time.monotonic() + settings.hub_seconds
        order = {
            "name": fetch.name,
            "revision": fetch.revision,
            "url": settings.hub_url,
            "token": None if settings.hub_token is None else settings.hub_token.get_secret_value(),
            "folder": str(folder),
            "total": str(folder / TOTAL),
            "archive": str(archive),
            "max_bytes": settings.max_upload_bytes,
            "parent": os.getpid(),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "core.hub"],
            cwd=ROOT,
            env=hub_environment(os.environ, url=str(settings.hub_url), home=folder / ".home"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        told: str | None = json.dumps(order)
        try:
            while True:
                try:
                    return _understood(process.communicate(told, timeout=LOOK_SECONDS)[0])
                except subprocess.TimeoutExpired:
                    told = None  # it has it
                self._check(server, ends_at)
        finally:
            process.kill()
            process.communicate()

    def _check(self, server: Server, ends_at: float) -> None:
        """Raise why it is not to go on."""
        self._refuse_when_closing()
        if time.monotonic() >= ends_at:
            raise WeightworksError(
                f"it has not come within {server.settings.hub_seconds:g} seconds: ask again, which goes on from there, "
                "or raise WEIGHTWORKS_HUB_SECONDS",
                code="hub_too_slow",
            )

    def _refuse_when_closing(self) -> None:
        if self._closing.is_set():
            raise _stopped()


def _folder(server: Server, fetch: ModelFetch) -> Path:
    """Where a model's files are kept from try to try."""
    model = hashlib.sha256(f"{server.settings.hub_url} {fetch.name}@{fetch.revision}".encode()).hexdigest()[:24]
    return server.storage.incoming / f"hub-{model}"


def _stopped() -> WeightworksError:
    return WeightworksError("the server was stopped: ask again", code="fetch_lost")


def _done(fetch_id: str, fetched: int, session: Session, file: File) -> None:
    fetches.complete_fetch(session, fetch_id, file, fetched=fetched)


def _understood(answer: str) -> dict[str, Any]:
    last = answer.strip().rpartition("\n")[2]
    if not last:
        raise WeightworksError("what fetches it crashed; the server's log says more")
    told: dict[str, Any] = json.loads(last)
    if "error" in told:
        raise FetchError(told["error"])
    return told


def refuse_without_hub(server: Server, name: str) -> None:
    """Raise NotFound, with the cure, where the settings name no hub."""
    if server.settings.hub_url is None:
        raise NotFound(
            f"'{name}' is not here, and this server fetches nothing: upload it (purpose '{BASE_MODEL}', a zip of its "
            "folder), or have whoever runs the server set WEIGHTWORKS_HUB_URL",
            param="name",
            code="hub_not_allowed",
        )


def fetch_for_job(server: Server, project_id: str, name: str, *, param: str) -> None:
    """Where `name` may be a hub's model that is not here yet: have it fetched, and raise BeingFetched.

    Raises NotFound where it cannot be had, and Unavailable where it could not a moment ago; answers where it is no such
    name, or the model has come meanwhile.
    """
    parsed = fetches.parse_hub_name(name)
    if parsed is None:
        return
    model, revision = parsed
    try:
        with server.database.read() as session:
            refuse_failed(session, project_id, name=model, revision=revision)
        fetch_id = server.fetcher.fetch(server, project_id, name=model, revision=revision)
    except (NotFound, Unavailable) as error:
        error.param = param
        raise
    with server.database.read() as session:
        fetch = fetches.get_fetch(session, project_id, fetch_id)
        waited = read_clock(session) - fetch.created_at
    if fetch.status == READY:
        return
    raise BeingFetched(
        f"'{name}' is being fetched, and the job can start once it is here: send it again then; how far it is, "
        f"GET /v1/model_fetches/{fetch_id} tells",
        retry_after=min(LATEST, max(SOONEST, waited)),
        param=param,
    )


def refuse_failed(session: Session, project_id: str, *, name: str, revision: str) -> None:
    """Raise NotFound, or Unavailable if that may pass, where the model could not be fetched a moment ago."""
    last = fetches.last_fetch(session, project_id, name=name, revision=revision)
    if last is None or last.status != FAILED or last.error is None:
        return
    if last.seen_at > read_clock(session) - FRESH_SECONDS:
        message, code = f"'{name}' could not be fetched: {last.error['message']}", last.error["code"]
        raise NotFound(message, code=code) if code in LASTING else Unavailable(message, code=code)
