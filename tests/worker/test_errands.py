"""Errands are done in order beside their sender, who hears how each went."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from worker.errands import Errands


@pytest.fixture
def errands() -> Iterator[Errands]:
    errands = Errands()
    yield errands
    errands.close()


def heard(errands: Errands) -> None:
    while not errands.are_done:
        assert select.select([errands], [], [], 10)[0], "nothing is done"
        errands.finish()


def test_they_are_done_in_order_elsewhere_and_heard_of_here(errands: Errands) -> None:
    done: list[tuple[int, str, str]] = []

    def act(number: int) -> tuple[int, str]:
        return number, threading.current_thread().name

    for number in range(5):
        errands.send(lambda number=number: act(number), then=lambda answer: done.append((*answer(), "heard")))
    heard(errands)
    assert [number for number, _, _ in done] == list(range(5))
    assert {name for _, name, _ in done} == {"errands"}
    assert not select.select([errands], [], [], 0)[0]


def test_what_goes_wrong_is_raised_where_it_is_heard_of(errands: Errands) -> None:
    raised: list[BaseException] = []

    def note(answer: Any) -> None:
        try:
            answer()
        except OSError as error:
            raised.append(error)

    def fail() -> None:
        raise OSError(28, "No space left on device")

    errands.send(fail, then=note)
    errands.send(lambda: 1, then=lambda answer: raised.append(ValueError(answer())))
    heard(errands)
    assert [type(error) for error in raised] == [OSError, ValueError]


def test_whoever_leaves_waits_for_nothing_and_hears_nothing() -> None:
    errands, go, told = Errands(), threading.Event(), []
    begun, ended = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go.wait(60)
        ended.set()

    errands.send(slow, then=lambda answer: told.append("slow"))
    errands.send(lambda: told.append("begun after the end"), then=lambda answer: told.append("second"))
    assert begun.wait(60)
    errands.close()
    go.set()
    assert ended.wait(60)
    for thread in threading.enumerate():
        if thread.name == "errands":
            thread.join(10)
    assert told == []
