"""What is measured on a GPU: the parts that can be held to something without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from benchmarks.device.__main__ import counted, main
from benchmarks.device.flops import flops_per_token, peak_of
from benchmarks.device.learning import Decoder, Images, Words
from core.data.packing import PackedBatch
from core.networks.language_modeling import next_token_loss, vocabulary_head

ROWS, CONTEXT, VOCABULARY = 3, 16, 40
TINY = {"architecture": "gpt2", "layers": 1, "hidden_size": 32, "heads": 2, "dropout": 0.0}


def gpt2():
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": CONTEXT, "vocab_size": VOCABULARY}
    return GPT2LMHeadModel(GPT2Config(**sizes, attn_implementation="eager", attn_pdrop=0.0))


def llama(*, is_tied: bool):
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=is_tied,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("make", [gpt2, lambda: llama(is_tied=True), lambda: llama(is_tied=False)])
def test_the_formula_is_what_a_step_of_ours_multiplies(make) -> None:
    network = make()
    tokens = torch.randint(0, VOCABULARY, (ROWS, CONTEXT))
    positions = torch.arange(CONTEXT).expand(ROWS, -1)
    batch = PackedBatch(tokens, tokens.roll(-1, 1), positions, torch.zeros_like(tokens))
    head = vocabulary_head(network)
    assert head is not None
    with FlopCounterMode(display=False) as counter:
        next_token_loss(network, batch, head=head).backward()
    needed = flops_per_token(network, context_length=CONTEXT) * ROWS * CONTEXT
    assert counter.get_total_flops() == pytest.approx(needed, rel=0.01)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce GTX 970", None),
    ],
)
def test_the_peak_of_a_device_is_known_by_its_name(name: str, peak: float | None) -> None:
    assert peak_of(name) == peak


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err == "There is no GPU here: nothing was measured.\n"


@pytest.mark.parametrize(
    "job",
    [
        Decoder(TINY, context_length=32, rows=2, steps=2, vocabulary=400, words=4000),
        Images({"method": "simclr", "batch_size": 8}, steps=2, count=40),
        Words(words=20_000, batch_size=512),
    ],
)
def test_a_job_is_measured(job, tmp_path: Path) -> None:
    found = job.measure("cpu", tmp_path)
    assert all(value > 0 for value in found.values())
    if isinstance(job, Decoder):
        assert found["flops_per_second"] == found["flops_per_token"] * found["tokens_per_second"]


def test_counts_what_pytest_says() -> None:
    said = "F.\nFAILED tests/a.py::test_b[gan] - assert 1 == 2\n1 failed, 3 passed, 2 skipped in 1.00s\n"
    failures = ["tests/a.py::test_b[gan] - assert 1 == 2"]
    assert counted(said) == {"failed": 1, "passed": 3, "skipped": 2, "failures": failures}
    with pytest.raises(ValueError, match="no tests"):
        counted("no tests ran in 0.01s")
