"""Row 5: the connection to the database ends between a commit and its answer."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.faults.parts import until
from tests.faults.proxy import SOCKET_NAME, LossyProxy
from tests.faults.trials import Trial, fault


@fault(row=5, name="the answer to the commit that ends the job is lost", alone=True, databases=["postgresql"])
def lose_last_answer(trial: Trial) -> None:
    others = list(trial.stack.workers)
    server = Path(trial.stack.server.url.rpartition("host=")[2])
    with tempfile.TemporaryDirectory(prefix="ww-proxy-") as folder:
        proxy = LossyProxy(Path(folder), server / SOCKET_NAME)
        url = trial.stack.server.url.replace(str(server), folder)
        worker = trial.stack.start_worker(WEIGHTWORKS_DATABASE_URL=url)
        until(lambda: worker.is_warm, what="for the worker behind the proxy")
        with trial.stack.stopped(*others):
            job = trial.submit(trial.example("pca"))
            proxy.lose_commit_after("INSERT INTO artifacts")
            job.until_ended()
            until(lambda: not (trial.stack.storage.root / "runs" / job.id).exists(), what="for the worker's leave")
        trial.require(proxy.lost.is_set(), "no answer was lost")
        job.expect("succeeded", attempts=1)
        worker.close()
        proxy.close()
