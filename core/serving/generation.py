"""Writes answers token by token, a step at a time, so that many can be written in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
import torch

from core.errors import InvalidRequest
from core.networks.chat_template import prompt_tokens
from core.serving.decoding import new_cache
from core.serving.opening import LanguageModel, refuse_nan
from core.serving.sampling import Drawn, Sampler, Sampling
from core.serving.writing import Writer

Message = dict[str, Any]
PREFILL_TOKENS = 512  # of a prompt that are read in one step, where a network allows it
CONTEXT_TOKENS = 8  # of a text that is gone on with, by which its first token's spacing is told


@dataclass(frozen=True)
class Asked:
    """A prompt, as messages, a text or tokens, and what is wanted: `choices` texts of at most `max_tokens` each."""

    messages: Sequence[Mapping[str, Any]] | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    prompt: str | Sequence[int] | None = None
    choices: int = 1
    max_tokens: int | None = None  # None: `default_tokens`, or what is left of the context
    default_tokens: int = 1024
    stop: Sequence[str] = ()
    echo: bool = False
    sampling: Sampling = field(default_factory=Sampling)

    @classmethod
    def read(cls, order: Mapping[str, Any]) -> Asked:
        """From JSON, in which the numbers of tokens are texts."""
        sampling = dict(order.get("sampling", {}))
        bias = {int(token): bias for token, bias in sampling.pop("logit_bias", {}).items()}
        return cls(**{**order, "sampling": Sampling(**sampling, logit_bias=bias)})


@dataclass
class Choice:
    """One of the texts that are being written."""

    index: int
    sampler: Sampler
    writer: Writer
    count: int = 0


def generate(model: LanguageModel, asked: Asked) -> Iterator[list[Message]]:
    """What there is to say after each step: `started`, then a `piece` a token, and `finished` for each choice.

    Raises InvalidRequest before the first step for a prompt that the model cannot be given.
    """
    tokens, ends = _prompt(model, asked)
    most = _most_tokens(model, asked, len(tokens))
    context = [] if asked.messages is not None else tokens[-CONTEXT_TOKENS:]
    _check_bias(model, asked)
    cache = new_cache(model.network)
    yield [{"type": "started", "prompt_tokens": len(tokens)}]
    choices = [
        Choice(
            index,
            Sampler(asked.sampling, index=index, prompt=tokens, repetition_penalty=model.repetition_penalty),
            Writer(model.tokenizer, stop=asked.stop, context=context),
        )
        for index in range(asked.choices)
    ]
    if asked.echo:
        text = model.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        yield [_piece(choice.index, text) for choice in choices]
    at_once = len(tokens) if any(cache.is_linear) else PREFILL_TOKENS  # some recurrent layers begin anew each time
    for start in range(0, len(tokens), at_once):
        logits = _read(model, tokens[start : start + at_once], cache)
        yield []
    if len(choices) > 1:
        cache.reorder_cache(torch.zeros(len(choices), dtype=torch.int64, device=logits.device))
        logits = logits.expand(len(choices), -1)
    while True:
        drawn = [choice.sampler.draw(row) for choice, row in zip(choices, logits, strict=True)]
        said, going_on = [], []
        for row, (choice, one) in enumerate(zip(choices, drawn, strict=True)):
            messages, is_over = _take(model, choice, one, ends=ends, most=most)
            said += messages
            going_on += [] if is_over else [row]
        if not going_on:
            yield said
            return
        if len(going_on) < len(choices):
            cache.reorder_cache(torch.tensor(going_on, device=logits.device))
        choices = [choices[row] for row in going_on]
        following = model.decoder.add([drawn[row].token for row in going_on], cache)
        yield said
        logits = model.decoder.logits(following)
        refuse_nan(logits)


def _prompt(model: LanguageModel, asked: Asked) -> tuple[list[int], frozenset[int]]:
    """What the model is given, and the tokens that end what it writes."""
    if asked.messages is not None:
        try:
            tokens = prompt_tokens(model.tokenizer, asked.messages, tools=asked.tools)
        except (jinja2.TemplateError, ValueError, TypeError, KeyError) as error:
            message = f"the model's chat template refuses these messages: {error!s:.300}"
            raise InvalidRequest(message, param="messages") from None
        _check_tokens(model, tokens, param="messages")
        return tokens, model.turn_ends
    tokens = _unended(model, asked.prompt) if isinstance(asked.prompt, str) else list(asked.prompt or ())
    _check_tokens(model, tokens, param="prompt")
    first = model.tokenizer.bos_token_id
    begin = model.tokenizer.eos_token_id if first is None else first
    if not tokens and begin is None:
        raise InvalidRequest("this model has no token that begins a text: give a prompt", param="prompt")
    return tokens or [begin], model.text_ends


def _unended(model: LanguageModel, text: str) -> list[int]:
    """The text's tokens, without the end that some tokenizers put behind each text: nothing would follow it."""
    tokens = list(model.tokenizer(text, verbose=False)["input_ids"])
    end = model.tokenizer.eos_token
    is_added = len(tokens) > 1 and tokens[-1] == model.tokenizer.eos_token_id and not text.endswith(end)
    return tokens[:-1] if is_added else tokens


