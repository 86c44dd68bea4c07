"""Models of a hub are fetched by name where the settings allow it: checked as uploads are, gone on with, or refused."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fastapi.testclient import TestClient
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE

from api import fetching
from api.fetching import AT_ONCE
from api.main import create_app
from core.jobs.database import Database
from core.jobs.fetches import MOST_AT_ONCE
from core.jobs.ids import new_id
from core.jobs.models.base import Base
from core.jobs.models.files import ModelFetch
from core.settings import Settings
from tests.api.service import ADMIN_KEY, MAX_UPLOAD_BYTES, Service, new_project, upload, wait_for
from tests.hub import TOKEN, Hub
from tests.tiny_llama import conversations, llama_zip

PICKLE = b"\x80\x04cos\nsystem\n(S'touch /tmp/harm'\ntR."
NAME = "tiny-org/tiny-llama"
WRITTEN_AT_ONCE = DOWNLOAD_CHUNK_SIZE


def model_files() -> dict[str, bytes]:
    """What a repository of the model holds, with what nobody wants beside it."""
    with zipfile.ZipFile(io.BytesIO(llama_zip())) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    return {**found, "pytorch_model.bin": PICKLE, "run.py": b"raise SystemExit", "onnx/model.onnx": b"x", ".git": b""}


def large_weights() -> bytes:
    """More than twice what is taken at once, so that some are there when half of them have come."""
    size = 2 * WRITTEN_AT_ONCE + 2**20
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


@pytest.fixture
def client(service: Service, hub: Hub) -> Iterator[httpx.Client]:
    """Of a new project, before a hub that was just set up."""
    hub.models, hub.gated, hub.is_down, hub.stall_on = {NAME: model_files()}, set(), False, None
    hub.told_bytes = None
    hub.asked.clear()
    hub.going_on.clear()
    with service.client(new_project(service)) as client:
        yield client


def ended(client: httpx.Client) -> dict[str, Any]:
    """A fetch once it is over."""
    answer = client.post("/v1/models", json={"name": NAME})
    assert answer.status_code == 202, answer.text
    return until_ended(client, answer.json()["id"])


def until_ended(client: httpx.Client, fetch_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = client.get(f"/v1/model_fetches/{fetch_id}").json()
        return None if found["status"] == "fetching" else found

    return wait_for(look, seconds=60)


def test_a_model_comes_with_what_it_needs_and_no_pickle(client: httpx.Client, hub: Hub) -> None:
    fetch = ended(client)
    assert (fetch["status"], fetch["error"], fetch["model"]) == ("ready", None, NAME), fetch
    wanted = [content for path, content in model_files().items() if path.endswith((".json", ".safetensors"))]
    assert fetch["bytes_fetched"] == fetch["bytes_total"] == sum(map(len, wanted))
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["name"]) == (fetch["file"], f"{NAME}.zip")
    assert client.get(f"/v1/models/{NAME}").json() == model
    with zipfile.ZipFile(io.BytesIO(client.get(f"/v1/files/{fetch['file']}/content").content)) as archive:
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}
        kept = {name: archive.read(name) for name in archive.namelist()}
    assert kept == {name: content for name, content in model_files().items() if name in kept}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= kept.keys()
    assert not {name for name in kept if name.endswith((".bin", ".py", ".onnx"))}
    assert [path for path, _ in hub.asked_of("files")] == [f"/{NAME}/model.safetensors"]
    assert all("authorization" not in headers for _, headers in hub.asked_of("files"))
    assert {headers["authorization"] for _, headers in hub.asked_of("hub")} == {f"Bearer {TOKEN}"}
    asked = len(hub.asked)
    again = client.post("/v1/models", json={"name": NAME}).json()
    assert (again["id"], again["status"]) == (fetch["id"], "ready")
    assert client.get("/v1/model_fetches").json()["data"] == [again]
    assert len(hub.asked) == asked
    client.delete(f"/v1/models/{NAME}").raise_for_status()
    assert ended(client)["id"] != fetch["id"]


def test_a_job_waits_for_the_model_that_it_names(client: httpx.Client) -> None:
    dataset = upload(client, conversations(), name="chat.jsonl")["id"]
    body = {"model": NAME, "training_file": dataset}
    answer = client.post("/v1/fine_tuning/jobs", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (503, "model_being_fetched", "model")
    assert 10 <= int(answer.headers["retry-after"]) <= 60
    assert int(answer.headers["retry-after-ms"]) == 1000 * int(answer.headers["retry-after"])
    (fetch,) = client.get("/v1/model_fetches").json()["data"]
    assert fetch["id"] in error["message"]
    until_ended(client, fetch["id"])
    answer = client.post("/v1/fine_tuning/jobs", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == NAME
    answer = client.post("/v1/fine_tuning/jobs", json={**body, "model": f"{NAME}@main"})
    assert answer.status_code == 200, answer.text


def test_what_a_try_has_fetched_the_next_does_not_fetch_again(client: httpx.Client, service: Service, hub: Hub) -> None:
    files = model_files()
    weights = files.pop("model.safetensors")
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    hub.models, hub.stall_on = {NAME: {**files, first: weights, second: large_weights()}}, second
    fetch = client.post("/v1/models", json={"name": NAME}).json()
    assert client.post("/v1/models", json={"name": NAME}).json()["id"] == fetch["id"]
    folder = service.folder / "storage" / "incoming"
    wait_for(lambda: [*folder.glob(f"hub-*/{first}")] and f"/{NAME}/{second}" in dict(hub.asked_of("files")))
    told = wait_for(lambda: (going := client.get(f"/v1/model_fetches/{fetch['id']}").json())["bytes_total"] and going)
    assert len(weights) < told["bytes_fetched"] < told["bytes_total"]
    beside = sum(len(content) for path, content in files.items() if path.endswith(".json"))
    assert told["bytes_total"] == beside + len(weights) + len(large_weights())
    (process,) = [one for one in service.api.process.children() if "core.hub" in one.cmdline()]
    assert TOKEN not in str(process.cmdline()) + str(process.environ())
    assert all(not name.startswith("WEIGHTWORKS_") for name in process.environ())
    process.kill()
    failed = until_ended(client, fetch["id"])
    assert (failed["status"], failed["file"]) == ("failed", None)
    hub.asked.clear()
    fetch = client.post("/v1/models", json={"name": NAME}).json()
    wait_for(lambda: hub.asked_of("files"))
    hub.stall_on = None
    hub.going_on.set()  # the connection is cut, and another begins where it was
    assert until_ended(client, fetch["id"])["status"] == "ready"
    asked = [(path.rpartition("/")[2], headers.get("range", "")) for path, headers in hub.asked_of("files")]
    assert [path for path, _ in asked] == [second, second]
    assert asked[1][1].startswith(f"bytes={WRITTEN_AT_ONCE}-")
    assert not list(folder.iterdir()) or not [*folder.glob("hub-*/*")]


@pytest.mark.parametrize(
    ("changes", "code", "cure", "status"),
    [
        ({"models": {}}, "hub_model_not_found", "WEIGHTWORKS_HUB_TOKEN", 404),
        ({"models": {NAME: {"config.json": b"{}", "model.safetensors": b"x"}}}, "invalid_data", "it is cut short", 404),
        (
            {"models": {NAME: {"model.safetensors": bytes(MAX_UPLOAD_BYTES + 2**21)}}, "told_bytes": 9},
            "too_large",
            "larger than a model may be",
            404,
        ),
        ({"is_down": True}, "hub_unreachable", "ask again", 503),
    ],
    ids=["unknown", "broken", "lies", "down"],
)
def test_a_failure_tells_its_cure(
    client: httpx.Client, hub: Hub, changes: dict[str, Any], code: str, cure: str, status: int
) -> None:
    for name, value in changes.items():
        setattr(hub, name, value)
    fetch = ended(client)
    assert (fetch["status"], fetch["error"]["code"]) == ("failed", code), fetch
    assert cure in json.dumps(fetch["error"])
    assert client.get("/v1/models").json()["data"] == []
    dataset = upload(client, conversations(), name="chat.jsonl")["id"]
    refused = client.post("/v1/fine_tuning/jobs", json={"model": NAME, "training_file": dataset})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (status, code, "model")


def test_a_project_with_many_on_their_way_is_told_to_wait(client: httpx.Client, service: Service) -> None:
    project = client.get("/v1/projects").json()["data"][0]["id"]
    told = {"revision": "main", "status": "fetching", "created_at": 1, "seen_at": time.time()}
    with service.database.write() as session:
        for number in range(MOST_AT_ONCE):
            session.add(ModelFetch(id=new_id("fetch"), project_id=project, name=f"tiny-org/{number}", **told))
    refused = client.post("/v1/models", json={"name": NAME})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_fetches")
    assert int(refused.headers["retry-after"]) == 10


def test_a_fetch_of_a_server_that_is_silent_is_lost(client: httpx.Client, service: Service) -> None:
    project = client.get("/v1/projects").json()["data"][0]["id"]
    with service.database.write() as session:
        told = {"name": NAME, "revision": "main", "status": "fetching", "created_at": 1, "seen_at": time.time() - 100}
        lost = ModelFetch(id=new_id("fetch"), project_id=project, **told)
        session.add(lost)
        fetch_id = lost.id
    assert until_ended(client, fetch_id)["error"]["code"] == "fetch_lost"
    with service.client(new_project(service)) as other:
        assert other.get(f"/v1/model_fetches/{fetch_id}").status_code == 404
    fetch = ended(client)
    assert fetch["error"] is None, fetch["error"]["message"]
    assert fetch["status"] == "ready"


@contextmanager
def served(folder: Path, redis_url: str, **settings: Any) -> Iterator[TestClient]:
    """An API in this process."""
    storage = {"database_url": f"sqlite:///{folder}/jobs.sqlite3", "storage_url": str(folder), "redis_url": redis_url}
    tables = Database(storage["database_url"])
    Base.metadata.create_all(tables.engine)
    tables.close()
    app = create_app(Settings(**storage, admin_key=ADMIN_KEY, **settings))
    with TestClient(app, headers={"authorization": f"Bearer {ADMIN_KEY}"}) as http:
        yield http


def test_without_a_hub_a_name_is_not_found_and_told_its_cure(redis_url: str, tmp_path: Path) -> None:
    with served(tmp_path, redis_url) as http:
        dataset = upload(http, conversations(), name="chat.jsonl")["id"]
        for path, body in (
            ("models", {"name": NAME}),
            ("fine_tuning/jobs", {"model": NAME, "training_file": dataset}),
        ):
            refused = http.post(f"/v1/{path}", json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "hub_not_allowed")
            assert "upload it" in refused.json()["error"]["message"]
            assert "WEIGHTWORKS_HUB_URL" in refused.json()["error"]["message"]
        assert http.post("/v1/models", json={"name": "../../etc/passwd"}).status_code == 422


def test_a_fetch_ends_with_its_time_and_with_its_server(hub: Hub, redis_url: str, tmp_path: Path) -> None:
    hub.models, hub.stall_on = {NAME: model_files()}, "model.safetensors"
    hub.going_on.clear()
    for seconds, code in ((0.1, "hub_too_slow"), (600, "fetch_lost")):
        with served(tmp_path, redis_url, hub_url=hub.url, hub_seconds=seconds) as http:
            fetch = http.post("/v1/models", json={"name": NAME}).json()
            if code == "hub_too_slow":
                assert until_ended(http, fetch["id"])["error"]["code"] == code
        database = Database(f"sqlite:///{tmp_path}/jobs.sqlite3")
        with database.read() as session:
            row = session.get_one(ModelFetch, fetch["id"])
            assert (row.status, row.error and row.error["code"]) == ("failed", code)
        database.close()
    assert not children("core.hub")


def test_the_time_that_a_fetch_may_take_begins_with_its_turn(hub: Hub, redis_url: str, tmp_path: Path) -> None:
    names = [f"tiny-org/{number}" for number in range(AT_ONCE + 1)]
    hub.models, hub.stall_on = dict.fromkeys(names, model_files()), "model.safetensors"
    hub.going_on.clear()
    seconds = 1.0
    with served(tmp_path, redis_url, hub_url=hub.url, hub_seconds=seconds) as http:
        began_at = time.monotonic()
        made = [http.post("/v1/models", json={"name": name}).json()["id"] for name in names]
        assert {until_ended(http, one)["error"]["code"] for one in made} == {"hub_too_slow"}
        assert time.monotonic() - began_at >= 2 * seconds


def test_a_server_ends_while_a_model_is_inspected(
    hub: Hub, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "END_SECONDS", 60.0)
    hub.models, hub.stall_on = {NAME: model_files()}, None
    with served(tmp_path, redis_url, hub_url=hub.url) as http:
        (inspector,) = children("core.inspecting")
        inspector.suspend()
        fetch = http.post("/v1/models", json={"name": NAME}).json()
        wait_for(lambda: children("core.hub"))
        wait_for(lambda: not children("core.hub"))
        asked_at = time.monotonic()
    assert time.monotonic() - asked_at < 60
    database = Database(f"sqlite:///{tmp_path}/jobs.sqlite3")
    with database.read() as session:
        row = session.get_one(ModelFetch, fetch["id"])
        assert (row.status, row.error and row.error["code"]) == ("failed", "fetch_lost")
    database.close()


def children(module: str) -> list[psutil.Process]:
    """The processes of a part of the server in this process."""
    return [one for one in psutil.Process().children() if module in one.cmdline()]
