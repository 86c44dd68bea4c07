"""The schema is exact: every test's answers are held against it (tests/api/schema.py); here every call is made once."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import httpx
from jsonschema import Draft202012Validator

from tests.api.receiver import Receiver
from tests.api.service import ADMIN_KEY, Service, new_project, start_worker, submit, table, upload, work
from tests.api.test_checkpoints import permissions_of, start_tuning
from tests.api.test_samples import show
from tests.api.test_uploads import announce, complete, send
from tests.tiny_llama import conversations, llama_zip


def test_every_call_answers_as_the_schema_says(http: httpx.Client, service: Service) -> None:
    file = upload(http)["id"]
    job = submit(http, file)["id"]
    worker = work(service, job)
    worker.metrics(1)
    worker.checkpoint(1, b"state")
    show(worker, "words", 1, b"one")
    model = worker.succeed()
    checkpoint = http.get(f"/v1/jobs/{job}/checkpoints").json()["data"][0]["id"]
    sample = http.get(f"/v1/jobs/{job}/samples").json()["data"][0]["id"]
    pipeline = http.post("/v1/pipelines", json={"jobs": {"a": {"method": "pca", "dataset": file}}}).json()
    waiting = pipeline["jobs"]["a"]["id"]
    one, other = announce(http, table()), announce(http, table())
    complete(http, one, send(http, one, table())).raise_for_status()
    http.post(f"/v1/uploads/{other}/cancel").raise_for_status()
    extra = http.post("/v1/api_keys", json={"name": "extra"}).json()["id"]
    for path in (
        *("methods", "methods/pca", "methods/pca/example_dataset", "files", "jobs", "models", "pipelines", "api_keys"),
        *(f"files/{file}", f"files/{file}/content", f"models/{model}", f"pipelines/{pipeline['id']}", f"jobs/{job}"),
        *(f"jobs/{job}/{part}" for part in ("events", "metrics", "logs", "checkpoints", "artifacts", "weights")),
        *("uploads", f"uploads/{one}", f"uploads/{one}/parts"),
        *(f"jobs/{job}/samples", f"jobs/{job}/samples/{sample}"),
        *(f"jobs/{job}/archive", f"jobs/{job}/artifacts/model.safetensors", f"jobs/{job}/checkpoints/{checkpoint}"),
    ):
        assert http.get(f"/v1/{path}").status_code == 200
    http.post("/v1/jobs/preview?measure=false", json={"method": "pca", "dataset": file}).raise_for_status()
    grader = {"type": "string_check", "name": "is yes", "operation": "eq", "input": "yes", "reference": "yes"}
    for call, more in {"validate": {}, "run": {"model_sample": "yes"}}.items():
        http.post(f"/v1/fine_tuning/alpha/graders/{call}", json={"grader": grader, **more}).raise_for_status()
    try_out(http)
    with service.client(ADMIN_KEY) as admin:
        start_worker(service)
        for change in ("drain", "resume"):
            admin.post(f"/v1/workers/w-1/{change}").raise_for_status()
        project = http.get("/v1/projects").json()["data"][0]["id"]
        admin.patch(f"/v1/projects/{project}", json={"max_running_jobs": None}).raise_for_status()
    for path in ("workers", f"projects/{project}"):
        http.get(f"/v1/{path}").raise_for_status()
    fine_tune(http)
    try_webhooks(http)
    for change in ("pause", "resume", "cancel"):
        http.post(f"/v1/jobs/{waiting}/{change}").raise_for_status()
    http.post(f"/v1/jobs/{waiting}/retry").raise_for_status()
    http.post(f"/v1/jobs/{waiting}/cancel").raise_for_status()
    share_a_checkpoint(http, service)
    fetch = http.post("/v1/models", json={"name": "nobody/nothing"}).raise_for_status().json()["id"]
    for path in ("model_fetches", f"model_fetches/{fetch}"):
        http.get(f"/v1/{path}").raise_for_status()
    for path in (
        f"jobs/{job}/checkpoints/{checkpoint}",
        f"models/{model}",
        f"files/{file}",
        f"api_keys/{extra}",
        f"jobs/{job}",
    ):
        http.delete(f"/v1/{path}").raise_for_status()
    fine = {(method, path) for method, path, status in service.schema.seen if status < 300}
    assert {call for call in service.schema.operations if call[1].startswith("/v1/")} - fine == set()


def share_a_checkpoint(http: httpx.Client, service: Service) -> None:
    tuned = start_tuning(http, service)
    tuned.worker.checkpoint(1, b"state", is_epoch=True)
    here = permissions_of(http, tuned)
    with service.client(new_project(service)) as other:
        theirs = other.get("/v1/projects").json()["data"][0]["id"]
    permission = http.post(here, json={"project_ids": [theirs]}).raise_for_status().json()["data"][0]["id"]
    http.get(here).raise_for_status()
    http.delete(f"{here}/{permission}").raise_for_status()


def fine_tune(http: httpx.Client) -> None:
    upload(http, llama_zip(), name="tiny-llama.zip", purpose="base-model")
    data = upload(http, conversations(), name="data.jsonl", purpose="fine-tune")["id"]
    asked = {"model": "tiny-llama", "training_file": data}
    job = http.post("/v1/fine_tuning/jobs", json=asked).raise_for_status().json()["id"]
    for path in ("", f"/{job}", f"/{job}/events"):
        http.get(f"/v1/fine_tuning/jobs{path}").raise_for_status()
    for change in ("pause", "resume", "cancel"):
        http.post(f"/v1/fine_tuning/jobs/{job}/{change}").raise_for_status()


def try_webhooks(http: httpx.Client) -> None:
    """Make each of their calls."""
    (told, *_) = http.get("/v1/webhook_event_types").json()["data"]
    with Receiver().serving() as receiver:
        body = {"name": "ours", "url": receiver.url("status/200"), "event_types": [told, "job.cancelled"]}
        place = f"/v1/webhook_endpoints/{http.post('/v1/webhook_endpoints', json=body).json()['id']}"
        for call in ("", "/rotate_secret", "/test"):
            http.post(place + call).raise_for_status()
        job = submit(http, upload(http)["id"])["id"]
        http.post(f"/v1/jobs/{job}/cancel").raise_for_status()
        (delivery,) = http.get(f"{place}/deliveries").json()["data"]
        http.post(f"{place}/deliveries/{delivery['id']}/retry").raise_for_status()
        for path in ("/v1/webhook_endpoints", place):
            http.get(path).raise_for_status()
        http.delete(place).raise_for_status()


def try_out(http: httpx.Client) -> None:
    model = upload(http, llama_zip(), name="tiny.zip", purpose="base-model")["id"]
    http.timeout = 150  # the first to ask waits until the process has imported everything
    messages = [{"role": "user", "content": "what is the whale?"}]
    for path, body in (
        ("chat/completions", {"model": model, "messages": messages}),
        ("completions", {"model": model, "prompt": "the"}),
        ("embeddings", {"model": model, "input": "the"}),
        ("comparisons", {"models": [model, model], "messages": messages}),
    ):
        limit = {} if path == "embeddings" else {"max_tokens": 1}
        http.post(f"/v1/{path}", json={**body, **limit}).raise_for_status()


def test_every_methods_example_is_accepted_with_its_own_data(http: httpx.Client) -> None:
    for method in http.get("/v1/methods").json()["data"]:
        steps = {"example": method["example"], **method["example_needs"]}
        jobs = {}
        for name, step in steps.items():
            dataset = upload(http, http.get(step["dataset"]).content, name=name)["id"]
            jobs[name] = {"method": method["id"], **step["spec"], "dataset": dataset}
        jobs["example"] |= {field: {"job": field} for field in method["example_needs"]}
        for field, address in method["example_files"].items():
            jobs["example"][field] = upload(http, http.get(address).content, name=field)["id"]
        answer = http.post("/v1/pipelines", json={"jobs": jobs})
        assert answer.status_code == 202, (method["id"], answer.text)
        for job in answer.json()["jobs"].values():
            http.post(f"/v1/jobs/{job['id']}/cancel")


def test_a_job_is_one_of_all_methods_specs(service: Service, http: httpx.Client) -> None:
    document = service.schema.document
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    names = {method["id"] for method in http.get("/v1/methods").json()["data"]}
    assert body["discriminator"]["propertyName"] == "method"
    assert set(body["discriminator"]["mapping"]) == names
    assert len(body["oneOf"]) == len(names)


def test_the_document_is_sound(service: Service) -> None:
    document = service.schema.document
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    text = str(document)
    assert "HTTPValidationError" not in text
    for reference in set(re.findall(r"#/components/schemas/([\w.-]+)", text)):
        assert reference in document["components"]["schemas"]
    for path, calls in document["paths"].items():
        for call in calls.values():
            assert call["responses"]["default"]["content"]["application/json"]["schema"]
            assert bool(call.get("security")) is path.startswith("/v1/")
            assert call["summary"]
            assert call["description"]
    upload_body = document["paths"]["/v1/files"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(upload_body["properties"]) == {
        "file",
        "purpose",
        "expires_after[anchor]",
        "expires_after[seconds]",
    }


class References(HTMLParser):
    found: list[str]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attributes if name in ("src", "href") and value]


def test_the_docs_page_needs_nothing_from_elsewhere(service: Service) -> None:
    with service.client(None) as http:
        assert http.get("/").headers["location"] == "/docs"
        page = http.get("/docs")
        references = References()
        references.found = []
        references.feed(page.text)
        assert len(references.found) >= 2
        for address in references.found:
            assert address.startswith("/")
            assert http.get(address).status_code == 200
        assert "https://" not in page.text


def test_ready_means_that_everything_answers(service: Service) -> None:
    with service.client(None) as http:
        assert http.get("/healthz").json() == {"status": "ok", "checks": {}}
        ready = http.get("/readyz")
    assert ready.json() == {"status": "ok", "checks": {"database": "ok", "redis": "ok", "storage": "ok"}}
