"""When memory runs out, whoever tells of it: CUDA's allocator, torch's on the CPU, C++, or Python."""

from __future__ import annotations

import torch

# What torch says in a plain RuntimeError, where the CPU has none left.
WORDS = ("DefaultCPUAllocator: can't allocate memory", "bad_alloc", "Cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error says that there is no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)
