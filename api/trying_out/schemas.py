"""What is answered of models that are tried out, as the hosted API's clients take it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.answers.answer import Answer

FinishReason = Literal["stop", "length"]
ChatFinishReason = Literal["stop", "length", "tool_calls"]


class UsageObject(Answer):
    """How many tokens there were."""

    prompt_tokens: int
    completion_tokens: int = Field(description="What was written, an end mark included.")
    total_tokens: int


class LikelyToken(Answer):
    """A token, and the natural logarithm of its probability by the model itself, before it is drawn from."""

    token: str
    bytes: list[int] | None = Field(description="Of UTF-8; null: the token is a part of a character.")
    logprob: float


class TokenLogprob(LikelyToken):
    """A token of an answer, beside the likeliest ones in its place."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(Answer):
    """The tokens of an answer, or of a piece of it."""

    content: list[TokenLogprob]
    refusal: None = None


class FunctionCall(Answer):
    """Which function to call, and with what."""

    name: str
    arguments: str = Field(description="An object, as JSON.")


class ToolCall(Answer):
    """A call of a tool that was offered."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ToolCallDelta(ToolCall):
    """A call that comes to an answer, whole."""

    index: int


class AssistantMessage(Answer):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None = Field(description="Null where it calls tools and says nothing beside.")
    refusal: None = None
    tool_calls: list[ToolCall] | None = None


class ChatChoice(Answer):
    """One answer to a conversation."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason


class ChatCompletion(Answer):
    """Answers to a conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageObject


class Delta(Answer):
    """What comes to an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(Answer):
    """A piece of an answer, or its end."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: ChatFinishReason | None = None


class ChatChunk(Answer):
    """One event of a streamed chat."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageObject | None = None


class TextLogprobs(Answer):
    """The tokens of a text, or of a piece of it, with where each begins in it."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(Answer):
    """One way in which a text goes on."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None = Field(description="Null in a stream, but for the end.")


class TextCompletion(Answer):
    """How texts go on; also one event of that as a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: UsageObject | None = Field(description="Null in a stream, but for the end.")


class EmbeddingObject(Answer):
    """The vector of a text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="Numbers, or base64 of float32, little-endian.")


class EmbeddingUsage(Answer):
    """How many tokens there were."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Answer):
    """The vectors of texts, in their order."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage


class ComparedAnswer(Answer):
    """What one model answered."""

    model: str
    text: str
    finish_reason: FinishReason
    usage: UsageObject


class ComparisonObject(Answer):
    """What several models answered to the same, in the order in which they were named."""

    object: Literal["comparison"] = "comparison"
    created: int
    answers: list[ComparedAnswer]
