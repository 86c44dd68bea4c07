"""What a file is, from its first bytes; its name says nothing."""

from __future__ import annotations

import json
import pickletools
import re
import struct
import tarfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from core.data.archives import Container, Member, read_members
from core.data.arrays import is_idx
from core.data.audio import is_audio
from core.data.compression import DEFAULT_LIMITS, HEAD_BYTES, Limits, compression_of, read_head
from core.data.conll import conll_format
from core.data.delimited import Dialect, sniff
from core.data.problems import Problems
from core.errors import InvalidData, Problem

KNOWN = (
    "plain text, JSON Lines, CSV, TSV, Parquet, CoNLL, NumPy .npy or .npz, safetensors, IDX, "
    "or a zip or tar of images or recordings; gzip or zstd around it"
)
_PICKLE = "a pickle, which can run code and is never loaded: save it as CSV, Parquet, .npz or safetensors"
_MODEL = "a model, not data: upload it with the purpose base-model"
_IMAGES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
_OTHERS = {
    b"BZh": "compressed with bzip2: use gzip or zstd",
    b"\xfd7zXZ\0": "compressed with xz: use gzip or zstd",
    b"7z\xbc\xaf": "a 7z archive: use zip or tar",
    b"Rar!": "a RAR archive: use zip or tar",
    b"%PDF": "a PDF: send its text",
    b"\x89HDF": "HDF5: save the arrays as .npz or safetensors",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"GGUF": _MODEL,
}
_MEMBERS_TRIED = 100
_HEAD = 512


@dataclass(frozen=True)
class Found:
    """A format, the archive around it, and how its fields are told apart."""

    format: str
    container: Container | None = None
    dialect: Dialect | None = None


def recognise(path: Path, limits: Limits = DEFAULT_LIMITS) -> Found:
    """The file's format; raises InvalidData for what is empty, unknown, or a pickle."""
    head = read_head(path, limits)
    if not head.strip():
        raise InvalidData("the file is empty")
    if compression_of(head):
        raise InvalidData("compressed twice: compress it once")
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return _in_archive(path, "zip", limits)
    if is_tar(head):
        return _in_archive(path, "tar", limits)
    return _binary(head) or _text(head)


def is_tar(head: bytes) -> bool:
    """Whether a tar archive begins here; the oldest kind has nothing but a checksum to know it by."""
    try:
        return tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape").name != ""
    except tarfile.HeaderError:
        return False


def is_pickle(head: bytes, *, is_whole: bool = False) -> bool:
    """Whether a pickle begins here, in any protocol, or the older container of PyTorch, which is a pickle too."""
    if re.match(rb"\x80[\x02-\x05]", head):
        return True
    if head[:1] not in b"(c]})" or not head:
        return False
    count = 0
    try:
        for opcode, _, place in pickletools.genops(head):
            count += 1
            if opcode.name == "STOP":
                return count > 2 and is_whole and not head[(place or 0) + 1 :].strip()
            if count > 200:
                return True
    except (ValueError, IndexError, KeyError, UnicodeError, struct.error, EOFError):
        return False
    return False


def _binary(head: bytes) -> Found | None:
    if is_pickle(head, is_whole=len(head) < HEAD_BYTES):
        raise InvalidData(_PICKLE)
    if head.startswith(b"PAR1"):
        return Found("parquet")
    if head.startswith(b"\x93NUMPY"):
        return Found("npy")
    if is_idx(head):
        return Found("idx")
    if head[8:9] == b"{" and (length := struct.unpack("<Q", head[:8])[0]) < 2**40 and b"\0" in head[:8]:
        return Found("safetensors") if length else None
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise InvalidData(what)
    if is_image(head) or is_audio(head):
        raise InvalidData("a single image or recording: send a zip or tar of them, in a folder for each class")
    return None


def is_image(head: bytes) -> bool:
    """Whether these bytes begin an image that can be read."""
    if head.startswith((b"BM", b"P5", b"P6")):
        # two letters that may begin a text: BMP goes on with zeros, PNM with the size
        return (
            head[6:10] == bytes(4) if head.startswith(b"BM") else re.match(rb"P[56]\s+(#.*\n)?\d+\s", head) is not None
        )
    return head.startswith(_IMAGES) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


def _in_archive(path: Path, container: Container, limits: Limits) -> Found:
    """The format of the archive's first members."""
    problems = Problems()
    first: tuple[str, bytes] | None = None
    is_model = False
    for member in islice(read_members(path, container, problems, limits), _MEMBERS_TRIED):
        head = _head_of(member)
        found = _member_format(member.name, head)
        if found is not None and (found != "npz" or container == "zip"):
            return Found(found, container)
        first = first or (member.name, head)
        is_model = is_model or PurePosixPath(member.name).name == "config.json"
    problems.check()
    if first is None:
        raise InvalidData(f"the {container} archive holds no files")
    if is_model:
        raise InvalidData(_MODEL)
    if _is_archive(first[1]):
        raise InvalidData(Problem(first[0], "an archive, or compressed, within the archive: send its content alone"))
    raise InvalidData(Problem(first[0], "no member is an image, a recording or an array"))


def _head_of(member: Member) -> bytes:
    try:
        return member.read_head(_HEAD)
    except InvalidData:
        return b""  # told with its name when all members are read


def _member_format(name: str, head: bytes) -> str | None:
    if is_pickle(head, is_whole=len(head) < _HEAD) or name.endswith("data.pkl"):
        raise InvalidData(Problem(name, _PICKLE))
    if is_image(head):
        return "image_archive"
    if is_audio(head):
        return "audio_archive"
    if head.startswith(b"\x93NUMPY"):
        return "npz"
    return "idx" if is_idx(head) else None


def _is_archive(head: bytes) -> bool:
    return compression_of(head) is not None or head.startswith((b"PK\3\4", b"BZh", b"\xfd7zXZ")) or is_tar(head)


def _text(head: bytes) -> Found:
    _check_is_text(head)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if re.match(rb'\{\s*["}]', start):
        return Found("jsonl")
    if re.match(rb"\[\s*\{", start) and _is_json_array(head):
        raise InvalidData("a JSON array: write one object a line (pandas: to_json(..., orient='records', lines=True))")
    if conll := conll_format(head):
        return Found(conll)
    dialect = sniff(head, is_whole=len(head) < HEAD_BYTES)
    if dialect is not None:
        return Found("tsv" if dialect.delimiter == "\t" else "csv", dialect=dialect)
    return Found("text")


def _check_is_text(head: bytes) -> None:
    """Refuse bytes that are no text at all; a few wrong ones are told later, by line."""
    sample = head[: 2**16]
    controls = len(sample) - len(sample.translate(None, bytes([*range(9), *range(14, 27), *range(28, 32), 127])))
    broken = sample.decode(errors="replace").count("\ufffd")
    if controls * 5 > len(sample) or broken * 4 > len(sample):
        raise InvalidData(f"its format is not known; send {KNOWN}")


def _is_json_array(head: bytes) -> bool:
    if len(head) == HEAD_BYTES:
        return True
    try:
        return isinstance(json.loads(head), list)
    except (ValueError, RecursionError):
        return False
