"""A proxy before the API that loses the first answer to every new job: its client cannot know whether there is one."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

JOBS = "/v1/fine_tuning/jobs"
OF_A_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@contextmanager
def losing_answers(base_url: str) -> Iterator[str]:
    """The address of such a proxy, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(urlsplit(base_url).netloc))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def _handler(api: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Pass the request on; the answer, unless it is the first to a job."""
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            connection = http.client.HTTPConnection(api, timeout=60)
            connection.request("POST", self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            self.close_connection = True
            if self.path == JOBS and self.headers["x-stainless-retry-count"] == "0":
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in OF_A_HOP:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    return Handler
