"""A GGUF file is a base like any other: its weights are those that it stands for, its tokenizer lies in it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from contract import run_example

from core import load_model
from core.checking import open_base
from core.data import examples
from core.data.model_archive import inspect_model_archive, unpack_model_archive
from core.errors import InvalidData
from core.networks.pretrained import open_config, open_pretrained, open_tokenizer
from core.registry import Example

WIDTH, LAYERS, HEADS, INNER = 32, 1, 2, 64


@pytest.fixture(scope="module")
def vocabulary() -> list[str]:
    from tokenizers import pre_tokenizers

    return ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġt", "he"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, vocabulary: list[str]) -> Path:
    """A Llama as llama.cpp has it, its matrices in Q8_0."""
    path = tmp_path_factory.mktemp("gguf") / "sent"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_merges(["Ġ t", "h e"])
    writer.add_token_types([3] + [1] * (len(vocabulary) - 1))
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}")
    random = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        values = random.normal(size=shape).astype(np.float32) / 8
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, dtype=np.float32))
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", len(vocabulary), WIDTH)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        add(f"blk.0.{name}.weight", WIDTH, WIDTH)
    add("blk.0.ffn_gate.weight", INNER, WIDTH)
    add("blk.0.ffn_up.weight", INNER, WIDTH)
    add("blk.0.ffn_down.weight", WIDTH, INNER)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        add(f"{name}.weight", WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def unpacked(path: Path, folder: Path) -> Path:
    inspect_model_archive(path)
    unpack_model_archive(path, folder)
    return folder


def test_it_is_the_same_bare_or_in_a_zip(tmp_path: Path, file: Path) -> None:
    archive = tmp_path / "zip"
    with zipfile.ZipFile(archive, "w") as members:
        members.write(file, "model/any.gguf")
        members.writestr("model/code.py", "raise SystemExit")
    for name, sent in {"model": file, "any": archive}.items():
        base = unpacked(sent, tmp_path / name)
        assert [path.name for path in base.rglob("*")] == [f"{name}.gguf"]
        assert (base / f"{name}.gguf").read_bytes() == file.read_bytes()


def test_it_learns(tmp_path: Path, file: Path) -> None:
    examples.write_conversations(tmp_path / "data", count=6)
    spec = {"method": "fine_tuning", "task": "chat", "base": "model-1", "steps": 2, "samples": 1, "sample_tokens": 2}
    base = unpacked(file, tmp_path / "base")
    assert run_example(
        Example({**spec, "max_length": 64, "too_long": "cut"}, lambda path: None),
        tmp_path / "run",
        inputs={"dataset": tmp_path / "data", "base": base},
    )
    artifacts = tmp_path / "run" / "artifacts"
    tokenizer = transformers.AutoTokenizer.from_pretrained(artifacts)
    assert tokenizer.decode(tokenizer("the t")["input_ids"]) == "the t"
    found = transformers.AutoModelForCausalLM.from_pretrained(artifacts).state_dict()
    kept = load_model(base).state_dict()
    name = "model.layers.0.mlp.down_proj.weight"
    torch.testing.assert_close(kept[name], found[name], atol=1e-3, rtol=0)
    assert not torch.equal(kept[name], found[name])


def test_it_opens_as_transformers_opens_it(file: Path, tmp_path: Path) -> None:
    """Which it is given the same file for, and all of gguf's own time."""
    (tmp_path / "model.gguf").symlink_to(file)
    config = open_config(tmp_path, param="base")
    network: Any = open_pretrained(tmp_path, "AutoModelForCausalLM", param="base").network
    tokenizer = open_tokenizer(tmp_path, network, param="base").tokenizer
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf")
    whole = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    expected = transformers.AutoConfig.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert config.to_dict() == expected.to_dict()
    assert tokenizer.chat_template == whole.chat_template is not None
    assert tokenizer.get_vocab() == whole.get_vocab()
    asked = whole("the other thé", return_tensors="pt")["input_ids"]
    assert torch.equal(tokenizer("the other thé", return_tensors="pt")["input_ids"], asked)
    with torch.no_grad():
        assert torch.equal(network(asked).logits, theirs(asked).logits)


@pytest.mark.parametrize("part", [0.05, 0.5, 0.95])
def test_what_is_cut_short_is_told(part: float, file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    (tmp_path / "model.gguf").write_bytes(content[: int(part * len(content))])
    with pytest.raises(InvalidData):
        open_pretrained(tmp_path, "AutoModelForCausalLM", param="base")


def test_refuses_what_is_no_gguf(tmp_path: Path) -> None:
    archive = tmp_path / "zip"
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("any.gguf", b"GGUF\1\0\0\0")
    with pytest.raises(InvalidData, match="is not GGUF of version 2 or 3"):
        inspect_model_archive(archive)


def test_before_a_job_is_written_it_reads_as_in_the_job(file: Path, tmp_path: Path) -> None:
    place = {"folder": str(tmp_path / "kept"), "archive": str(file), "scratch": str(tmp_path)}
    first, first_width = open_base(place, max_unpacked_bytes=2**30)
    kept, kept_width = open_base({"folder": place["folder"]}, max_unpacked_bytes=2**30)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "model.gguf").symlink_to(file)
    whole = transformers.AutoTokenizer.from_pretrained(tmp_path / "whole", gguf_file="model.gguf")
    text = "the other thé"
    found = {tuple(each(text)["input_ids"]) for each in (first.tokenizer, kept.tokenizer, whole)}
    assert len(found) == 1
    assert [first.max_length, kept.max_length] == [64, 64]
    assert first_width == kept_width == WIDTH
