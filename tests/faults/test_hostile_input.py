"""Whatever is sent: a clear refusal, bounded time and memory, nothing stored, and an API that goes on answering."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import re
import socket
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pytest
import zstandard
from jsonschema import Draft202012Validator

from core.jobs.models.webhooks import WebhookEndpoint
from tests.api.receiver import Receiver
from tests.api.service import Service, new_project, serving, submit, upload, wait_for
from tests.faults import hostile_files as made
from tests.faults.parts import repeating

MIB = 2**20
SECONDS = 60.0  # within which every file is refused, on a machine that does much else
READY_SECONDS = 5.0
GROWTH_BYTES = 128 * MIB
LIMITS = {
    "WEIGHTWORKS_MAX_UPLOAD_BYTES": str(160 * MIB),
    "WEIGHTWORKS_INSPECTION_MEMORY_BYTES": str(448 * MIB),
    "WEIGHTWORKS_INSPECTION_SECONDS": "30",
    "WEIGHTWORKS_REQUEST_BURST": "1000",
    "WEIGHTWORKS_REFUSALS_PER_SECOND": "5",
    "WEIGHTWORKS_HEAD_SECONDS": "1.5",
    "WEIGHTWORKS_BODY_SECONDS": "1.5",
    "WEIGHTWORKS_WEBHOOK_PRIVATE_ADDRESSES": "false",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    """An API with limits that are soon reached."""
    with serving(tmp_path_factory.mktemp("hostile"), redis_url, 1, **LIMITS) as service:
        yield service


@pytest.fixture(scope="module")
def http(service: Service) -> Iterator[httpx.Client]:
    with service.client(new_project(service)) as client:
        upload(client)
        yield client


def stored(service: Service) -> set[Path]:
    return {path for path in service.storage.root.rglob("*") if path.is_file()}


def peak_bytes(service: Service) -> int:
    status = Path(f"/proc/{service.api.process.pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


@contextmanager
def undisturbed(service: Service) -> Iterator[None]:
    """The block leaves nothing in storage, takes no memory of the API's, and keeps nobody else waiting."""
    Path(f"/proc/{service.api.process.pid}/clear_refs").write_text("5")  # the peak is from now on
    before, files, started = peak_bytes(service), stored(service), time.monotonic()
    waits: list[float] = []
    with httpx.Client(base_url=service.api.base_url, timeout=SECONDS) as client:

        def ask() -> None:
            asked = time.monotonic()
            assert client.get("/readyz").status_code == 200
            waits.append(time.monotonic() - asked)

        with repeating(ask, every=0.05):
            yield
    assert time.monotonic() - started < SECONDS
    assert max(waits, default=0.0) < READY_SECONDS
    assert peak_bytes(service) - before < GROWTH_BYTES
    assert stored(service) == files


Made = Callable[[], bytes]
PICTURE = made.image()


def tar_bomb() -> bytes:
    return gzip.compress(made.as_tar({"a.png": bytes(70 * MIB)}), 6)


