"""Says again and again that a model is being fetched, and how far it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.jobs import fetches
from core.jobs.database import AWAY, Database

BEAT_SECONDS = 2.0
TOTAL = ".total"  # a file of the folder that says how many bytes are to come


@contextmanager
def beating(database: Database, fetch_id: str, folder: Path) -> Iterator[None]:
    """Until the block ends; `folder`: where the model's files come."""
    is_over = threading.Event()

    def beat() -> None:
        most = None
        while not is_over.wait(BEAT_SECONDS):
            most = max(filter(None, (most, progress(folder))), default=None)  # while they are packed, files go away
            with suppress(*AWAY), database.write() as session:
                fetches.keep_fetch(session, fetch_id, most)

    thread = threading.Thread(target=beat, name=f"beat-{fetch_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def progress(folder: Path) -> tuple[int, int] | None:
    """How many bytes have come, and of how many; None where that is not known yet, or at this moment."""
    with suppress(OSError, ValueError):  # files come and go
        total = int((folder / TOTAL).read_text())
        return min(total, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())), total
    return None
