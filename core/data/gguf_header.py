"""Whether a GGUF file is whole, told by its header: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""

from __future__ import annotations

from math import prod
from typing import BinaryIO

VERSIONS = (2, 3)
MAX_HEADER_BYTES = 64 * 2**20  # several times what the largest vocabularies take
MAX_DIMENSIONS = 8
MAX_LAYERS = 10_000
ALIGNMENT = 32  # of the tensors, unless the header says otherwise
STRING, ARRAY = 8, 9
BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of the other types of values


def is_gguf(head: bytes) -> bool:
    """Whether a GGUF file begins here, of a version that is read."""
    return head.startswith(b"GGUF") and int.from_bytes(head[4:8], "little") in VERSIONS


def check_gguf(stream: BinaryIO, size: int) -> None:
    """Read the header of a file of so many bytes; raises ValueError for one that is cut short, or that nobody reads."""
    header = _Header(stream)
    if not is_gguf(header.take(8)):
        raise ValueError("is not GGUF of version 2 or 3, whatever its name says")
    tensors, pairs = header.number(8), header.number(8)
    alignment = ALIGNMENT
    for _ in range(pairs):
        key, value = header.text(), header.value(header.number(4))
        if key.endswith(b".block_count") and (value or 0) > MAX_LAYERS:
            raise ValueError(f"says that it has {value:,} layers: no model is that large")
        if key == b"general.alignment" and value:
            alignment = value
    end = max((header.tensor_end() for _ in range(tensors)), default=0)
    whole = -(-header.position // alignment) * alignment + end
    if whole > size:
        raise ValueError(f"is cut short: it has {size:,} bytes of {whole:,}; send all of it")


class _Header:
    """Goes through a header; raises ValueError where it ends too early."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.position = 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        self.position += count
        if self.position > MAX_HEADER_BYTES:
            raise ValueError("has a header larger than any model's")
        content = self._stream.read(count)
        if len(content) < count:
            raise ValueError("is cut short within its header; send all of it")
        return content

    def number(self, size: int) -> int:
        """The next whole number, of so many bytes, without a sign."""
        return int.from_bytes(self.take(size), "little")

    def text(self) -> bytes:
        """The next text, behind its length."""
        return self.take(self.number(8))

    def value(self, kind: int) -> int | None:
        """The next value, where it is a number, as if it were whole."""
        if kind in BYTES:
            return self.number(BYTES[kind])
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            self._skip_array(self.number(4), self.number(8))
        else:
            raise ValueError(f"holds a value of type {kind}, which there is not")
        return None

    def _skip_array(self, kind: int, count: int) -> None:
        if kind in BYTES:
            self.take(BYTES[kind] * count)
        elif kind == STRING:
            for _ in range(count):
                self.text()
        else:
            raise ValueError(f"holds an array of values of type {kind}, which is not read")

    def tensor_end(self) -> int:
        """Where the tensor that is told of next ends among all tensors."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType  # for few files

        name, dimensions = self.text(), self.number(4)
        if dimensions > MAX_DIMENSIONS:
            raise ValueError(f"has a tensor of {dimensions:,} dimensions")
        elements = prod(self.number(8) for _ in range(dimensions))
        kind, offset = self.number(4), self.number(8)
        if kind not in GGML_QUANT_SIZES:
            raise ValueError(f"holds {name.decode(errors='replace'):.100} in blocks of type {kind}, which is not read")
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        return offset + elements // block * size
