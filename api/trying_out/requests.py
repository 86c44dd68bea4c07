"""What can be asked of a model that is tried out, in the words of the hosted API.

Settings that no model here obeys are refused by name; those that only concern the hosted service are taken and ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.data.conversations import plain_messages
from core.errors import InvalidRequest
from core.settings import Settings
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


def chat_order(body: ChatRequest, settings: Settings) -> dict[str, Any]:
    """What the serving process is asked; raises InvalidRequest that names what is not done here."""
    refuse(body, "audio", "functions", "function_call", "moderation", "web_search_options")
    if (body.response_format or {}).get("type", "text") != "text":
        raise unsupported("response_format", "answers are free text: ask for JSON in the messages, or leave it out")
    if body.tool_choice not in (None, "auto", "none"):
        raise unsupported("tool_choice", "take auto or none")
    if set(body.modalities or ()) - {"text"}:
        raise unsupported("modalities", "answers are text")
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true beside it", param="top_logprobs")
    most = body.max_completion_tokens or body.max_tokens
    return _generate(
        body,
        messages=_messages(body.messages),
        tools=body.offered_tools or None,
        choices=body.choices,
        max_tokens=most,
        default_tokens=settings.serving_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )


def completion_orders(body: CompletionRequest) -> list[dict[str, Any]]:
    """What the serving process is asked for each prompt; raises InvalidRequest."""
    refuse(body, "suffix")
    if (body.best_of or body.choices) != body.choices:
        raise unsupported("best_of", "ask for n answers and choose")
    if body.echo and body.logprobs is not None:
        raise unsupported("logprobs", "not with echo: the prompt's tokens are not told of")
    return [
        _generate(
            body,
            prompt=prompt,
            choices=body.choices,
            max_tokens=body.max_tokens or 16,
            echo=bool(body.echo),
            logprobs=body.logprobs,
        )
        for prompt in _each(body.prompt)
    ]


def comparison_order(body: ComparisonRequest, settings: Settings) -> dict[str, Any]:
    """What the serving process is asked of each model: greedily, unless a temperature is given."""
    if (body.messages is None) == (body.prompt is None):
        raise InvalidRequest("give either messages or a prompt", param="messages")
    greedy = body if body.temperature is not None else body.model_copy(update={"temperature": 0.0})
    asked: dict[str, Any] = {"messages": _messages(body.messages)} if body.messages else {"prompt": body.prompt}
    return _generate(greedy, max_tokens=body.max_tokens, default_tokens=settings.serving_tokens, **asked)


def embedding_order(body: EmbeddingRequest) -> dict[str, Any]:
    """What the serving process is asked."""
    return {"type": "embed", "inputs": _each(body.input), "dimensions": body.dimensions}


def _each(given: Any) -> Sequence[Any]:
    """Texts, or tokens of texts, of which one may have been given by itself."""
    return given if isinstance(given, list) and not isinstance(given[0], int) else [given]


def _generate(body: Drawing, *, logprobs: int | None = None, **asked: Any) -> dict[str, Any]:
    sampling: dict[str, Any] = {
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": body.top_p or 1.0,
        "presence_penalty": body.presence_penalty or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "logit_bias": body.logit_bias or {},
        "seed": body.seed,
        "logprobs": logprobs,
    }
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return {"type": "generate", "asked": {**asked, "stop": stop, "sampling": sampling}}


def _messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as chat templates take them; raises InvalidRequest for parts that are not text."""
    plain = plain_messages([_read(message, f"messages.{index}") for index, message in enumerate(messages)])
    return [dict(message) for message in plain]


def _read(message: ChatMessage, place: str) -> dict[str, Any]:
    given = message.model_dump(exclude_none=True, exclude={"refusal", "annotations", "audio"})
    if isinstance(message.content, list):
        for part in message.content:
            if part.type not in ("text", "refusal"):
                raise unsupported(f"{place}.content", f"only text is read, and this holds a part of type {part.type}")
        given = {**given, "content": "".join(part.text or part.refusal or "" for part in message.content)}
    return given


def refuse(body: BaseModel, *fields: str) -> None:
    """Raise InvalidRequest for the first of these fields that is given."""
    for name in fields:
        if getattr(body, name) is not None:
            raise unsupported(name, "no model here does this: leave it out")


def unsupported(name: str, cure: str) -> InvalidRequest:
    """What is said of a setting that is not obeyed here."""
    return InvalidRequest(f"{name} is not supported as given: {cure}", param=name, code="unsupported_parameter")