ARCHIVES: dict[str, tuple[Made, str]] = {
    "zip: a path that leads out": (lambda: made.as_zip({"../../a.png": PICTURE}), "leads out of the archive"),
    "zip: an absolute path": (lambda: made.as_zip({"/etc/a.png": PICTURE}), "leads out of the archive"),
    "zip: a link": (made.zip_link, "a link or a device"),
    "zip: encrypted": (made.encrypted, "without a password"),
    "zip: a bomb": (lambda: made.as_zip({"a.png": bytes(70 * MIB)}), "archive bombs"),
    "zip: a bomb of overlapping members": (
        lambda: made.zip_of_many(5000, size=60 * MIB),
        "over 274,877,906,944 bytes",
    ),
    "zip: over 10^6 members": (lambda: made.zip_of_many(10**6 + 1), "over 1,000,000 members"),
    "zip: 10^6 members": (lambda: made.zip_of_many(10**6), "MiB of memory"),
    "zip: in a zip": (lambda: made.as_zip({"a": made.as_zip({"a.png": PICTURE})}), "within the archive"),
    "zip: truncated": (lambda: made.as_zip({"a.png": PICTURE})[:-30], "cut short"),
    "tar: a path that leads out": (lambda: made.as_tar({"../a.png": PICTURE}), "leads out of the archive"),
    "tar: an absolute path": (lambda: made.as_tar({"/etc/a.png": PICTURE}), "leads out of the archive"),
    **{
        f"tar: {name}": (lambda kind=kind: made.tar_link(kind), "a link or a device")
        for name, kind in {
            "a link": tarfile.SYMTYPE,
            "a hard link": tarfile.LNKTYPE,
            "a device": tarfile.CHRTYPE,
            "a pipe": tarfile.FIFOTYPE,
        }.items()
    },
    "tar: a bomb": (tar_bomb, "archive bombs"),
    "tar: 10^6 members": (lambda: made.tar_of_many(10**6 + 1), "a: no member is an image"),
    "tar: long names for ever": (lambda: made.tar_of_long_names(3000), "damaged"),
    "tar: truncated": (lambda: made.as_tar({"a.png": PICTURE})[:600], "cut short"),
    "tar: in a tar": (lambda: made.as_tar({"a": made.as_tar({"a.png": PICTURE})}), "within the archive"),
    "gzip: a bomb": (lambda: gzip.compress(b"1,2\n" * (18 * MIB), 6), "over 200 times its size"),
    "gzip: truncated": (lambda: gzip.compress(os.urandom(3000))[:-9], "cut short"),
    "gzip: twice": (lambda: gzip.compress(gzip.compress(b"1,2\n")), "compressed twice"),
    "zstd: a bomb": (lambda: zstandard.compress(b"1,2\n" * (18 * MIB)), "over 200 times its size"),
    "zstd: asks for a large window": (lambda: b"\x28\xb5\x2f\xfd\0\xff" + bytes(100), "zstd stream is damaged"),
    "zstd: truncated": (lambda: zstandard.compress(b"1,2\n" * 9999)[:-9], "cut short"),
}
DATA: dict[str, tuple[Made, str]] = {
    "pickle": (lambda: pickle.dumps(made.Evil()), "a pickle, which can run code"),
    "pickle in text": (lambda: pickle.dumps({"a": made.Evil()}, 0), "a pickle, which can run code"),
    "pickle of PyTorch": (made.torch_file, "a pickle, which can run code"),
    "pickle called a picture": (lambda: made.as_zip({"a.png": pickle.dumps([1])}), "a.png: a pickle"),
    "npy: objects": (lambda: made.npy(np.array([made.Evil()]), allow_pickle=True), "pickles and never loaded"),
    "npz: objects": (lambda: made.npz(x=np.array([[{}]], dtype=object)), "pickles and never loaded"),
    "npy: a huge header": (lambda: made.npy_with_header(b"(" + b"1," * MIB + b")"), "NumPy header cannot be read"),
    "npy: a deep header": (lambda: made.npy_with_header(b"(" * 9000), "NumPy header cannot be read"),
    "npy: lies about its length": (
        lambda: made.npy_with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000, 9)}"),
        "promises 360,000,000,000 bytes",
    ),
    "npy: words": (lambda: made.npy(np.array([["a", "b"]])), "is not numeric"),
    "npy: complex numbers": (lambda: made.npy(np.ones((2, 2), complex)), "is not numeric"),
    "npy: not finite": (lambda: made.npy(np.array([[1.0, np.nan], [np.inf, 0]])), "row 1"),
    "csv: not a number": (lambda: b"a,b\n1,2\n3,nan\n", "line 3"),
    "csv: infinite": (lambda: b"a,b\n1,2\n3,-inf\n", "line 3"),
    "csv: ragged": (lambda: b"a,b\n1,2\n3\n", "line 3"),
    "csv: words for numbers": (lambda: b"a,b\n1,2\n3,x\n4,5\n", "line 3"),
    "csv: not UTF-8": (lambda: b"a,b\n1,2\n3,\xff\n4,5\n", "line 3"),
    "csv: a nul": (lambda: b"a,b\n1,2\n3,\0\n4,5\n", "line 3"),
    "text: not UTF-8": (lambda: b"good words\nbad \xff words\n" * 3, "line 2"),
    "text: a nul": (lambda: b"good words\nbad \0 words\n", "line 2"),
    "text: a line of 100 MB": (lambda: b"".join(made.long_line(100 * MIB)), "line 1: longer than 64 MiB"),
    "json: deep": (lambda: b'{"a": ' + b"[" * 10**6 + b"\n", "nested too deeply"),
    "json: NaN": (lambda: b'{"a": NaN}\n', "line 1"),
    "json: a number of 10^6 digits": (lambda: b'{"a": ' + b"1" * 10**6 + b"}\n", "line 1"),
    "json: ten million lists in a line": (lambda: b'{"a": [' + b"[]," * (10 * MIB) + b"1]}\n", "MiB of memory"),
    "json: too many names": (
        lambda: b"{" + b",".join(b'"a name that is rather long %d":1' % i for i in range(300_000)) + b"}\n",
        "too many, or too long",
    ),
    "image: claims 10^9 pixels": (lambda: made.as_zip({"a.png": made.png_claiming(31_623, 31_623)}), "a.png: claims"),
    "image: a comment that unpacks": (lambda: made.as_zip({"a.png": made.png_text_bomb()}), "a.png: is not an image"),
    "image: broken": (lambda: made.as_zip({"a.png": PICTURE[:40]}), "a.png: "),
    "wav: lies about its length": (lambda: made.as_zip({"a.wav": made.wav_claiming(2**31)}), "a.wav: its header"),
    "wav: cut": (lambda: made.as_zip({"a.wav": made.recording()[:30]}), "a.wav: its header"),
    "idx: lies about its length": (lambda: made.idx(60_000, 28, 28), "promises 47,040,000 bytes"),
    "safetensors: a header that is not there": (lambda: made.safetensors_file({}, length=2**39), "safetensors header"),
    "safetensors: a deep header": (lambda: made.safetensors_file(b'{"a":' + b"[" * 10**6), "safetensors header"),
    "safetensors: values beyond the end": (lambda: made.safetensors_file(made.tensor([99, 9], 0, 3564)), "cut short"),
    "safetensors: lies about its shape": (lambda: made.safetensors_file(made.tensor([9, 9], 0, 16)), "promises"),
    "safetensors: less than nothing": (lambda: made.safetensors_file(made.tensor([-2, -2], 0, 16)), "promises"),
    "parquet: cut": (lambda: made.parquet(pa.table({"a": [1.0]}))[:-20], "Parquet file is damaged"),
    "parquet: not finite": (lambda: made.parquet(pa.table({"a": [1.0, float("nan")]})), "row 2"),
    "parquet: a text that is meant often": (lambda: made.parquet_of_one_long_text(1000), "MiB of memory"),
    "parquet: texts that share their beginnings": (lambda: made.parquet_of_shared_beginnings(250), "MiB of memory"),
    "nothing known": (lambda: os.urandom(3000), "format is not known"),
    "blanks": (lambda: b"\n" * (40 * MIB), "empty"),
}


