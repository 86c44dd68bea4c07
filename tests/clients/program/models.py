"""`client.models`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openai
from asking import Place, answer, everything, refused, saw


async def try_models(place: Place, job: Any, files: Mapping[str, str]) -> None:
    """Models are listed under the names that jobs take, and go when they are told to."""
    models = place.client.models
    found = {model.id: model for model in await everything(models.list())}
    assert job.fine_tuned_model in found
    assert files["base"] in found
    saw("models.list", ids=list(found))
    name = job.fine_tuned_model
    assert (await answer(models.retrieve(name))) == found[name]
    base = await answer(models.retrieve("tiny-llama"))
    assert base.object == "model"
    saw("models.retrieve", id=name, base=base.id)
    gone = await answer(models.delete(name))
    assert (gone.id, gone.deleted, gone.object) == (name, True, "model")
    await refused(lambda: models.retrieve(name), openai.NotFoundError)
    saw("models.delete", id=gone.id)
