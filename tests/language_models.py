"""Tiny models with random weights and tokenizers of their own, written as the folders that people upload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from core.networks.language_models import GPT2, Llama, build_decoder
from core.networks.tokenizer_training import train_decoder_tokenizer
from core.networks.word_pieces import train_word_pieces

TEXTS = ["the white whale swims near the ice", "a black cat sleeps under the old house", "what is the whale?"] * 3
LLAMA = Llama(layers=2, hidden_size=64, heads=4, key_value_heads=2)
CONTEXT = 1024


def write_language_model(folder: Path, architecture: GPT2 | Llama = LLAMA, *, seed: int = 0) -> Any:
    """A causal language model with byte-level tokens, which writes nonsense; answers its network."""
    torch.manual_seed(seed)
    tokenizer = train_decoder_tokenizer(TEXTS, size=320, max_length=CONTEXT)
    network: Any = build_decoder(architecture, tokenizer, context_length=CONTEXT).eval()
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)  # else it writes the same token for ever
    for thing in (network, tokenizer):
        thing.save_pretrained(folder)
    return network


def write_encoder(folder: Path, *, seed: int = 0) -> None:
    """A BERT that was trained on masked words, say."""
    torch.manual_seed(seed)
    tokenizer = train_word_pieces(TEXTS, size=120, max_length=64)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
