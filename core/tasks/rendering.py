"""Conversations, pairs and prompts as a base's tokens; what it cannot learn from is refused, and said why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from core.data.conversations import Conversation, Message, Preference
from core.data.problems import Problems
from core.data.prompts import GradedPrompt
from core.errors import InvalidSpec
from core.networks.chat_template import Rendered, is_learned, prompt_tokens, render
from core.tasks.classification import shortened
from core.tasks.task import TuningSpec

Example = TypeVar("Example")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Room:
    """How many tokens of an example fit, who says so, and whether longer ones are refused or made do with."""

    tokens: int
    says: str
    is_strict: bool

    def check(self, tokens: int) -> None:
        """Raise ValueError for an example of so many tokens that is to be refused."""
        if self.is_strict and tokens > self.tokens:
            raise ValueError(
                f"it has {tokens:,} tokens, and {self.tokens:,} fit ({self.says}): shorten it, or set too_long to cut"
            )


class Pair(NamedTuple):
    """The conversations that end in the better and in the worse answer."""

    chosen: Rendered
    rejected: Rendered

    @property
    def longest(self) -> int:
        """Tokens of the longer one."""
        return max(len(each.tokens) for each in self)


def room_for(spec: TuningSpec, *, limit: int, usual: int) -> Room:
    """What fits: `max_length`; none: all that the base takes (`limit`), and where longer ones are cut, at most `usual`.

    For prompts, less what their completions take. Raises InvalidSpec for a max_length that the base does not take, or
    that completions fill.
    """
    is_strict = spec.too_long == "refuse"
    tokens, says = limit if is_strict else min(limit, usual), "as many as the base takes"
    if spec.max_length is not None:
        tokens, says = shortened(spec.max_length, limit), "max_length"
    if spec.task != "reinforcement":
        return Room(tokens, says, is_strict)
    if spec.max_completion_tokens >= tokens:
        raise InvalidSpec(
            f"max_completion_tokens ({spec.max_completion_tokens:,}) leaves no room for a prompt: both together fit "
            f"into {tokens:,} tokens ({says})",
            param="max_completion_tokens",
        )
    return Room(tokens - spec.max_completion_tokens, f"{says}, less max_completion_tokens", is_strict)


def render_each(
    render_one: Callable[[Any, Example, Room], Answer], examples: Iterable[Example], *, tokenizer: Any, room: Room
) -> list[Answer]:
    """What `render_one` makes of each example; raises InvalidData by line."""
    problems = Problems()
    found = []
    for example in examples:
        try:
            found.append(render_one(tokenizer, example, room))
        except ValueError as error:
            problems.add(example.where, str(error))  # type: ignore[attr-defined]  # all of them have it
    problems.check()
    return found


def render_conversation(tokenizer: Any, conversation: Conversation, room: Room) -> list[Rendered]:
    """One sequence, or one for each answer; none is cut. Raises ValueError for what is not to be learned from."""
    _check_has_an_answer(conversation.messages)
    rendered = render(tokenizer, conversation.messages, tools=conversation.tools)
    room.check(max(len(each.tokens) for each in rendered))
    return rendered


def _check_has_an_answer(messages: Sequence[Message]) -> None:
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise ValueError("no message is of role assistant: there is no answer to learn")
    if not any(map(is_learned, answers)):
        raise ValueError("every message of role assistant has weight 0: there is no answer to learn")
    if not any(map(is_learned, messages[1:])):
        raise ValueError("the assistant speaks first, and answers nothing: put what it answers before it")


def render_pair(tokenizer: Any, preference: Preference, room: Room) -> Pair:
    """Both conversations of a pair; of the prompt nothing is to be judged. Raises ValueError for what does not fit."""
    prompt = [{**message, "weight": 0} for message in preference.prompt]
    pair = Pair(
        *(_one(tokenizer, [*prompt, *answer], preference) for answer in (preference.chosen, preference.rejected))
    )
    room.check(pair.longest)
    return pair


def _one(tokenizer: Any, messages: Sequence[Mapping[str, Any]], preference: Preference) -> Rendered:
    rendered = render(tokenizer, messages, tools=preference.tools)
    if len(rendered) != 1 or not any(rendered[0].learned):
        raise ValueError("an answer must be one message of role assistant, behind a prompt")
    return rendered[0]


def render_prompt(tokenizer: Any, prompt: GradedPrompt, room: Room) -> Rendered:
    """What the model is to complete, of which nothing is learned. Raises ValueError for what does not fit."""
    tokens = prompt_tokens(tokenizer, prompt.messages, tools=prompt.tools)
    room.check(len(tokens))
    return Rendered(tokens, [False] * len(tokens))
