"""A bucket that speaks S3, below one prefix: what we ask of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import obstore
from obstore.store import S3Store

from core.settings import Settings
from core.storage.failures import explained
from core.storage.folders import Found
from core.storage.place import Place
from core.storage.unfinished import abort_unfinished

if TYPE_CHECKING:  # obstore has these types for the checker only
    from obstore import ObjectMeta
    from obstore.store import S3Config

PART_BYTES = 8 * 2**20
AT_ONCE = 4  # parts on their way; so many are in memory
MAX_PARTS = 9_000  # S3 takes 10,000
CONNECT_SECONDS, REQUEST_SECONDS = 5, 30
RETRIES = 10  # after pauses from a tenth of a second to 15 seconds


class Bucket:
    """Objects by key. Raises NotFound for what is not there, and ObjectStorageError."""

    def __init__(self, settings: Settings, *, retry_seconds: float) -> None:
        self._place = Place.of(settings, os.environ)
        self._seconds = settings.s3_presigned_seconds
        self._store = _store(self._place, retry_seconds=retry_seconds)

    def put(self, key: str, content: BinaryIO | bytes, *, size: int) -> None:
        """Write an object, whole or not at all; a large one in parts."""
        part = max(PART_BYTES, -(-size // MAX_PARTS))
        with explained(key):
            obstore.put(self._store, key, content, chunk_size=part, max_concurrency=AT_ONCE)

    def look(self, key: str) -> Found:
        """What is told of an object."""
        with explained(key):
            return _found(obstore.head(self._store, key))

    def read(self, key: str, start: int, end: int) -> bytes:
        """A stretch that is not empty."""
        with explained(key):
            return bytes(obstore.get_range(self._store, key, start=start, end=end))

    def download(self, key: str, target: BinaryIO, *, size: int) -> None:
        """Write an object of this size into a file, some parts at once."""
        for place in range(0, size, AT_ONCE * PART_BYTES):
            starts = range(place, min(size, place + AT_ONCE * PART_BYTES), PART_BYTES)
            ends = [min(size, start + PART_BYTES) for start in starts]
            with explained(key):
                parts = obstore.get_ranges(self._store, key, starts=list(starts), ends=ends, coalesce=0)
            target.writelines(parts)

    def delete(self, keys: Sequence[str]) -> None:
        """Forget objects; those that are not there are no error."""
        if keys:
            with explained(keys[0]):
                obstore.delete(self._store, list(keys))

    def below(self, folder: str) -> Iterator[Found]:
        """All objects whose keys begin with this folder."""
        with explained(folder):
            for some in obstore.list(self._store, folder):
                yield from map(_found, some)

    def names_in(self, folder: str) -> list[str]:
        """What lies directly in a folder, by name."""
        with explained(folder):
            found = obstore.list_with_delimiter(self._store, folder)
        keys = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        return sorted(key.rpartition("/")[2] for key in keys)

    def address(self, method: str, key: str, *, disposition: str, media_type: str) -> str:
        """Where an object answers GET or HEAD for a while without any key, with these headers.

        With a role instead of keys it goes by the object's own.
        """
        if self._place.keys is None:
            what = cast(Literal["GET", "HEAD"], method)
            return obstore.sign(self._store, what, key, timedelta(seconds=self._seconds))
        told = {"response-content-disposition": disposition, "response-content-type": media_type}
        return self._place.signed(method, self._place.key(key), told, seconds=self._seconds, is_public=True)

    def abort_unfinished(self, before: float) -> int:
        """Abort uploads in parts that were begun before this time; answers how many."""
        return abort_unfinished(self._place, before=before)


def _store(place: Place, *, retry_seconds: float) -> S3Store:
    config: dict[str, Any] = {"endpoint": place.endpoint, "region": place.region}
    config["disable_bulk_delete"] = True  # not every storage that speaks S3 knows it
    if place.keys is not None:
        config |= {"access_key_id": place.keys.access_key_id, "secret_access_key": place.keys.secret_access_key}
        if place.keys.session_token:
            config["session_token"] = place.keys.session_token
    return S3Store(
        place.bucket,
        prefix=place.prefix or None,
        config=cast("S3Config", config),
        client_options={
            "allow_http": place.endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
        },
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=retry_seconds)},
    )


def _found(told: ObjectMeta) -> Found:
    moment = told["last_modified"].timestamp()
    return Found(told["path"], told["size"], moment, f"{told['e_tag']} {moment}")
