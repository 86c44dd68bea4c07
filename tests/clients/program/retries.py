"""An answer that is lost: the client sends the same job again, and there is one."""

from __future__ import annotations

from collections.abc import Mapping

from asking import Place, answer, everything, saw


async def try_retries(place: Place, files: Mapping[str, str]) -> None:
    """Submit a job through a connection that breaks once its request has arrived."""
    metadata = {"client": place.name, "lost": "yes"}
    lossy = place.another(base_url=place.lossy_url)
    job = await answer(
        lossy.fine_tuning.jobs.with_raw_response.create(
            model="tiny-llama", training_file=files["training"], metadata=metadata
        )
    )
    assert job.retries_taken == 1
    made = job.parse()
    found = await everything(place.client.fine_tuning.jobs.list(metadata=metadata))
    assert [one.id for one in found] == [made.id]
    saw("fine_tuning.jobs.create, repeated", id=made.id, retries=job.retries_taken, jobs=len(found))
    await answer(place.client.fine_tuning.jobs.cancel(made.id))
