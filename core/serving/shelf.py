"""The models that are open, the one used longest ago first to go."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from dataclasses import dataclass

from core.errors import InvalidRequest
from core.networks.word_vectors import WordVectors
from core.serving.opening import Opened

KEPT_FREE = 4  # one part in so many is left for what is written


@dataclass(frozen=True)
class Kept:
    """An open model, and the bytes of its weights."""

    model: Opened
    bytes: int

    @classmethod
    def of(cls, model: Opened) -> Kept:
        """With its size."""
        network = model if isinstance(model, WordVectors) else model.network
        tensors = {tensor.data_ptr(): tensor for tensor in (*network.parameters(), *network.buffers())}
        return cls(model, sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()))


class Shelf:
    """At most `count` open models, whose weights leave a quarter of `memory_bytes` free."""

    def __init__(self, *, count: int, memory_bytes: int) -> None:
        self._count = count
        self._budget = memory_bytes - memory_bytes // KEPT_FREE
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Opened | None:
        """The open model of this key, which is now the last used."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key].model

    def make_room(self, needed: int) -> None:
        """Let models go until one more of so many bytes fits; raises InvalidRequest where it cannot."""
        if needed > self._budget:
            raise InvalidRequest(
                f"opening this model takes about {needed // 2**20:,} MiB, and models that are tried out may take "
                f"{self._budget // 2**20:,}: let the server have a larger WEIGHTWORKS_SERVING_MEMORY_BYTES",
                param="model",
                code="model_too_large",
            )
        with self._lock:
            while self._kept and (
                len(self._kept) >= self._count or sum(one.bytes for one in self._kept.values()) + needed > self._budget
            ):
                self._kept.popitem(last=False)
        gc.collect()

    def put(self, key: str, model: Opened) -> None:
        """Keep an open model."""
        with self._lock:
            self._kept[key] = Kept.of(model)
