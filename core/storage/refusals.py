"""Why a storage did not take what was to be written, or does not give what was to be read."""

from __future__ import annotations

import errno
import re

from core.errors import StorageFull, Unavailable, WeightworksError

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSING = (errno.EROFS, errno.EIO)
RUST_ERROR = re.compile(r"\(os error (\d+)\)")


def refusal_of(error: BaseException | None) -> Unavailable | None:
    """Why a storage refuses: it is full, or read-only, or failing, or away; None for another error."""
    while error is not None:
        number = _error_number(error)
        told = (isinstance(error, OSError) and error.strerror) or error  # without the path, which is the server's
        if number in FULL:
            return StorageFull(f"storage is full: free some space, then try again ({told})")
        if number in REFUSING:
            return Unavailable(f"storage fails now; try again later ({told})", code="storage_unavailable")
        error = error.__cause__ or error.__context__
    return None


def _error_number(error: BaseException) -> int | None:
    """The system's number of an error; libraries that are written in Rust, safetensors for one, put it into words."""
    if isinstance(error, OSError):
        return error.errno
    told = None if isinstance(error, WeightworksError) else RUST_ERROR.search(str(error))
    return int(told[1]) if told else None
