"""A language model written as GGUF opens in transformers with the same logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from core.networks.language_models import GPT2, Llama, build_decoder
from core.networks.tokenizer_training import train_decoder_tokenizer
from examples.to_gguf import convert

CONTEXT = 1024  # what transformers takes GPT-2 to have, whatever the file says


@pytest.mark.parametrize(
    "architecture",
    [GPT2(layers=2, hidden_size=32, heads=2), Llama(layers=2, hidden_size=64, heads=4, key_value_heads=2)],
)
def test_gguf_has_the_same_logits(architecture: GPT2 | Llama, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = train_decoder_tokenizer(["the white whale swims near the ice"] * 3, size=300, max_length=32)
    network = build_decoder(architecture, tokenizer, context_length=CONTEXT).eval()
    for thing in (network, tokenizer):
        thing.save_pretrained(tmp_path / "model")  # type: ignore[operator]
    convert(tmp_path / "model", tmp_path / "model.gguf")
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf").eval()
    asked = tokenizer("the whale swims", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(opened(asked).logits, network(asked).logits, rtol=1e-4, atol=1e-4)
