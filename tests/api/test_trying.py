"""Models are tried out: chats, completions, embeddings and comparisons, in a process that may end at any time."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
import transformers

from core.catalog import read_spec
from core.execution import train
from core.jobs import publishing
from core.measuring import Silence
from core.networks.chat_template import give_template
from core.training.checkpoint import CheckpointFile
from core.training.run import Control, Run
from tests.api.service import Service, new_project, serving, submit, upload, wait_for, work
from tests.language_models import CONTEXT, write_encoder, write_language_model
from tests.tiny_llama import conversations, write_tiny_llama, zipped

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

MESSAGES = [{"role": "user", "content": "what is the whale?"}]
CALL = '<tool_call>{"name": "weather", "arguments": {"in": "Rome"}}</tool_call>'
QUEUE = 6
PATIENCE = 150.0
SPEC = {
    "method": "fine_tuning", "task": "chat", "strategy": "lora", "epochs": 1, "learning_rate": 0.05, "batch_size": 2,
    "samples": 0, "epoch_checkpoints": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base, what an epoch with adapters made of it, and an encoder."""
    root = tmp_path_factory.mktemp("models")
    write_language_model(root / "base")
    write_encoder(root / "encoder")
    (root / "dataset").write_bytes(conversations())
    spec = {**SPEC, "base": "model-base", "dataset": "file-dataset"}
    reporter = Keeper()
    run = Run(
        spec=read_spec(spec),
        inputs={name: root / name for name in ("base", "dataset")},
        folder=root / "run",
        reporter=reporter,
        control=Control(),
    )
    train(run, lineage={})
    checkpoint = reporter.files[-1].path
    return {"base": root / "base", "encoder": root / "encoder", "tuned": run.artifacts, "checkpoint": checkpoint}


class Keeper(Silence):
    """Keeps the checkpoints that a run reports."""

    def __init__(self) -> None:
        self.files: list[CheckpointFile] = []

    def checkpoint(self, file: CheckpointFile) -> None:
        self.files.append(file)


@pytest.fixture(scope="module")
def serving_service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    """An API of few places, which keeps two models open."""
    changes = {"SERVING_QUEUE": str(QUEUE), "SERVING_MODELS": "2", "SERVING_NICE": "0", "SERVING_TOKENS": "40"}
    named = {f"WEIGHTWORKS_{name}": value for name, value in changes.items()}
    with serving(tmp_path_factory.mktemp("trying"), redis_url, 1, **named) as service:
        yield service


@pytest.fixture(scope="module")
def http(serving_service: Service) -> Iterator[httpx.Client]:
    with serving_service.client(new_project(serving_service)) as client:
        client.timeout = PATIENCE  # the first to ask waits until the process has imported everything
        yield client


@pytest.fixture(scope="module")
def base(http: httpx.Client, folders: dict[str, Path]) -> str:
    return upload(http, zipped(folders["base"]), name="tiny.zip", purpose="base-model")["id"]


@pytest.fixture(scope="module")
def encoder(http: httpx.Client, folders: dict[str, Path]) -> str:
    return upload(http, zipped(folders["encoder"]), name="bert.zip", purpose="base-model")["id"]


@pytest.fixture(scope="module")
def tuned(serving_service: Service, http: httpx.Client, folders: dict[str, Path], base: str) -> str:
    """The name of the model that a job made, whose last checkpoint it is."""
    dataset = upload(http, conversations(), name="chat.jsonl")["id"]
    asked = {"model": "tiny", "training_file": dataset}
    job = http.post("/v1/fine_tuning/jobs", json=asked).raise_for_status().json()["id"]
    worker = work(serving_service, job)
    worker.checkpoint(7, folders["checkpoint"].read_bytes(), is_epoch=True)
    paths = [path for path in folders["tuned"].rglob("*") if path.is_file()]
    published = worker.publish_files({str(path.relative_to(folders["tuned"])): path.read_bytes() for path in paths})
    with serving_service.database.write() as session:
        lineage = {"base": {"file": base, "filename": "tiny.zip", "sha256": "-"}}
        publishing.succeed_job(session, worker.claim, files=published, metrics={}, lineage=lineage)
    return str(http.get(f"/v1/fine_tuning/jobs/{job}").json()["fine_tuned_model"])


