"""Whose turn is next."""

from __future__ import annotations

import threading

import pytest

from api.turns import Turns


class StoppedError(Exception):
    """Whoever waits is told to leave."""


def refuse() -> None:
    raise StoppedError


def test_the_next_turn_is_for_the_project_that_has_the_fewest() -> None:
    turns, order = Turns(2), []
    names = ("a1", "a2", "a3", "a4", "b1")
    waits, begun, done = ({name: threading.Event() for name in names} for _ in range(3))

    def take(name: str) -> None:
        with turns.turn(name[0], check=waits[name].set):
            order.append(name)
            begun[name].set()
            assert done[name].wait(60)

    threads = [threading.Thread(target=take, args=(name,)) for name in names]
    for thread, name in zip(threads, names, strict=True):
        thread.start()
        assert (begun if name in ("a1", "a2") else waits)[name].wait(60)
    for over, then in (("a1", "b1"), ("b1", "a3"), ("a2", "a4")):
        done[over].set()
        assert begun[then].wait(60)
    assert order == ["a1", "a2", "b1", "a3", "a4"]
    for one in done.values():
        one.set()
    for thread in threads:
        thread.join(60)


def test_who_leaves_while_waiting_takes_nobodys_turn() -> None:
    turns = Turns(1)
    with turns.turn("a", check=refuse), pytest.raises(StoppedError), turns.turn("b", check=refuse):
        pass
    with turns.turn("c", check=refuse):
        pass
