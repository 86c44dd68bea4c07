"""Answers are those that transformers itself writes, however they are read and written in steps."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import InvalidData, InvalidRequest
from core.networks.chat_template import prompt_tokens
from core.networks.language_models import GPT2
from core.serving import generation
from core.serving.embedding import embed
from core.serving.generation import PREFILL_TOKENS, Asked, generate
from core.serving.opening import LanguageModel, open_model
from core.serving.sampling import Sampling
from core.serving.sizes import loading_bytes
from examples.to_gguf import convert
from tests.core.serving.test_decoding import network
from tests.language_models import LLAMA, write_language_model

GREEDY = Sampling(temperature=0.0)
SMALL = GPT2(layers=2, hidden_size=32, heads=2)


def open_written(folder: Path, architecture: Any = LLAMA) -> LanguageModel:
    write_language_model(folder, architecture)
    model = open_model(folder, device="cpu")
    assert isinstance(model, LanguageModel)
    return model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return open_written(tmp_path_factory.mktemp("llama"))


def text_of(model: LanguageModel, asked: Asked, index: int = 0) -> str:
    messages = [message for step in generate(model, asked) for message in step]
    return "".join(one["text"] for one in messages if one["type"] == "piece" and one["index"] == index)


def expected(model: LanguageModel, tokens: list[int], *, count: int) -> str:
    inputs = torch.tensor([tokens])
    written = model.network.generate(
        inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=count, do_sample=False
    )[0, len(tokens) :]
    return str(model.tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("words", [3, PREFILL_TOKENS])
@pytest.mark.parametrize("architecture", [LLAMA, SMALL])
def test_greedy_is_what_transformers_writes(architecture: Any, words: int, tmp_path: Path) -> None:
    model = open_written(tmp_path, architecture)
    messages = [{"role": "user", "content": "whale " * words}]
    tokens = prompt_tokens(model.tokenizer, messages)
    assert (len(tokens) > PREFILL_TOKENS) is (words > 3)
    written = text_of(model, Asked(messages=messages, max_tokens=20, sampling=GREEDY))
    assert written == expected(model, tokens, count=20)


def test_a_gguf_file_writes_what_it_was_made_of(llama: LanguageModel, tmp_path: Path) -> None:
    write_language_model(tmp_path / "made")
    (tmp_path / "file").mkdir()
    convert(tmp_path / "made", tmp_path / "file" / "model.gguf")
    opened = open_model(tmp_path / "file", device="cpu")
    assert isinstance(opened, LanguageModel)
    asked = Asked(prompt="the whale", max_tokens=12, sampling=GREEDY)
    assert text_of(opened, asked) == text_of(llama, asked)
    assert loading_bytes(tmp_path / "file") == 2 * loading_bytes(tmp_path / "made")


def test_answers_that_end_apart_are_written_together(llama: LanguageModel) -> None:
    """Each as it would be alone, though the others end before it."""
    sampling = Sampling(temperature=1.0, seed=4)
    asked = Asked(prompt="the", max_tokens=30, choices=4, stop=["e"], sampling=sampling)
    messages = [message for step in generate(llama, asked) for message in step]
    ends = {one["index"]: one["tokens"] for one in messages if one["type"] == "finished"}
    assert len(set(ends.values())) > 1
    for index in range(4):
        alone = Sampling(temperature=1.0, seed=4 + index)
        one = Asked(prompt="the", max_tokens=30, stop=["e"], sampling=alone)
        assert text_of(llama, asked, index) == text_of(llama, one)


def test_greedy_answers_by_turns_are_those_alone(llama: LanguageModel) -> None:
    """Of prompts of different lengths, two texts of one of them; each pass is for all of them."""
    asked = [
        Asked(prompt="the", max_tokens=12, sampling=GREEDY),
        Asked(prompt="the whale swims near the house", max_tokens=20, choices=2, sampling=GREEDY),
        Asked(prompt="a black cat", max_tokens=16, sampling=GREEDY),
    ]
    alone = [text_of(llama, one) for one in asked]
    passes: list[int] = []
    handle = llama.network.register_forward_pre_hook(
        lambda network, args, given: passes.append(len(given["input_ids"])), with_kwargs=True
    )
    turns = deque((number, generate(llama, one)) for number, one in enumerate(asked))
    written = [""] * len(asked)
    while turns:
        number, steps = turns.popleft()
        if (said := next(steps, None)) is not None:
            written[number] += "".join(one["text"] for one in said if one["type"] == "piece" and one["index"] == 0)
            turns.append((number, steps))
    handle.remove()
    assert written == alone
    assert passes[:5] == [1, 1, 1, 4, 4]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("jamba", {"num_experts": 1, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False}),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    ],
)
def test_recurrent_layers_go_on_where_they_were(
    kind: str, more: dict[str, Any], llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though a prompt is read in steps elsewhere, and several texts are written."""
    monkeypatch.setattr(generation, "PREFILL_TOKENS", 4)
    model = replace(llama, network=network(kind, vocab_size=len(llama.tokenizer), **more))
    tokens = llama.tokenizer("the whale swims near the house")["input_ids"]
    asked = Asked(prompt=tokens, max_tokens=8, choices=2, sampling=GREEDY)
    assert [text_of(model, asked, index) for index in range(2)] == [expected(model, tokens, count=8)] * 2


