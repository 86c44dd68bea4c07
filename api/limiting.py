"""How often one may ask: a token bucket for each key, and for each address that shows none that is known."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict

from core.errors import TooManyRequests

MOST_BUCKETS = 10_000
BURST_SECONDS = 20  # what an address without a key may ask at once, in seconds of its rate


class Buckets:
    """A bucket of `burst` tokens for each name, filled at `rate` a second; a rate of 0 limits nothing.

    The buckets that were used last are kept, at most `most`: a forgotten one is full again.
    """

    def __init__(self, *, rate: float, burst: float, most: int = MOST_BUCKETS) -> None:
        self._rate, self._burst, self._most = rate, max(1.0, burst), most
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when there were so many
        self._lock = threading.Lock()

    def take(self, name: str) -> None:
        """Take a token; raises TooManyRequests, which says when there will be one."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            tokens, at = self._buckets.pop(name, (self._burst, now))
            tokens = min(self._burst, tokens + (now - at) * self._rate)
            self._buckets[name] = (tokens - 1 if tokens >= 1 else tokens, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        if tokens < 1:
            raise TooManyRequests(
                f"too many requests: at most {self._rate:g} a second, and {self._burst:g} at once; wait a moment",
                code="rate_limit_exceeded",
                retry_after=(1 - tokens) / self._rate,
            )


def network_of(host: str) -> str:
    """Whose address it is: of IPv6, where one customer has many, the first 64 bits."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))
