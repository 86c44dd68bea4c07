"""A stand-in for a model hub that speaks its HTTP, with the files behind redirects on a server of their own."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_the-token-of-these-tests"


@dataclass
class Hub:
    """Two servers: one that knows the models, one that only has files.

    `stall_on`: a file of which only half comes. `told_bytes`: what it says that every file has, whatever comes.
    """

    models: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # server, path, headers
    stall_on: str | None = None
    is_down: bool = False
    told_bytes: int | None = None

    def __post_init__(self) -> None:
        self.going_on = threading.Event()
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, one)) for one in ("hub", "files")]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.url, self.files_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def asked_of(self, server: str) -> list[tuple[str, dict[str, str]]]:
        """Paths and headers of what one of the servers was asked."""
        return [(path, headers) for one, path, headers in self.asked if one == server]

    def close(self) -> None:
        """Stop both."""
        self.going_on.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


def commit_of(files: Mapping[str, bytes]) -> str:
    """What stands for these files and no others, as at a hub: its clients keep what they know of a commit."""
    return _etag("".join(f"{name} {_etag(files[name])}\n" for name in sorted(files)).encode())


def _handler(hub: Hub, name: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((name, path, {key.lower(): value for key, value in self.headers.items()}))
            answer = _answer_of_hub if name == "hub" else _answer_of_files
            answer(hub, self, path)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    return Handler


def _answer_of_hub(hub: Hub, request: BaseHTTPRequestHandler, path: str) -> None:
    if hub.is_down:
        return _send(request, 400, b"the hub is being mended")
    about = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/(.+)", path)
    file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
    found = about or file
    if found is None or found[1] not in hub.models:
        return _send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
    if found[1] in hub.gated and request.headers.get("authorization") != f"Bearer {TOKEN}":
        return _send(request, 403, b"", {"X-Error-Code": "GatedRepo"})
    files = hub.models[found[1]]
    commit = commit_of(files)
    if (about and about[3] not in ("main", commit)) or (file and file[2] != commit):
        return _send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
    if about and about[2] == "revision":
        return _send(request, 200, json.dumps({"id": about[1], "sha": commit, "siblings": []}).encode())
    if about:
        sizes = {one: hub.told_bytes or len(content) for one, content in files.items()}
        entries = [{"type": "file", "path": one, "size": sizes[one], "oid": _etag(files[one])} for one in files]
        return _send(request, 200, json.dumps(entries).encode())
    content = files[found[3]]
    told = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": commit}
    if not found[3].endswith((".safetensors", ".gguf", ".bin")):
        return _send(request, 200, content, told)
    told |= {"Location": f"{hub.files_url}/{found[1]}/{found[3]}", "X-Linked-Size": str(len(content))}
    return _send(request, 302, b"", {**told, "X-Linked-Etag": told["ETag"]})


def _answer_of_files(hub: Hub, request: BaseHTTPRequestHandler, path: str) -> None:
    _, organization, model, name = path.split("/", 3)
    content = hub.models[f"{organization}/{model}"][name]
    stall = hub if name == hub.stall_on else None
    start = re.fullmatch(r"bytes=(\d+)-.*", request.headers.get("range", ""))
    if start is None:
        return _send(request, 200, content, stall=stall)
    first = int(start[1])
    told = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
    return _send(request, 206, content[first:], told, stall=stall)


def _send(
    request: BaseHTTPRequestHandler,
    status: int,
    content: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    stall: Hub | None = None,
) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "HEAD":
        return
    if stall is not None:
        request.wfile.write(content[: len(content) // 2])
        request.wfile.flush()
        stall.going_on.wait()
        request.close_connection = True
        return
    request.wfile.write(content)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
