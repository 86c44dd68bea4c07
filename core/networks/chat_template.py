"""Conversations as tokens, by a tokenizer's chat template, and which of these tokens an assistant is to learn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

Message = Mapping[str, Any]
_CHATML = """\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + END }}{% endgeneration %}\
{% else %}{{ message['content'] + END }}{% endif %}{{ '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}\
"""
_END = "<|im_end|>"
_LONGEST = 2**22  # characters, of which no model reads so many: a template may make them of nothing
# What a template raises on purpose, or for messages that are not as it thinks.
_REFUSALS = (
    *(jinja2.TemplateError, TypeError, ValueError, AttributeError, RecursionError),
    *(LookupError, ArithmeticError),
)


class Rendered(NamedTuple):
    """A conversation, or a part of it, as tokens."""

    tokens: list[int]
    learned: list[bool]  # which of them the assistant is to predict


def give_template(tokenizer: Any) -> bool:
    """Give a tokenizer that has no chat template plain ChatML; answers whether it needed one.

    A turn ends with <|im_end|> if that is one of its tokens, else with what ends a sequence: no token is added.
    """
    if tokenizer.chat_template:
        return False
    end = _END if _END in tokenizer.get_vocab() or not tokenizer.eos_token else tokenizer.eos_token
    tokenizer.chat_template = _CHATML.replace("END", json.dumps(end))
    return True


def ends_of_turn(tokenizer: Any) -> list[int]:
    """The tokens that end an answer: what the template writes behind one, and what ends a sequence."""
    try:
        rendered = _text(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bcd"}])
    except ValueError:  # it asks for more, a system message say
        rendered = ""
    behind = tokenizer.encode(rendered.rpartition("bcd")[2].strip(), add_special_tokens=False)
    marked = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    special = marked.union(tokenizer.all_special_ids)  # which are the named ones
    ends = [token for token in behind[:1] if token in special] + [tokenizer.eos_token_id]
    return sorted({token for token in ends if token is not None})


def prompt_tokens(tokenizer: Any, messages: Sequence[Message], *, tools: Any = None) -> list[int]:
    """What a model is given to answer these messages; raises ValueError for what the template refuses."""
    text = _text(tokenizer, messages, tools=tools, add_generation_prompt=True)
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return tokens


def render(tokenizer: Any, messages: Sequence[Message], *, tools: Any = None) -> list[Rendered]:
    """The conversation as tokens, and those of them that an assistant wrote in answers whose `weight` is not 0.

    What opens a conversation answers nothing, and is not learned. An answer's tokens are what follows the prompt that
    its model would be given, up to the end of its turn. It is one sequence, or one for each answer where the template
    writes earlier turns otherwise than the last (without their reasoning, say). Raises ValueError for what the template
    refuses.
    """
    answers = [index for index, message in enumerate(messages) if index and is_learned(message)]
    spans = _spans(tokenizer, messages, answers, tools)
    if spans is not None:
        return [_tokenized(tokenizer, _text(tokenizer, messages, tools=tools), spans)]
    return [_last_answer(tokenizer, messages[: index + 1], tools) for index in answers]


def is_learned(message: Message) -> bool:
    """Whether it is an answer that is to be learned, if it answers anything."""
    return bool(message["role"] == "assistant" and message.get("weight", 1) != 0)


def _spans(
    tokenizer: Any, messages: Sequence[Message], answers: Sequence[int], tools: Any
) -> list[tuple[int, int]] | None:
    """Where each answer stands in the whole text; None where the text of its turn is not a beginning of the whole."""
    whole = _text(tokenizer, messages, tools=tools)
    spans = []
    for index in answers:
        before = _text(tokenizer, messages[:index], tools=tools, add_generation_prompt=True)
        through = _text(tokenizer, messages[: index + 1], tools=tools)
        if not (whole.startswith(through) and through.startswith(before)):
            return None
        spans.append((len(before), _end_of_turn(through, messages[index])))
    return spans


def _last_answer(tokenizer: Any, messages: Sequence[Message], tools: Any) -> Rendered:
    spans = _spans(tokenizer, messages, [len(messages) - 1], tools)
    if spans is None:
        raise ValueError(
            "the base's chat template writes an answer otherwise than it prompts for one, so that the answer's tokens "
            "cannot be told: give the base another chat_template"
        )
    return _tokenized(tokenizer, _text(tokenizer, messages, tools=tools), spans)


def _end_of_turn(through: str, message: Message) -> int:
    """Where the turn ends: behind its end mark; white space after that is not the assistant's to write."""
    stripped = through.rstrip()
    has_mark = not stripped.endswith(str(message["content"]).rstrip()) or message.get("tool_calls")
    return len(stripped) if has_mark else len(through)


def _tokenized(tokenizer: Any, text: str, spans: Sequence[tuple[int, int]]) -> Rendered:
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    starts = iter(sorted(spans))
    learned, (start, end) = [], next(starts, (len(text), len(text)))
    before = 0
    for begin, stop in found["offset_mapping"]:
        place = begin if stop > begin else before  # of white space some tokenizers say that it spans nothing
        before = stop
        while place >= end and end < len(text):
            start, end = next(starts, (len(text), len(text)))
        learned.append(start <= place < end)
    return Rendered(list(found["input_ids"]), learned)


def _text(
    tokenizer: Any, messages: Sequence[Message], *, tools: Any = None, add_generation_prompt: bool = False
) -> str:
    given = [{name: value for name, value in message.items() if name != "weight"} for message in messages]
    try:
        text: str = tokenizer.apply_chat_template(
            given, tools=tools, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except _REFUSALS as error:
        raise ValueError(f"the base's chat template refuses it: {error!s:.300}") from None
    if len(text) > _LONGEST:
        raise ValueError(f"the base's chat template makes {len(text):,} characters of it; {_LONGEST:,} are read")
    return text
