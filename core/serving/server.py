"""Serves orders: a step for each project in turn, so that none holds another up, while models are opened."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from core.data.model_archive import unpack_model_archive
from core.errors import InvalidData, InvalidRequest, Unavailable, WeightworksError
from core.memory import is_out_of_memory
from core.serving import LINE_BYTES
from core.serving.embedding import embed
from core.serving.generation import Asked, Message, generate
from core.serving.opening import Opened, language_model, open_model
from core.serving.shelf import Shelf
from core.serving.sizes import loading_bytes
from core.serving.turns import Turn, Turns
from core.storage import refusal_of

READING_SECONDS = 20.0  # of the CPU, which a prompt may take to become tokens
ENDING_SECONDS = 60.0  # of the CPU, after which the process ends: a tokenizer that is not Python hears no signal


@dataclass(frozen=True)
class Options:
    """How this process serves."""

    device: str
    models: int
    memory_bytes: int
    max_unpacked_bytes: int


class Server:
    """Takes messages from a socket, a JSON object a line, and answers there.

    It is sent `generate` and `embed` orders with an `id`, a `model` and whose `project` it is; `cancel` with an id;
    `placed` or `failed` with a model that it `wanted`. It answers what the order's steps say, and in the end `done` or
    an `error`; and `closed` once it needs a model's folder no longer.
    """

    def __init__(self, connection: socket.socket, options: Options) -> None:
        self._connection = connection
        self._options = options
        self._shelf = Shelf(count=options.models, memory_bytes=options.memory_bytes)
        self._news: SimpleQueue[Message] = SimpleQueue()
        self._placed: SimpleQueue[Message] = SimpleQueue()
        self._waiting: dict[str, list[Message]] = {}  # orders by the model that is on its way
        self._turns = Turns()

    def run(self) -> None:
        """Until the process ends with the other end of the socket."""
        threading.Thread(target=self._listen, daemon=True, name="listener").start()
        threading.Thread(target=self._open_placed, daemon=True, name="opener").start()
        while True:
            self._hear()
            if self._turns:
                self._step(self._turns.take())

    def _listen(self) -> None:
        with self._connection.makefile("rb") as lines:
            for line in lines:
                self._news.put(json.loads(line))
        os._exit(0)

    def _open_placed(self) -> None:
        while True:
            self._news.put(self._opened(self._placed.get()))

    def _opened(self, order: Message) -> Message:
        found: Message = {"type": "opened", "model": order["model"]}
        try:
            model = self._open(order)
            self._shelf.put(order["model"], model)  # at once: the next one that is opened is to find it there
            return {**found, "opened": model}
        except BaseException as error:  # what libraries raise for what strangers wrote has no end
            return {**found, "error": told(_of_opening(error))}

    def _open(self, order: Message) -> Opened:
        folder = _folder(order["place"], max_unpacked_bytes=self._options.max_unpacked_bytes)
        self._shelf.make_room(loading_bytes(folder))
        return open_model(folder, device=self._options.device)

    def _hear(self) -> None:
        """Take what has come; waits for something if there is nothing to do."""
        try:
            message = self._news.get(block=not self._turns)
            while True:
                self._take(message)
                message = self._news.get_nowait()
        except Empty:
            return

    def _take(self, message: Message) -> None:
        kind = message["type"]
        if kind == "cancel":
            self._cancel(message["id"])
        elif kind == "placed":
            self._placed.put(message)
        elif kind in ("opened", "failed"):
            self._begin_waiting(message)
        elif (model := self._shelf.get(message["model"])) is not None:
            self._begin(message, model)
        else:
            if message["model"] not in self._waiting:
                self._say({"type": "wanted", "model": message["model"]})
            self._waiting.setdefault(message["model"], []).append(message)

    def _begin_waiting(self, message: Message) -> None:
        key, opened = message["model"], message.get("opened")
        self._say({"type": "closed", "model": key})
        for order in self._waiting.pop(key, []):
            if opened is not None:
                self._begin(order, opened)
            else:
                self._say({"type": "error", "id": order["id"], "error": message["error"]})

    def _begin(self, order: Message, model: Opened) -> None:
        self._turns.put(Turn(order["project"], order["id"], steps_of(order, model)))

    def _cancel(self, number: int) -> None:
        self._turns.drop(number)
        for orders in self._waiting.values():
            orders[:] = [order for order in orders if order["id"] != number]

    def _step(self, turn: Turn) -> None:
        try:
            for message in next(turn.steps):
                self._say({**message, "id": turn.number})
        except StopIteration:
            self._say({"type": "done", "id": turn.number})
        except BaseException as error:  # a library that is written in Rust panics with one that is no Exception
            self._say({"type": "error", "id": turn.number, "error": told(error)})
            traceback.clear_frames(error.__traceback__)  # they hold what was read, and `Next` holds the error
        else:
            self._turns.put(turn)

    def _say(self, message: Mapping[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        if len(line) > LINE_BYTES:
            raise InvalidRequest("a part of this answer is too long to be told: ask another model", code="too_large")
        self._connection.sendall(line)


def _folder(place: Mapping[str, Any], *, max_unpacked_bytes: int) -> Path:
    """The model's folder, made of what was placed; raises InvalidData or CheckpointDamaged."""
    if "checkpoint" not in place:
        folder = Path(place["path"])
        if "archive" in place:
            unpack_model_archive(Path(place["archive"]), folder, max_unpacked_bytes=max_unpacked_bytes)
        return folder
    from core.restoring import unpack_input  # with it come all methods: few ask for checkpoints

    return unpack_input(place, max_unpacked_bytes=max_unpacked_bytes)


def steps_of(order: Mapping[str, Any], model: Opened) -> Iterator[list[Message]]:
    """The steps of an order; raises its errors at the first, in which the prompt becomes tokens.

    A chat template comes with a model, from anyone, and may go in circles: it is stopped.
    """
    if order["type"] == "embed":
        steps = embed(model, order["inputs"], dimensions=order["dimensions"])
    else:
        steps = generate(language_model(model), Asked.read(order["asked"]))
    with limited(READING_SECONDS):
        first = next(steps)
    yield first
    yield from steps


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise InvalidRequest in this block once the process has computed for so long; for the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise InvalidRequest(
            f"turning this into tokens takes more than {seconds:g} seconds: shorten it, or mend the model's chat "
            "template",
            code="too_demanding",
        )

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    signal.setitimer(signal.ITIMER_PROF, ENDING_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def told(error: BaseException) -> dict[str, Any]:
    """An error as the API raises it again; what nobody foresaw is printed."""
    if is_out_of_memory(error):
        error = Unavailable(
            "the process that tries models out has too little memory for this now: ask for less at once, or let the "
            "server have a larger WEIGHTWORKS_SERVING_MEMORY_BYTES",
            code="out_of_memory",
        )
    elif not isinstance(error, WeightworksError):
        error = refusal_of(error) or _unforeseen(error)
    return {"class": type(error).__name__, **error.as_dict()}


def _of_opening(error: BaseException) -> BaseException:
    if isinstance(error, WeightworksError) or is_out_of_memory(error) or refusal_of(error) is not None:
        return error
    traceback.print_exception(error)
    return InvalidData(f"the model cannot be opened: {type(error).__name__}: {error!s:.300}", param="model")


def _unforeseen(error: BaseException) -> WeightworksError:
    traceback.print_exception(error)
    if not isinstance(error, Exception):
        return InvalidData(f"the model's tokenizer cannot read this: {error!s:.300}", param="model")
    return WeightworksError("the server failed at this; its log says more")
