"""What many requests ask at once, answered together by one thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

MOST = 64  # questions that are answered together: whoever came first waits for all of them

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Gatherer(Generic[Question, Answer]):
    """One thread; all that is asked while it answers, it answers together next, in the order in which it came.

    `answer`: takes the questions, and gives for each its answer, or the exception for whoever asked. What it raises,
    all of them hear.
    """

    def __init__(self, answer: Callable[[Sequence[Question]], Sequence[Answer | Exception]], *, name: str) -> None:
        self._answer = answer
        self._asked: SimpleQueue[tuple[Question, asyncio.Future[Answer]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def ask(self, question: Question) -> Answer:
        """The answer; a question that was asked is answered, though nobody may wait for it any more."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked.put((question, future))
        return await future

    def close(self) -> None:
        """Answer what was asked, then stop."""
        self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._asked.get()) is not None:
            asked = [first]
            while len(asked) < MOST and not self._asked.empty():
                if (one := self._asked.get()) is None:
                    self._asked.put(None)
                    break
                asked.append(one)
            self._answer_all(asked)

    def _answer_all(self, asked: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        answers: Sequence[Answer | Exception]
        try:
            answers = self._answer([question for question, _ in asked])
        except Exception as error:
            answers = [error] * len(asked)
        futures = [future for _, future in asked]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            futures[0].get_loop().call_soon_threadsafe(_deliver, futures, answers)


def _deliver(futures: Sequence[asyncio.Future[Any]], answers: Sequence[Any]) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if future.done():  # whoever asked has gone
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
