"""Documents of plain text: one a line, or blocks of lines between blank lines."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from core.data.compression import DEFAULT_LIMITS, Limits, open_data, read_head
from core.data.lines import MAX_LINE_BYTES, read_lines
from core.data.problems import Problems

_LINES_PER_BLOCK = 100


def plain_documents(path: Path, problems: Problems, limits: Limits = DEFAULT_LIMITS) -> Iterator[tuple[str, str]]:
    """Where each document begins, and its text without the space around it."""
    is_blocks = has_blocks(read_head(path, limits))
    with open_data(path, limits) as stream:
        lines = read_lines(stream, problems)
        yield from _blocks(lines, problems) if is_blocks else _single_lines(lines)


def has_blocks(head: bytes) -> bool:
    """Whether blank lines part the documents: there is one between lines of text at least every hundred lines."""
    lines = [bool(line.strip()) for line in head.decode(errors="replace").strip().split("\n")]
    separators = sum(not line and before for before, line in pairwise(lines))
    return separators > 0 and separators * _LINES_PER_BLOCK >= sum(lines)


def _single_lines(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[str, str]]:
    for number, line in lines:
        if text := line.strip():
            yield f"line {number}", text


def _blocks(lines: Iterator[tuple[int, str]], problems: Problems) -> Iterator[tuple[str, str]]:
    block: list[str] = []
    start = size = 0
    for number, line in lines:
        if line and not line.isspace():
            start = start if block else number
            size += len(line)
            if size <= MAX_LINE_BYTES:
                block.append(line)
            elif block[-1:] != [""]:
                problems.add(f"line {start}", f"this document is longer than {MAX_LINE_BYTES // 2**20} MiB")
                block.append("")
        elif block:
            yield f"line {start}", "\n".join(block).strip()
            block, size = [], 0
    if block:
        yield f"line {start}", "\n".join(block).strip()
