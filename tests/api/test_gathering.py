"""Questions that come while others are answered are answered together, each to whoever asked it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from api.gathering import MOST, Gatherer


class Counter:
    """Answers numbers with their doubles, and remembers what came together."""

    def __init__(self) -> None:
        self.together: list[list[int]] = []
        self.may_go_on = threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.together.append(list(numbers))
        assert self.may_go_on.wait(20)
        if 13 in numbers:
            raise RuntimeError("all hear of this")
        return [ValueError(str(number)) if number < 0 else 2 * number for number in numbers]


async def ask_all(gatherer: Gatherer[int, int], counter: Counter, numbers: Sequence[int]) -> list[int | BaseException]:
    first = asyncio.create_task(gatherer.ask(0))
    while not counter.together:
        await asyncio.sleep(0.01)
    tasks = [asyncio.create_task(gatherer.ask(number)) for number in numbers]
    await asyncio.sleep(0.05)
    counter.may_go_on.set()
    assert await first == 0
    return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def gatherer(counter: Counter) -> Gatherer[int, int]:
    return Gatherer(counter, name="test")


def test_what_waits_is_answered_together_in_order(gatherer: Gatherer[int, int], counter: Counter) -> None:
    numbers = list(range(1, MOST + 11))
    assert asyncio.run(ask_all(gatherer, counter, [n + 13 for n in numbers])) == [2 * (n + 13) for n in numbers]
    assert [len(one) for one in counter.together] == [1, MOST, 10]
    gatherer.close()


def test_an_exception_is_for_whoever_asked(gatherer: Gatherer[int, int], counter: Counter) -> None:
    first, second = asyncio.run(ask_all(gatherer, counter, [-1, 2]))
    assert isinstance(first, ValueError)
    assert second == 4
    gatherer.close()


def test_what_is_raised_all_hear(gatherer: Gatherer[int, int], counter: Counter) -> None:
    assert [type(one) for one in asyncio.run(ask_all(gatherer, counter, [13, 1]))] == [RuntimeError] * 2
    gatherer.close()


def test_it_answers_what_was_asked_before_it_stops(gatherer: Gatherer[int, int], counter: Counter) -> None:
    async def ask_and_close() -> list[int]:
        tasks = [asyncio.create_task(gatherer.ask(number)) for number in (1, 2)]
        await asyncio.sleep(0.05)
        counter.may_go_on.set()
        await asyncio.get_running_loop().run_in_executor(None, gatherer.close)
        return list(await asyncio.gather(*tasks))

    assert asyncio.run(ask_and_close()) == [2, 4]
