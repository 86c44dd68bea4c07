"""WAV and FLAC headers, checked against the bytes that are there."""

from __future__ import annotations

import struct
from typing import BinaryIO


def is_audio(head: bytes) -> bool:
    """Whether these bytes begin a WAV or FLAC file."""
    return head.startswith(b"fLaC") or (head.startswith(b"RIFF") and head[8:12] == b"WAVE")


def check_audio(stream: BinaryIO, size: int) -> None:
    """Raise ValueError that says what is wrong with a recording of so many bytes."""
    head = stream.read(12)
    if not is_audio(head):
        raise ValueError("is neither WAV nor FLAC")
    if head.startswith(b"fLaC"):
        _check_flac(head + stream.read(30))
    else:
        _check_wav(stream, size)


def _check_flac(head: bytes) -> None:
    # the first block is STREAMINFO: 20 bits of sampling rate after 10 bytes of block and frame sizes
    if len(head) < 42 or head[4] & 0x7F != 0 or int.from_bytes(head[18:21], "big") >> 4 == 0:
        raise ValueError("its FLAC header is broken")


def _check_wav(stream: BinaryIO, size: int) -> None:
    place = 12
    has_format = False
    while len(chunk := stream.read(8)) == 8:
        name, length = chunk[:4], struct.unpack("<L", chunk[4:])[0]
        place += 8
        if length > size - place:
            raise ValueError(f"its header claims {length:,} bytes of {name!r:.10}; there are {size - place:,}")
        if name == b"data":
            if not has_format or not length:
                raise ValueError("holds no samples" if has_format else "has no format before its samples")
            return
        content = stream.read(length + length % 2)
        place += len(content)
        if name == b"fmt ":
            has_format = True
            _check_format(content)
    raise ValueError("holds no samples")


def _check_format(content: bytes) -> None:
    if len(content) < 16:
        raise ValueError("its format is cut short")
    _, channels, rate = struct.unpack_from("<HHL", content)
    if not channels or not rate:
        raise ValueError("its format has no channels or no sampling rate")
