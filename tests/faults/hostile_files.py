"""Files as an attacker would make them: each is refused, with words that name the place."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import wave
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

MIB = 2**20


class Evil:
    """Runs a command in whatever unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("/tmp/weightworks-was-here", "w")


def as_zip(members: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            archive.writestr(name, value)
    return content.getvalue()


def as_tar(members: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(value)
            archive.addfile(info, io.BytesIO(value))
    return content.getvalue()


def image(size: tuple[int, int] = (6, 4), kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.new("L", size).save(content, kind)
    return content.getvalue()


def recording() -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    return content.getvalue()


def tar_of(*infos: tarfile.TarInfo) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return content.getvalue()


def tar_link(kind: bytes) -> bytes:
    link = tarfile.TarInfo("b.png")
    link.type, link.linkname = kind, "/etc/passwd"
    return tar_of(link)


def zip_link() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        link = zipfile.ZipInfo("b.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return content.getvalue()


def encrypted() -> bytes:
    content = bytearray(as_zip({"a.png": image()}))
    for magic, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.find(magic) + offset] |= 1
    return bytes(content)


def zip_of_many(count: int, *, size: int = 0) -> bytes:
    """So many entries in the directory, all of one member."""
    member = as_zip({"0000000": bytes(size)})
    start = member.find(b"PK\1\2")
    local, entry = member[:start], bytearray(member[start : start + 46])
    directory = bytearray()
    for index in range(count):
        directory += entry + b"%07d" % index
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), len(local))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(local) + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return local + bytes(directory) + end64 + locator + end


def tar_of_many(count: int) -> bytes:
    """So many empty members, packed."""
    packer = zlib.compressobj(1, wbits=31)
    head = tarfile.TarInfo("a").tobuf()
    return packer.compress(head * count) + packer.compress(bytes(1024)) + packer.flush()


def tar_of_long_names(count: int) -> bytes:
    """Long-name headers, each of which is for the next."""
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 512
    return (head.tobuf(tarfile.GNU_FORMAT) + b"n" * 512) * count + bytes(1024)


def bomb(packed: Callable[[bytes], bytes]) -> bytes:
    return packed(bytes(70 * MIB))


def npy(values: Any, **options: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, values, **options)
    return content.getvalue()


def npy_with_header(header: bytes, version: bytes = b"\2\0") -> bytes:
    length = struct.pack("<L" if version == b"\2\0" else "<H", len(header))
    return b"\x93NUMPY" + version + length + header + bytes(64)


def npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def torch_file() -> bytes:
    content = io.BytesIO()
    torch.save({"x": torch.ones(3)}, content)
    return content.getvalue()


def safetensors_file(header: Any, values: bytes = bytes(16), *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + values


def tensor(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">2L5B", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def png_text_bomb() -> bytes:
    """A comment that unpacks to far more than the picture."""
    content = image()
    text = b"k\0\0" + zlib.compress(bytes(60 * MIB), 9)
    chunk = struct.pack(">L", len(text)) + b"zTXt" + text + struct.pack(">L", zlib.crc32(b"zTXt" + text))
    return content[:33] + chunk + content[33:]


def wav_claiming(length: int) -> bytes:
    content = bytearray(recording())
    struct.pack_into("<L", content, 40, length)
    return bytes(content)


def parquet(table: Any, **options: Any) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content, **options)
    return content.getvalue()


def parquet_of_one_long_text(rows: int) -> bytes:
    """A text that is stored once and meant a great many times."""
    text = "word " * (4 * MIB)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
    return parquet(pa.table({"text": column}), compression="zstd", store_schema=False)


def parquet_of_shared_beginnings(rows: int) -> bytes:
    """Texts that each begin as the one before and go on by a letter."""
    text = "word " * (MIB // 2)
    column = pa.array([text + chr(97 + row % 26) for row in range(rows)])
    return parquet(
        pa.table({"text": column}),
        compression="zstd",
        use_dictionary=False,
        column_encoding={"text": "DELTA_BYTE_ARRAY"},
        store_schema=False,
    )


def idx(*lengths: int) -> bytes:
    return b"\0\0\x08" + bytes([len(lengths)]) + struct.pack(f">{len(lengths)}L", *lengths) + bytes(100)


def long_line(length: int) -> Iterator[bytes]:
    yield b'{"text": "'
    for _ in range(length // MIB):
        yield b"abcdefgh" * (MIB // 8)
    yield b'"}\n'
