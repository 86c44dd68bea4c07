"""Everything that the Python `openai` client offers of what this server has, one call after another.

    python -S tests/clients/program sync --base-url http://127.0.0.1:8000/v1 --key ww-... ...

Prints a line of JSON for each call; ends with a traceback where an answer is not what the client's own types say.
"""

from __future__ import annotations

import asyncio

from asking import Place, read_arguments
from checkpoints import try_checkpoints
from files import try_files, uploaded, uploaded_base
from graders import try_graders
from jobs import listed, submitted, try_cancelling, try_pausing, waited
from mistakes import try_mistakes
from models import try_models
from records import CONVERSATIONS, HELD_OUT
from results import try_results
from retries import try_retries
from serving import try_serving
from uploads import try_uploads
from webhooks import Receiver, delivered, try_endpoints


async def main(place: Place) -> None:
    """Submit jobs, try everything else while they train, then look at what they made."""
    await try_files(place)
    await try_uploads(place)
    files = {
        "base": await uploaded_base(place.client, place.base),
        "training": await uploaded(place, "training.jsonl", CONVERSATIONS),
        "validation": await uploaded(place, "validation.jsonl", HELD_OUT),
    }
    with Receiver() as receiver:
        secret = await try_endpoints(place, receiver)
        jobs = await submitted(place, files)
        await listed(place, jobs)
        await try_cancelling(place, files)
        await try_pausing(place, files)
        await try_retries(place, files)
        await try_mistakes(place, files)
        await try_graders(place)
        for method in place.waits_for:
            await waited(place, jobs[method])
        job = await delivered(place, receiver, jobs["supervised"], secret)
    await try_results(place, job)
    await try_checkpoints(place, job)
    await try_serving(place, job)
    await try_models(place, job, files)


if __name__ == "__main__":
    asyncio.run(main(read_arguments()))
