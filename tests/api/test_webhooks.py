"""Webhooks: whoever asked is told of a job's end, signed, until they take it; and nobody waits for the slow ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from core.jobs.deliveries import PAUSES
from tests.api.receiver import Received, Receiver
from tests.api.service import Service, new_project, submit, upload, wait_for, work

TYPES = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]
TYPES += ["job.succeeded", "job.failed", "job.cancelled"]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver().serving() as receiver:
        yield receiver


def add_endpoint(http: httpx.Client, url: str, *events: str) -> dict[str, Any]:
    body = {"name": "ours", "url": url, "event_types": events or ["job.cancelled"]}
    answer = http.post("/v1/webhook_endpoints", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def cancelled_job(http: httpx.Client, dataset: str | None = None, **changes: Any) -> str:
    job = submit(http, dataset or upload(http)["id"], **changes)["id"]
    http.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    return job


def delivery(http: httpx.Client, endpoint: dict[str, Any], status: str) -> dict[str, Any]:
    """Its only delivery, once it has this status."""

    def found() -> dict[str, Any] | None:
        (one,) = http.get(f"/v1/webhook_endpoints/{endpoint['id']}/deliveries").json()["data"]
        return one if one["status"] == status else None

    return wait_for(found)


def signatures(received: Received, *secrets: str) -> list[str]:
    """What the signatures must be, by the formula of Standard Webhooks."""
    message_id, timestamp = received.headers["webhook-id"], received.headers["webhook-timestamp"]
    assert abs(time.time() - int(timestamp)) < 30
    content = f"{message_id}.{timestamp}.{received.body.decode()}".encode()
    keys = [base64.b64decode(secret.removeprefix("whsec_"), validate=True) for secret in secrets]
    made = [hmac.new(key, content, hashlib.sha256).digest() for key in keys]
    return [f"v1,{base64.b64encode(one).decode()}" for one in made]


def test_the_end_of_a_job_is_told_once_and_signed(http: httpx.Client, service: Service, receiver: Receiver) -> None:
    endpoint = add_endpoint(http, receiver.url("told"), "job.succeeded")
    job = submit(http, upload(http)["id"])["id"]
    work(service, job).succeed()
    (received,) = receiver.at("told")
    event = json.loads(received.body)
    ended = http.get(f"/v1/jobs/{job}").json()
    assert event == {
        "object": "event",
        "id": event["id"],
        "type": "job.succeeded",
        "created_at": ended["finished_at"],
        "data": {"id": job},
    }
    assert event["id"].startswith("evt")
    assert received.headers["content-type"] == "application/json"
    assert received.headers["webhook-signature"].split() == signatures(received, endpoint["signing_secret"])
    shown = delivery(http, endpoint, "delivered")
    assert shown["id"] == received.headers["webhook-id"]
    assert (shown["tries"], shown["response_status"], shown["error"], shown["next_at"]) == (1, 200, None, None)
    assert shown["event"] == event
    assert len(receiver.at("told")) == 1


def test_it_is_tried_again_under_the_same_id_until_it_is_taken(http: httpx.Client, receiver: Receiver) -> None:
    endpoint = add_endpoint(http, receiver.url("third"))
    cancelled_job(http)
    tries = receiver.at("third", 3)
    assert len({received.headers["webhook-id"] for received in tries}) == 1
    for received in tries:
        assert received.headers["webhook-signature"].split() == signatures(received, endpoint["signing_secret"])
    shown = delivery(http, endpoint, "delivered")
    assert (shown["tries"], shown["response_status"]) == (3, 200)
    assert shown["delivered_at"] >= shown["created_at"]
    assert len(receiver.at("third")) == 3


def test_it_is_given_up_and_sent_again_by_hand_to_the_new_address(http: httpx.Client, receiver: Receiver) -> None:
    endpoint = add_endpoint(http, receiver.url("status/503"))
    place = f"/v1/webhook_endpoints/{endpoint['id']}"
    cancelled_job(http)
    shown = delivery(http, endpoint, "failed")
    assert (shown["tries"], shown["response_status"], shown["error"]) == (len(PAUSES), 503, "the answer was 503")
    assert len(receiver.at("status/503")) == len(PAUSES)
    assert http.get(place).json()["failing_since"] >= shown["created_at"]
    http.post(place, json={"url": receiver.url("mended")}).raise_for_status()
    again = http.post(f"{place}/deliveries/{shown['id']}/retry").json()
    assert (again["status"], again["tries"], again["error"]) == ("pending", 0, None)
    assert receiver.at("mended")[0].headers["webhook-id"] == shown["id"]
    assert delivery(http, endpoint, "delivered")["tries"] == 1


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("redirect", 302, "the answer was 302; redirects are not followed"),
        ("status/100", None, "the connection broke, or what came was not HTTP"),  # to go on, and then nothing
        ("status/410", 410, "the answer was 410"),
    ],
)
def test_what_is_no_success_says_why(
    http: httpx.Client, receiver: Receiver, path: str, status: int | None, told: str
) -> None:
    endpoint = add_endpoint(http, receiver.url(path))
    cancelled_job(http)

    def tried() -> dict[str, Any] | None:
        (one,) = http.get(f"/v1/webhook_endpoints/{endpoint['id']}/deliveries").json()["data"]
        return one if one["tries"] else None

    shown = wait_for(tried)
    assert (shown["response_status"], shown["error"]) == (status, told)
    assert not [one for one in receiver.requests if one.path == "/redirected"]
    http.delete(f"/v1/webhook_endpoints/{endpoint['id']}").raise_for_status()


def test_an_endless_answer_counts_by_its_status_and_is_cut_off(http: httpx.Client, receiver: Receiver) -> None:
    endpoint = add_endpoint(http, receiver.url("endless"))
    cancelled_job(http)
    assert delivery(http, endpoint, "delivered")["tries"] == 1
    assert receiver.hung_up.wait(60)


def test_two_processes_send_each_once(http: httpx.Client, receiver: Receiver) -> None:
    """Cancelled at once, so that both processes look, one nudged and one by itself."""
    endpoint = add_endpoint(http, receiver.url("once"))
    file = upload(http)["id"]
    jobs = [cancelled_job(http, file, seed=seed) for seed in range(30)]
    received = receiver.at("once", 30)
    assert sorted(json.loads(one.body)["data"]["id"] for one in received) == sorted(jobs)
    place = f"/v1/webhook_endpoints/{endpoint['id']}/deliveries?limit=100"
    wait_for(lambda: {one["status"] for one in http.get(place).json()["data"]} == {"delivered"})
    assert set(Counter(one.headers["webhook-id"] for one in receiver.at("once", 30)).values()) == {1}


@pytest.fixture
def silent() -> Iterator[Receiver]:
    """A receiver that nobody else sends to."""
    with Receiver().serving() as receiver:
        yield receiver


def test_a_slow_receiver_holds_up_nobody_else(
    service: Service, http: httpx.Client, receiver: Receiver, silent: Receiver
) -> None:
    slow = add_endpoint(http, silent.url("silent"))
    file = upload(http)["id"]
    for seed in range(12):
        cancelled_job(http, file, seed=seed)
    with service.client(new_project(service)) as other:
        endpoint = add_endpoint(other, receiver.url("swift"))
        cancelled_job(other)
        delivery(other, endpoint, "delivered")
    told = http.get(f"/v1/webhook_endpoints/{slow['id']}/deliveries", params={"limit": 100}).json()["data"]
    assert "delivered" not in {one["status"] for one in told}
    silent.at("silent", 9)
    assert silent.most_at_once <= 8  # as many as both processes send of one project
    changed = http.post(f"/v1/webhook_endpoints/{slow['id']}", json={"url": receiver.url("mended")})
    assert changed.status_code == 200, changed.text  # the cure does not wait for what it cures
    http.delete(f"/v1/webhook_endpoints/{slow['id']}").raise_for_status()


def test_samples_wait_in_nobodys_way_but_are_so_many_at_once(http: httpx.Client, silent: Receiver) -> None:
    place = f"/v1/webhook_endpoints/{add_endpoint(http, silent.url('silent'))['id']}/test"
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: http.post(place), range(12)))
    assert {answer.status_code for answer in answers} == {400, 429}
    assert silent.most_at_once <= 4
    assert {answer.headers["retry-after"] for answer in answers if answer.status_code == 429} == {"1"}


def test_an_endpoint_is_made_changed_listed_and_deleted(http: httpx.Client, receiver: Receiver) -> None:
    made = add_endpoint(http, receiver.url("a"), "job.failed", "job.succeeded")
    secret = made.pop("signing_secret")
    assert made["signing_secret_hint"] == f"whsec_...{secret[-4:]}"
    assert made["created_at"] == made["updated_at"]
    place = f"/v1/webhook_endpoints/{made['id']}"
    assert http.get(place).json() == made
    assert http.post(place, json={}).json() == made
    changed = http.post(place, json={"name": "theirs", "event_types": TYPES}).json()
    assert changed == {**made, "name": "theirs", "event_types": TYPES, "updated_at": changed["updated_at"]}
    off = http.post(place, json={"status": "disabled"}).json()
    assert off == {**changed, "status": "disabled", "updated_at": off["updated_at"]}
    assert cancelled_job(http)
    assert http.get(f"{place}/deliveries").json()["data"] == []
    changed = http.post(place, json={"url": receiver.url("c")}).json()
    assert (changed["status"], changed["failing_since"]) == ("enabled", None)
    other = add_endpoint(http, receiver.url("b"))
    page = http.get("/v1/webhook_endpoints?limit=1").json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([other["id"]], True)
    page = http.get(f"/v1/webhook_endpoints?after={other['id']}").json()
    assert (page["data"], page["has_more"]) == ([changed], False)
    assert secret not in http.get("/v1/webhook_endpoints").text
    assert http.delete(place).json() == {"id": made["id"], "object": "webhook_endpoint.deleted", "deleted": True}
    assert http.get(place).status_code == 404
    assert http.get(f"{place}/deliveries").status_code == 404


def test_a_sample_is_signed_with_both_secrets_while_one_replaces_the_other(
    http: httpx.Client, receiver: Receiver
) -> None:
    endpoint = add_endpoint(http, receiver.url("sample"), "job.failed")
    place, first = f"/v1/webhook_endpoints/{endpoint['id']}", endpoint["signing_secret"]
    second = http.post(f"{place}/rotate_secret", json={"keep_old_secret_active_for_24_hours": True}).json()
    assert second["signing_secret"] != first
    told = http.post(f"{place}/test", json={"event_type": "fine_tuning.job.succeeded"})
    assert told.json() == {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": endpoint["id"],
        "event_type": "fine_tuning.job.succeeded",
        "status_code": 200,
        "success": True,
    }
    third = http.post(f"{place}/rotate_secret").json()["signing_secret"]
    http.post(f"{place}/test").raise_for_status()
    both, after = receiver.at("sample", 2)
    assert both.headers["webhook-signature"].split() == signatures(both, second["signing_secret"], first)
    assert after.headers["webhook-signature"].split() == signatures(after, third)
    assert json.loads(after.body)["type"] == "job.failed"
    assert http.get(f"{place}/deliveries").json()["data"] == []


def test_a_sample_that_nobody_takes_says_so_and_is_not_to_be_repeated(http: httpx.Client, receiver: Receiver) -> None:
    endpoint = add_endpoint(http, "http://127.0.0.1:1/")
    answer = http.post(f"/v1/webhook_endpoints/{endpoint['id']}/test")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "endpoint_unreachable")
    assert "no connection could be made" in answer.json()["error"]["message"]
    endpoint = add_endpoint(http, receiver.url("status/404"))
    assert http.post(f"/v1/webhook_endpoints/{endpoint['id']}/test").json()["status_code"] == 404


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"event_types": ["batch.completed"]}, "event_types.0", "'fine_tuning.job.succeeded'"),
        ({"event_types": []}, "event_types", "at least 1 item"),
        ({"url": "http://me:secret@127.0.0.1/"}, "url", "no user name or password"),
        ({"url": "http://no..where/"}, "url", "there is no host"),
        ({"name": ""}, "name", "at least 1 character"),
        ({"secret": "whsec_x"}, "secret", "no such field"),
    ],
)
def test_a_wrong_endpoint_is_refused(http: httpx.Client, body: dict[str, Any], param: str, told: str) -> None:
    wrong = {"name": "ours", "url": "http://127.0.0.1/", "event_types": ["job.failed"], **body}
    answer = http.post("/v1/webhook_endpoints", json=wrong)
    assert answer.status_code in (400, 422)
    error = answer.json()["error"]
    assert error["param"] == param
    assert told in error["message"]


def test_all_that_can_be_told_is_listed(http: httpx.Client) -> None:
    assert http.get("/v1/webhook_event_types").json() == {"object": "list", "data": TYPES}
