"""What is read quickly is what gguf reads, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType

from core.networks import gguf_reading
from core.networks.gguf_reading import Reader, dequantize, quick_reading

ROWS, WIDTH = 5, 512  # blocks are of 32 or of 256 weights
LISTS: dict[str, Any] = {
    "texts": ["", "the", "thé", "\u2581\u2581"],
    "numbers": [1, -2, 3],
    "parts": [0.5, -1e-3],
    "answers": [True, False],
    "lists": [[1, 2], [3]],
}
FORMULAS = [kind for kind in GGMLQuantizationType if hasattr(gguf.quants, kind.name)]


def test_all_fields_and_tensors_are_those_of_gguf(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "file", "llama")
    writer.add_block_count(3)
    for name, values in LISTS.items():
        writer.add_key_value(name, values, gguf.GGUFValueType.ARRAY)
    writer.add_tensor("weight", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    quick, slow = Reader(tmp_path / "file"), gguf.GGUFReader(tmp_path / "file")
    assert list(quick.fields) == list(slow.fields)
    assert set(LISTS) <= set(quick.fields)
    for name, field in quick.fields.items():
        assert (field.contents(), field.types) == (slow.fields[name].contents(), slow.fields[name].types)
    assert [tensor.name for tensor in quick.tensors] == ["weight"]
    np.testing.assert_array_equal(quick.tensors[0].data, slow.tensors[0].data)


@pytest.mark.parametrize(
    "kind", [*FORMULAS, GGMLQuantizationType.F32, GGMLQuantizationType.F16], ids=lambda kind: kind.name
)
def test_weights_are_those_of_gguf(kind: GGMLQuantizationType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any bits, what stands for no number among them, in parts that end within the tensor."""
    monkeypatch.setattr(gguf_reading, "AT_ONCE", 2 * WIDTH)
    shape = gguf.quant_shape_to_byte_shape((2, ROWS, WIDTH), kind)
    data = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
    with np.errstate(all="ignore"):
        found, expected = dequantize(data, kind), gguf.quants.dequantize(data, kind)
    assert found.shape == expected.shape == (2, ROWS, WIDTH)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_gguf_is_itself_again_afterwards() -> None:
    before = {name: getattr(gguf, name) for name in gguf_reading.SLOW}
    with quick_reading():
        assert gguf.GGUFReader is Reader
    assert before == {name: getattr(gguf, name) for name in before}
