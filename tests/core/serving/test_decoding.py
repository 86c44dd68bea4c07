"""What answers read together is what each of them reads alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers

from core.errors import InvalidRequest
from core.serving import decoding
from core.serving.decoding import ROWWISE, Decoder, Next, new_cache

VOCABULARY = 64
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 1}
PROMPTS = (3, 1, 40)  # tokens of each
STEPS = 6


def network(kind: str, **more: Any) -> Any:
    """Of this type, with random weights of a size that makes the next token depend on those before it."""
    torch.manual_seed(0)
    sizes = GPT2 if kind == "gpt2" else SIZES | {"sliding_window": None}
    config = transformers.AutoConfig.for_model(kind, **(sizes | more))
    found: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in found.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return found


@pytest.fixture(params=sorted(ROWWISE))
def model(request: pytest.FixtureRequest) -> Any:
    return network(request.param)


@torch.inference_mode()
def begun(model: Any, length: int, *, rows: int = 1) -> Any:
    """A cache that has read so many tokens, for so many answers."""
    cache = transformers.DynamicCache(config=model.config)
    tokens = torch.randint(2, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(length))
    model(input_ids=tokens, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(rows)
    return cache


def written(model: Any, caches: Sequence[Any]) -> list[list[torch.Tensor]]:
    """The logits of each step for each cache, whose rows go on with the likeliest tokens."""
    decoder, found = Decoder(model), [[] for _ in caches]
    waiting = [decoder.add(list(range(5, 5 + len(cache.layers[0].keys))), cache) for cache in caches]
    for _ in range(STEPS):
        for number, one in enumerate(waiting):
            found[number].append(decoder.logits(one))
            waiting[number] = decoder.add(found[number][-1].argmax(-1).tolist(), caches[number])
    return found


def passes(model: Any) -> list[int]:
    """The rows of each pass from now on."""
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, args, given: seen.append(len(given["input_ids"])), with_kwargs=True)
    return seen


def test_answers_are_those_that_each_would_be_alone(model: Any) -> None:
    """Up to the rounding of sums that are added in another order."""
    caches = [begun(model, length, rows=1 + (length == 1)) for length in PROMPTS]
    alone = [written(model, [begun(model, length, rows=1 + (length == 1))])[0] for length in PROMPTS]
    rows = passes(model)
    together = written(model, caches)
    assert rows == [len(PROMPTS) + 1] * STEPS
    for ours, theirs in zip(together, alone, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
            assert torch.equal(one.argmax(-1), other.argmax(-1))


@pytest.mark.parametrize(
    ("kind", "more", "spread"),
    [
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}},
            decoding.SPREAD,
        ),
        ("llama", {}, 1),
        ("olmo", {}, decoding.SPREAD),  # a type that nothing is said of
    ],
)
def test_what_would_change_others_reads_alone(
    kind: str, more: dict[str, Any], spread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SPREAD", spread)
    model = network(kind, **more)
    caches = [begun(model, length) for length in (3, 30)]
    rows = passes(model)
    written(model, caches)
    assert rows == [1] * 2 * STEPS


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [("mamba", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 1}), ("openai-gpt", GPT2)],
)
def test_a_network_that_keeps_no_keys_and_values_is_refused(kind: str, sizes: dict[str, Any]) -> None:
    """Its next token would be drawn as if nothing had come before."""
    config = transformers.AutoConfig.for_model(kind, **sizes)
    with pytest.raises(InvalidRequest, match=kind) as caught:
        new_cache(transformers.AutoModelForCausalLM.from_config(config))
    assert caught.value.code == "unsupported_model"


def test_who_has_left_is_not_read_for() -> None:
    model = network("llama")
    decoder = Decoder(model)
    one, other = (decoder.add([5], begun(model, 3)) for _ in range(2))
    rows = passes(model)
    del other
    decoder.logits(one)
    assert rows == [1]


def test_what_fails_fails_for_all_that_were_read() -> None:
    """For nobody knows how much of it their caches have."""
    model = network("llama")
    decoder = Decoder(model)
    waiting: list[Next] = [decoder.add([5], begun(model, 3)) for _ in range(2)]
    handle = model.lm_head.register_forward_pre_hook(lambda module, args: (_ for _ in ()).throw(MemoryError("full")))
    for one in waiting:
        with pytest.raises(MemoryError, match="full"):
            decoder.logits(one)
    handle.remove()
    assert len(decoder.logits(decoder.add([5], begun(model, 3)))) == 1
