"""Whose step is next."""

from __future__ import annotations

from core.serving.turns import Turn, Turns


def filled() -> Turns:
    """Three answers of a project, one of another."""
    turns = Turns()
    for number, project in enumerate("aaab"):
        turns.put(Turn(project, number, iter(())))
    return turns


def taken(turns: Turns, count: int) -> list[int]:
    """The numbers of the next ones, each put back."""
    found = []
    for _ in range(count):
        turn = turns.take()
        turns.put(turn)
        found.append(turn.number)
    return found


def test_projects_take_turns_and_so_do_their_answers() -> None:
    assert taken(filled(), 8) == [0, 3, 1, 3, 2, 3, 0, 3]


def test_what_is_dropped_has_no_turn() -> None:
    turns = filled()
    turns.drop(3)
    turns.drop(1)
    turns.drop(99)
    assert taken(turns, 4) == [0, 2, 0, 2]
    turns.drop(0)
    turns.drop(2)
    assert not turns