def test_a_step_writes_one_token(llama: LanguageModel) -> None:
    steps = generate(llama, Asked(prompt="the", max_tokens=5, sampling=GREEDY))
    assert [message["type"] for message in next(steps)] == ["started"]
    assert next(steps) == []  # the prompt is read
    assert all([message["type"] for message in step][:1] == ["piece"] for step in steps)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (Asked(prompt="a b " * 1000), "prompt"),
        (Asked(messages=[{"role": "user", "content": "a b " * 1000}]), "messages"),
        (Asked(prompt=[10**6]), "prompt"),
        (Asked(prompt="a", sampling=Sampling(logit_bias={10**6: 1.0})), "logit_bias"),
    ],
)
def test_what_it_cannot_be_given_is_refused(llama: LanguageModel, asked: Asked, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        next(generate(llama, asked))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (Asked(prompt="a <|new|>"), "prompt"),
        (Asked(messages=[{"role": "user", "content": "a <|new|>"}]), "messages"),
    ],
)
def test_tokens_without_an_embedding_are_refused(asked: Asked, param: str, tmp_path: Path) -> None:
    model = open_written(tmp_path)
    size = len(model.tokenizer)
    model.tokenizer.add_tokens(["<|new|>"])
    with pytest.raises(InvalidRequest, match=f"the token {size}; this model's are 0 to {size - 1}") as caught:
        next(generate(model, asked))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ raise_exception('long ' * 10 ** 6) }}", "long long"),
        ("{{ 'ab ' * 10 ** 7 }}", "30,000,000 characters"),
    ],
)
def test_a_template_that_refuses_is_told_of(template: str, told: str, tmp_path: Path) -> None:
    model = open_written(tmp_path)
    model.tokenizer.chat_template = template
    with pytest.raises(InvalidRequest, match=told) as caught:
        next(generate(model, Asked(messages=[{"role": "user", "content": "a"}])))
    assert len(caught.value.message) < 500


def test_weights_that_are_no_numbers_are_told_of(tmp_path: Path) -> None:
    model = open_written(tmp_path)
    torch.nn.init.constant_(model.network.model.norm.weight, math.nan)
    for temperature in (0.0, 1.0):
        asked = Asked(prompt="the whale", sampling=Sampling(temperature=temperature))
        with pytest.raises(InvalidData, match="NaN"):
            list(generate(model, asked))
    with pytest.raises(InvalidData, match="NaN"):
        list(embed(model, ["the whale"], dimensions=None))


def test_logits_without_end_are_told_of(tmp_path: Path) -> None:
    model = open_written(tmp_path)
    model.network.lm_head.register_forward_hook(lambda module, args, found: found + math.inf)
    with pytest.raises(InvalidData, match="infinite"):
        list(generate(model, Asked(prompt="the whale")))


def test_a_template_that_wants_a_system_message_is_given_one(tmp_path: Path) -> None:
    model = open_written(tmp_path)
    refusal = "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}"
    model.tokenizer.chat_template = refusal + model.tokenizer.chat_template
    messages = [{"role": "system", "content": "b"}, {"role": "user", "content": "a"}]
    assert next(generate(model, Asked(messages=messages)))[0]["type"] == "started"
    assert model.turn_ends == model.text_ends
