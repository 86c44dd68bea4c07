"""Which tokens an assistant learns: compared with the marks of a template, and with what a model is prompted with."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from core.networks.chat_template import ends_of_turn, give_template, prompt_tokens, render

TALK = [
    {"role": "system", "content": "be short"},
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "two three"},
    {"role": "user", "content": "four?"},
    {"role": "assistant", "content": "five\n"},
]
LATE_REASONING = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' and loop.last %}<think>{{ m.reasoning }}</think>"
    "{% endif %}{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture
def tokenizer() -> Any:
    """A token a byte, and the two marks of ChatML."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<|im_start|>", "<|im_end|>", "</s>", *alphabet]
    bytewise = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    special = {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bytewise, **special)


def learned(tokenizer: Any, messages: Any) -> list[str]:
    """What is to be learned of each sequence, as text."""
    return [
        tokenizer.decode([token for token, is_learned in zip(*each, strict=True) if is_learned])
        for each in render(tokenizer, messages)
    ]


def test_learns_answers_and_the_ends_of_their_turns(tokenizer: Any) -> None:
    assert give_template(tokenizer)
    assert learned(tokenizer, TALK) == ["two three<|im_end|>five\n<|im_end|>"]
    assert not give_template(tokenizer)


def test_finds_what_the_marks_of_a_template_say(tokenizer: Any) -> None:
    give_template(tokenizer)
    marked = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    (rendered,) = render(tokenizer, TALK)
    assert rendered.tokens == marked["input_ids"]
    assert rendered.learned == [bool(mark) for mark in marked["assistant_masks"]]


def test_an_answer_follows_the_very_prompt_that_a_model_is_given(tokenizer: Any) -> None:
    give_template(tokenizer)
    (rendered,) = render(tokenizer, TALK[:3])
    prompt = prompt_tokens(tokenizer, TALK[:2])
    assert rendered.tokens[: len(prompt)] == prompt
    assert rendered.learned.index(True) == len(prompt)


def test_white_space_is_learned_where_the_tokenizer_says_that_it_spans_nothing(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    give_template(tokenizer)
    answer = "  two   three\n    four "
    assert learned(tokenizer, [TALK[1], {"role": "assistant", "content": answer}]) == [answer + "<|im_end|>"]
    assert learned(tokenizer, [{"role": "user", "content": answer}, TALK[2]]) == ["two three<|im_end|>"]


def test_a_weight_of_0_and_an_opening_are_not_learned(tokenizer: Any) -> None:
    give_template(tokenizer)
    assert learned(tokenizer, [*TALK[:2], {**TALK[2], "weight": 0}, *TALK[3:]]) == ["five\n<|im_end|>"]
    assert learned(tokenizer, [{"role": "assistant", "content": "hello"}, *TALK[1:3]]) == ["two three<|im_end|>"]


def test_without_marks_in_the_vocabulary_a_turn_ends_as_sequences_do(tokenizer: Any) -> None:
    plain = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "</s>": 1, "u": 2}, unk_token="u")), eos_token="</s>"
    )
    assert give_template(plain)
    assert "</s>" in plain.chat_template
    assert ends_of_turn(plain) == [1]
    give_template(tokenizer)
    assert ends_of_turn(tokenizer) == [1, 2]


def test_a_mark_that_is_special_ends_a_turn_though_it_has_no_name(tokenizer: Any) -> None:
    """Phi-3's and Gemma-3's are among the added tokens alone."""
    give_template(tokenizer)
    tokenizer.add_tokens([AddedToken("<|end|>", special=True), AddedToken("<|plain|>")])
    end, plain = tokenizer.convert_tokens_to_ids(["<|end|>", "<|plain|>"])
    assert end not in tokenizer.all_special_ids
    template = tokenizer.chat_template
    tokenizer.chat_template = template.replace("<|im_end|>", "<|end|>")
    assert ends_of_turn(tokenizer) == [2, end]
    tokenizer.chat_template = template.replace("<|im_end|>", "<|plain|>")
    assert plain not in ends_of_turn(tokenizer)


def test_a_template_that_forgets_reasoning_makes_a_sequence_of_each_answer(tokenizer: Any) -> None:
    tokenizer.chat_template = LATE_REASONING
    talk = [{**message, "reasoning": "hm"} for message in TALK]
    assert learned(tokenizer, talk) == ["<think>hm</think>two three</s>", "<think>hm</think>five\n</s>"]


@pytest.mark.parametrize("template", ["{{ 'a' + messages[0].name }}", "{{ messages[0].name | dictsort }}"])
def test_a_template_that_fails_on_a_message_refuses_it(template: str, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    messages = [{"role": "user", "content": "a", "name": 5}]
    for read in (render, prompt_tokens):
        with pytest.raises(ValueError, match="the base's chat template refuses it"):
            read(tokenizer, messages)


def test_says_what_a_template_refuses(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('no system') }}"
    with pytest.raises(ValueError, match="refuses it: no system"):
        render(tokenizer, TALK)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
    )
    with pytest.raises(ValueError, match="otherwise than it prompts"):
        render(tokenizer, TALK)
