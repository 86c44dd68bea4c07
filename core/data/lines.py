"""Lines of UTF-8 text from a stream, checked and numbered, fast where nothing is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from core.data.problems import Problems

MAX_LINE_BYTES = 64 * 2**20
_BLOCK_BYTES = 2**20


def read_lines(stream: BinaryIO, problems: Problems) -> Iterator[tuple[int, str]]:
    """Each line's number, from 1, and its text without the line's end; a line that is no text becomes a problem."""
    number = 1
    for block in _whole_lines(stream):
        if block is None:
            problems.add(f"line {number}", f"longer than {MAX_LINE_BYTES // 2**20} MiB")
            number += 1
            continue
        text = _decoded(block)
        if text is not None:
            lines = text.split("\n")
            yield from enumerate(lines, number)
            number += len(lines)
            continue
        for line in block.split(b"\n"):
            if (good := _checked(line, f"line {number}", problems)) is not None:
                yield number, good
            number += 1


def _whole_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Blocks that begin and end with whole lines, the last newline left out; None for a line that is too long."""
    carry: list[bytes] = []
    carried = 0
    skipping = False
    first = True
    while chunk := stream.read(_BLOCK_BYTES):
        if first:
            chunk, first = chunk.removeprefix(b"\xef\xbb\xbf"), False
        head, newline, tail = chunk.rpartition(b"\n")
        if not newline:
            if not skipping:
                carry.append(tail)
                carried += len(tail)
        else:
            if skipping:
                skipping, rest = False, head.partition(b"\n")
                if rest[1]:
                    yield rest[2]
            else:
                yield b"".join([*carry, head])
            carry, carried = [tail], len(tail)
        if carried > MAX_LINE_BYTES:
            carry, carried, skipping = [], 0, True
            yield None
    if carried:
        yield b"".join(carry)


def _decoded(block: bytes) -> str | None:
    if b"\0" in block:
        return None
    try:
        text = block.decode()
    except UnicodeDecodeError:
        return None
    return text.replace("\r\n", "\n").removesuffix("\r") if "\r" in text else text


def _checked(line: bytes, where: str, problems: Problems) -> str | None:
    if b"\0" in line:
        problems.add(where, "holds a nul byte: send plain UTF-8 text")
        return None
    try:
        return line.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        problems.add(where, f"byte {error.start + 1} is not UTF-8: save the file as UTF-8")
        return None
