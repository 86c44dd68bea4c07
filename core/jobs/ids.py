"""Ids, which sort by the time they were made."""

from __future__ import annotations

import re
import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_making = threading.Lock()
_last = 0  # the number of the last id


def new_id(prefix: str) -> str:
    """An id that sorts by the time it was made: milliseconds, then 60 random bits.

    Of one process, each id sorts behind the one before, also within a millisecond: jobs go by age, then by id.
    """
    global _last
    with _making:
        _last = max((int(time.time() * 1000) << 60) + secrets.randbits(60), _last + 1 + secrets.randbits(32))
        number = _last
    return f"{prefix}-{''.join(_ALPHABET[(number >> shift) & 31] for shift in range(105, -5, -5))}"


def is_id(text: str, prefix: str) -> bool:
    """Whether it could be the id of something, which may be there no more."""
    return re.fullmatch(f"{prefix}-[{_ALPHABET}]{{22}}", text) is not None
