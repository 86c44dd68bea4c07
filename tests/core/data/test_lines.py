from __future__ import annotations

import io
import random

import pytest

from core.data import lines
from core.data.problems import Problems


@pytest.mark.parametrize("seed", range(20))
def test_lines_in_blocks_equal_plain_splitting(seed, monkeypatch):
    monkeypatch.setattr(lines, "_BLOCK_BYTES", 7)
    chosen = random.Random(seed)
    text = "".join(chosen.choice(["a", "é", "\n", "\r\n", "bcd", " ", "\u2028"]) for _ in range(60))
    expected = text.replace("\r\n", "\n").split("\n")
    problems = Problems()
    found = [line for _, line in lines.read_lines(io.BytesIO(text.encode()), problems)]
    assert found == (expected[:-1] if not expected[-1] else expected)


@pytest.mark.parametrize("block", [3, 8, 64, 1024])
def test_lines_that_are_too_long_are_skipped_and_counted(block, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 20)
    monkeypatch.setattr(lines, "_BLOCK_BYTES", block)
    problems = Problems()
    content = b"one\n" + b"x" * 100 + b"\nthree\n" + b"y" * 50
    found = list(lines.read_lines(io.BytesIO(content), problems))
    assert [(number, line) for number, line in found if len(line) < 20] == [(1, "one"), (3, "three")]
    assert bool(problems)
