"""What can be asked of a model that is tried out, in the words of the hosted API.

Settings that no model here obeys are refused by name; those that only concern the hosted service are taken and ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.spec import Frozen

MAX_CHOICES = 16
MAX_INPUTS = 2048
NO_NUL = r"^[^\x00]*$"
ModelName = Annotated[str, Field(min_length=1, max_length=512, pattern=NO_NUL, description="A model, by any name.")]
Ignored = Annotated[Any, Field(description="Taken and ignored.")]
Refused = Annotated[Any, Field(description="Refused: no model here does this.")]
Stop = Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]], Field(max_length=4)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Annotated[list[Token], Field(min_length=1)]
Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS)]
ManyTokens = Annotated[list[Tokens], Field(min_length=1, max_length=MAX_INPUTS)]


class Part(BaseModel):
    """A part of a message; only text is read."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(description="text or refusal; others are refused.")
    text: str | None = None
    refusal: str | None = None


class ChatMessage(Frozen):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    function_call: dict[str, Any] | None = None
    refusal: Ignored = None
    annotations: Ignored = None
    audio: Ignored = None


class StreamOptions(Frozen):
    """What a stream is to hold beside the text."""

    include_usage: bool | None = Field(None, description="Say at the end how many tokens there were.")
    include_obfuscation: Ignored = None


class Drawing(Frozen):
    """How tokens are drawn."""

    temperature: float | None = Field(None, ge=0, le=2, description="0: always the likeliest token; none: 1.")
    top_p: float | None = Field(None, gt=0, le=1, description="Draw from the likeliest that together have this much.")
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="Taken off tokens that came before.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="The same, for each time that they came.")
    logit_bias: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None = (
        Field(None, max_length=1024, description="Added to the logits of tokens, by their numbers.")
    )
    seed: int | None = Field(None, ge=-(2**62), le=2**62, description="The same answer to the same request.")
    stop: str | Stop | None = Field(None, description="Texts that end an answer; they are left out.")
    max_tokens: int | None = Field(None, ge=1, le=2**31, description="Most tokens of an answer.")


class Request(Drawing):
    """What chats and completions have in common."""

    model: ModelName
    n: int | None = Field(None, ge=1, le=MAX_CHOICES, description="How many answers.")
    stream: bool | None = Field(None, description="Send the answer as it is written, as server-sent events.")
    stream_options: StreamOptions | None = None
    user: Ignored = None

    @property
    def choices(self) -> int:
        """How many answers there are to each prompt."""
        return self.n or 1

    @property
    def has_usage(self) -> bool:
        """Whether a stream says at its end how many tokens there were."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(Request):
    """A conversation to be answered."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=2048)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31, description="As max_tokens, by its newer name.")
    logprobs: bool | None = Field(None, description="Tell of each token's probability.")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="And of those of so many of the likeliest.")
    tools: list[dict[str, Any]] | None = Field(
        None, description="Given to the chat template; how an answer calls one, docs/trying-models.md tells."
    )
    tool_choice: Any = Field(None, description="auto or none.")
    response_format: dict[str, Any] | None = Field(None, description="Only of type text.")
    modalities: list[str] | None = Field(None, description="Only text.")
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    reasoning_effort: Ignored = None
    verbosity: Ignored = None
    prediction: Ignored = None
    parallel_tool_calls: Ignored = None

    audio: Refused = None
    functions: Refused = None
    function_call: Refused = None
    moderation: Refused = None
    web_search_options: Refused = None

    @property
    def offered_tools(self) -> list[dict[str, Any]]:
        """The tools that an answer may call."""
        return [] if self.tool_choice == "none" else self.tools or []


class CompletionRequest(Request):
    """Texts to go on with."""

    prompt: str | Texts | Tokens | ManyTokens | None = Field(description="A text or its tokens, or several.")
    echo: bool | None = Field(None, description="Begin the answer with the prompt.")
    logprobs: int | None = Field(None, ge=0, le=5, description="Tell of the likeliest tokens, so many of each.")
    best_of: int | None = Field(None, description="Only as n.")
    suffix: Refused = None


class EmbeddingRequest(Frozen):
    """Texts to make vectors of."""

    model: ModelName
    input: str | Texts | Tokens | ManyTokens = Field(description="A text or its tokens, or several.")
    dimensions: int | None = Field(None, ge=1, le=2**20, description="Only so many numbers, at unit length again.")
    encoding_format: Literal["float", "base64"] | None = Field(None, description="base64: of float32, little-endian.")
    user: Ignored = None


class ComparisonRequest(Drawing):
    """The same conversation, or the same text, for several models."""

    models: list[ModelName] = Field(
        min_length=1, max_length=8, description="With one alone, the base that it was tuned from answers first."
    )
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=2048)
    prompt: str | None = Field(None, description="A text to go on with, instead of messages.")
