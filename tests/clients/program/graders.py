"""`client.fine_tuning.alpha.graders`."""

from __future__ import annotations

from typing import Any

import openai
from asking import Place, answer, refused, saw

GRADER = {
    "type": "string_check",
    "name": "next number",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.next}}",
}
SIMILARITY = {
    "type": "text_similarity",
    "name": "close",
    "evaluation_metric": "fuzzy_match",
    "input": "{{sample.output_text}}",
    "reference": "{{item.next}}",
}


async def try_graders(place: Place) -> None:
    """A grader is looked at, and tried on an answer."""
    graders = place.client.fine_tuning.alpha.graders
    validated = await answer(graders.validate(grader=GRADER))
    assert validated.grader.to_dict() == GRADER
    saw("fine_tuning.alpha.graders.validate", grader=validated.grader.name)
    both = {"exact": GRADER, "close": SIMILARITY}
    multi = {"type": "multi", "name": "both", "graders": both, "calculate_output": "0.75 * exact + 0.25 * close"}
    rewards = [await reward(place, GRADER, sample) for sample in ("8", "9")]
    assert [*rewards, await reward(place, SIMILARITY, "8"), await reward(place, multi, "8")] == [1.0, 0.0, 1.0, 1.0]
    python = {"type": "python", "name": "own", "source": "def grade(sample, item): return 1"}
    error = await refused(
        lambda: graders.run(grader=python, model_sample="8", item={}), openai.UnprocessableEntityError
    )
    saw("fine_tuning.alpha.graders.run", rewards=rewards, refused=error.body["message"])


async def reward(place: Place, grader: Any, sample: str) -> float:
    """What a grader finds an answer worth."""
    found = await answer(
        place.client.fine_tuning.alpha.graders.run(grader=grader, model_sample=sample, item={"next": "8"})
    )
    assert not any(value is True for value in found.metadata.errors.to_dict().values())
    return float(found.reward)
