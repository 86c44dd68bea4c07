"""Whose step is next: projects take turns, and so do the answers of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple


class Turn(NamedTuple):
    """An answer that is being written for a project; each of its `steps` says something, or nothing."""

    project: str
    number: int
    steps: Iterator[list[dict[str, Any]]]


class Turns:
    """The answers that wait for their next step; whose step was made is put behind the others again."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Turn]] = {}  # by project, the next one first; none is empty

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, turn: Turn) -> None:
        """Put an answer behind the others of its project, and a project that had none behind the others."""
        self._waiting.setdefault(turn.project, deque()).append(turn)

    def take(self) -> Turn:
        """The next one; its project's others come behind all other projects."""
        project = next(iter(self._waiting))
        turns = self._waiting.pop(project)
        turn = turns.popleft()
        if turns:
            self._waiting[project] = turns
        return turn

    def drop(self, number: int) -> None:
        """Forget an answer."""
        for project, turns in self._waiting.items():
            for turn in turns:
                if turn.number == number:
                    turns.remove(turn)
                    if not turns:
                        del self._waiting[project]
                    return