@pytest.mark.parametrize("name", [*ARCHIVES, *DATA])
def test_a_hostile_file_is_refused(service: Service, http: httpx.Client, name: str) -> None:
    write, words = {**ARCHIVES, **DATA}[name]
    content = write()
    with undisturbed(service):
        answer = http.post("/v1/files", files={"file": ("innocent.csv", content)}, timeout=SECONDS)
    assert answer.status_code in (413, 422), answer.text
    error = answer.json()["error"]
    assert words in error["message"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "file")
    assert [file["filename"] for file in http.get("/v1/files").json()["data"]] == ["table.csv"]
    assert not Path("/tmp/weightworks-was-here").exists()


def model(**changes: bytes | None) -> bytes:
    members = {"m/config.json": b'{"model_type": "bert"}', "m/model.safetensors": made.safetensors_file({}, b"")}
    return made.as_zip({name: value for name, value in {**members, **changes}.items() if value is not None})


MODELS: dict[str, tuple[Made, str]] = {
    "pickled weights": (lambda: model(**{"m/pytorch_model.bin": pickle.dumps(made.Evil())}), "pickled weights"),
    "pickled weights called safetensors": (
        lambda: model(**{"m/model.safetensors": pickle.dumps(made.Evil())}),
        "is not safetensors",
    ),
    "no weights": (lambda: model(**{"m/model.safetensors": None}), "save the model with safetensors"),
    "code of its own": (
        lambda: model(**{"m/config.json": b'{"model_type": "x", "auto_map": {"AutoModel": "m.M"}}'}),
        "never run here",
    ),
    "a path that leads out": (lambda: model(**{"m/../../x.json": b"{}"}), "leads out of the archive"),
    "absurd sizes": (
        lambda: model(**{"m/config.json": b'{"model_type": "bert", "num_hidden_layers": 1000000000}'}),
        "num_hidden_layers",
    ),
    "weights of a deep header": (
        lambda: model(**{"m/model.safetensors": made.safetensors_file(b'{"a":' + b"[" * 10**6)}),
        "is not safetensors",
    ),
    "a bomb": (lambda: model(**{"m/a.json": bytes(70 * MIB)}), "archive bombs"),
    "a single file of weights": (lambda: made.safetensors_file({}, b""), "sent as a zip or tar"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_hostile_model_is_refused(service: Service, http: httpx.Client, name: str) -> None:
    write, words = MODELS[name]
    content = write()
    with undisturbed(service):
        answer = http.post("/v1/files", files={"file": ("m.zip", content)}, data={"purpose": "base-model"})
    assert answer.status_code in (413, 422), answer.text
    assert words in answer.json()["error"]["message"]
    assert http.get("/v1/models").json()["data"] == []
    assert not Path("/tmp/weightworks-was-here").exists()


def readers(service: Service) -> list[psutil.Process]:
    return service.api.process.children(recursive=True)


def test_a_reader_that_ends_without_a_word_ends_only_its_upload(service: Service, http: httpx.Client) -> None:
    content = b'a,b\n"' + b"x\n" * (4 * MIB)
    (server,) = readers(service)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(http.post, "/v1/files", files={"file": ("a.zip", content)}, timeout=SECONDS)
        wait_for(lambda: [reader for reader in readers(service) if reader.pid != server.pid])[0].kill()
        refused = asked.result()
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "too_demanding")
    server.kill()
    wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    with service.client(new_project(service)) as other:
        assert upload(other)["kind"] == "table"


@contextmanager
def connection(service: Service) -> Iterator[socket.socket]:
    address = ("127.0.0.1", urlsplit(service.api.base_url).port)
    with socket.create_connection(address, timeout=SECONDS) as opened:
        yield opened


def drip(opened: socket.socket, content: bytes) -> bytes:
    """Send a byte now and then until something comes back; all that comes."""
    opened.settimeout(0.1)
    answer = b""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with suppress(BrokenPipeError, ConnectionResetError):
            opened.sendall(content)
        try:
            more = opened.recv(65536)
        except TimeoutError:
            continue
        except ConnectionResetError:
            return answer
        if not more:
            return answer
        answer += more
    raise AssertionError("it is never closed")


def told(answer: bytes) -> tuple[int, str]:
    """The status and the error's code of an answer off the wire."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        body = body.split(b"\r\n")[1]
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["code"]


@pytest.mark.parametrize("beginning", [b"", b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_headers_that_never_end_are_not_waited_for(service: Service, beginning: bytes) -> None:
    with undisturbed(service), connection(service) as opened:
        opened.sendall(beginning)
        answer = drip(opened, b"x" if beginning else b"")
    assert not beginning or told(answer) == (408, "request_timeout")


def test_headers_of_any_size_are_not_kept(service: Service) -> None:
    with undisturbed(service), connection(service) as opened:
        opened.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-large: ")
        assert told(drip(opened, b"x" * MIB)) == (431, "request_header_fields_too_large")


def test_what_is_not_http_is_told_so(service: Service) -> None:
    for nonsense in (b"\x16\x03\x01\x02\0\x01\0", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"):
        with connection(service) as opened:
            opened.sendall(nonsense)
            assert told(drip(opened, b"")) == (400, "bad_request")


@pytest.mark.parametrize(
    ("path", "length"), [("/v1/jobs", b"content-length: 100000"), ("/v1/files", b"transfer-encoding: chunked")]
)
def test_a_body_that_never_ends_is_not_waited_for(
    service: Service, http: httpx.Client, path: str, length: bytes
) -> None:
    key = http.headers["authorization"].encode()
    kind = b"application/json" if path == "/v1/jobs" else b"multipart/form-data; boundary=x"
    is_chunked = b"chunked" in length
    with undisturbed(service), connection(service) as opened:
        opened.sendall(
            b"POST %b HTTP/1.1\r\nhost: x\r\nauthorization: %b\r\ncontent-type: %b\r\n%b\r\n\r\n"
            % (path.encode(), key, kind, length)
        )
        assert told(drip(opened, b"1\r\n \r\n" if is_chunked else b" ")) == (408, "request_timeout")


def test_who_is_refused_early_cannot_go_on_sending(service: Service) -> None:
    with connection(service) as opened:
        opened.sendall(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        assert told(drip(opened, b" ")) == (401, "invalid_api_key")


def test_a_body_over_the_limit_is_refused_before_it_is_read(service: Service) -> None:
    for path in (b"/v1/jobs", b"/v1/files", b"/v1/pipelines"):
        with undisturbed(service), connection(service) as opened:
            opened.sendall(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path, 10**15))
            assert opened.recv(100).startswith(b"HTTP/1.1 413 ")


def limits(schema: dict[str, Any]) -> Iterator[Any]:
    """Numbers at the ends of what a field's schema allows, and one that no machine holds."""
    for one in schema.get("anyOf", [schema]):
        if one.get("type") not in ("integer", "number"):
            continue
        for name, step in (("minimum", -1), ("maximum", 1), ("exclusiveMinimum", 0), ("exclusiveMaximum", 0)):
            if name in one:
                yield one[name] + step
        yield 10**400


def test_numbers_at_every_limit_of_every_method(http: httpx.Client) -> None:
    tried: set[str] = set()
    taken = []
    for method in http.get("/v1/methods").json()["data"]:
        models: dict[str, Any] = {name: {"job": "job-x"} for name in method["example_needs"]}
        files = dict.fromkeys(method["example_files"], "file-x")
        spec = {**method["example"]["spec"], "dataset": "file-x", **models, **files}
        for field, schema in method["spec_schema"]["properties"].items():
            if (place := f"{field}: {schema}") in tried:
                continue
            tried.add(place)
            for value in [value for value in limits(schema) if not Draft202012Validator(schema).is_valid(value)]:
                answer = http.post("/v1/jobs", json={**spec, field: value})
                if (answer.status_code, answer.json()["error"]["param"]) != (422, field):
                    taken.append((method["id"], field, str(value)[:20], answer.text))
        answer = http.post("/v1/jobs", json={**spec, "unheard_of": 1})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "unheard_of")
    assert not taken
    assert len(tried) > 100
    assert http.get("/v1/jobs").json()["data"] == []


