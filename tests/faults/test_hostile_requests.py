"""Whatever is sent: bounded time and memory, and an API that says what was wrong and goes on answering."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from jsonschema import Draft202012Validator

from core.jobs.models.webhooks import WebhookEndpoint
from tests.api.receiver import Receiver
from tests.api.service import Service, new_project, submit, upload, wait_for
from tests.faults.limited import MIB, SECONDS, limited, undisturbed


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    with limited(tmp_path_factory.mktemp("hostile"), redis_url) as service:
        yield service


@pytest.fixture(scope="module")
def http(service: Service) -> Iterator[httpx.Client]:
    with service.client(new_project(service)) as client:
        upload(client)
        yield client


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
