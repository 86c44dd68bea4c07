"""Orders that were given to the process that tries models out, and what it answers to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.errors import InvalidData, InvalidRequest, NotFound, StorageFull, Unavailable, WeightworksError

MOST_UNREAD = 2**14  # messages, most of them of a token
ERRORS = {error.__name__: error for error in (InvalidRequest, InvalidData, NotFound, Unavailable, StorageFull)}

Message = dict[str, Any]


class Exchange:
    """What the process answers to orders that were given together: messages, each with the `order` that it answers.

    `forget` and `cancel`: what is told of orders, by their numbers, that are done, or that nobody waits for.
    """

    def __init__(
        self,
        project_id: str,
        numbers: Sequence[int],
        *,
        forget: Callable[[Sequence[int]], None],
        cancel: Callable[[Sequence[int]], None],
    ) -> None:
        self.project_id = project_id
        self._forget = forget
        self._cancel = cancel
        self._orders = {number: order for order, number in enumerate(numbers)}
        self._open = set(numbers)
        self._messages: asyncio.Queue[Message | WeightworksError] = asyncio.Queue()

    async def next(self) -> Message | None:
        """The next message; None once all orders are done. Raises what went wrong, after which all are cancelled."""
        while self._open:
            message = await self._messages.get()
            if isinstance(message, WeightworksError):
                raise message
            if message["type"] == "error":
                raise _raised(message["error"])
            if message["type"] != "done":
                return {**message, "order": self._orders[message["id"]]}
            self._open.discard(message["id"])
            self._forget([message["id"]])
        return None

    def put(self, message: Message | WeightworksError) -> None:
        """Take what the process said; of what nobody reads no more than so much, and then the answer is left."""
        if self._messages.qsize() >= MOST_UNREAD and not isinstance(message, WeightworksError):
            self._cancel(sorted(self._open))
            self._messages = asyncio.Queue()
            message = Unavailable("what was written before is not read: read faster, or ask for less", code="not_read")
        self._messages.put_nowait(message)

    def close(self) -> None:
        """Cancel what is not done; the process goes on with others."""
        self._cancel(sorted(self._open))
        self._open = set()


def _raised(told: Mapping[str, Any]) -> WeightworksError:
    kind = ERRORS.get(told["class"], WeightworksError)
    return kind(told["message"], param=told["param"], code=told["code"])
