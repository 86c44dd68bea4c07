"""Row 17: uploads in parts while clients and API processes go away in the middle: nothing is stored half."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from core.jobs.models.files import Upload
from tests.faults.parts import until
from tests.faults.stack import ADMIN_KEY, Stack
from tests.faults.uploading import (
    PartedUpload,
    files_with,
    half_stored,
    incoming,
    kill_after,
    numbers,
    parts_in_storage,
)
from weightworks import Client

MEGABYTES = 6
MOMENTS = 4
SETTINGS = {"COLLECT_SECONDS": "0.3", "COLLECT_GRACE_SECONDS": "0.5"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two API processes that collect what is left over; no worker. The matrix has PostgreSQL's turn."""
    stack = Stack(tmp_path_factory.mktemp("uploads"), "sqlite", workers=0, apis=2, **SETTINGS)
    try:
        stack.start()
        yield stack
    finally:
        stack.close()


def settled(stack: Stack) -> None:
    """Nothing that was left in the middle is there any more, and nothing is half."""
    until(lambda: not incoming(stack), what="for what was streamed in to be collected")
    assert half_stored(stack) == []


def test_an_api_that_is_killed_in_mid_part_leaves_no_part(stack: Stack) -> None:
    upload = PartedUpload(stack, numbers(3, seed=1), parts=3)
    first = upload.send(upload.pieces[0])
    with upload.half_a_part(api=0):
        assert stack.apis.process(0).is_running()
        stack.apis.kill(0)
    assert list(upload.arrived().values()) == [first]
    stack.apis.start(0)
    settled(stack)
    assert parts_in_storage(stack) == {first}
    part_ids = upload.send_what_is_missing()
    assert part_ids[0] == first
    file = upload.complete(part_ids, md5=hashlib.md5(upload.content).hexdigest()).json()["file"]
    assert file["sha256"] == upload.sha256
    assert parts_in_storage(stack) == set()


def test_a_client_that_goes_away_in_mid_part_leaves_no_part(stack: Stack) -> None:
    upload = PartedUpload(stack, numbers(3, seed=2), parts=3)
    with upload.half_a_part(api=0):
        pass
    until(lambda: not incoming(stack), what="for the half part to go")
    assert upload.arrived() == {}
    assert parts_in_storage(stack) == set()
    assert upload.complete(upload.send_what_is_missing()).json()["file"]["sha256"] == upload.sha256


def test_an_api_that_is_killed_in_mid_complete_makes_no_file_or_all_of_it(stack: Stack) -> None:
    """At moments from the beginning to behind the end, as long as an undisturbed one takes."""
    undisturbed = PartedUpload(stack, numbers(MEGABYTES, seed=100), parts=3)
    part_ids = undisturbed.send_what_is_missing()
    asked_at = time.monotonic()
    assert undisturbed.complete(part_ids).status_code == 200
    took = time.monotonic() - asked_at
    answers = []
    for moment in range(MOMENTS):
        upload = PartedUpload(stack, numbers(MEGABYTES, seed=200 + moment), parts=3)
        part_ids = upload.send_what_is_missing()
        killer = threading.Thread(target=kill_after, args=(stack, took * moment / (MOMENTS - 1.5)), kwargs={"api": 0})
        killer.start()
        try:
            answers.append(upload.complete(part_ids, api=0).status_code)
        except httpx.TransportError:
            answers.append(0)
        killer.join()
        assert half_stored(stack) == []
        assert len(files_with(stack, upload.sha256)) <= 1
        again = upload.complete(part_ids)
        assert (again.status_code, again.json()["file"]["sha256"]) == (200, upload.sha256), again.text
        assert files_with(stack, upload.sha256) == [again.json()["file"]["id"]]
        assert parts_in_storage(stack) & set(part_ids) == set() or answers[-1] == 0
        stack.request("DELETE", f"/v1/files/{again.json()['file']['id']}")
        stack.apis.start(0)
    assert 0 in answers, "no moment was in the middle"
    settled(stack)
    until(lambda: not parts_in_storage(stack), what="for parts of completed uploads to be collected")


def test_two_apis_that_complete_at_once_make_one_file(stack: Stack) -> None:
    for turn in range(2):
        upload = PartedUpload(stack, numbers(1, seed=300 + turn), parts=4)
        part_ids = upload.send_what_is_missing()
        with ThreadPoolExecutor(6) as threads:
            asked = [threads.submit(upload.complete, part_ids, api=number % 2) for number in range(6)]
            files = {answer.result().json()["file"]["id"] for answer in asked}
        assert len(files) == 1
        assert files_with(stack, upload.sha256) == list(files)
    settled(stack)


def test_a_client_goes_on_while_apis_are_killed_again_and_again(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "numbers.npy"
    path.write_bytes(numbers(MEGABYTES, seed=400))
    told: list[int] = []
    with Client(stack.apis.addresses[0], ADMIN_KEY, max_retries=8) as client, ThreadPoolExecutor(1) as threads:
        running = threads.submit(client.files.upload, path, part_bytes=2**20, on_bytes=told.append)
        for part in range(2):
            until(lambda part=part: running.done() or sum(told) > (2 * part + 1) * 2**20, what="for some parts")
            stack.apis.kill(0)
            stack.apis.start(0)
        file = running.result()
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sum(told) == file.bytes
    settled(stack)


@pytest.mark.parametrize(
    ("piece", "status", "words"), [(b"", 400, "empty"), (b"x" * 3_000_000, 413, "over the limit of 2,000,128 bytes")]
)
def test_a_part_of_no_bytes_or_too_many_is_refused(stack: Stack, piece: bytes, status: int, words: str) -> None:
    upload = PartedUpload(stack, b"x" * 2_000_128, parts=2)
    answer = stack.request("POST", f"/v1/uploads/{upload.id}/parts", files={"data": piece})
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
    assert upload.arrived() == {}
    settled(stack)


def test_the_same_part_twice_is_named_once_and_a_wrong_md5_says_both(stack: Stack) -> None:
    upload = PartedUpload(stack, numbers(1, seed=500), parts=2)
    part_ids = [upload.send(piece) for piece in (upload.pieces[0], upload.pieces[0], upload.pieces[1])]
    assert upload.complete(part_ids).status_code == 400
    wrong = upload.complete(part_ids[1:], md5="f" * 32).json()["error"]
    assert "f" * 32 in wrong["message"]
    assert hashlib.md5(upload.content).hexdigest() in wrong["message"]
    assert upload.complete(part_ids[1:]).json()["file"]["sha256"] == upload.sha256
    assert not parts_in_storage(stack) & set(part_ids)
    settled(stack)


def test_an_upload_that_expires_leaves_nothing(stack: Stack) -> None:
    upload = PartedUpload(stack, numbers(1, seed=600), parts=2)
    upload.send(upload.pieces[0])
    with stack.database.write() as session:
        session.get_one(Upload, upload.id).expires_at = int(time.time()) - 1
    until(lambda: not parts_in_storage(stack), what="for its part to go")
    late = stack.request("POST", f"/v1/uploads/{upload.id}/parts", files={"data": upload.pieces[1]})
    assert late.status_code == 409
    assert "expired" in late.json()["error"]["message"]
