"""Uploads in parts over HTTP: announced, gone on with, completed once, cancelled, expired."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import update

from core.jobs.models.files import Upload
from tests.api.service import (
    MAX_PART_BYTES,
    MAX_UPLOAD_BYTES,
    Service,
    new_project,
    submit,
    table,
    wait_for,
)
from tests.api.test_files import MULTIPART, blobs, incoming, model_archive, raw_connection


def announce(http: httpx.Client, content: bytes, **changes: Any) -> str:
    told = {"filename": "table.csv", "purpose": "dataset", "mime_type": "text/csv", "bytes": len(content)}
    answer = http.post("/v1/uploads", json={**told, **changes})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def send(http: httpx.Client, upload_id: str, *contents: bytes) -> list[str]:
    """The ids of the parts."""
    answers = [http.post(f"/v1/uploads/{upload_id}/parts", files={"data": content}) for content in contents]
    return [answer.raise_for_status().json()["id"] for answer in answers]


def complete(http: httpx.Client, upload_id: str, part_ids: Sequence[str], **changes: Any) -> httpx.Response:
    return http.post(f"/v1/uploads/{upload_id}/complete", json={"part_ids": part_ids, **changes})


def parts_in_storage(service: Service) -> set[str]:
    folder = service.folder / "storage" / "parts"
    return set(os.listdir(folder)) if folder.exists() else set()


def cut(content: bytes, count: int = 3) -> list[bytes]:
    size = -(-len(content) // count)
    return [content[start : start + size] for start in range(0, len(content), size)]


def refused(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


def test_parts_become_the_file_that_they_are_together(http: httpx.Client, service: Service) -> None:
    content = table(500)
    upload_id = announce(http, content, filename="../big\x00.csv", purpose="fine-tune")
    pending = http.get(f"/v1/uploads/{upload_id}").json()
    assert (pending["status"], pending["file"], pending["filename"]) == ("pending", None, "big.csv")
    assert pending["expires_at"] == pending["created_at"] + 24 * 3600
    part_ids = send(http, upload_id, *cut(content))
    parts = http.get(f"/v1/uploads/{upload_id}/parts", params={"order": "asc"}).json()["data"]
    assert [part["id"] for part in parts] == part_ids
    for part, piece in zip(parts, cut(content), strict=True):
        assert (part["bytes"], part["upload_id"]) == (len(piece), upload_id)
        assert part["sha256"] == hashlib.sha256(piece).hexdigest()
        assert part["md5"] == hashlib.md5(piece).hexdigest()
    md5 = hashlib.md5(content).hexdigest()
    done = complete(http, upload_id, part_ids, md5=md5.upper()).json()
    assert (done["status"], done["file"]["kind"], done["file"]["purpose"]) == ("completed", "table", "fine-tune")
    assert done["file"] == http.get(f"/v1/files/{done['file']['id']}").json()
    assert done["file"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert http.get(f"/v1/files/{done['file']['id']}/content").content == content
    assert http.get(f"/v1/uploads/{upload_id}/parts").json()["data"] == []
    assert not parts_in_storage(service) & set(part_ids)
    submit(http, done["file"]["id"])


def test_order_is_as_named_and_what_is_not_named_goes(http: httpx.Client, service: Service) -> None:
    first, last = cut(table(), 2)
    upload_id = announce(http, first + last)
    late, twice, early = send(http, upload_id, last, first, first)
    file = complete(http, upload_id, [early, late]).json()["file"]
    assert http.get(f"/v1/files/{file['id']}/content").content == first + last
    assert not parts_in_storage(service) & {late, twice, early}


def test_a_base_model_may_come_in_parts(http: httpx.Client) -> None:
    content = model_archive()
    upload_id = announce(http, content, filename="m.zip", purpose="base-model")
    file = complete(http, upload_id, send(http, upload_id, *cut(content))).json()["file"]
    assert http.get(f"/v1/models/{file['id']}").json()["name"] == "m.zip"


def test_completing_again_answers_the_same(http: httpx.Client) -> None:
    content = table(30)
    upload_id = announce(http, content)
    part_ids = send(http, upload_id, *cut(content))
    first = complete(http, upload_id, part_ids).json()
    assert complete(http, upload_id, part_ids).json() == first
    http.delete(f"/v1/files/{first['file']['id']}").raise_for_status()
    assert complete(http, upload_id, part_ids).json() == {**first, "file": None}


def test_completing_at_once_gives_one_file(http: httpx.Client, service: Service) -> None:
    content = table(2000, seed=99)
    for _ in range(3):
        upload_id = announce(http, content)
        part_ids = send(http, upload_id, *cut(content, 8))
        orders = [part_ids, part_ids, part_ids[:1] + part_ids[2:] + part_ids[1:2], part_ids]
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(partial(complete, http, upload_id), orders))
        files = {answer.json()["file"]["id"] for answer in answers if answer.status_code == 200}
        assert len(files) == 1, [answer.text for answer in answers]
        assert {answer.status_code for answer in answers} <= {200, 422}
        assert [file["id"] for file in http.get("/v1/files").json()["data"]] == list(files)
        sha256 = http.get(f"/v1/files/{files.copy().pop()}").json()["sha256"]
        assert sha256 in blobs(service)
        http.delete(f"/v1/files/{files.pop()}").raise_for_status()
        assert sha256 not in blobs(service)
    assert incoming(service) == []


def test_a_wrong_md5_says_both_and_leaves_the_upload_as_it_was(http: httpx.Client, service: Service) -> None:
    content = table(31)
    upload_id = announce(http, content)
    part_ids = send(http, upload_id, content)
    status, param, message = refused(complete(http, upload_id, part_ids, md5="0" * 32))
    assert (status, param) == (400, "md5")
    assert "0" * 32 in message
    assert hashlib.md5(content).hexdigest() in message
    assert http.get("/v1/files").json()["data"] == []
    assert incoming(service) == []
    assert complete(http, upload_id, part_ids, md5=hashlib.md5(content).hexdigest()).status_code == 200


def test_parts_that_are_not_the_file_are_refused(http: httpx.Client) -> None:
    content = table()
    upload_id, other_id = announce(http, content), announce(http, content)
    first, last = send(http, upload_id, *cut(content, 2))
    (foreign,) = send(http, other_id, content)
    for part_ids, param, words in (
        ([first, first], "part_ids", "twice"),
        ([first], "part_ids", f"{len(content):,}"),
        ([first, last, "part-nowhere"], "part_ids.2", "part-nowhere"),
        ([foreign], "part_ids.0", foreign),
    ):
        status, found, message = refused(complete(http, upload_id, part_ids))
        assert (status, found) == (400, param)
        assert words in message
    assert refused(complete(http, upload_id, []))[0] == 422
    assert complete(http, upload_id, [first, last]).status_code == 200


def test_bad_data_is_told_by_line_and_the_upload_stays_pending(http: httpx.Client, service: Service) -> None:
    content = b"a,b\n1,2\n3\n"
    upload_id = announce(http, content)
    part_ids = send(http, upload_id, *cut(content, 2))
    before = blobs(service)
    answer = complete(http, upload_id, part_ids)
    assert answer.status_code == 422
    assert [problem["where"] for problem in answer.json()["error"]["problems"]] == ["line 3"]
    assert (blobs(service), incoming(service)) == (before, [])
    assert http.get(f"/v1/uploads/{upload_id}").json()["status"] == "pending"
    good = send(http, upload_id, b"a,b\n1,2\n34")
    assert complete(http, upload_id, good).status_code in (200, 422)
    assert http.post(f"/v1/uploads/{upload_id}/cancel").status_code in (200, 409)


@pytest.mark.parametrize("status", ["completed", "cancelled", "expired"])
def test_the_wrong_moment_names_the_status(http: httpx.Client, service: Service, status: str) -> None:
    content = table(8)
    upload_id = announce(http, content)
    part_ids = send(http, upload_id, content)
    if status == "completed":
        complete(http, upload_id, part_ids).raise_for_status()
    elif status == "cancelled":
        assert http.post(f"/v1/uploads/{upload_id}/cancel").json()["status"] == "cancelled"
        assert not parts_in_storage(service) & set(part_ids)
    else:
        with service.database.write() as session:
            session.execute(update(Upload).where(Upload.id == upload_id).values(expires_at=1))
    assert http.get(f"/v1/uploads/{upload_id}").json()["status"] == status
    listed = http.get("/v1/uploads", params={"status": status}).json()["data"]
    assert [upload["id"] for upload in listed] == [upload_id]
    assert http.get("/v1/uploads", params={"status": "pending"}).json()["data"] == []
    late = [
        http.post(f"/v1/uploads/{upload_id}/parts", files={"data": b"x"}),
        http.post(f"/v1/uploads/{upload_id}/cancel"),
    ]
    if status != "completed":
        late.append(complete(http, upload_id, part_ids))
    for answer in late:
        assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
        assert status in answer.json()["error"]["message"]
    assert incoming(service) == []


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"bytes": 0}, 422, "bytes"),
        ({"bytes": MAX_UPLOAD_BYTES + 1}, 413, "bytes"),
        ({"bytes": 10**30}, 413, "bytes"),
        ({"filename": ""}, 422, "filename"),
        ({"purpose": "a\nb"}, 400, "purpose"),
        ({"purpose": ""}, 400, "purpose"),
        ({"mime_type": "a\x00"}, 422, "mime_type"),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, 422, "expires_after.seconds"),
        ({"expires_after": {"anchor": "now", "seconds": 3600}}, 422, "expires_after.anchor"),
        ({"expires_after": {"seconds": 3600}}, 422, "expires_after.anchor"),
        ({"more": 1}, 422, "more"),
    ],
)
def test_an_upload_that_cannot_be_is_refused(
    http: httpx.Client, changes: dict[str, Any], status: int, param: str
) -> None:
    told = {"filename": "a", "purpose": "dataset", "mime_type": "text/csv", "bytes": 10}
    assert refused(http.post("/v1/uploads", json={**told, **changes}))[:2] == (status, param)


def test_a_part_that_cannot_be_is_refused_and_leaves_nothing(http: httpx.Client, service: Service) -> None:
    before = parts_in_storage(service)
    upload_id = announce(http, b"x" * MAX_UPLOAD_BYTES)
    small_id = announce(http, table())
    address = f"/v1/uploads/{upload_id}/parts"
    assert refused(http.post(address, files={"data": b""}))[:2] == (400, "data")
    assert refused(http.post(address, files={"file": b"x"}))[:2] == (400, "data")
    assert refused(http.post(address, files={"data": b"x"}, data={"purpose": "x"}))[:2] == (400, "purpose")
    assert refused(http.post(address, json={"data": "x"}))[0] == 400
    assert refused(http.post(address, files={"data": b"x" * (MAX_PART_BYTES + 1)}))[0] == 413
    assert refused(http.post(address, files={"data": b"x" * (MAX_PART_BYTES + 2**18)}))[0] == 413
    too_long = http.post(f"/v1/uploads/{small_id}/parts", files={"data": table() + b"x"})
    assert refused(too_long)[:2] == (413, "data")
    assert http.get(f"{address}").json()["data"] == []
    assert (parts_in_storage(service), incoming(service)) == (before, [])


def test_a_client_that_goes_away_in_mid_part_leaves_nothing(http: httpx.Client, service: Service, key: str) -> None:
    upload_id = announce(http, b"x" * 10**6)
    before = parts_in_storage(service)
    with raw_connection(service) as connection:
        connection.sendall(
            f"POST /v1/uploads/{upload_id}/parts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
            f"content-type: {MULTIPART}\r\ncontent-length: 1000000\r\n\r\n".encode()
            + b'--x\r\ncontent-disposition: form-data; name="data"; filename="a"\r\n\r\n'
            + b"1,2\n" * 1000
        )
        wait_for(lambda: incoming(service))
    wait_for(lambda: incoming(service) == [])
    assert parts_in_storage(service) == before
    assert http.get(f"/v1/uploads/{upload_id}/parts").json()["data"] == []


def test_uploads_and_parts_are_listed_by_pages(http: httpx.Client) -> None:
    upload_ids = [announce(http, table(rows)) for rows in (5, 6, 7)]
    part_ids = send(http, upload_ids[0], b"1", b"2", b"3")
    for path, ids in (("/v1/uploads", upload_ids), (f"/v1/uploads/{upload_ids[0]}/parts", part_ids)):
        found: list[str] = []
        has_more = True
        while has_more:
            params = {"order": "asc", "limit": 2, **({"after": found[-1]} if found else {})}
            page = http.get(path, params=params).json()
            found += [one["id"] for one in page["data"]]
            has_more = page["has_more"]
        assert found == ids
    other = send(http, upload_ids[1], b"x")
    assert http.get(f"/v1/uploads/{upload_ids[0]}/parts", params={"after": other[0]}).status_code == 404


def test_another_project_has_other_uploads(http: httpx.Client, service: Service) -> None:
    content = table()
    upload_id = announce(http, content)
    part_ids = send(http, upload_id, content)
    with service.client(new_project(service)) as other:
        assert complete(other, upload_id, part_ids).status_code == 404
        mine = announce(other, content)
        assert refused(complete(other, mine, part_ids))[:2] == (400, "part_ids.0")
        assert [one["id"] for one in other.get("/v1/uploads").json()["data"]] == [mine]


def test_uploads_in_parts_use_flat_memory(http: httpx.Client, service: Service) -> None:
    content = io.BytesIO()
    np.save(content, np.random.default_rng(0).random((12_000, 1024), dtype=np.float32))
    pieces = cut(content.getvalue(), 48)
    warm = announce(http, table())
    complete(http, warm, send(http, warm, table())).raise_for_status()
    process = service.api.process
    before = process.memory_info().rss
    upload_id = announce(http, content.getvalue())
    part_ids = send(http, upload_id, *pieces)
    growth = [process.memory_info().rss - before]
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(complete, http, upload_id, part_ids)
        while not done.done():
            growth.append(process.memory_info().rss - before)
            time.sleep(0.002)
    assert done.result().status_code == 200, done.result().text
    assert max(growth) < len(content.getvalue()) / 2
