"""Has GGUF files read as gguf reads them, bit for bit, in a fraction of its time.

While transformers opens a model, it has gguf go through the file's header three times, make a table of names anew for
each module of the network, and make weights whole 16 rows at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

AT_ONCE = 2**19  # weights that are made whole in one go
SLOW = {name: getattr(gguf, name) for name in ("GGUFReader", "dequantize", "get_tensor_name_map")}


@contextmanager
def quick_reading() -> Iterator[None]:
    """Put what is here in gguf's place for whoever reads meanwhile: transformers, which has no other way."""
    quick = {"GGUFReader": Reader, "dequantize": dequantize, "get_tensor_name_map": cache(gguf.get_tensor_name_map)}
    try:
        vars(gguf).update(quick)
        yield
    finally:
        vars(gguf).update(SLOW)


class Reader(gguf.GGUFReader):
    """Takes an array at once, where gguf notes two arrays for each of its values: each token of a vocabulary."""

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        if raw_type != GGUFValueType.ARRAY or self.byte_order != "I":
            return super()._get_field_parts(orig_offs, raw_type)
        content = self.data.data
        kind, count = struct.unpack_from("<IQ", content, orig_offs)
        begin = orig_offs + 12
        values: list[Any]
        if kind == GGUFValueType.STRING:
            values, end = _texts(content, begin, count)
        elif kind in self.gguf_scalar_to_np:
            found = self._get(begin, self.gguf_scalar_to_np[kind], count)
            values, end = list(np.asarray(found).reshape(-1, 1)), begin + found.nbytes
        else:
            return super()._get_field_parts(orig_offs, raw_type)
        types = [GGUFValueType.ARRAY, *([GGUFValueType(kind)] if values else [])]
        return end - orig_offs, values, list(range(len(values))), types


def _texts(content: memoryview, begin: int, count: int) -> tuple[list[memoryview], int]:
    """So many texts, each behind its length, and where the last one ends."""
    found = []
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", content, begin)
        end = begin + 8 + length
        found.append(content[begin + 8 : end])
        begin = end
    return found, begin


def dequantize(data: NDArray[Any], kind: GGMLQuantizationType) -> NDArray[np.float32]:
    """The weights that these blocks stand for, as `gguf.dequantize` has them."""
    quantization = getattr(gguf.quants, kind.name, None)
    if quantization is None:  # they are numbers, or of a kind that gguf has no formula for
        return gguf.quants.dequantize(data, kind)
    quantization.init_grid()
    shape = gguf.quant_shape_from_byte_shape(data.shape, kind)
    rows = np.asarray(data).reshape(-1, data.shape[-1])
    found = np.empty((len(rows), shape[-1]), dtype=np.float32)
    step = max(1, AT_ONCE // shape[-1])
    for start in range(0, len(rows), step):
        found[start : start + step] = quantization.dequantize_rows(rows[start : start + step])
    return found.reshape(shape)
