"""The Celery app, and the wake-up: a message that only says "look", for the jobs table decides."""

from __future__ import annotations

from celery import Celery
from kombu.exceptions import OperationalError

from core.settings import settings

LOOK = "weightworks.look"
QUEUES = {"auto": "weightworks.any", "cpu": "weightworks.any", "cuda": "weightworks.gpu"}
PUBLISH_SECONDS = 2.0


def make_app(redis_url: str) -> Celery:
    """A Celery app as the design wants it: early acknowledgement, no results, no prefetch, publishing fails fast."""
    app = Celery("weightworks", broker=redis_url.replace("unix://", "redis+socket://", 1))
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=QUEUES["auto"],
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": PUBLISH_SECONDS,
            "socket_connect_timeout": PUBLISH_SECONDS,
            "global_keyprefix": "weightworks:celery:",
        },
        task_publish_retry=False,
    )
    return app


app = make_app(settings().redis_url)


def wake(device: str = "auto") -> bool:
    """Tell a worker to look at the jobs table; answers False where Redis is away (the sweeper repairs that)."""
    try:
        app.send_task(LOOK, queue=QUEUES[device], ignore_result=True)
    except OperationalError:
        return False
    return True
