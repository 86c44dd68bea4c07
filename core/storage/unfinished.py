"""Uploads in parts that nobody completed: a bucket keeps what came of them, out of sight, until they are aborted."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from html import unescape

import httpx

from core.storage.place import Place

UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
SECONDS = 60

log = logging.getLogger("weightworks.storage")


def abort_unfinished(place: Place, *, before: float) -> int:
    """Abort those that were begun before this time; answers how many. None with a role: it signs no such request."""
    if place.keys is None:
        return 0
    count = 0
    try:
        with httpx.Client(timeout=SECONDS) as http:
            listed = http.get(place.signed("GET", "", {"uploads": "", "prefix": place.key("")}, seconds=SECONDS))
            listed.raise_for_status()
            for upload in UPLOAD.findall(listed.text):
                if _begun_at(upload) < before:
                    key = _told("Key", upload)
                    address = place.signed("DELETE", key, {"uploadId": _told("UploadId", upload)}, seconds=SECONDS)
                    count += http.delete(address).is_success
    except httpx.HTTPStatusError as error:  # without its address, which is signed
        log.warning("unfinished uploads in parts cannot be listed: the bucket answers %d", error.response.status_code)
    except httpx.HTTPError as error:
        log.warning("unfinished uploads in parts cannot be aborted now: %s", type(error).__name__)
    return count


def _begun_at(upload: str) -> float:
    return datetime.fromisoformat(_told("Initiated", upload)).timestamp()


def _told(name: str, upload: str) -> str:
    match = re.search(f"<{name}>(.*?)</{name}>", upload, re.DOTALL)
    return unescape(match[1]) if match else ""
