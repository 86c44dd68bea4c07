"""An API whose limits are soon reached, and what nothing that is sent to it may do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx

from tests.api.service import Service, serving
from tests.faults.parts import repeating

MIB = 2**20
SECONDS = 60.0  # within which every file is refused, on a machine that does much else
READY_SECONDS = 5.0
GROWTH_BYTES = 128 * MIB
LIMITS = {
    "WEIGHTWORKS_MAX_UPLOAD_BYTES": str(160 * MIB),
    "WEIGHTWORKS_INSPECTION_MEMORY_BYTES": str(448 * MIB),
    "WEIGHTWORKS_INSPECTION_SECONDS": "30",
    "WEIGHTWORKS_REQUEST_BURST": "1000",
    "WEIGHTWORKS_REFUSALS_PER_SECOND": "5",
    "WEIGHTWORKS_HEAD_SECONDS": "1.5",
    "WEIGHTWORKS_BODY_SECONDS": "1.5",
    "WEIGHTWORKS_WEBHOOK_PRIVATE_ADDRESSES": "false",
}


def limited(folder: Path, redis_url: str) -> AbstractContextManager[Service]:
    """An API with limits that are soon reached."""
    return serving(folder, redis_url, 1, **LIMITS)


def stored(service: Service) -> set[Path]:
    return {path for path in service.storage.root.rglob("*") if path.is_file()}


def peak_bytes(service: Service) -> int:
    status = Path(f"/proc/{service.api.process.pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


@contextmanager
def undisturbed(service: Service) -> Iterator[None]:
    """The block leaves nothing in storage, takes no memory of the API's, and keeps nobody else waiting."""
    Path(f"/proc/{service.api.process.pid}/clear_refs").write_text("5")  # the peak is from now on
    before, files, started = peak_bytes(service), stored(service), time.monotonic()
    waits: list[float] = []
    with httpx.Client(base_url=service.api.base_url, timeout=SECONDS) as client:

        def ask() -> None:
            asked = time.monotonic()
            assert client.get("/readyz").status_code == 200
            waits.append(time.monotonic() - asked)

        with repeating(ask, every=0.05):
            yield
    assert time.monotonic() - started < SECONDS
    assert max(waits, default=0.0) < READY_SECONDS
    assert peak_bytes(service) - before < GROWTH_BYTES
    assert stored(service) == files
