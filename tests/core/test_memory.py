"""Real allocations that fail on the CPU are known for what they are, and end in smaller parts of the same batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.memory import is_out_of_memory

# One part of 8 examples takes 400 MB, and there are 300: two halves it is.
CODE = """
import torch
from torch import nn
from core.processes import limit_memory
from core.spec import TrainingSpec
from core.training.learning import Learning
from core.training.run import Run
from tests.core.contract import Recorder
from pathlib import Path
import sys

spec = TrainingSpec(method="test", dataset="file-x")
run = Run(spec, {}, Path(sys.argv[1]), Recorder())
learning = Learning(nn.Linear(1, 1), spec, run, total=1)
limit_memory(300 << 20)
loss = learning.descend(torch.ones(8, 1), lambda part: (
    learning.network(part).sum() + 0 * torch.zeros(len(part), 50 << 18).sum()
))
print(learning.accumulate, *run.reporter.messages)
"""


def test_a_batch_is_cut_where_a_real_allocation_fails(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert done.stdout.startswith("2 "), done.stderr
    assert "cut into 2 parts" in done.stdout
    assert "8 examples" in done.stdout


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("Cannot allocate memory"), False),
    ],
)
def test_what_tells_of_memory(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one


def test_what_torch_says_on_the_cpu_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
