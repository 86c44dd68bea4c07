"""What an object storage answers when it fails, told as a disk tells it: as an OSError, and without its secrets."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError

from core.errors import NotFound

STATUS = re.compile(r"status code: (\d{3})")
CODE = re.compile(r"<Code>(\w{1,64})</Code>")
FULL = re.compile(r"Full|Quota|InsufficientStorage|NoSpace")
FORBIDDEN = ("401", "403")

log = logging.getLogger("weightworks.storage")


class ObjectStorageError(OSError):
    """An object storage that is away, full, slow, or refuses."""


@contextmanager
def explained(key: str) -> Iterator[None]:
    """Raise NotFound for what is not there, and ObjectStorageError for whatever else goes wrong in the block.

    What obstore says goes on with addresses and the whole answer, an access key's name in it: only code and status
    are passed on.
    """
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise _failure("NoSuchBucket", "404") from None
        raise NotFound(f"storage has no '{key}'") from None
    except (BaseError, TimeoutError) as error:
        text = str(error)
        if "/latest/api/token" in text or "/latest/meta-data" in text:
            raise _failure("no keys", "") from None
        code, status = CODE.search(text), STATUS.search(text)
        raise _failure(code[1] if code else "", status[1] if status else "") from None


def _failure(code: str, status: str) -> ObjectStorageError:
    answer = f"{status} {code}".strip()
    if status == "507" or FULL.search(code):
        failure = ObjectStorageError(errno.ENOSPC, f"the object storage is full: {answer}")
    elif code == "no keys":
        told = "the object storage is given no keys, and this machine has no role: see docs/object-storage.md"
        failure = ObjectStorageError(errno.EIO, told)
    elif code == "NoSuchBucket":
        failure = ObjectStorageError(errno.EIO, f"the object storage has no such bucket: {answer}")
    elif status in FORBIDDEN:
        failure = ObjectStorageError(errno.EIO, f"the object storage refuses what we ask with our keys: {answer}")
    elif answer:
        failure = ObjectStorageError(errno.EIO, f"the object storage answers {answer}")
    else:
        failure = ObjectStorageError(errno.EIO, "the object storage cannot be reached, or does not answer in time")
    log.warning("%s", failure.strerror)
    return failure