def _check_tokens(model: LanguageModel, tokens: Sequence[int], *, param: str) -> None:
    """Refuse what the network has no embedding of, whoever made it: on a GPU nothing could be asked after it."""
    size = model.network.get_input_embeddings().num_embeddings
    wrong = next((token for token in tokens if not 0 <= token < size), None)
    if wrong is not None:
        what = "prompt holds" if param == "prompt" else "messages hold"
        raise InvalidRequest(f"the {what} the token {wrong}; this model's are 0 to {size - 1}", param=param)


def _check_bias(model: LanguageModel, asked: Asked) -> None:
    size = model.network.config.get_text_config().vocab_size
    wrong = next((token for token in asked.sampling.logit_bias if not 0 <= token < size), None)
    if wrong is not None:
        raise InvalidRequest(f"there is no token {wrong}: this model's are 0 to {size - 1}", param="logit_bias")


def _most_tokens(model: LanguageModel, asked: Asked, prompt: int) -> int:
    left = model.max_length - prompt
    if left < 1 or (asked.max_tokens is not None and asked.max_tokens > left):
        wanted = f", and {asked.max_tokens:,} more are asked for" if asked.max_tokens is not None else ""
        raise InvalidRequest(
            f"this model's maximum context length is {model.max_length:,} tokens; the "
            f"{'messages are' if asked.messages is not None else 'prompt is'} {prompt:,} tokens{wanted}: shorten "
            "them, or lower max_tokens",
            param="messages" if asked.messages is not None else "prompt",
            code="context_length_exceeded",
        )
    return asked.max_tokens if asked.max_tokens is not None else min(left, asked.default_tokens)


@torch.inference_mode()
def _read(model: LanguageModel, tokens: Sequence[int], cache: Any) -> torch.Tensor:
    """Of what follows the tokens, the logits, [1, vocabulary]; the cache keeps what was seen."""
    inputs = torch.tensor([tokens], device=model.network.device)
    seen = torch.ones(1, cache.get_seq_length() + len(tokens), dtype=torch.int64, device=inputs.device)
    found = model.network(
        input_ids=inputs, attention_mask=seen, past_key_values=cache, use_cache=True, logits_to_keep=1
    )
    logits: torch.Tensor = found.logits[:, -1]
    refuse_nan(logits)
    return logits


def _take(
    model: LanguageModel, choice: Choice, drawn: Drawn, *, ends: frozenset[int], most: int
) -> tuple[list[Message], bool]:
    """What to say of a token, and whether it is the choice's last."""
    choice.count += 1
    if drawn.token in ends:
        return [_piece(choice.index, choice.writer.finish()), _finished(choice, "stop")], True
    text = choice.writer.add(drawn.token)
    said = [_piece(choice.index, text, _logprobs(model, drawn))]
    if choice.writer.is_stopped:
        return [*said, _finished(choice, "stop")], True
    if choice.count >= most:
        return [*said, _piece(choice.index, choice.writer.finish()), _finished(choice, "length")], True
    return said, False


def _piece(index: int, text: str, logprobs: Message | None = None) -> Message:
    return {"type": "piece", "index": index, "text": text, "logprobs": logprobs}


def _finished(choice: Choice, reason: str) -> Message:
    return {"type": "finished", "index": choice.index, "finish_reason": reason, "tokens": choice.count}


def _logprobs(model: LanguageModel, drawn: Drawn) -> Message | None:
    if drawn.logprob is None:
        return None
    likeliest = [{"token": _shown(model, token), "logprob": logprob} for token, logprob in drawn.likeliest]
    return {"token": _shown(model, drawn.token), "logprob": drawn.logprob, "top_logprobs": likeliest}


def _shown(model: LanguageModel, token: int) -> str:
    text: str = model.tokenizer.decode([token], clean_up_tokenization_spaces=False)
    return text
