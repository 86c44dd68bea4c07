"""Which checkpoints are kept."""

from __future__ import annotations

from core.jobs import checkpointing
from core.jobs.database import Database
from core.jobs.models.results import Checkpoint
from tests.core.jobs.lines import claim, submit


def test_the_newest_two_checkpoints_are_kept(database: Database) -> None:
    job_id = submit(database)
    held = claim(database)
    dropped = []
    for step in (10, 20, 20, 30):
        with database.write() as session:
            told = {"key": f"step-{step}", "step": step, "size": 1, "sha256": "", "metrics": {}}
            dropped += checkpointing.add_checkpoint(session, held, **told).superseded
    with database.read() as session:
        kept: list[Checkpoint] = checkpointing.latest_checkpoints(session, job_id)
    assert [row.step for row in kept] == [30, 20]
    assert dropped == ["step-10"]


def test_the_newest_three_of_epochs_are_kept_besides(database: Database) -> None:
    job_id = submit(database)
    held = claim(database)
    for step in range(1, 10):
        with database.write() as session:
            told = {"key": f"step-{step}", "step": step, "size": 1, "sha256": "", "metrics": {}}
            added = checkpointing.add_checkpoint(session, held, **told, is_epoch=step % 2 == 0)
    with database.write() as session:
        kept = {row.step: row.id for row in checkpointing.latest_checkpoints(session, job_id)}
        again = checkpointing.add_checkpoint(session, held, key="new", step=8, size=1, sha256="", metrics={})
        row = session.get_one(Checkpoint, again.id)
        assert (row.key, row.is_epoch) == ("new", True)
    assert list(kept) == [9, 8, 6, 4]
    assert (again.id, again.superseded) == (kept[8], ["step-8"])
    assert added.id == kept[9]
