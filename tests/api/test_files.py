"""Files over HTTP: streamed in, checked, stored once, handed out by range, deleted."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import socket
import struct
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from sqlalchemy import update

from core.jobs.models.files import File
from core.storage import file_key
from tests.api.service import MAX_UPLOAD_BYTES, Service, new_project, submit, table, upload, wait_for, work

PYTHON = {"x-stainless-lang": "python"}
MULTIPART = "multipart/form-data; boundary=x"


def blobs(service: Service) -> set[str]:
    return {path.name for path in (service.folder / "storage" / "files").rglob("*") if path.is_file()}


def incoming(service: Service) -> list[str]:
    """What is being streamed in; the rest belongs to processes that try models out, fetch them or look at data."""
    names = os.listdir(service.folder / "storage" / "incoming")
    return [name for name in names if re.fullmatch("[0-9a-f]{24}", name)]


def test_an_upload_is_recognised_hashed_and_comes_back_whole(http: httpx.Client) -> None:
    content = table(200)
    file = upload(http, content, name="../../etc/pass\x00wd\n .csv")
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert (file["kind"], file["bytes"], file["purpose"]) == ("table", len(content), "dataset")
    assert file["filename"].startswith("pass")
    assert file["profile"]["examples"] == 201
    assert http.get(f"/v1/files/{file['id']}").json() == file
    back = http.get(f"/v1/files/{file['id']}/content")
    assert back.content == content
    assert back.headers["content-disposition"].startswith("attachment")
    assert http.get("/v1/files").json()["data"] == [file]
    assert http.get("/v1/files", params={"purpose": "base-model"}).json()["data"] == []


@pytest.mark.parametrize("name", ["数据.csv", "Größe.csv", "\U0001f600.csv"])
def test_a_file_may_have_a_name_in_any_language(http: httpx.Client, name: str) -> None:
    file = upload(http, name=name)
    assert file["filename"] == name
    assert http.get(f"/v1/files/{file['id']}/content").status_code == 200


def test_purpose_may_come_behind_the_file(http: httpx.Client) -> None:
    body = (
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.csv"\r\n\r\n' + table() + b"\r\n--x\r\n"
        b'content-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--x--\r\n'
    )
    answer = http.post("/v1/files", content=body, headers={"content-type": MULTIPART})
    assert answer.json()["purpose"] == "fine-tune"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"a,b\n1,2\n3\n", "line 3"),
        (b"a,b\n1,2\n3,inf\n", "line 3"),
        (pickle.dumps({"a": 1}), "pickle"),
        (os.urandom(3000), ""),
    ],
)
def test_bad_data_is_refused_and_nothing_is_kept(
    http: httpx.Client, service: Service, content: bytes, words: str
) -> None:
    before = blobs(service)
    answer = http.post("/v1/files", files={"file": ("data", content)})
    assert answer.status_code in (400, 422)
    assert words in answer.json()["error"]["message"]
    assert blobs(service) == before
    assert incoming(service) == []
    assert http.get("/v1/files").json()["data"] == []


def test_problems_are_told_by_line(http: httpx.Client) -> None:
    content = b"a,b\n" + b"".join(b"1\n" if row % 2 else b"1,2\n" for row in range(10))
    error = http.post("/v1/files", files={"file": ("t.csv", content)}).json()["error"]
    assert error["code"] == "invalid_data"
    assert [problem["where"] for problem in error["problems"]] == [f"line {line}" for line in (3, 5, 7, 9, 11)]


def test_a_file_over_the_limit_is_refused_unread(http: httpx.Client, service: Service) -> None:
    large = b"1,2\n" * (MAX_UPLOAD_BYTES // 4 + 100_000)
    told = http.post("/v1/files", files={"file": ("t.csv", large)})
    assert (told.status_code, told.json()["error"]["code"]) == (413, "too_large")

    def endless() -> Iterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        yield from (b"1,2\n" * 2**14 for _ in range(2**12))

    headers = {"content-type": MULTIPART}
    try:
        answer = http.post("/v1/files", content=endless(), headers=headers)
        assert answer.status_code == 413
    except httpx.TransportError:
        pass  # the server hung up on a client that went on sending
    wait_for(lambda: incoming(service) == [])


def test_a_body_that_only_claims_to_be_large_is_refused_at_once(service: Service, key: str) -> None:
    with raw_connection(service) as connection:
        connection.sendall(
            f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nexpect: 100-continue\r\n"
            f"content-type: multipart/form-data; boundary=x\r\ncontent-length: {10**12}\r\n\r\n".encode()
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def raw_connection(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(service.api.base_url).port), timeout=20)


def test_a_client_that_goes_away_leaves_nothing(service: Service, key: str) -> None:
    before = blobs(service)
    with raw_connection(service) as connection:
        connection.sendall(
            f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
            f"content-type: multipart/form-data; boundary=x\r\ncontent-length: 1000000\r\n\r\n".encode()
            + b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
            + b"1,2\n" * 1000
        )
        wait_for(lambda: incoming(service))
    wait_for(lambda: incoming(service) == [])
    assert blobs(service) == before


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{}", "application/json"),
        (b"nonsense", MULTIPART),
        (
            b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n1,2',
            MULTIPART,
        ),
        (
            b'--x\r\ncontent-disposition: form-data; name="other"\r\n\r\n1\r\n--x--\r\n',
            MULTIPART,
        ),
        (
            b'--x\r\ncontent-disposition: form-data; name="file"\r\n\r\n1\r\n--x--\r\n',
            MULTIPART,
        ),
        (b"--x--\r\n", "multipart/form-data"),
        (b"--x--\r\n", "multipart/form-data; boundary=" + "x" * 300),
    ],
)
def test_a_malformed_body_is_told_so(http: httpx.Client, body: bytes, content_type: str) -> None:
    answer = http.post("/v1/files", content=body, headers={"content-type": content_type})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_uploads_and_downloads_use_flat_memory(http: httpx.Client, service: Service) -> None:
    numbers = np.random.default_rng(0).random((MAX_UPLOAD_BYTES // 4096 - 1, 1024), dtype=np.float32)
    content = io.BytesIO()
    np.save(content, numbers)
    warm = upload(http, table())
    http.get(f"/v1/files/{warm['id']}/content")
    process = service.api.process
    before = process.memory_info().rss
    file = upload(http, content.getvalue(), name="numbers.npy")
    growth = [process.memory_info().rss - before]
    digest = hashlib.sha256()
    with http.stream("GET", f"/v1/files/{file['id']}/content") as response:
        for chunk in response.iter_bytes(2**20):
            digest.update(chunk)
            growth.append(process.memory_info().rss - before)
    assert digest.hexdigest() == file["sha256"]
    assert max(growth) < len(content.getvalue()) / 2


def test_ranges(http: httpx.Client) -> None:
    content = table(300)
    file = upload(http, content)
    address, etag = f"/v1/files/{file['id']}/content", f'"{file["sha256"]}"'
    size = len(content)

    def get(**headers: str) -> httpx.Response:
        return http.get(address, headers={name.replace("_", "-"): value for name, value in headers.items()})

    whole = get()
    assert (whole.headers["etag"], whole.headers["accept-ranges"]) == (etag, "bytes")
    assert whole.headers["content-length"] == str(size)
    assert whole.headers["repr-digest"].startswith("sha-256=:")
    for wanted, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=100-", 100, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=-{size * 10}", 0, size),
        (f"bytes=3-{size * 10}", 3, size),
    ):
        part = get(range=wanted, if_range=etag)
        assert (part.status_code, part.content) == (206, content[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.headers["content-length"] == str(end - start)
    for ignored in ("bytes=9-5", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=-", f"bytes=0-{'9' * 5000}"):
        assert (get(range=ignored).status_code, get(range=ignored).content) == (200, content)
    for outside in (f"bytes={size}-", "bytes=-0"):
        refused = get(range=outside)
        assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{size}")
        assert refused.json()["error"]["code"] == "range_not_satisfiable"
    assert get(range="bytes=0-0", if_range='"other"').status_code == 200
    for known in (etag, "*", f'"x", W/{etag}'):
        assert (get(if_none_match=known).status_code, get(if_none_match=known).content) == (304, b"")
    assert get(if_none_match='"other"').status_code == 200
    head = http.head(address, headers={"range": "bytes=0-0"})
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(size))


def test_the_same_content_is_stored_once_until_nobody_has_it(service: Service) -> None:
    content = table(50, seed=4711)
    name = hashlib.sha256(content).hexdigest()
    with service.client(new_project(service)) as one, service.client(new_project(service)) as other:
        first, second = upload(one, content), upload(other, content)
        assert first["id"] != second["id"]
        assert one.delete(f"/v1/files/{first['id']}").json() == {"id": first["id"], "object": "file", "deleted": True}
        assert one.get(f"/v1/files/{first['id']}").status_code == 404
        assert name in blobs(service)
        assert other.get(f"/v1/files/{second['id']}/content").content == content
        other.delete(f"/v1/files/{second['id']}")
        assert name not in blobs(service)


def test_uploading_and_deleting_the_same_content_at_once_loses_nothing(http: httpx.Client, service: Service) -> None:
    content = table(40, seed=815)

    def come_and_go(count: int) -> None:
        for _ in range(count):
            http.delete(f"/v1/files/{upload(http, content)['id']}").raise_for_status()

    def stay(_: int) -> str:
        return str(upload(http, content)["id"])

    with ThreadPoolExecutor(6) as threads:
        busy = [threads.submit(come_and_go, 6) for _ in range(4)]
        stayed = list(threads.map(stay, range(4)))
        for task in busy:
            task.result()
    for file_id in stayed:
        assert http.get(f"/v1/files/{file_id}/content").content == content
        http.delete(f"/v1/files/{file_id}")
    assert not (service.folder / "storage" / file_key(hashlib.sha256(content).hexdigest())).exists()


def test_a_file_that_an_unfinished_job_needs_cannot_be_deleted(http: httpx.Client, service: Service) -> None:
    file = upload(http)
    job = submit(http, file["id"])
    for _ in range(2):
        refused = http.delete(f"/v1/files/{file['id']}")
        assert (refused.status_code, refused.headers["x-should-retry"]) == (409, "false")
        assert job["id"] in refused.json()["error"]["message"]
        if http.get(f"/v1/jobs/{job['id']}").json()["status"] == "queued":
            worker = work(service, job["id"])
    worker.succeed()
    assert http.delete(f"/v1/files/{file['id']}").status_code == 200
    assert http.get(f"/v1/jobs/{job['id']}").status_code == 200


def model_archive(**changes: bytes | None) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + b"\0\0\0\0"
    members = {"bert/config.json": b'{"model_type": "bert"}', "bert/model.safetensors": weights, **changes}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in members.items():
            if value is not None:
                archive.writestr(name, value)
    return content.getvalue()


def test_purposes_that_the_python_client_would_refuse_are_user_data_to_it_alone(http: httpx.Client) -> None:
    file = upload(http, model_archive(), name="bert.zip", purpose="base-model")
    theirs = upload(http, table(), name="t.csv", purpose="fine-tune")
    shown = {
        client: {one["id"]: one["purpose"] for one in http.get("/v1/files", headers=headers).json()["data"]}
        for client, headers in {"none": {}, "js": {"x-stainless-lang": "js"}, "python": PYTHON}.items()
    }
    wanted = {file["id"]: "base-model", theirs["id"]: "fine-tune"}
    assert shown["none"].items() >= wanted.items()
    assert shown["js"] == shown["none"]
    assert shown["python"].items() >= {**wanted, file["id"]: "user_data"}.items()
    assert http.get(f"/v1/files/{file['id']}", headers=PYTHON).json()["purpose"] == "user_data"
    listed = http.get("/v1/files", params={"purpose": "base-model"}, headers=PYTHON).json()["data"]
    assert [one["id"] for one in listed] == [file["id"]]
    as_many_as_it_may = http.get("/v1/files", params={"limit": 10_000}, headers=PYTHON).json()["data"]
    assert {one["id"] for one in as_many_as_it_may} >= {file["id"], theirs["id"]}
    http.delete(f"/v1/files/{file['id']}").raise_for_status()


def test_files_may_be_deleted_on_the_way_through_the_list(http: httpx.Client, service: Service) -> None:
    made = [upload(http, table(seed=seed), purpose="vision")["id"] for seed in range(4)]
    for order, wanted in (("desc", made[:1:-1]), ("asc", made[:2])):
        after: dict[str, str] = {}
        for file_id in wanted:
            asked = {"purpose": "vision", "limit": 1, "order": order, **after}
            assert [file["id"] for file in http.get("/v1/files", params=asked).json()["data"]] == [file_id]
            http.delete(f"/v1/files/{file_id}").raise_for_status()
            after = {"after": file_id}
    with service.client(new_project(service)) as other:
        theirs = upload(other)["id"]
        for never in (theirs, "file-none"):
            assert http.get("/v1/files", params={"after": never}).json()["error"]["param"] == "after"


def test_a_base_model_is_a_model_too(http: httpx.Client) -> None:
    file = upload(http, model_archive(), name="bert.zip", purpose="base-model")
    (model,) = http.get("/v1/models").json()["data"]
    assert (model["id"], model["name"], model["job"]) == (file["id"], "bert.zip", None)
    assert model["lineage"]["upload"]["sha256"] == file["sha256"]
    assert http.get(f"/v1/models/{file['id']}").json() == model
    refused = http.post("/v1/jobs", json={"method": "pca", "dataset": file["id"]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "dataset")
    assert http.delete(f"/v1/models/{file['id']}").json()["deleted"]
    assert http.get("/v1/models").json()["data"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"bert/config.json": None},
        {"bert/model.safetensors": None},
        {"bert/pytorch_model.bin": b"x"},
        {"../outside": b"x"},
        {"bert/config.json": b"not json"},
        {"bert/model.safetensors": pickle.dumps([1])},
    ],
)
def test_a_base_model_with_anything_but_safetensors_is_refused(http: httpx.Client, changes: dict) -> None:
    content = model_archive(**changes)
    answer = http.post("/v1/files", files={"file": ("m.zip", content)}, data={"purpose": "base-model"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_data")
    assert http.get("/v1/files").json()["data"] == []


EXPIRY = {"expires_after[anchor]": "created_at"}


def test_a_file_expires_unless_an_unfinished_job_needs_it(http: httpx.Client, service: Service) -> None:
    told = {**EXPIRY, "expires_after[seconds]": "3600", "purpose": "dataset"}
    ids = []
    for seed in (1, 2):
        file = http.post("/v1/files", files={"file": ("t.csv", table(seed=seed))}, data=told).json()
        assert file["expires_at"] == file["created_at"] + 3600
        ids.append(file["id"])
    gone, needed = ids
    upload(http, model_archive(), purpose="base-model")
    job = submit(http, needed)
    with service.database.write() as session:
        session.execute(update(File).where(File.id.in_(ids)).values(expires_at=1))
    for path in (f"files/{gone}", f"files/{gone}/content"):
        assert http.get(f"/v1/{path}").status_code == 404
    assert http.delete(f"/v1/files/{gone}").status_code == 404
    assert http.post("/v1/jobs", json={"method": "pca", "dataset": gone}).status_code == 404
    assert gone not in [file["id"] for file in http.get("/v1/files").json()["data"]]
    assert http.get(f"/v1/files/{needed}/content").content == table(seed=2)
    assert needed in [file["id"] for file in http.get("/v1/files").json()["data"]]
    http.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
    assert http.get(f"/v1/files/{needed}").status_code == 404
    origin = http.get(f"/v1/jobs/{job['id']}").json()["lineage"]["dataset"]
    assert {name: value for name, value in origin.items() if value is not None} == {"file": needed}


def test_an_expired_base_model_is_gone_from_the_models(http: httpx.Client, service: Service) -> None:
    file = upload(http, model_archive(), purpose="base-model")["id"]
    with service.database.write() as session:
        session.execute(update(File).where(File.id == file).values(expires_at=1))
    assert http.get("/v1/models").json()["data"] == []
    assert http.get(f"/v1/models/{file}").status_code == 404


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        ({"expires_after[seconds]": "3600", "expires_after[anchor]": "now"}, "expires_after[anchor]"),
        (EXPIRY, "expires_after[seconds]"),
        *[
            ({**EXPIRY, "expires_after[seconds]": seconds}, "expires_after[seconds]")
            for seconds in ("3599", "2592001", "36e2", "-3600", "\u0663\u0666\u0660\u0660", "9" * 5000)
        ],
    ],
)
def test_an_expiry_that_cannot_be_is_refused(http: httpx.Client, fields: dict[str, str], param: str) -> None:
    answer = http.post("/v1/files", files={"file": ("t.csv", table())}, data=fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert http.get("/v1/files").json()["data"] == []
