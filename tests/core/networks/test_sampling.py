"""Texts are drawn from the likeliest tokens, and go on as the network without a cache would have them."""

from __future__ import annotations

import torch
import transformers

from core.networks.sampling import draw_token, sample_tokens


def test_draws_only_among_the_likeliest() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_token(logits, 1.0, 0.75, generator) for _ in range(4000)]
    shares = torch.bincount(torch.tensor(drawn), minlength=4) / len(drawn)
    torch.testing.assert_close(shares, torch.tensor([0.625, 0.375, 0.0, 0.0]), atol=0.03, rtol=0)
    assert {draw_token(logits, 0.01, 1.0, generator) for _ in range(50)} == {0}


def test_the_coldest_text_is_the_greedy_one() -> None:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=40, n_positions=32, n_embd=32, n_layer=2, n_head=2)
    network = transformers.GPT2LMHeadModel(config).eval()
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    found = sample_tokens(network, [1, 2], length=10, temperature=1e-4, top_p=1.0, generator=generator)
    assert torch.equal(state, torch.get_rng_state())
    expected = [1, 2]
    for _ in range(10):
        expected.append(int(network(input_ids=torch.tensor([expected]), use_cache=False).logits[0, -1].argmax()))
    assert found == expected[2:]
    cut = sample_tokens(
        network, [1, 2], length=10, temperature=1e-4, top_p=1.0, generator=generator, end_token=found[0]
    )
    assert cut == []