def serving_process(service: Service) -> psutil.Process:
    """The child of the API that tries models out."""
    return next(one for one in service.api.process.children() if "core.serving" in one.cmdline())


def chat(http: httpx.Client, model: str, **changes: Any) -> httpx.Response:
    body = {"model": model, "messages": MESSAGES, "temperature": 0, "max_tokens": 24, **changes}
    return http.post("/v1/chat/completions", json=body)


def chunks(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream, each a line and an empty one, up to [DONE]."""
    texts = answer.text.split("\n\n")
    assert texts[-2:] == ["data: [DONE]", ""]
    for text in texts[:-2]:
        assert text.startswith("data: ")
        yield json.loads(text.removeprefix("data: "))


def expected(folder: Path, *, count: int) -> str:
    """What transformers itself writes."""
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    give_template(tokenizer)
    asked = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = network.generate(**asked, max_new_tokens=count, do_sample=False)[0][asked["input_ids"].shape[1] :]
    return str(tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("which", ["base", "tuned"])
def test_greedy_answers_are_those_of_transformers(
    which: str, http: httpx.Client, base: str, tuned: str, folders: dict[str, Path]
) -> None:
    answer = chat(http, {"base": "tiny", "tuned": tuned}[which]).json()
    assert answer["choices"][0]["message"]["content"] == expected(folders[which], count=24)
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 24
    assert answer["choices"][0]["finish_reason"] == "length"


def test_adapters_changed_what_it_answers_and_its_checkpoint_answers_the_same(
    http: httpx.Client, base: str, tuned: str
) -> None:
    assert tuned.startswith("ft:tiny:")
    checkpoint = f"{tuned}:ckpt-step-7"
    before, after, at_step = (chat(http, model).json()["choices"] for model in (base, tuned, checkpoint))
    assert before != after == at_step
    compared = http.post("/v1/comparisons", json={"models": [checkpoint], "messages": MESSAGES, "max_tokens": 24})
    assert [answer["model"] for answer in compared.json()["answers"]] == [base, checkpoint]


def test_a_stream_says_the_same_in_whole_characters(http: httpx.Client, base: str) -> None:
    whole = chat(http, base).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    answer = chat(http, base, **options)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *said, last = chunks(answer)
    assert said[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "tool_calls": None}
    assert (
        "".join(one["choices"][0]["delta"]["content"] or "" for one in said)
        == (whole["choices"][0]["message"]["content"])
    )
    assert said[-1]["choices"][0]["finish_reason"] == "length"
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert {one["id"] for one in (*said, last)} == {last["id"]}


def test_several_answers_are_drawn_by_the_seed(http: httpx.Client, base: str) -> None:
    settings = {"temperature": 1.5, "n": 3, "seed": 5, "top_p": 0.9, "max_completion_tokens": 8}
    one, same = (chat(http, base, max_tokens=None, **settings).json() for _ in range(2))
    other = chat(http, base, max_tokens=None, **{**settings, "seed": 6}).json()
    texts = [[choice["message"]["content"] for choice in answer["choices"]] for answer in (one, same, other)]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) == 3
    streamed = chat(http, base, max_tokens=None, stream=True, **settings)
    by_choice = dict.fromkeys(range(3), "")
    for chunk in chunks(streamed):
        for choice in chunk["choices"]:
            by_choice[choice["index"]] += choice["delta"]["content"] or ""
    assert list(by_choice.values()) == texts[0]


def test_calls_of_tools_are_told_apart(http: httpx.Client, tmp_path: Path) -> None:
    """The model writes a token that is a call, then its end: each likelier than all others, and the call not again."""
    network = write_language_model(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_tokens([CALL])
    call, end = tokenizer.convert_tokens_to_ids(CALL), tokenizer.eos_token_id
    network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    network.get_output_embeddings().weight.data[[call, end]] = 0.0  # so that the bias alone tells how likely they are
    for thing in (network, tokenizer):
        thing.save_pretrained(tmp_path)
    model = upload(http, zipped(tmp_path), name="caller.zip", purpose="base-model")["id"]
    drawn = {"logit_bias": {str(call): 100, str(end): 99}, "presence_penalty": 2, "logprobs": True}
    asked = {**drawn, "tools": [{"type": "function", "function": {"name": "weather"}}]}
    (choice,) = chat(http, model, **asked).json()["choices"]
    (told,) = choice["message"]["tool_calls"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")
    assert told == {
        "id": told["id"],
        "type": "function",
        "function": {"name": "weather", "arguments": '{"in": "Rome"}'},
    }
    begin, *said, last = [chunk["choices"][0] for chunk in chunks(chat(http, model, stream=True, **asked))]
    deltas = [one["delta"] for one in said if one["delta"]["tool_calls"]]
    (streamed,) = deltas[0]["tool_calls"]
    assert len(deltas) == 1
    assert streamed == {**told, "id": streamed["id"], "index": 0}
    assert (begin["delta"]["role"], last["finish_reason"]) == ("assistant", "tool_calls")
    assert sum(len((one["logprobs"] or {"content": []})["content"]) for one in said) == 1
    plain = chat(http, model, **{**asked, "tool_choice": "none"}).json()["choices"][0]
    assert (plain["message"]["content"], plain["message"]["tool_calls"]) == (CALL, None)
    assert plain["finish_reason"] == "stop"
    answered = [*MESSAGES, choice["message"], {"role": "tool", "tool_call_id": told["id"], "content": "fair"}]
    assert chat(http, model, messages=answered, **asked).json()["choices"][0]["finish_reason"] == "tool_calls"


def test_a_stop_string_ends_the_answer_and_is_not_in_it(http: httpx.Client, base: str) -> None:
    text = chat(http, base).json()["choices"][0]["message"]["content"]
    stop = text[5:8]
    before = text[: text.index(stop)]
    answer = chat(http, base, stop=[stop, "never this"]).json()["choices"][0]
    assert (answer["message"]["content"], answer["finish_reason"]) == (before, "stop")
    streamed = chunks(chat(http, base, stop=stop, stream=True))
    assert "".join(one["choices"][0]["delta"]["content"] or "" for one in streamed) == before


def test_probabilities_of_tokens_are_told(http: httpx.Client, base: str) -> None:
    (choice,) = chat(http, base, logprobs=True, top_logprobs=3, max_tokens=4).json()["choices"]
    content = choice["logprobs"]["content"]
    assert len(content) == 4
    for token in content:
        assert len(token["top_logprobs"]) == 3
        assert token["logprob"] == token["top_logprobs"][0]["logprob"] <= 0
    biased = chat(http, base, logit_bias={"40": 100}, max_tokens=3, logprobs=True).json()["choices"][0]
    assert len({token["token"] for token in biased["logprobs"]["content"]}) == 1


def test_texts_are_gone_on_with(http: httpx.Client, base: str, folders: dict[str, Path]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["base"])
    tokens = tokenizer("the whale")["input_ids"]
    body = {"model": base, "temperature": 0, "max_tokens": 6, "prompt": ["the whale", "a cat"], "n": 2, "logprobs": 2}
    answer = http.post("/v1/completions", json=body).json()
    texts = [choice["text"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert texts[0] == texts[1] != texts[2] == texts[3]
    assert len(answer["choices"][0]["logprobs"]["top_logprobs"]) == 6
    by_tokens = http.post("/v1/completions", json={**body, "prompt": tokens, "n": 1, "echo": True, "logprobs": None})
    assert by_tokens.json()["choices"][0]["text"] == f"the whale{texts[0]}"
    streamed = list(chunks(http.post("/v1/completions", json={**body, "stream": True})))
    by_choice = dict.fromkeys(range(4), "")
    for chunk in streamed:
        by_choice[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert list(by_choice.values()) == texts


def test_vectors_of_texts_are_means_of_unit_length(
    http: httpx.Client, base: str, encoder: str, folders: dict[str, Path]
) -> None:
    texts = ["the white whale", "a black cat sleeps"]
    body = {"model": encoder, "input": texts, "encoding_format": "float"}
    answer = http.post("/v1/embeddings", json=body).json()
    vectors = torch.tensor([one["embedding"] for one in answer["data"]])
    network = transformers.AutoModel.from_pretrained(folders["encoder"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["encoder"])
    for text, vector in zip(texts, vectors, strict=True):
        with torch.no_grad():
            mean = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        torch.testing.assert_close(vector, mean / mean.norm(), rtol=1e-4, atol=1e-5)
    coded = http.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()["data"][1]["embedding"]
    assert torch.equal(torch.tensor(struct.unpack("<32f", base64.b64decode(coded))), vectors[1])
    short = http.post("/v1/embeddings", json={**body, "dimensions": 8}).json()["data"][0]["embedding"]
    torch.testing.assert_close(torch.tensor(short), vectors[0][:8] / vectors[0][:8].norm())
    causal = http.post("/v1/embeddings", json={"model": base, "input": "the whale", "encoding_format": "float"})
    assert len(causal.json()["data"][0]["embedding"]) == 64


def test_a_model_is_compared_with_the_base_it_was_tuned_from(http: httpx.Client, base: str, tuned: str) -> None:
    compared = http.post("/v1/comparisons", json={"models": [tuned], "messages": MESSAGES, "max_tokens": 24}).json()
    assert [answer["model"] for answer in compared["answers"]] == [base, tuned]
    for answer in compared["answers"]:
        assert answer["text"] == chat(http, answer["model"]).json()["choices"][0]["message"]["content"]
    alone = http.post("/v1/comparisons", json={"models": [base], "prompt": "the whale"})
    assert (alone.status_code, alone.json()["error"]["param"]) == (400, "models")


def test_another_projects_models_are_not_there(serving_service: Service, base: str, tuned: str) -> None:
    with serving_service.client(new_project(serving_service, "read")) as other:
        for model in (base, tuned, "tiny"):
            assert chat(other, model).status_code == 404
            assert other.post("/v1/embeddings", json={"model": model, "input": "a"}).status_code == 404
            compared = other.post("/v1/comparisons", json={"models": [model], "messages": MESSAGES})
            assert (compared.status_code, compared.json()["error"]["param"]) == (404, "models")


@pytest.mark.parametrize(
    ("changes", "status", "param", "code"),
    [
        ({"messages": [{"role": "user", "content": "a " * 2 * CONTEXT}]}, 400, "messages", "context_length_exceeded"),
        ({"max_tokens": CONTEXT}, 400, "messages", "context_length_exceeded"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format", "unsupported_parameter"),
        ({"web_search_options": {}}, 400, "web_search_options", "unsupported_parameter"),
        ({"tool_choice": "required", "tools": []}, 400, "tool_choice", "unsupported_parameter"),
        ({"top_logprobs": 2}, 400, "top_logprobs", "invalid_request"),
        ({"logit_bias": {"99999": 1}}, 400, "logit_bias", "invalid_request"),
        ({"temperature": 3}, 422, "temperature", "invalid_spec"),
        ({"temprature": 1}, 422, "temprature", "invalid_spec"),
        ({"messages": []}, 422, "messages", "invalid_spec"),
        ({"model": "ft:nothing"}, 404, "model", "not_found"),
    ],
)
def test_what_is_not_done_is_refused_by_name(
    changes: dict[str, Any], status: int, param: str, code: str, http: httpx.Client, base: str
) -> None:
    for streams in (False, True):
        answer = chat(http, **({"model": base, "max_tokens": 4, "stream": streams} | changes))
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (status, param, code), error["message"]


def test_pictures_are_refused_and_parts_of_text_are_joined(http: httpx.Client, base: str) -> None:
    text = {"type": "text", "text": "what is "}
    parts = [text, {"type": "refusal", "refusal": "the whale?"}]
    joined = chat(http, base, messages=[{"role": "user", "content": parts}], user="me", store=True, metadata={"a": "b"})
    assert joined.json()["choices"] == chat(http, base).json()["choices"]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    refused = chat(http, base, messages=[{"role": "user", "content": [text, picture]}])
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages.0.content")


def test_encoders_write_nothing(http: httpx.Client, encoder: str) -> None:
    answer = chat(http, encoder)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_model")


def test_models_that_take_no_text_say_so(serving_service: Service, http: httpx.Client) -> None:
    worker = work(serving_service, submit(http, upload(http)["id"])["id"])
    config = {"model_type": "weightworks-pca", "arguments": {}}
    model = worker.succeed({"config.json": json.dumps(config).encode(), "model.safetensors": b"\2\0\0\0\0\0\0\0{}"})
    answer = chat(http, model)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "model"), answer.text


def test_the_process_keeps_few_models_and_leaves_nothing_behind(
    serving_service: Service, http: httpx.Client, base: str, tuned: str, encoder: str
) -> None:
    for model in (base, tuned, base):
        chat(http, model).raise_for_status()
    http.post("/v1/embeddings", json={"model": encoder, "input": "a"}).raise_for_status()
    assert chat(http, tuned).status_code == 200
    process = serving_process(serving_service)
    assert process.nice() == psutil.Process().nice()
    assert not [name for name in process.environ() if name.startswith("WEIGHTWORKS_")]
    wait_for(lambda: not list(serving_service.storage.incoming.glob("serving-*")))


def test_who_leaves_frees_the_turn_and_a_project_leaves_places_to_others(
    serving_service: Service, http: httpx.Client, base: str, folders: dict[str, Path]
) -> None:
    end = transformers.AutoTokenizer.from_pretrained(folders["base"]).eos_token_id
    long = {"max_tokens": 900, "n": 16, "stream": True, "logit_bias": {str(end): -100}}
    body = {"model": base, "messages": MESSAGES, **long}
    with ExitStack() as streams:
        for _ in range(QUEUE // 2):  # as many as it leaves free to others
            stream = streams.enter_context(http.stream("POST", "/v1/chat/completions", json=body))
            read = stream.iter_lines()
            next(read)
            streams.callback(read.close)
        refused = chat(http, base)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        with serving_service.client(new_project(serving_service)) as other:
            other.timeout = PATIENCE
            theirs = upload(other, zipped(folders["base"]), name="tiny.zip", purpose="base-model")["id"]
            assert chat(other, theirs).status_code == 200
        assert chat(http, base).status_code == 429
    wait_for(lambda: chat(http, base).status_code == 200)


def wordy(folder: Path) -> bytes:
    """A base that has a token longer than any message may be, a template that refuses at greater length, and a pattern
    that tries for ever whether it matches.
    """
    refusal = "{{ raise_exception('no ' * 10000000) }}"
    write_tiny_llama(folder, chat_template=refusal)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["x" * 2**24] = vocabulary.pop("x")
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, tokenizer["pre_tokenizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return zipped(folder)


def test_what_a_hostile_model_makes_of_it_ends_only_its_answer(
    serving_service: Service, http: httpx.Client, base: str, tmp_path: Path
) -> None:
    model = upload(http, wordy(tmp_path), name="wordy.zip", purpose="base-model")["id"]
    token = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]["x" * 2**24]
    chat(http, base).raise_for_status()
    process = serving_process(serving_service)
    refused = chat(http, model)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")
    assert len(refused.text) < 1000
    asked = {"model": model, "prompt": "a", "max_tokens": 2, "logit_bias": {str(token): 100}}
    refused = http.post("/v1/completions", json=asked)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "too_large")
    serving_service.tracebacks += 1
    refused = http.post("/v1/completions", json={**asked, "prompt": "a" * 60 + "!"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "model")
    assert chat(http, base).status_code == 200
    assert serving_process(serving_service).pid == process.pid


def test_files_that_cannot_be_placed_are_told_of(serving_service: Service, http: httpx.Client, tmp_path: Path) -> None:
    write_tiny_llama(tmp_path)
    model = upload(http, zipped(tmp_path), name="placed.zip", purpose="base-model")["id"]
    incoming = serving_service.storage.incoming
    incoming.rename(tmp_path / "incoming")
    try:
        refused = chat(http, model)
    finally:
        (tmp_path / "incoming").rename(incoming)
    assert refused.status_code == 503
    assert chat(http, model).status_code == 200


def test_a_process_that_is_killed_is_told_of_and_replaced(
    serving_service: Service, http: httpx.Client, base: str
) -> None:
    whole = chat(http, base).json()["choices"]
    body = {"model": base, "messages": MESSAGES, "n": 16, "max_tokens": 900, "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        before = serving_process(serving_service)
        before.kill()
        *_, last = [line for line in lines if line]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] == "serving_ended"
    assert chat(http, base).json()["choices"] == whole
    assert serving_process(serving_service).pid != before.pid


def test_a_server_that_stops_ends_what_it_writes(serving_service: Service, http: httpx.Client, base: str) -> None:
    """The last of these tests: nothing answers behind it."""
    body = {"model": base, "messages": MESSAGES, "n": 16, "max_tokens": 900, "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        child = serving_process(serving_service)
        serving_service.api.process.terminate()
        *_, last = [line for line in lines if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "unavailable"
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
