"""Losses in blocks equal the plain ones, and packed sequences do not see each other, in each family of models."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional

from core.data.packing import pack_stream
from core.networks import language_modeling
from core.networks.language_modeling import (
    keeps_apart,
    linear_cross_entropy,
    next_token_loss,
    vocabulary_head,
    within_sequences,
)

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(vocab_size=50, n_positions=32, n_embd=32, n_layer=2, n_head=2),
    "llama": lambda: transformers.LlamaConfig(vocab_size=50, max_position_embeddings=32, **SIZES),
    "mistral": lambda: transformers.MistralConfig(vocab_size=50, sliding_window=4, num_key_value_heads=1, **SIZES),
    "gemma2": lambda: transformers.Gemma2Config(vocab_size=50, num_key_value_heads=1, head_dim=16, **SIZES),
}


@pytest.mark.parametrize("block", [7, 2**20])
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_loss_in_blocks_is_the_plain_one(monkeypatch: pytest.MonkeyPatch, block: int, has_bias: bool) -> None:
    monkeypatch.setattr(language_modeling, "BLOCK_LOGITS", block * 11)
    torch.manual_seed(0)
    given = [torch.randn(30, 5, dtype=torch.float64), torch.randn(11, 5, dtype=torch.float64), torch.randn(11).double()]
    targets = torch.randint(11, (30,))
    mine = [tensor.clone().requires_grad_() for tensor in given]
    plain = [tensor.clone().requires_grad_() for tensor in given]
    loss = linear_cross_entropy(mine[0], mine[1], targets, bias=mine[2] if has_bias else None)
    expected = functional.cross_entropy(
        functional.linear(plain[0], plain[1], plain[2] if has_bias else None), targets, reduction="sum"
    )
    (loss / 30).backward()
    (expected / 30).backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    for ours, theirs in list(zip(mine, plain, strict=True))[: 3 if has_bias else 2]:
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)


def test_the_loss_in_blocks_leaves_frozen_weights_alone() -> None:
    hidden, weight = torch.randn(4, 3, requires_grad=True), torch.randn(6, 3)
    linear_cross_entropy(hidden, weight, torch.tensor([0, 1, 2, 3])).backward()
    assert hidden.grad is not None
    assert weight.grad is None
    with torch.no_grad():
        assert not linear_cross_entropy(hidden, weight, torch.tensor([0, 1, 2, 3])).requires_grad


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_sequences_have_the_loss_that_each_has_alone(name: str) -> None:
    torch.manual_seed(0)
    config = CONFIGS[name]()
    network = transformers.AutoModelForCausalLM.from_config(config).eval()
    head = vocabulary_head(network)
    assert (head is None) == (name == "gemma2")  # which caps its logits
    assert keeps_apart(network)
    lengths = [7, 3, 12, 9]
    tokens = torch.randint(50, (sum(lengths),), dtype=torch.int32)
    rows = pack_stream(tokens, lengths, row_length=sum(lengths), pad_token=0)
    with torch.no_grad():
        packed = next_token_loss(network, rows[torch.arange(1)], head=head)
        alone = sum(
            network(input_ids=each[None], labels=each[None]).loss * (len(each) - 1)
            for each in tokens.long().split(lengths)
        )
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)


def test_one_document_does_not_change_the_logits_of_another() -> None:
    torch.manual_seed(0)
    network = transformers.AutoModelForCausalLM.from_config(CONFIGS["gpt2"]()).eval()
    tokens = torch.randint(50, (20,), dtype=torch.int32)
    changed = tokens.clone()
    changed[:8] = (changed[:8] + 1) % 50
    logits = []
    for each in (tokens, changed):
        batch = pack_stream(each, [8, 12], row_length=20, pad_token=0)[torch.arange(1)]
        logits.append(network(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False).logits)
    assert torch.equal(logits[0][:, 8:], logits[1][:, 8:])
    assert not torch.equal(logits[0][:, :8], logits[1][:, :8])


def test_a_model_that_cannot_keep_sequences_apart_is_found_out() -> None:
    config = transformers.BloomConfig(vocab_size=50, hidden_size=32, n_layer=1, n_head=2)
    assert not keeps_apart(transformers.BloomForCausalLM(config))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
def test_adapters_do_not_hide_the_head() -> None:
    from peft import LoraConfig, get_peft_model

    network = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"]())
    adapted = get_peft_model(network, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    head = vocabulary_head(adapted)
    assert isinstance(head, nn.Linear)
    assert keeps_apart(adapted)
    batch = pack_stream(torch.arange(10, dtype=torch.int32), [4, 6], row_length=10, pad_token=0)[torch.arange(1)]
    next_token_loss(adapted, batch, head=head).backward()
    assert head.weight.grad is None
    assert any(parameter.grad is not None for parameter in adapted.parameters())


def test_an_encoder_may_look_within_a_sequence_and_within_reach() -> None:
    mask = within_sequences(torch.tensor([[0, 0, 0, 1, 1, -1]]), reach=1)[0, 0]
    expected = [[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0]]
    expected += [[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1]]
    assert mask.int().tolist() == expected
