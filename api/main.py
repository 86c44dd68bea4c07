"""The HTTP application; `python -m api` serves it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

from api import problems, uploads
from api.announcing import Announcer
from api.checking import Checker
from api.collector import collect_forever
from api.dependencies import Server, find_holders
from api.fetching import Fetcher
from api.gathering import Gatherer
from api.grading import Grading
from api.inspecting import Inspector
from api.limiting import BURST_SECONDS, Buckets
from api.measuring import Measurer
from api.middleware import Surroundings
from api.reading import EventReader
from api.routes import (
    api_keys,
    artifacts,
    deleting,
    files,
    fine_tuning,
    fine_tuning_checkpoints,
    graders,
    health,
    jobs,
    methods,
    model_fetches,
    models,
    pipelines,
    projects,
    trying,
    watching,
    webhooks,
    workers,
)
from api.routes import uploads as upload_routes
from api.stopping import Stopping
from api.submitting import Submissions
from api.sweeper import sweep_forever
from api.trying_out.process import ServingProcess
from api.webhooks.sending import Sender
from core import queue
from core.jobs.database import Database
from core.jobs.keys import ensure_admin_key
from core.progress import Publisher, Tail
from core.settings import Settings, settings
from core.storage import open_storage

DESCRIPTION = """Training as a service that you run yourself. Upload data, submit a job, watch it train, take the
weights home. Every call but `/healthz` and `/readyz` needs `Authorization: Bearer <key>`."""


RETRY_SECONDS = 5.0  # a client that waits for longer is better told to come again


def create_app(config: Settings) -> FastAPI:
    """The application with its parts made from `config`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server = make_server(config)
        app.state.server = server
        ends = server.serving.end_with(server.stopping)
        sends = server.sender.run()
        running = (server.tail.run(), sweep_forever(server), collect_forever(server), sends, ends)
        tasks = [asyncio.create_task(one) for one in running]
        # What was imported stays: each look through all of it would hold up every watcher for some 0.3 seconds.
        gc.collect()
        gc.freeze()
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await close_server(server)

    # Docs come from files beside the app: the docs page works where there is no internet.
    app = FastAPIOffline(
        title="Weightworks",
        version="0.1.0",
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for module in (
        methods,
        files,
        upload_routes,
        jobs,
        deleting,
        watching,
        artifacts,
        fine_tuning,
        fine_tuning_checkpoints,
        model_fetches,
        models,
        graders,
        trying,
        pipelines,
        api_keys,
        projects,
        workers,
        webhooks,
        health,
    ):
        app.include_router(module.router)
    app.add_api_route("/", lambda: RedirectResponse("/docs"), include_in_schema=False)
    problems.install(app)
    app.add_middleware(
        Surroundings,
        body_seconds=config.body_seconds,
        body_limit=config.max_request_bytes,
        body_limits={
            "/v1/files": config.max_upload_bytes + uploads.OVERHEAD_BYTES,
            "/v1/uploads/[^/]+/parts": config.max_part_bytes + uploads.OVERHEAD_BYTES,
        },
    )
    _finish_schema(app)
    return app


def make_server(config: Settings) -> Server:
    """The parts of this process; the admin key of the settings is made known."""
    database = Database(config.database_url)
    if config.admin_key is not None:
        with database.write() as session:
            ensure_admin_key(session, config.admin_key.get_secret_value())
    publisher = Publisher(config.redis_url)
    announcer = Announcer(publisher, queue.wake)
    storage = open_storage(config, retry_seconds=min(config.s3_retry_seconds, RETRY_SECONDS))
    inspector = Inspector(config)
    return Server(
        settings=config,
        database=database,
        storage=storage,
        publisher=publisher,
        announcer=announcer,
        tail=Tail(config.redis_url),
        reader=EventReader(database, publisher),
        inspector=inspector,
        grading=Grading(inspector.readers),
        fetcher=Fetcher(),
        checker=Checker(config, database, storage),
        measurer=Measurer(config, storage),
        serving=ServingProcess(config, storage),
        stopping=Stopping(),
        sender=Sender(database, config),
        holders=Gatherer(partial(find_holders, database), name="holders"),
        submissions=Gatherer(Submissions(database, announcer, config), name="submissions"),
        requests=Buckets(rate=config.requests_per_second, burst=config.request_burst),
        strangers=Buckets(rate=config.refusals_per_second, burst=BURST_SECONDS * config.refusals_per_second),
    )


async def close_server(server: Server) -> None:
    """Say what is still to be said, then close all connections."""
    server.stopping.close()
    server.fetcher.stop()
    server.inspector.close()  # a fetch may be waiting for it
    await run_in_threadpool(server.fetcher.join)
    server.checker.close()
    server.measurer.close()
    server.serving.close()
    server.submissions.close()
    server.holders.close()
    server.announcer.close()
    server.reader.close()
    await server.tail.close()
    await server.sender.close()
    server.publisher.close()
    server.database.close()


def _finish_schema(app: FastAPI) -> None:
    """Have the schema say what errors look like here, at every call, instead of FastAPI's own."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = make()
            components = schema["components"]["schemas"]
            components.pop("HTTPValidationError", None)
            components.pop("ValidationError", None)
            components["Error"] = problems.envelope_schema()
            error = {
                "description": "What was wrong, and what would be right.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            }
            for calls in schema["paths"].values():
                for call in calls.values():
                    call["responses"].pop("422", None)
                    call["responses"]["default"] = error
                    if "security" in call:
                        call["responses"]["429"] = {**error, "headers": problems.WAITING_HEADERS}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


logging.basicConfig(format="%(levelname)s: %(name)s: %(message)s")
logging.getLogger("weightworks").setLevel(logging.INFO)
app = create_app(settings())
