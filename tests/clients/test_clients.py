"""The clients of the hosted API, unmodified: every call that this server has, from programs of their own.

`make test` installs them, each alone in a folder (`.cache/clients`); nothing is fetched here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import transformers

from tests.clients.lossy import losing_answers
from tests.conftest import Up, running_up
from tests.core.tasks.conftest import byte_pairs
from tests.tiny_llama import zipped

HERE = Path(__file__).parent
INSTALLED = HERE.parents[1] / ".cache" / "clients"
PATIENCE = 500.0
# Which of its jobs a client waits for, beside the supervised one: each method is waited for by some.
PROGRAMS = {
    ("openai-3", "sync"): ("supervised", "dpo"),
    ("openai-3", "async"): ("supervised", "reinforcement"),
    ("openai-1", "sync"): ("supervised",),
    ("openai-1", "async"): ("supervised",),
    ("node", "node"): ("supervised",),
}
CALLS = {
    "files.create", "files.list", "files.retrieve", "files.content", "files.delete", "uploads.create",
    "uploads.parts.create", "uploads, gone on with", "uploads.complete", "uploads.cancel", "webhooks.unwrap",
    "webhooks.verify_signature", "fine_tuning.jobs.create, supervised", "fine_tuning.jobs.create, dpo",
    "fine_tuning.jobs.create, reinforcement", "fine_tuning.jobs.create, hyperparameters",
    "fine_tuning.jobs.create, extra_body", "fine_tuning.jobs.create, repeated", "fine_tuning.jobs.list",
    "fine_tuning.jobs.retrieve", "fine_tuning.jobs.retrieve, succeeded", "fine_tuning.jobs.cancel",
    "fine_tuning.jobs.pause", "fine_tuning.jobs.resume", "fine_tuning.jobs.list_events",
    "fine_tuning.jobs.events, streamed", "fine_tuning.jobs.checkpoints.list", "files.content, results",
    "fine_tuning.checkpoints.permissions.create", "fine_tuning.checkpoints.permissions.delete",
    "fine_tuning.alpha.graders.validate", "fine_tuning.alpha.graders.run", "chat.completions.create",
    "chat.completions.create, streamed", "completions.create", "embeddings.create", "models.list", "models.retrieve",
    "models.delete", "AuthenticationError, unknown key", "PermissionDeniedError, a key that may only read",
    "NotFoundError, unknown job", "NotFoundError, unknown model", "UnprocessableEntityError, too many epochs",
    "BadRequestError, expires too soon", "UnprocessableEntityError, no answers to learn", "ConflictError, resume",
    "RateLimitError, quota",
}  # fmt: skip
OF_PYTHON = {"files.wait_for_processing", "files.content, streamed", "uploads.upload_file_chunked"}
MORE_CALLS = {
    "openai-3": OF_PYTHON | {
        "webhooks.event_types.list", "webhooks.create", "webhooks.retrieve", "webhooks.update", "webhooks.list",
        "webhooks.delete", "webhooks.rotate_secret", "webhooks.test", "fine_tuning.checkpoints.permissions.list",
    },
    "openai-1": OF_PYTHON | {"post /webhook_endpoints", "fine_tuning.checkpoints.permissions.retrieve"},
    "node": {"post /webhook_endpoints", "fine_tuning.checkpoints.permissions.list"},
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a chat template of its own, as people upload one."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    torch.manual_seed(0)
    tokenizer = byte_pairs(chat_template=(HERE / "chat_template.jinja").read_text())
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=128, pad_token_id=0, eos_token_id=1, bos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder.with_name("tiny-llama.zip")
    path.write_bytes(zipped(folder))
    return path


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The whole service, which may deliver to this machine."""
    allowed = {"WEIGHTWORKS_WEBHOOK_PRIVATE_ADDRESSES": "true", "WEIGHTWORKS_RENEW_SECONDS": "0.5"}
    with running_up(tmp_path_factory.mktemp("clients") / "home", environment=allowed) as stack:
        yield stack


@pytest.fixture(scope="module")
def programs(stack: Up, base: Path) -> Iterator[Mapping[tuple[str, str], subprocess.Popen[str]]]:
    """All clients at once, each in a project of its own."""
    connection = json.loads((stack.home / "connection.json").read_text())
    with ExitStack() as running:
        lossy_url = running.enter_context(losing_answers(connection["base_url"]))
        authorization = {"authorization": f"Bearer {connection['api_key']}"}
        with httpx.Client(base_url=connection["base_url"], headers=authorization, timeout=30) as admin:
            arguments = {name: _arguments(admin, "-".join(name)) for name in PROGRAMS if _is_installed(name[0])}
        started = {}
        for name, more in arguments.items():
            urls = ["--base-url", f"{connection['base_url']}/v1", "--lossy-url", f"{lossy_url}/v1"]
            waits = [f"--waits-for={method}" for method in PROGRAMS[name]]
            started[name] = running.enter_context(_program(name, [*urls, *waits, *more, "--base", str(base)]))
        yield started


def _is_installed(client: str) -> bool:
    if client == "node" and shutil.which("npm") is None:
        return False
    found = INSTALLED / client / ("node_modules/openai" if client == "node" else "openai")
    assert found.is_dir(), f"{found} is missing: rm -r {INSTALLED}, and make .cache/clients/.installed"
    return True


def _arguments(admin: httpx.Client, project: str) -> list[str]:
    """Keys of projects that nobody else has."""

    def new_key(role: str, name: str) -> dict[str, Any]:
        body = {"name": name, "role": role, "project": name}
        return admin.post("/v1/api_keys", json=body).raise_for_status().json()

    made = {
        "key": new_key("admin", project),
        "reading-key": new_key("read", project),
        "narrow-key": new_key("write", f"{project} narrow"),
    }
    narrow, other = made["narrow-key"]["project_id"], new_key("write", f"{project} other")["project_id"]
    admin.patch(f"/v1/projects/{narrow}", json={"max_unfinished_jobs": 1}).raise_for_status()
    keys = [part for name, key in made.items() for part in (f"--{name}", key["key"])]
    return [*keys, "--other-project", other]


def _program(name: tuple[str, str], arguments: list[str]) -> subprocess.Popen[str]:
    """A client's program; without site-packages, so that it has the client's folder alone."""
    client, kind = name
    if client == "node":
        library = INSTALLED / "node" / "node_modules" / "openai" / "index.mjs"
        command = ["node", str(HERE / "node" / "program.mjs"), "--client", str(library), *arguments]
    else:
        command = [sys.executable, "-S", str(HERE / "program"), kind, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(INSTALLED / client)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=INSTALLED
    )


@pytest.mark.parametrize("name", PROGRAMS, ids="-".join)
def test_every_call_of_a_client_does_what_it_does_at_the_hosted_api(
    name: tuple[str, str], programs: Mapping[tuple[str, str], subprocess.Popen[str]]
) -> None:
    if name not in programs:
        pytest.skip("npm is not here: the Node client is not tested")
    printed, _ = programs[name].communicate(timeout=PATIENCE)
    assert programs[name].returncode == 0, printed
    seen = {json.loads(line)["call"] for line in printed.splitlines()}
    assert seen == CALLS | MORE_CALLS[name[0]]
