"""What a job leaves: its name, its numbers, and the table of its steps."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from asking import Place, answer, saw

COLUMNS = ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]


async def try_results(place: Place, job: Any) -> None:
    """The job that succeeded says what it made, and its result file holds a row a step."""
    assert job.status == "succeeded", job.error
    base, _, suffix, own = job.fine_tuned_model.removeprefix("ft:").split(":")
    assert (base, suffix, f"job-{own}") == ("tiny-llama", "sums", job.id)
    assert job.trained_tokens > 0
    assert job.finished_at >= job.created_at
    saw("fine_tuning.jobs.retrieve, succeeded", model=job.fine_tuned_model, trained_tokens=job.trained_tokens)

    (file_id,) = job.result_files
    file = await answer(place.client.files.retrieve(file_id))
    assert file.purpose == "fine-tune-results"
    rows = list(csv.DictReader(io.StringIO((await answer(place.client.files.content(file_id))).read().decode())))
    assert list(rows[0]) == COLUMNS
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert all(math.isfinite(float(row["train_loss"])) for row in rows)
    assert math.isfinite(float(rows[-1]["valid_loss"]))
    saw("files.content, results", rows=len(rows), last=rows[-1])
