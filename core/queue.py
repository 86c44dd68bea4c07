"""The Celery app, and the wake-up: a message that only says "look", for the jobs table decides."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from celery import Celery
from kombu.exceptions import OperationalError

from core.settings import settings

LOOK = "weightworks.look"
QUEUES = {"auto": "weightworks.any", "cpu": "weightworks.any", "cuda": "weightworks.gpu"}
PUBLISH_SECONDS = 2.0


def make_app(redis_url: str) -> Celery:
    """A Celery app as the design wants it: early acknowledgement, no results, no prefetch, publishing fails fast.

    Celery's redelivery runs long, late-acknowledged tasks twice after the visibility timeout (celery#5935): hence
    early acknowledgement, and a row that decides.
    """
    app = Celery("weightworks", broker=broker_url(redis_url))
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=QUEUES["auto"],
        task_publish_retry=False,
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_prefetch_count_reduction=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_acquire_timeout=PUBLISH_SECONDS,
        broker_transport_options={
            "socket_timeout": PUBLISH_SECONDS,
            "socket_connect_timeout": PUBLISH_SECONDS,
            # Of publishers only; a worker's consumer obeys broker_connection_max_retries. Without it kombu tries
            # again for several seconds, whatever task_publish_retry says.
            "max_retries": 0,
            "global_keyprefix": "weightworks:celery:",
        },
    )
    return app


def broker_url(redis_url: str) -> str:
    """A redis-py URL as kombu spells it: `unix://:password@/path?db=1` is `redis+socket://...?virtual_host=1`."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{parts.netloc}{parts.path}?virtual_host={database}"


app = make_app(settings().redis_url)


def wake(device: str = "auto") -> bool:
    """Tell a worker to look at the jobs table; answers False where Redis is away (the sweeper repairs that)."""
    try:
        app.send_task(LOOK, queue=QUEUES[device], ignore_result=True)
    except OperationalError:
        return False
    return True
