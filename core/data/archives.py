"""Members of zip and tar archives as streams, checked for everything that a hostile archive may try."""

from __future__ import annotations

import errno
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Self, cast

from core.data.compression import DEFAULT_LIMITS, Limits, open_data, open_seekable
from core.data.problems import Problems
from core.errors import InvalidData, Problem, TooLarge

Container = Literal["zip", "tar"]

_IGNORED = {"__MACOSX", "Thumbs.db", "desktop.ini"}
_MAX_TAR_HEADER_BYTES = 2**20  # the long names that a tar may give beside its fixed headers
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, struct.error, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Member:
    """One file of an archive; it must be read before the next one is asked for."""

    name: str
    size: int
    _opener: Callable[[], BinaryIO]

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The content as a stream; InvalidData tells of damage by the member's name."""
        try:
            with self._opener() as stream:
                yield stream
        except _DAMAGE as error:
            raise InvalidData(Problem(self.name, f"damaged or cut short ({error})")) from error

    def read(self, limit: int) -> bytes:
        """The whole content; raises InvalidData if it is longer than the limit."""
        if self.size > limit:
            raise InvalidData(Problem(self.name, f"{self.size:,} bytes; one member may have {limit:,}"))
        with self.open() as stream:
            content = stream.read(limit + 1)
        if len(content) != self.size:
            raise InvalidData(Problem(self.name, "damaged or cut short"))
        return content

    def read_head(self, length: int) -> bytes:
        """The first bytes."""
        with self.open() as stream:
            return stream.read(length)


def read_members(
    path: Path, container: Container, problems: Problems, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Member]:
    """The archive's files in its own order, hidden ones left out; unsafe ones become problems."""
    try:
        yield from (_zip_members if container == "zip" else _tar_members)(path, problems, limits)
    except _DAMAGE as error:
        raise InvalidData(f"the {container} archive is damaged or cut short ({error})") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise InvalidData("the archive is damaged: its directory points before its beginning") from error


@contextmanager
def open_member(path: Path, container: Container, name: str, limits: Limits = DEFAULT_LIMITS) -> Iterator[BinaryIO]:
    """One member's content as a stream."""
    members = read_members(path, container, Problems(), limits)
    for member in members:
        if member.name == name:
            with member.open() as stream:
                yield stream
            break


def _zip_members(path: Path, problems: Problems, limits: Limits) -> Iterator[Member]:
    with open_seekable(path, limits) as stream:
        _count_zip_entries(stream, limits)
        packed = stream.seek(0, 2)
        with zipfile.ZipFile(stream) as archive:
            limits.check(sum(info.file_size for info in archive.infolist()), packed)
            for info in archive.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                name = _safe_name(info.orig_filename, problems)
                if name is None or info.is_dir() or _is_hidden(name):
                    continue
                if kind not in (0, stat.S_IFREG):
                    problems.add(name, "a link or a device; archives may hold only files and folders")
                elif info.flag_bits & 1:
                    problems.add(name, "encrypted: send the archive without a password")
                elif info.header_offset < 0:
                    problems.add(name, "damaged: the archive's directory points before its beginning")
                else:
                    yield Member(name, info.file_size, _zip_opener(archive, info))


def _zip_opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    return lambda: cast(BinaryIO, archive.open(info))


def _count_zip_entries(stream: BinaryIO, limits: Limits) -> None:
    """Walk the central directory before zipfile holds all of it in memory."""
    end = stream.seek(0, 2)
    tail_start = max(0, end - 2**16 - 22)
    stream.seek(tail_start)
    tail = stream.read()
    place = tail.rfind(b"PK\5\6")
    if place < 0 or len(tail) < place + 22:
        raise zipfile.BadZipFile("its directory is missing")
    (size,) = struct.unpack_from("<L", tail, place + 12)
    start = tail_start + place
    if tail[max(0, place - 20) : place].startswith(b"PK\6\7"):
        start -= 76  # the zip64 records that stand before
        stream.seek(max(0, start))
        record = stream.read(56)
        size = struct.unpack_from("<Q", record, 40)[0] if record.startswith(b"PK\6\6") else size
    stream.seek(max(0, start - size))
    for _ in range(limits.members + 1):
        header = stream.read(46)
        if len(header) < 46 or not header.startswith(b"PK\1\2"):
            return
        stream.seek(sum(struct.unpack_from("<3H", header, 28)), 1)
    raise TooLarge(f"the archive has over {limits.members:,} members: send it in parts", param="file")


class _StrictHeader(tarfile.TarInfo):
    """Refuses what tarfile lets pass: a bad header as the archive's end, and extended headers of any size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("its end is missing")
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not any(buf):
                raise  # zeros, which are the proper end
            raise tarfile.ReadError(str(error)) from error

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if not (self.isfile() or self.isdir()) and self.size > _MAX_TAR_HEADER_BYTES and not self.issym():
            raise tarfile.HeaderError("an extended header is too long")
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]


def _tar_members(path: Path, problems: Problems, limits: Limits) -> Iterator[Member]:
    count = total = 0
    with (
        open_data(path, limits) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictHeader) as archive,
    ):
        for info in archive:
            vars(archive)["members"] = []  # tarfile remembers every member otherwise
            count += 1
            total += info.size
            if count > limits.members:
                raise TooLarge(f"the archive has over {limits.members:,} members: send it in parts", param="file")
            limits.check(total, total)
            name = _safe_name(info.name, problems)
            if name is None or info.isdir() or _is_hidden(name):
                continue
            if not info.isreg() or info.issparse():
                problems.add(name, "a link or a device; archives may hold only files and folders")
            else:
                yield Member(name, info.size, _tar_opener(archive, info))


def _tar_opener(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], BinaryIO]:
    return lambda: cast(BinaryIO, archive.extractfile(info))


def _safe_name(name: str, problems: Problems) -> str | None:
    """The path within the archive, or None, and a problem, where it points out of it."""
    path = name.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\0" in path or (parts and parts[0].endswith(":")):
        problems.add(ascii(name)[1:-1][:200], "a path that leads out of the archive: use paths relative to it")
        return None
    if not _is_utf8(path):
        problems.add(ascii(name)[1:-1][:200], "a name that is not UTF-8")
        return None
    return "/".join(parts)


def _is_utf8(name: str) -> bool:
    # tarfile gives bytes that it cannot decode as surrogates
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part in _IGNORED for part in name.split("/"))
