"""What is refused, and as which of the client's errors."""

from __future__ import annotations

from collections.abc import Mapping

import openai
from asking import Place, answer, refused, saw
from files import uploaded, uploaded_base
from records import CONVERSATIONS, WITHOUT_ANSWERS


async def try_mistakes(place: Place, files: Mapping[str, str]) -> None:
    """Each error of the client, by what really brings it about."""
    api = place.client.fine_tuning.jobs
    asked = {"model": "tiny-llama", "training_file": files["training"]}
    found = {
        "unknown key": await refused(lambda: place.another(key="sk-unknown").models.list(), openai.AuthenticationError),
        "a key that may only read": await refused(
            lambda: place.another(key=place.reading_key).fine_tuning.jobs.create(**asked), openai.PermissionDeniedError
        ),
        "unknown job": await refused(lambda: api.retrieve("job-unknown"), openai.NotFoundError),
        "unknown model": await refused(lambda: api.create(**{**asked, "model": "gpt-9"}), openai.NotFoundError),
        "too many epochs": await refused(
            lambda: api.create(**asked, hyperparameters={"n_epochs": 51}), openai.UnprocessableEntityError
        ),
        "expires too soon": await refused(
            lambda: place.client.files.create(
                file=("a.jsonl", CONVERSATIONS),
                purpose="fine-tune",
                expires_after={"anchor": "created_at", "seconds": 1},
            ),
            openai.BadRequestError,
        ),
        "no answers to learn": await refused_data(place),
    }
    for what, error in found.items():
        assert error.body["message"]
        assert set(error.body) >= {"message", "type", "param", "code"}
        saw(f"{type(error).__name__}, {what}", status=error.status_code, message=error.body["message"])
    await try_conflict(place, files)
    await try_limit(place)


async def refused_data(place: Place) -> openai.APIStatusError:
    """Training data that teaches nothing is refused before there is a job, and the line is named."""
    file = await uploaded(place, "prompts.jsonl", WITHOUT_ANSWERS)
    asked = {"model": "tiny-llama", "training_file": file}
    error = await refused(lambda: place.client.fine_tuning.jobs.create(**asked), openai.UnprocessableEntityError)
    assert "line 1" in str(error), error
    return error


async def try_conflict(place: Place, files: Mapping[str, str]) -> None:
    """What comes at the wrong moment is refused at once: repeating it would not help, and the client is told so."""
    api = place.client.fine_tuning.jobs
    job = await answer(api.create(model="tiny-llama", training_file=files["training"]))
    await answer(api.cancel(job.id))
    error = await refused(lambda: api.resume(job.id), openai.ConflictError)
    assert error.response.headers["x-should-retry"] == "false"
    assert error.request.headers["x-stainless-retry-count"] == "0"
    saw("ConflictError, resume", status=error.status_code, message=error.body["message"])


async def try_limit(place: Place) -> None:
    """A project that may have one job at a time is told to come again later."""
    narrow = place.another(key=place.narrow_key, max_retries=0)
    await uploaded_base(narrow, place.base)
    file = await answer(narrow.files.create(file=("training.jsonl", CONVERSATIONS), purpose="fine-tune"))
    asked = {"model": "tiny-llama", "training_file": file.id}
    job = await answer(narrow.fine_tuning.jobs.create(**asked))
    await answer(narrow.fine_tuning.jobs.with_raw_response.pause(job.id))
    error = await refused(lambda: narrow.fine_tuning.jobs.create(**asked, seed=1), openai.RateLimitError)
    assert error.response.headers["retry-after"]
    saw("RateLimitError, quota", status=error.status_code, message=error.body["message"])
    await answer(narrow.fine_tuning.jobs.cancel(job.id))
