"""What is there once a job has succeeded."""

from __future__ import annotations

from sqlalchemy import select

from core.jobs import publishing, store
from core.jobs.artifacts import Published
from core.jobs.database import Database
from core.jobs.files import FINE_TUNE_RESULTS, STEP_METRICS
from core.jobs.models.files import File
from core.jobs.models.results import TrainedModel
from core.spec import MethodSpec
from tests.core.jobs.lines import PROJECT, claim, get


def test_a_job_of_the_fine_tuning_api_gives_its_model_a_name_and_its_results_a_file(database: Database) -> None:
    files = [
        Published(path, f"k/{path}", 3, sha256 * 64, "text/csv")
        for path, sha256 in (("model.safetensors", "0"), (STEP_METRICS, "1"))
    ]
    with database.write() as session:
        spec = MethodSpec(method="pca", dataset="file-1")
        told = {"project_id": PROJECT, "spec": spec, "max_attempts": 1}
        native = store.create_job(session, **told).id
        asked = store.create_job(session, **told, request={"model": "llama", "suffix": "x"}).id
    for job_id in (native, asked):
        held = claim(database)
        assert held.job_id == job_id
        with database.write() as session:
            publishing.succeed_job(session, held, files=files, metrics={}, lineage={})
    with database.read() as session:
        aliases = dict(session.execute(select(TrainedModel.job_id, TrainedModel.alias)).all())
        assert aliases == {native: None, asked: f"ft:llama:test:x:{asked.removeprefix('job-')}"}
        (file,) = session.scalars(select(File))
        assert (file.purpose, file.filename, file.bytes, file.sha256) == (FINE_TUNE_RESULTS, STEP_METRICS, 3, "1" * 64)
        assert (get(database, native).result_file_id, get(database, asked).result_file_id) == (None, file.id)
