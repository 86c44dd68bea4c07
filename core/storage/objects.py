"""Data sets, checkpoints and weights as objects in a bucket that speaks S3; what is on its way lies on this machine."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from core.errors import NotFound
from core.settings import Settings
from core.storage.bucket import Bucket
from core.storage.cache import Cache
from core.storage.folders import Found
from core.storage.interface import Storage, checked

CHUNK_BYTES = 4 * 2**20
PROBE = "probe"  # an object that every look at the bucket's health and clock writes anew
LEAVING = "leaving"
LEAVE_SECONDS = 15  # whoever announced that a content goes has it gone by then, or leaves it
WAIT_SECONDS = 90  # an announcement this old is a dead one's
LOOK_SECONDS = 0.2
UPLOAD_SECONDS = 24 * 3600  # the longest that a whole upload is thought to take


@dataclass(frozen=True)
class StoredObject:
    """A key's content in a bucket. `is_public`: whether clients may be sent there."""

    bucket: Bucket
    key: str
    is_public: bool
    path: None = None

    def address(self, method: str, *, disposition: str, media_type: str) -> str | None:
        """An address that answers this method for a while without any key; None if clients are not to go there."""
        if not self.is_public:
            return None
        return self.bucket.address(method, self.key, disposition=disposition, media_type=media_type)

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` until before `end`."""
        for place in range(start, end, CHUNK_BYTES):
            yield self.bucket.read(self.key, place, min(end, place + CHUNK_BYTES))


class ObjectStorage(Storage):
    """Objects in a bucket, whole or absent by S3's own promise, and copies of them that this machine's jobs share."""

    def __init__(self, settings: Settings, *, retry_seconds: float) -> None:
        super().__init__(settings.scratch_path.expanduser().absolute())
        self._bucket = Bucket(settings, retry_seconds=retry_seconds)
        self._cache = Cache(self.scratch / "cache", limit_bytes=settings.scratch_cache_bytes)
        self._is_public = settings.s3_redirects

    def tidy(self) -> None:
        """Remove copies that nobody has used for a day, and what is over the cache's limit."""
        self._cache.trim()

    # Content in, and out.

    def keep(self, source: Path, key: str) -> None:
        """Upload a file of the scratch folder; the file itself goes with its folder."""
        self.link(source, key)

    def link(self, source: Path, key: str) -> None:
        """Upload a file, which may be removed meanwhile."""
        with source.open("rb") as file:
            size = source.stat().st_size
            self._bucket.put(str(checked(key)), file, size=size)

    def has(self, key: str) -> bool:
        """Whether there is an object under the key."""
        try:
            self._bucket.look(str(checked(key)))
        except NotFound:
            return False
        return True

    def stored(self, key: str) -> StoredObject:
        """The object of a key that is there; raises NotFound."""
        self._bucket.look(str(checked(key)))
        return StoredObject(self._bucket, key, self._is_public)

    def fetch(self, key: str, target: Path) -> Path:
        """A copy at `target`, out of this machine's cache if it is there; raises NotFound."""
        size = self._bucket.look(str(checked(key))).bytes
        target.parent.mkdir(parents=True, exist_ok=True)
        self._cache.place(key, target, size=size, write=partial(self._bucket.download, key, size=size))
        return target

    # Content by its hash. A bucket can neither move nor lock: whoever is going to delete one says so beforehand, in
    # an object of their own, and only then looks whether it is used. Whoever has written a row, which makes it used,
    # waits for those who had said so before, and then puts back what is missing. Either one sees the other.

    def _bring(self, source: Path, key: str) -> None:
        if not self.has(key):
            self.link(source, key)

    def _bring_back(self, source: Path, key: str) -> None:
        while self._is_leaving(key):
            time.sleep(LOOK_SECONDS)
        self._bring(source, key)

    def _is_leaving(self, key: str) -> bool:
        said = [found.changed_at for found in self._bucket.below(f"{LEAVING}/{key}")]
        return bool(said) and max(said) > self.now() - WAIT_SECONDS

    def forget(self, key: str, *, is_used: Callable[[], bool], version: str | None = None) -> int:
        """Delete the content unless it is used, or comes into use meanwhile; answers the bytes that are free then."""
        if is_used():
            return 0
        ends_at = time.monotonic() + LEAVE_SECONDS
        said = f"{LEAVING}/{key}/{secrets.token_hex(12)}"
        self._bucket.put(said, b"\0", size=1)
        try:
            found = self._bucket.look(key)
            is_other = version is not None and found.version != version
            if is_other or is_used() or time.monotonic() > ends_at:
                return 0
            self._bucket.delete([key])
        except NotFound:
            return 0
        finally:
            with contextlib.suppress(OSError):
                self._bucket.delete([said])
        return found.bytes

    # Content away.

    def delete(self, key: str) -> None:
        """Forget a key; one that is not there is no error."""
        self._bucket.delete([str(checked(key))])

    def delete_folder(self, key: str) -> None:
        """Forget all keys that begin with this folder; one that is not there is no error."""
        self._bucket.delete([found.key for found in self._bucket.below(str(checked(key)))])

    # What is there.

    def check(self) -> None:
        """Write a byte into the bucket and into the scratch folder; raises OSError if one does not take it."""
        self._bucket.put(PROBE, b"\0", size=1)
        super().check()

    def now(self) -> float:
        """The time by the bucket's own clock, in whole seconds."""
        self._bucket.put(PROBE, b"\0", size=1)
        return self._bucket.look(PROBE).changed_at

    def files_below(self, folder: str) -> Iterator[Found]:
        """Every object whose key begins with this folder."""
        return self._bucket.below(folder)

    def names_in(self, folder: str) -> list[str]:
        """What lies directly in a folder, by name."""
        return self._bucket.names_in(folder)

    def is_streamed_into(self, key: str) -> bool:
        """False: an object comes whole, just before its row; the grace is for that."""
        return False

    def collect(self, before: float) -> int:
        """Remove what processes that were killed had announced, and what they had begun to upload in parts."""
        old = [found.key for found in self._bucket.below(LEAVING) if found.changed_at < before]
        self._bucket.delete(old)
        return len(old) + self._bucket.abort_unfinished(before - UPLOAD_SECONDS)
