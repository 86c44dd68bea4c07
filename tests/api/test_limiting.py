"""Token buckets: a burst, then a rate, in bounded memory."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from api.limiting import Buckets, network_of
from core.errors import TooManyRequests


def taken(buckets: Buckets, name: str, count: int) -> int:
    """How many of so many tokens there were."""
    found = 0
    for _ in range(count):
        with suppress(TooManyRequests):
            buckets.take(name)
            found += 1
    return found


def test_a_burst_and_then_the_rate() -> None:
    buckets = Buckets(rate=0.1, burst=5)
    assert taken(buckets, "a", 20) == 5
    assert taken(buckets, "b", 3) == 3
    quick = Buckets(rate=100, burst=1)
    time.sleep(refusal_of(quick, "a").retry_after)
    quick.take("a")


def refusal_of(buckets: Buckets, name: str) -> TooManyRequests:
    """The first there is: whoever is kept from running for a hundredth of a second is owed another token."""
    while True:
        try:
            buckets.take(name)
        except TooManyRequests as refusal:
            return refusal


def test_a_rate_of_nothing_limits_nothing() -> None:
    assert taken(Buckets(rate=0, burst=1), "a", 1000) == 1000


def test_the_memory_is_bounded() -> None:
    buckets = Buckets(rate=0.1, burst=2, most=10)
    for name in range(1000):
        buckets.take(str(name))
    assert len(buckets._buckets) == 10
    assert taken(buckets, "999", 5) == 1


@pytest.mark.parametrize(
    ("host", "network"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("testclient", "testclient")],
)
def test_the_addresses_of_one_customer_are_one(host: str, network: str) -> None:
    assert network_of(host) == network
