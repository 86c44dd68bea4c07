"""Answering as the assistant of conversations does: supervised fine-tuning on its turns alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from core.data.conversations import Conversation, Message, read_conversations
from core.data.packing import PackedRows, pack_whole
from core.data.profile import Kind
from core.errors import InvalidData
from core.networks.chat_template import Rendered, prompt_tokens
from core.networks.language_modeling import keeps_apart
from core.tasks.language_model import LanguageModel, NextTokens, Prompt, open_chat_model
from core.tasks.rendering import Room, render_conversation, render_each, room_for
from core.tasks.task import TaskType, TuningSpec
from core.training.batches import read_parts
from core.training.run import Run


def open_task(spec: TuningSpec, run: Run) -> NextTokens:
    """The base, and the conversations as its chat template has them; the loss is of the assistant's tokens alone."""
    model = open_chat_model(spec, run)
    is_packed = spec.packing and keeps_apart(model.network)
    if spec.packing and not is_packed:
        run.message("The base would see across conversations in a row: they are not packed", "warn")
    room = room_for(spec, limit=model.limit, usual=model.max_length)
    training, held_out = read_parts(read_conversations, run.inputs, spec)
    return NextTokens(
        spec=spec,
        run=run,
        model=model,
        network=model.network,
        training=_packed(training, model, run, param="dataset", room=room, is_packed=is_packed),
        held_out=(
            _packed(held_out, model, run, param="validation", room=room, is_packed=is_packed) if held_out else None
        ),
        prompts=_prompts(held_out or training, model, spec.samples),
        ends=model.turn_ends,
    )


def _packed(
    conversations: Sequence[Conversation], model: LanguageModel, run: Run, *, param: str, room: Room, is_packed: bool
) -> PackedRows:
    each_rendered = render_each(render_conversation, conversations, tokenizer=model.tokenizer, room=room)
    rendered = [one for each in each_rendered for one in each]
    cut = [Rendered(each.tokens[: room.tokens], each.learned[: room.tokens]) for each in rendered]
    kept = [each for each in cut if any(each.learned[1:])]
    _tell_losses(run, rendered, kept, longest=room.tokens)
    if not kept:
        raise InvalidData(
            f"no answer of an assistant is left to learn within {room.tokens} tokens: set max_length", param=param
        )
    tokens = torch.tensor([token for each in kept for token in each.tokens], dtype=torch.int32)
    learned = torch.tensor([is_learned for each in kept for is_learned in each.learned])
    lengths = [len(each.tokens) for each in kept]
    pad_token = model.tokenizer.pad_token_id or 0
    if is_packed:
        return pack_whole(tokens, lengths, row_length=model.max_length, pad_token=pad_token, learned=learned)
    sizes = torch.tensor(lengths)
    return PackedRows(tokens, sizes, starts=sizes.cumsum(0) - sizes, pad_token=pad_token, learned=learned)


def _tell_losses(run: Run, rendered: Sequence[Rendered], kept: Sequence[Rendered], *, longest: int) -> None:
    """Say how many conversations were cut, and how many had nothing to learn."""
    too_long = sum(len(each.tokens) > longest for each in rendered)
    if too_long:
        count = f"{too_long:,} of {len(rendered):,} conversations"
        run.message(f"{count} are longer than {longest} tokens and are cut there: set max_length", "warn")
    if len(kept) < len(rendered):
        run.message(
            f"of {len(rendered) - len(kept):,} conversations no answer to learn is left: they are left out", "warn"
        )


def _prompts(conversations: Sequence[Conversation], model: LanguageModel, count: int) -> list[Prompt]:
    """What comes before the last answer of the first conversations that fit."""
    found: list[Prompt] = []
    for conversation in conversations:
        messages = list(conversation.messages)
        while messages and messages[-1]["role"] != "assistant":
            messages.pop()
        if len(messages) < 2 or len(found) == count:
            continue
        tokens = prompt_tokens(model.tokenizer, messages[:-1], tools=conversation.tools)
        if len(tokens) < model.max_length:
            found.append(Prompt(tokens, _shown(messages[:-1]), str(messages[-1]["content"])))
    return found


def _shown(messages: Sequence[Message]) -> str:
    return "\n".join(f"[{message['role']}] {message['content']}" for message in messages)


TASK = TaskType(reads=(Kind.CONVERSATIONS,), open=open_task)