def test_nothing_that_is_sent_becomes_a_header(service: Service, http: httpx.Client) -> None:
    name = 'a"; filename=evil.html\r\nset-cookie: a=1\r\n\r\n<script>.csv'
    body = (
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="'
        + name.replace('"', "%22").replace("\r\n", "%0D%0A").encode()
        + b'"\r\n\r\na,b\n1,2\n\r\n--x--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=x"}
    file = http.post("/v1/files", content=body, headers=headers).json()
    answer = http.get(f"/v1/files/{file['id']}/content")
    assert answer.headers["content-disposition"].startswith("attachment")
    http.delete(f"/v1/files/{file['id']}")
    for path in ("/v1/jobs/a%0d%0aset-cookie:%20a=1", "/v1/methods/a%0aset-cookie:%20a=1", "/%0d%0aset-cookie:a"):
        assert "set-cookie" not in http.get(path).headers
    with connection(service) as opened:
        opened.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: a\rset-cookie: a=1\r\n\r\n")
        assert told(drip(opened, b"")) == (400, "bad_request")


def answers(opened: socket.socket, count: int) -> Iterator[tuple[int, bytes]]:
    """The status and the head of each of so many answers off the wire."""
    with opened.makefile("rb") as stream:
        for _ in range(count):
            head = b"".join(iter(stream.readline, b"\r\n"))
            stream.read(int(re.search(rb"content-length: (\d+)", head)[1]))  # type: ignore[index]
            yield int(head.split()[1]), head


def ask_often(service: Service, key: str, count: int) -> list[tuple[int, bytes]]:
    """So many requests on one connection, as fast as they can be sent."""
    request = b"GET /v1/files?limit=1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n" % key.encode()
    with connection(service) as opened:
        sending = threading.Thread(target=opened.sendall, args=(request * count,))
        sending.start()
        found = list(answers(opened, count))
        sending.join()
    return found


def test_ten_thousand_requests_of_one_key_are_too_many(service: Service, http: httpx.Client) -> None:
    key = new_project(service)
    with undisturbed(service):
        found = ask_often(service, key, 10_000)
    counts = Counter(status for status, _ in found)
    assert set(counts) == {200, 429}
    assert counts[200] >= 1000
    assert counts[429] > 1000
    refused = next(head for status, head in found if status == 429)
    assert re.search(rb"retry-after: 1\r\n", refused)
    assert 0 < int(re.search(rb"retry-after-ms: (\d+)", refused)[1]) <= 10  # type: ignore[index]
    assert http.get("/v1/files").status_code == 200, "another key"
    with service.client(key) as client:
        client.get("/v1/files")  # the schema is told of it
        time.sleep(0.02)  # two tokens' time
        assert client.get("/v1/files").status_code == 200


def test_guessing_keys_is_slow(service: Service, http: httpx.Client) -> None:
    found = Counter(status for status, _ in ask_often(service, "ww-guess", 400))
    assert set(found) == {401, 429}
    assert http.get("/v1/files").status_code == 200, "a known key from the same address"


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "0", "2130706433", "0x7f.1", "10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1"),
        *(
            "169.254.169.254",
            "168.63.129.16",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[ff02::1]",
        ),
        *("[fe80::1]", "[fd00:ec2::254]", "[::ffff:127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[2001::1]"),
    ],
)
def test_a_webhook_into_our_own_network_is_refused(http: httpx.Client, host: str) -> None:
    body = {"name": "inwards", "url": f"http://{host}:6379/", "event_types": ["job.failed"]}
    answer = http.post("/v1/webhook_endpoints", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "address_refused")
    assert "is not on the internet" in answer.json()["error"]["message"]


def test_a_webhook_that_came_to_point_inwards_is_not_sent(service: Service, http: httpx.Client) -> None:
    """As a name's owner can have it: the row is changed here, for want of a name server."""
    with Receiver().serving() as receiver:
        body = {"name": "inwards", "url": "https://8.8.8.8/", "event_types": ["job.cancelled"]}
        place = f"/v1/webhook_endpoints/{http.post('/v1/webhook_endpoints', json=body).json()['id']}"
        with service.database.write() as session:
            session.get_one(WebhookEndpoint, place.rpartition("/")[2]).url = receiver.url("inwards")
        http.post(f"/v1/jobs/{submit(http, upload(http)['id'])['id']}/cancel").raise_for_status()
        tried = wait_for(lambda: [one for one in http.get(f"{place}/deliveries").json()["data"] if one["tries"]])
        assert "is not on the internet" in tried[0]["error"]
        assert http.post(f"{place}/test").json()["error"]["code"] == "endpoint_unreachable"
        assert receiver.requests == []
    http.delete(place).raise_for_status()
