"""Row 17: uploads in parts whose client, or whose API, goes away in the middle."""

from __future__ import annotations

import contextlib
import threading
import time

import httpx

from tests.faults.trials import Trial, fault
from tests.faults.uploading import PartedUpload, files_with, half_stored, kill_after, numbers

MOMENT_SECONDS = 0.02


@fault(row=17, name="client gone, and API killed, in the middle of a part", alone=True)
def cut_in_mid_part(trial: Trial) -> None:
    upload = PartedUpload(trial.stack, numbers(2, seed=time.monotonic_ns()), parts=3)
    first = upload.send(upload.pieces[0])
    with upload.half_a_part(api=1):
        pass
    with upload.half_a_part(api=0):
        trial.stack.apis.kill(0)
    trial.require(list(upload.arrived().values()) == [first], "a part has arrived that did not")
    learn_from_it(trial, upload)


@fault(row=17, name="API killed while it puts parts together", alone=True)
def killed_in_mid_complete(trial: Trial) -> None:
    upload = PartedUpload(trial.stack, numbers(4, seed=time.monotonic_ns()), parts=3)
    part_ids = upload.send_what_is_missing()
    killer = threading.Thread(target=kill_after, args=(trial.stack, MOMENT_SECONDS), kwargs={"api": 0})
    killer.start()
    with contextlib.suppress(httpx.TransportError):
        upload.complete(part_ids, api=0)
    killer.join()
    trial.require(not half_stored(trial.stack), "something is stored half")
    learn_from_it(trial, upload)


def learn_from_it(trial: Trial, upload: PartedUpload) -> None:
    """Go on, complete, and train on what has come: it must be the file that was sent, once."""
    pending = trial.stack.request("GET", f"/v1/uploads/{upload.id}").json()["status"] == "pending"
    answer = upload.complete(upload.send_what_is_missing() if pending else ["any"]).json()
    trial.require(answer["file"]["sha256"] == upload.sha256, "the file is not what was sent")
    trial.require(files_with(trial.stack, upload.sha256) == [answer["file"]["id"]], "there is not one file")
    trial.require(not half_stored(trial.stack), "something is stored half")
    trial.submit({"method": "pca", "n_components": 2, "dataset": answer["file"]["id"]}).until_ended()
