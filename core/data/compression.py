"""Files as streams of plain bytes: gzip and zstd are undone on the way, within limits."""

from __future__ import annotations

import gzip
import io
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from core.errors import InvalidData, TooLarge

BUFFER_BYTES = 2**20
HEAD_BYTES = 2**20  # what recognition looks at


@dataclass(frozen=True)
class Limits:
    """How far a file may unfold: bytes and members in all, and bytes unpacked for each packed one."""

    unpacked_bytes: int = 64 * 2**30
    members: int = 1_000_000
    ratio: int = 200
    ratio_free_bytes: int = 64 * 2**20  # a small file may unpack at any ratio

    def check(self, unpacked: int, packed: int) -> None:
        """Raise TooLarge when so many bytes came, or would come, out of so few."""
        if unpacked > self.unpacked_bytes:
            raise TooLarge(f"it unpacks to over {self.unpacked_bytes:,} bytes: send it in parts", param="file")
        if unpacked > self.ratio_free_bytes and unpacked > self.ratio * packed:
            raise TooLarge(
                f"it unpacks to over {self.ratio} times its size, as archive bombs do: send it less compressed",
                param="file",
            )


DEFAULT_LIMITS = Limits()


def compression_of(head: bytes) -> str | None:
    """The compression that a file's first bytes show: gzip, zstd or none."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    return None


def open_data(path: Path, limits: Limits = DEFAULT_LIMITS) -> BinaryIO:
    """The file's plain bytes as a stream, read once from the beginning; raises InvalidData where they are damaged."""
    packed = path.open("rb")
    compression = compression_of(packed.read(4))
    packed.seek(0)
    if compression is None:
        return packed
    unpacked = cast(io.RawIOBase, _Unpacked(packed, compression, limits))
    return io.BufferedReader(unpacked, BUFFER_BYTES)


def open_seekable(path: Path, limits: Limits = DEFAULT_LIMITS) -> BinaryIO:
    """The file's plain bytes with seek; a compressed one is unpacked into a nameless temporary file."""
    stream = open_data(path, limits)
    if not isinstance(getattr(stream, "raw", None), _Unpacked):
        return stream
    with stream:
        plain = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115  the caller closes it
        shutil.copyfileobj(stream, plain, BUFFER_BYTES)
    plain.seek(0)
    return plain


def read_head(path: Path, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The first plain bytes, enough to recognise the file by."""
    with open_data(path, limits) as stream:
        return stream.read(HEAD_BYTES)


class _Unpacked(io.RawIOBase):
    """Undoes one compression and counts what comes out against the limits."""

    def __init__(self, packed: BinaryIO, compression: str, limits: Limits) -> None:
        self._packed = packed
        self._compression = compression
        self._limits = limits
        self._count = 0
        self._stream = _unpack(packed, compression)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        # Arrow reports every kind of damage as OSError, and so does gzip
        try:
            data = self._stream.read(len(view))
        except (OSError, EOFError, zlib.error) as error:
            raise InvalidData(f"the {self._compression} stream is damaged or cut short: {error}") from error
        view[: len(data)] = data
        self._count += len(data)
        self._limits.check(self._count, self._packed.tell())
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._packed.close()
        super().close()


def _unpack(packed: BinaryIO, compression: str) -> BinaryIO:
    if compression == "gzip":
        return cast(BinaryIO, gzip.GzipFile(fileobj=packed))
    # the zstandard package takes a truncated stream for a finished one; Arrow refuses it
    return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd"))
