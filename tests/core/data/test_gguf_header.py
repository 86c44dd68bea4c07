"""A GGUF file that is cut short, or says what no model has, is told before anybody builds what it says."""

from __future__ import annotations

import struct
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from core.data import gguf_header
from core.data.gguf_header import check_gguf
from core.data.model_archive import inspect_model_archive
from core.errors import InvalidData


def written(path: Path, **more: Any) -> bytes:
    """A file of every kind of value, whose last tensor ends where it ends."""
    writer = gguf.GGUFWriter(path, "llama")
    values = {"number": 1.5, "answer": True, "texts": ["a", "thé"], "list": [1, 2, 3], "llama.block_count": 2, **more}
    for name, value in values.items():
        writer.add_key_value(name, value, gguf.GGUFValueType.get_type(value))
    writer.add_tensor("plain", np.ones((2, 3), dtype=np.float32))
    kind = gguf.GGMLQuantizationType.Q8_0  # two blocks, which end with the file's alignment
    writer.add_tensor("blocks", gguf.quants.quantize(np.ones((16, 32), dtype=np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_whole_files_are_taken_and_cut_ones_are_not(tmp_path: Path) -> None:
    content = written(tmp_path / "file")
    check_gguf(BytesIO(content), len(content))
    for length in range(8, len(content)):
        with pytest.raises(ValueError, match="is cut short"):
            check_gguf(BytesIO(content[:length]), length)


def test_alignment_of_its_own_is_obeyed(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "file", "llama")
    writer.add_custom_alignment(256)
    writer.add_tensor("plain", np.ones(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = (tmp_path / "file").read_bytes()
    check_gguf(BytesIO(content), len(content))
    with pytest.raises(ValueError, match="is cut short"):
        check_gguf(BytesIO(content), len(content) - 1)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"GGUF\1\0\0\0", "is not GGUF of version 2 or 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62), "a header larger than any model's"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 0) + struct.pack("<I", 77), "a value of type 77"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 0) + struct.pack("<IIQ", 9, 9, 1), "an array of values of type 9"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 0) + struct.pack("<I", 99), "99 dimensions"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 0) + struct.pack("<IQIQ", 1, 1, 99, 0), "in blocks of type 99"),
    ],
)
def test_what_is_not_read_is_named(content: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_gguf(BytesIO(content), len(content))


def test_an_upload_is_refused_bare_and_in_a_zip(tmp_path: Path) -> None:
    written(tmp_path / "file", **{"llama.block_count": gguf_header.MAX_LAYERS + 1})
    with zipfile.ZipFile(tmp_path / "zip", "w") as members:
        members.write(tmp_path / "file", "model/any.gguf")
    for name, where in {"file": "the GGUF file", "zip": r"model/any\.gguf"}.items():
        with pytest.raises(InvalidData, match=f"{where}.* says that it has 10,001 layers"):
            inspect_model_archive(tmp_path / name)
