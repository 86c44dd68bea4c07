"""`client.fine_tuning.jobs`: made in every way that the client knows, listed, watched, cancelled and left off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openai
from asking import Place, answer, everything, saw
from files import uploaded
from graders import GRADER
from openai.types.fine_tuning import FineTuningJobEvent
from records import PREFERENCES, PROMPTS

SMALL = {"n_epochs": 2, "batch_size": 6}


async def submitted(place: Place, files: Mapping[str, str]) -> dict[str, str]:
    """The ids of a job of each method; those that nobody waits for are cancelled at once."""
    pairs = await uploaded(place, "pairs.jsonl", PREFERENCES)
    prompts = await uploaded(place, "prompts.jsonl", PROMPTS)
    hyperparameters = {"hyperparameters": {**SMALL, "learning_rate_multiplier": "auto"}}
    asked: dict[str, Any] = {
        "supervised": {
            "training_file": files["training"],
            "validation_file": files["validation"],
            "method": {"type": "supervised", "supervised": hyperparameters},
        },
        "dpo": {
            "training_file": pairs,
            "method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1, "batch_size": 6, "beta": 0.2}}},
        },
        "reinforcement": {
            "training_file": prompts,
            "method": {
                "type": "reinforcement",
                "reinforcement": {"grader": GRADER, "hyperparameters": {"n_epochs": 1, "batch_size": 6}},
            },
            "extra_body": {"max_completion_tokens": 8},
        },
    }
    jobs = {name: await _made(place, name, **each) for name, each in asked.items()}
    for name in set(jobs) - set(place.waits_for) - {"supervised"}:
        assert (await answer(place.client.fine_tuning.jobs.cancel(jobs[name]))).status in ("cancelled", "running")
    return jobs


async def _made(place: Place, name: str, **asked: Any) -> str:
    """The job's id, after a look at how it was understood."""
    job = await answer(
        place.client.fine_tuning.jobs.create(
            model="tiny-llama", suffix="sums", seed=7, metadata={"client": place.name, "method": name}, **asked
        )
    )
    assert (job.object, job.model, job.seed) == ("fine_tuning.job", "tiny-llama", 7)
    assert job.metadata == {"client": place.name, "method": name}
    assert (job.training_file, job.validation_file) == (asked["training_file"], asked.get("validation_file"))
    assert job.method.type == name
    chosen = getattr(job.method, name).hyperparameters
    assert all(isinstance(value, int | float) for value in (chosen.n_epochs, chosen.learning_rate_multiplier))
    assert (job.fine_tuned_model, job.finished_at, job.trained_tokens, job.result_files) == (None, None, None, [])
    saw(f"fine_tuning.jobs.create, {name}", id=job.id, status=job.status, chosen=chosen.to_dict())
    return str(job.id)


async def listed(place: Place, jobs: Mapping[str, str]) -> None:
    """Jobs are found by their metadata, page after page, and one by one."""
    api = place.client.fine_tuning.jobs
    mine = await everything(api.list(limit=1, metadata={"client": place.name}))
    assert [job.id for job in mine] == list(reversed(jobs.values()))
    found = await everything(api.list(metadata={"client": place.name, "method": "dpo"}))
    assert [job.id for job in found] == [jobs["dpo"]]
    saw("fine_tuning.jobs.list", ids=[job.id for job in mine])
    same = await answer(api.retrieve(jobs["supervised"]))
    assert same.id == jobs["supervised"]
    saw("fine_tuning.jobs.retrieve", id=same.id, status=same.status)


async def try_cancelling(place: Place, files: Mapping[str, str]) -> None:
    """A job as older code makes it, which its owner thinks better of."""
    api = place.client.fine_tuning.jobs
    asked = {"model": "tiny-llama", "training_file": files["training"]}
    job = await answer(api.create(**asked, hyperparameters={"n_epochs": 3, "batch_size": "auto"}))
    assert job.hyperparameters.n_epochs == 3
    assert isinstance(job.hyperparameters.batch_size, int)
    saw("fine_tuning.jobs.create, hyperparameters", id=job.id, chosen=job.hyperparameters.to_dict())
    cancelled = await answer(api.cancel(job.id))
    assert cancelled.id == job.id
    assert cancelled.status in ("cancelled", "running")
    saw("fine_tuning.jobs.cancel", id=job.id, status=cancelled.status)

    native = await answer(api.create(**asked, extra_body={"strategy": "full", "max_length": 64}))
    shown = await answer(place.client.get(f"/jobs/{native.id}", cast_to=object))
    assert (shown["spec"]["strategy"], shown["spec"]["max_length"]) == ("full", 64)
    assert all(isinstance(value, int | float) for value in native.hyperparameters.to_dict().values())
    saw("fine_tuning.jobs.create, extra_body", id=native.id, strategy=shown["spec"]["strategy"])
    await answer(api.cancel(native.id))


async def try_pausing(place: Place, files: Mapping[str, str]) -> None:
    """A job is left off, and gone on with.

    The client's own types know no job that is paused: it is read without holding it against them.
    """
    api = place.client.fine_tuning.jobs
    job = await answer(api.create(model="tiny-llama", training_file=files["training"]))
    paused = (await answer(api.with_raw_response.pause(job.id))).http_response.json()
    assert paused["status"] in ("paused", "running")
    saw("fine_tuning.jobs.pause", id=job.id, status=paused["status"])
    while paused["status"] != "paused":
        paused = (await answer(api.with_raw_response.retrieve(job.id))).http_response.json()
    resumed = await answer(api.resume(job.id))
    assert resumed.status in ("queued", "running")
    saw("fine_tuning.jobs.resume", id=job.id, status=resumed.status)
    await answer(api.cancel(job.id))


async def waited(place: Place, job_id: str) -> None:
    """Watch a job to its end by the stream of its events; pages say the same as the stream."""
    stream = openai.Stream if place.kind == "sync" else openai.AsyncStream
    events = await answer(
        place.client.get(
            f"/fine_tuning/jobs/{job_id}/events",
            cast_to=FineTuningJobEvent,
            options={"headers": {"Accept": "text/event-stream"}},
            stream=True,
            stream_cls=stream[FineTuningJobEvent],
        )
    )
    streamed = await everything(events)
    api = place.client.fine_tuning.jobs
    job = await answer(api.retrieve(job_id))
    assert job.status == "succeeded", job.error
    paged = await everything(api.list_events(job_id, limit=5))
    assert [event.id for event in reversed(paged)] == [event.id for event in streamed]
    assert {event.type for event in paged} == {"message", "metrics"}
    saw("fine_tuning.jobs.events, streamed", count=len(streamed), last=streamed[-1].message)
    saw("fine_tuning.jobs.list_events", count=len(paged))
