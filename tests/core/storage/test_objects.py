"""An object storage keeps what disk storage keeps, against a real S3 server."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from core.errors import NotFound
from core.settings import Settings
from core.storage import refusal_of
from core.storage.objects import WAIT_SECONDS, ObjectStorage
from core.storage.signing import Keys, presign
from tests.s3 import ACCESS_KEY, PATIENCE, S3, SECRET_KEY, Wire, open_bucket, refusing

KEY = f"files/ab/{'ab' * 32}"
MEBI = 2**20


@pytest.fixture
def storage(s3: S3, tmp_path: Path) -> ObjectStorage:
    return open_bucket(s3.new_bucket(), s3.url, tmp_path / "scratch")


@pytest.fixture
def put(storage: ObjectStorage, tmp_path: Path) -> Callable[[str, bytes], None]:
    def put(key: str, content: bytes) -> None:
        source = tmp_path / "source"
        source.write_bytes(content)
        storage.link(source, key)

    return put


def read(storage: ObjectStorage, key: str, size: int) -> bytes:
    return b"".join(storage.stored(key).chunks(0, size))


def test_what_is_put_is_found_read_listed_and_forgotten(
    storage: ObjectStorage, put: Callable[[str, bytes], None]
) -> None:
    before = storage.now()
    for key in ("jobs/job-1/1/artifacts/a b+ü.txt", "jobs/job-1/2/artifacts/deep/model.safetensors", "jobs/job-10/1/x"):
        put(key, key.encode())
    key = "jobs/job-1/1/artifacts/a b+ü.txt"
    assert storage.has(key)
    assert read(storage, key, len(key.encode())) == key.encode()
    assert b"".join(storage.stored(key).chunks(2, 7)) == b"bs/jo"
    found = list(storage.files_below("jobs/job-1"))
    assert [one.key for one in found] == [key, "jobs/job-1/2/artifacts/deep/model.safetensors"]
    assert {one.bytes for one in found} == {len(one.key.encode()) for one in found}
    assert all(before <= one.changed_at <= storage.now() + 1 for one in found)
    assert storage.names_in("jobs") == ["job-1", "job-10"]
    assert storage.names_in("nothing") == []
    storage.delete_folder("jobs/job-1")
    storage.delete_folder("jobs/job-1")
    storage.delete("jobs/job-1/1/x")
    assert [one.key for one in storage.files_below("jobs")] == ["jobs/job-10/1/x"]
    assert not storage.has(key)


def test_what_is_not_there_is_not_found(storage: ObjectStorage, tmp_path: Path) -> None:
    for ask in (storage.stored, lambda key: storage.fetch(key, tmp_path / "target")):
        with pytest.raises(NotFound, match="storage has no 'jobs/none'"):
            ask("jobs/none")
    with pytest.raises(NotFound, match="not a storage key"):
        storage.stored("../elsewhere")
    with pytest.raises(FileNotFoundError):
        storage.link(tmp_path / "missing", "jobs/x")


def test_a_large_file_goes_in_parts_and_comes_whole(
    s3: S3, storage: ObjectStorage, put: Callable[[str, bytes], None], tmp_path: Path
) -> None:
    content = os.urandom(37 * MEBI + 11)
    put("jobs/large", content)
    (found,) = storage.files_below("jobs")
    assert found.version.split('"')[1].endswith("-5"), "it was not sent in parts of 8 MiB"
    copy = storage.fetch("jobs/large", tmp_path / "run" / "large")
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert read(storage, "jobs/large", len(content)) == content


def test_copies_are_shared_and_bounded(s3: S3, tmp_path: Path) -> None:
    storage = open_bucket(s3.new_bucket(), s3.url, tmp_path / "scratch", scratch_cache_bytes=250)
    source = tmp_path / "source"
    for number in range(3):
        source.write_bytes(bytes([number]) * 100)
        storage.link(source, f"files/{number}")
    first, again = (storage.fetch("files/0", tmp_path / name) for name in ("first", "again"))
    assert first.stat().st_ino == again.stat().st_ino, "it was fetched twice"
    storage.fetch("files/1", tmp_path / "second")
    storage.fetch("files/0", tmp_path / "used again")
    storage.fetch("files/2", tmp_path / "third")
    cache = tmp_path / "scratch" / "cache"
    assert sum(path.stat().st_size for path in cache.iterdir()) == 200
    assert {path.read_bytes()[0] for path in cache.iterdir()} == {0, 2}, "the least recently used was not the one to go"
    assert (tmp_path / "second").read_bytes() == b"\1" * 100, "a job lost its copy"
    source.write_bytes(b"x" * 300)
    storage.link(source, "files/too-large")
    assert storage.fetch("files/too-large", tmp_path / "large").read_bytes() == b"x" * 300
    assert sum(path.stat().st_size for path in cache.iterdir()) == 200
    for path in cache.iterdir():
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    storage.tidy()
    assert list(cache.iterdir()) == []


def test_what_a_killed_process_began_to_fetch_is_begun_anew(
    s3: S3, storage: ObjectStorage, put: Callable[[str, bytes], None], tmp_path: Path
) -> None:
    put("files/data", b"whole")
    cache = tmp_path / "scratch" / "cache"
    partial = cache / f"{hashlib.sha256(b'files/data').hexdigest()}.partial"
    partial.write_bytes(b"hal" * 1000)
    assert storage.fetch("files/data", tmp_path / "target").read_bytes() == b"whole"
    assert not partial.exists()
    partial.write_bytes(b"hal")
    os.utime(partial, (time.time() - 2 * 86400,) * 2)
    storage.tidy()
    assert not partial.exists()


def test_many_who_want_the_same_fetch_it_once(
    storage: ObjectStorage, put: Callable[[str, bytes], None], tmp_path: Path
) -> None:
    put("files/data", os.urandom(9 * MEBI))
    threads = [
        threading.Thread(target=storage.fetch, args=("files/data", tmp_path / f"copy-{number}")) for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({path.stat().st_ino for path in tmp_path.glob("copy-*")}) == 1
    assert len(list(tmp_path.glob("copy-*"))) == 6


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_address_answers_one_method_without_a_key(
    storage: ObjectStorage, put: Callable[[str, bytes], None], method: str
) -> None:
    key = "jobs/job-1/1/artifacts/a b+ü.txt"
    put(key, b"0123456789")
    address = storage.stored(key).address(
        method, disposition="attachment; filename*=UTF-8''n%C3%A4me", media_type="x/y"
    )
    assert address is not None
    assert SECRET_KEY not in address
    answer = httpx.request(method, address, headers={"range": "bytes=2-4"} if method == "GET" else {})
    assert (answer.status_code, answer.content) == ((206, b"234") if method == "GET" else (200, b""))
    if method == "GET":  # moto gives no heed to the rest in a HEAD, as S3 does
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''n%C3%A4me"
        assert answer.headers["content-type"] == "x/y"


ADDRESS = "https://s3.example.org:9000/bucket/some%20key/%C3%BC~.txt"
QUERY = {"response-content-disposition": "attachment; filename*=UTF-8''a%20b", "response-content-type": "a/b+c"}


@pytest.mark.parametrize("token", [None, "a/session+token=="])
def test_an_address_is_signed_as_by_the_reference(token: str | None) -> None:
    def ours(now: float) -> str:
        keys = Keys(ACCESS_KEY, SECRET_KEY, token)
        return presign("GET", ADDRESS, keys=keys, region="eu-central-1", seconds=900, query=QUERY, now=now)

    request = AWSRequest("GET", ADDRESS, params=QUERY, data=b"")
    before = time.time()
    S3SigV4QueryAuth(Credentials(ACCESS_KEY, SECRET_KEY, token), "s3", "eu-central-1", expires=900).add_auth(request)
    reference = parse_qs(urlsplit(request.url).query)
    assert reference in [parse_qs(urlsplit(ours(now)).query) for now in (before, time.time())]


# Deleting and uploading the same content at once.


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(b"content")
    return path


def test_content_is_kept_for_a_row_and_forgotten_without_one(storage: ObjectStorage, source: Path) -> None:
    rows: list[str] = []
    with pytest.raises(ValueError, match="no row"), storage.kept(source, KEY, is_used=lambda: bool(rows)):
        raise ValueError("no row")
    assert not storage.has(KEY)
    with storage.kept(source, KEY, is_used=lambda: bool(rows)):
        rows.append("row")
    assert storage.forget(KEY, is_used=lambda: bool(rows)) == 0
    assert storage.has(KEY)
    (found,) = storage.files_below("files")
    assert storage.forget(KEY, is_used=lambda: False, version="another") == 0
    assert storage.forget(KEY, is_used=lambda: False, version=found.version) == len(b"content")
    assert not storage.has(KEY)
    assert storage.forget(KEY, is_used=lambda: False) == 0
    assert list(storage.files_below("leaving")) == []


@pytest.mark.parametrize("look", [1, 2])
def test_whoever_deletes_what_is_uploaded_again_meanwhile_loses_nothing(
    storage: ObjectStorage, source: Path, look: int
) -> None:
    """The upload comes between a look of whoever deletes and what follows it; `look`: the first, or the last one."""
    rows: list[str] = []
    storage.link(source, KEY)
    looks: list[bool] = []
    uploads: list[threading.Thread] = []

    def upload() -> None:
        with storage.kept(source, KEY, is_used=lambda: bool(rows)):
            rows.append("row")

    def is_used() -> bool:
        looks.append(bool(rows))
        if len(looks) == look:
            uploads.append(threading.Thread(target=upload))
            uploads[0].start()
            ends_at = time.monotonic() + 20
            while not rows:
                assert time.monotonic() < ends_at
                time.sleep(0.01)
            time.sleep(0.3)  # the upload is at its look for what is there
        return looks[-1]

    storage.forget(KEY, is_used=is_used)
    uploads[0].join(20)
    assert not uploads[0].is_alive()
    assert read(storage, KEY, 7) == b"content"


def test_what_a_killed_process_announced_keeps_nobody_for_long(
    storage: ObjectStorage, source: Path, put: Callable[[str, bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"leaving/{KEY}/dead", b"\0")
    now = storage.now()
    monkeypatch.setattr(storage, "now", lambda: now + WAIT_SECONDS + 2)
    with storage.kept(source, KEY, is_used=lambda: True):
        pass
    assert storage.collect(before=now - 100) == 0
    assert storage.collect(before=now + 100) == 1
    assert list(storage.files_below("leaving")) == []


def test_an_upload_in_parts_that_nobody_completed_is_aborted(s3: S3, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    storage = open_bucket(bucket, s3.url, tmp_path / "scratch")
    for key in ("some/prefix/jobs/a%20%26%20b", "elsewhere/c"):
        assert httpx.post(f"{s3.url}/{bucket}/{key}?uploads", timeout=PATIENCE).is_success
    assert storage.collect(before=datetime(2010, 1, 1).timestamp()) == 0  # moto says that all were begun in 2010-11
    assert storage.collect(before=time.time()) == 1
    left = httpx.get(f"{s3.url}/{bucket}?uploads", timeout=PATIENCE).text
    assert "elsewhere/c" in left
    assert "some/prefix" not in left


# What goes wrong.


@pytest.fixture
def wire(s3: S3) -> Iterator[Wire]:
    wire = Wire(s3.url)
    yield wire
    wire.close()


def actions(storage: ObjectStorage, tmp_path: Path) -> list[Callable[[], object]]:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    return [
        storage.check,
        lambda: storage.link(source, "jobs/x"),
        lambda: storage.fetch("jobs/x", tmp_path / "target"),
        lambda: storage.stored("jobs/x"),
        lambda: storage.delete("jobs/x"),
        lambda: list(storage.files_below("jobs")),
        lambda: storage.names_in("jobs"),
    ]


def assert_refused(storage: ObjectStorage, tmp_path: Path, *, status: int, code: str, told: str) -> None:
    for action in actions(storage, tmp_path):
        with pytest.raises(OSError, match="object storage") as raised:
            action()
        refusal = refusal_of(raised.value)
        assert refusal is not None
        assert (refusal.status, refusal.code) == (status, code)
        assert told in refusal.message
        assert not {ACCESS_KEY, SECRET_KEY} & set(refusal.message.split())
        assert "http" not in refusal.message


def test_a_storage_that_is_away_says_so_and_is_used_again_when_it_is_back(s3: S3, wire: Wire, tmp_path: Path) -> None:
    storage = open_bucket(s3.new_bucket(), wire.url, tmp_path / "scratch")
    storage.check()
    wire.cut()
    with pytest.raises(OSError, match="cannot be reached") as raised:
        storage.check()
    refusal = refusal_of(raised.value)
    assert refusal is not None
    assert (refusal.status, refusal.code) == (503, "storage_unavailable")
    wire.mend()
    storage.check()


@pytest.mark.parametrize(
    ("answer", "status", "code", "told"),
    [
        ((403, "AccessDenied"), 503, "storage_unavailable", "refuses what we ask with our keys: 403"),
        ((403, "QuotaExceeded"), 507, "storage_full", "full"),
        ((507, "XMinioStorageFull"), 507, "storage_full", "full"),
    ],
)
def test_a_storage_that_refuses_is_told_with_its_reason(
    tmp_path: Path, answer: tuple[int, str], status: int, code: str, told: str
) -> None:
    with refusing(*answer) as url:
        storage = open_bucket("bucket", url, tmp_path / "scratch")
        if answer[1] == "QuotaExceeded":  # which is what whoever writes hears
            with pytest.raises(OSError, match=told) as raised:
                storage.check()
            refusal = refusal_of(raised.value)
            assert refusal is not None
            assert (refusal.status, refusal.code) == (status, code)
        else:
            assert_refused(storage, tmp_path, status=status, code=code, told=told)


def test_a_storage_without_keys_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    nothing = {"s3_access_key_id": None, "s3_secret_access_key": None}
    storage = open_bucket("bucket", "http://127.0.0.1:1", tmp_path / "scratch", **nothing)
    with pytest.raises(OSError, match="given no keys, and this machine has no role"):
        storage.check()


def test_keys_are_taken_from_where_other_tools_find_them(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAFROMTHEENVIRONMENT",
        "AWS_SECRET_ACCESS_KEY": "another-secret",
        "AWS_REGION": "us-west-2",
        "AWS_ENDPOINT_URL": s3.url,
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings(storage_url=f"s3://{s3.new_bucket()}", scratch_path=tmp_path / "scratch")
    storage = ObjectStorage(settings, retry_seconds=1)
    storage.check()
    address = storage.stored("probe").address("GET", disposition="inline", media_type="text/plain")
    assert address is not None
    assert "AKIAFROMTHEENVIRONMENT%2F" in address
    assert "%2Fus-west-2%2Fs3" in address
    assert httpx.get(address, timeout=PATIENCE).content == b"\0"


def test_a_bucket_that_is_not_there_is_no_missing_key(s3: S3, tmp_path: Path) -> None:
    storage = open_bucket("nowhere", s3.url, tmp_path / "scratch")
    with pytest.raises(OSError, match="no such bucket"):
        storage.check()
    with pytest.raises(OSError, match="no such bucket"):
        list(storage.files_below("jobs"))
