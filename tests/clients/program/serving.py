"""`client.chat.completions`, `client.completions` and `client.embeddings`: trying a model out."""

from __future__ import annotations

import math
from typing import Any

from asking import Place, answer, everything, saw

MESSAGES = [{"role": "user", "content": "what follows 3?"}]
TOKENS = 6


async def try_serving(place: Place, job: Any) -> None:
    """The base, the fine-tuned model and a checkpoint answer; a stream says what the whole answer says."""
    texts = {}
    for model in ("tiny-llama", job.fine_tuned_model, f"{job.fine_tuned_model}:ckpt-step-2"):
        asked = {"model": model, "messages": MESSAGES, "max_completion_tokens": TOKENS, "temperature": 0, "seed": 1}
        whole = await answer(place.client.chat.completions.create(**asked))
        (choice,) = whole.choices
        assert choice.finish_reason in ("stop", "length")
        assert choice.message.role == "assistant"
        assert 0 < whole.usage.completion_tokens <= TOKENS
        chunks = await everything(
            await answer(
                place.client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
            )
        )
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert streamed == choice.message.content
        assert chunks[-1].usage == whole.usage
        texts[model] = streamed
    saw("chat.completions.create", texts=texts)
    saw("chat.completions.create, streamed", chunks=len(chunks))
    await _completions(place, job.fine_tuned_model)
    await _embeddings(place, job.fine_tuned_model)


async def _completions(place: Place, model: str) -> None:
    """The client's types have no word for a chunk that is not the last, here as at the hosted API."""
    asked = {"model": model, "prompt": "tell me", "max_tokens": TOKENS, "temperature": 0}
    whole = await answer(place.client.completions.create(**asked))
    lenient = place.another(_strict_response_validation=False)
    chunks = await everything(await answer(lenient.completions.create(**asked, stream=True)))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    saw("completions.create", text=whole.choices[0].text, chunks=len(chunks))


async def _embeddings(place: Place, model: str) -> None:
    """The client asks for base64 unless it is told otherwise, and reads it by itself; its types say nothing of that."""
    lenient = place.another(_strict_response_validation=False)
    found = await answer(lenient.embeddings.create(model=model, input=["three", "four"]))
    plain = await answer(place.client.embeddings.create(model=model, input="three", encoding_format="float"))
    assert [one.index for one in found.data] == [0, 1]
    first, same = found.data[0].embedding, plain.data[0].embedding
    assert len(first) == len(same) > 0
    assert all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-5) for a, b in zip(first, same, strict=True))
    saw("embeddings.create", size=len(first), tokens=found.usage.prompt_tokens)
