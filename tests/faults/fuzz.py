"""Sends what the schema allows, and what it forbids, to a real API: `python -m tests.faults.fuzz --minutes 10`.

schemathesis makes the requests from /openapi.json, and holds every answer against it. With `--examples N`, so many of
each call, it ends by itself, and makes the same ones each time for the same `--seed`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from core.jobs.database import Database
from core.jobs.models.base import Base
from tests.api.service import ADMIN_KEY, Api, start_apis

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
SETTINGS = {
    "WEIGHTWORKS_REQUESTS_PER_SECOND": "0",
    "WEIGHTWORKS_REFUSALS_PER_SECOND": "0",
    "WEIGHTWORKS_WEBHOOK_PRIVATE_ADDRESSES": "false",
}
REQUEST_SECONDS = 30
PHASES = "coverage,fuzzing,stateful"


@contextmanager
def api(folder: Path, redis_url: str) -> Iterator[Api]:
    """An API process on an empty database, without limits on requests; what it logs is in `api.log`."""
    database = Database(f"sqlite:///{folder}/jobs.sqlite3")
    Base.metadata.create_all(database.engine)
    database.close()
    parent, apis = start_apis(folder, redis_url, 1, **SETTINGS)
    try:
        yield apis[0]
    finally:
        apis[0].process.terminate()
        parent.wait(60)
        assert parent.stdout is not None
        parent.stdout.close()


def command(base_url: str, report: Path, options: Sequence[str]) -> list[str]:
    """schemathesis, with our key and our checks."""
    return [
        str(Path(sys.executable).with_name("schemathesis")),
        *("run", f"{base_url}/openapi.json", "--header", f"Authorization: Bearer {ADMIN_KEY}"),
        *("--checks", ",".join(CHECKS), "--continue-on-failure", "--no-color"),
        *("--request-timeout", str(REQUEST_SECONDS), "--suppress-health-check", "all", "--warnings", "off"),
        *("--report", "ndjson", "--report-ndjson-path", str(report)),
        *options,
    ]


def run(base_url: str, folder: Path, options: Sequence[str]) -> tuple[int, str, int]:
    """Its exit status, what it printed, and how many requests it made."""
    report = folder / "requests.ndjson"
    done = subprocess.run(command(base_url, report, options), capture_output=True, text=True, cwd=folder, check=False)
    return done.returncode, done.stdout + done.stderr, requests_in(report)


def requests_in(report: Path) -> int:
    """How many requests a report tells of."""
    if not report.exists():
        return 0
    with report.open(encoding="utf-8") as lines:
        return sum(json.dumps(json.loads(line)).count('"status_code"') for line in lines)


def main() -> int:
    """Fuzz for so long, and say what was found; answers the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to go on")
    parser.add_argument("--examples", type=int, help="requests of each call instead, at most")
    parser.add_argument("--seed", type=int, default=0, help="where the examples come from")
    chosen = parser.parse_args()
    options = ["--phases", PHASES, "--seed", str(chosen.seed)]
    if chosen.examples:
        options += ["--max-examples", str(chosen.examples)]
    else:
        options += ["--max-time", str(int(chosen.minutes * 60))]
    with tempfile.TemporaryDirectory(prefix="ww-fuzz-") as name, private_redis(Path(name)) as redis_url:
        folder = Path(name)
        with api(folder, redis_url) as served:
            status, printed, count = run(served.base_url, folder, options)
        tracebacks = (folder / "api.log").read_text().count("Traceback")
    sys.stdout.write(f"{printed}\n{count:,} requests; {tracebacks} tracebacks in the API's log\n")
    return status or int(tracebacks > 0)


@contextmanager
def private_redis(folder: Path) -> Iterator[str]:
    """A Redis of one's own."""
    socket = folder / "redis.sock"
    arguments = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    server = psutil.Popen([Path(sys.executable).with_name("redis-server"), *arguments], stdout=subprocess.DEVNULL)
    try:
        yield f"unix://{socket}"
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
