"""One thread for all libraries, and the processor's time that something takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def use_one_thread() -> None:
    """Call it before NumPy or PyTorch is imported: they read it only once."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and the CPU seconds of this process that it took."""
    begun = time.process_time()
    found = run()
    return found, time.process_time() - begun
