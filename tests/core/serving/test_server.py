"""What the process that serves does with what goes wrong."""

from __future__ import annotations

import errno
import gc
import socket
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import InvalidRequest
from core.serving import server
from core.serving.opening import LanguageModel, open_model
from core.serving.turns import Turn
from tests.language_models import write_language_model

CIRCLES = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def order(**asked: Any) -> dict[str, Any]:
    return {"type": "generate", "asked": {"max_tokens": 2, "sampling": {"temperature": 0.0}, **asked}}


def test_a_template_that_goes_in_circles_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_language_model(tmp_path)
    model = open_model(tmp_path, device="cpu")
    assert isinstance(model, LanguageModel)
    monkeypatch.setattr(server, "READING_SECONDS", 0.2)
    template, model.tokenizer.chat_template = model.tokenizer.chat_template, CIRCLES
    messages = [{"role": "user", "content": "a"}]
    with pytest.raises(InvalidRequest, match="chat template") as caught:
        next(server.steps_of(order(messages=messages), model))
    assert caught.value.code == "too_demanding"
    monkeypatch.undo()  # a slow machine may need longer for the other
    model.tokenizer.chat_template = template
    said = [message["type"] for step in server.steps_of(order(messages=messages), model) for message in step]
    assert said[0] == "started"


def test_what_was_read_goes_with_the_answers_that_fail(tmp_path: Path) -> None:
    """At once: where memory has run out, nobody may wait until garbage is collected."""
    write_language_model(tmp_path)
    model = open_model(tmp_path, device="cpu")
    assert isinstance(model, LanguageModel)
    options = server.Options(device="cpu", models=1, memory_bytes=2**30, max_unpacked_bytes=0)
    turns = [Turn("project", number, server.steps_of(order(prompt="a b c"), model)) for number in range(2)]
    for turn in turns * 3:  # until both wait for their second token
        next(turn.steps)
    del turn
    caches = [weakref.ref(waiting.cache) for waiting in model.decoder._waiting]
    model.network.lm_head.register_forward_pre_hook(lambda module, args: (_ for _ in ()).throw(MemoryError))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        gc.disable()
        try:
            while turns:
                server.Server(ours, options)._step(turns.pop())
            assert [cache() for cache in caches] == [None, None]
        finally:
            gc.enable()
        assert theirs.recv(2**16).count(b"out_of_memory") == 2


def test_a_disk_that_is_full_is_told_as_such() -> None:
    assert server.told(OSError(errno.ENOSPC, "No space left on device"))["class"] == "StorageFull"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_memory_that_runs_out_is_told_as_such(error: Exception) -> None:
    assert server.told(error)["code"] == "out_of_memory"
    assert server.told(InvalidRequest("a", param="b", code="c")) == {
        "class": "InvalidRequest", "message": "a", "type": "invalid_request_error", "param": "b", "code": "c",
    }  # fmt: skip


def test_memory_that_torch_is_refused_is_told_as_such() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert server.told(caught.value)["code"] == "out_of_memory"
