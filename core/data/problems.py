"""Gathers what is wrong with a data set, up to the first hundred problems."""

from __future__ import annotations

from collections.abc import Iterable

from core.errors import MAX_PROBLEMS, InvalidData, Problem


class Problems:
    """What was found wrong so far; raises InvalidData by itself when a hundred problems are told."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, where: str, what: str) -> None:
        """Remember one problem; the hundredth ends the reading."""
        self._found.append(Problem(where, what))
        if len(self._found) >= MAX_PROBLEMS:
            self.check()

    def extend(self, problems: Iterable[Problem]) -> None:
        """Remember the problems that another reader raised."""
        for problem in problems:
            self.add(problem.where, problem.what)

    def check(self) -> None:
        """Raise InvalidData if anything was found."""
        if self._found:
            raise InvalidData(self._found)


def shown(value: object, length: int = 40) -> str:
    """A value as it may stand in a message: short, and on one line."""
    text = repr(value[: length + 1] if isinstance(value, str) else value)
    return text if len(text) <= length + 2 else text[:length] + "...'"
