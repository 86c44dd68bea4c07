"""Processes that know nothing of what trained: what opens there stands on its files alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# Forks one for each script, since to import the libraries takes seconds. None of our own code is imported before.
SERVER = """
import json, os, sys, traceback
import safetensors.torch, torch, transformers

for name in ("AutoImageProcessor", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer"):
    getattr(transformers, name)
for line in sys.stdin:
    order = json.loads(line)
    if (child := os.fork()) == 0:
        for path, number in ((order["stdout"], 1), (order["stderr"], 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv, status = ["-c", *order["arguments"]], 1
        try:
            exec(compile(order["code"], "<script>", "exec"), {"__name__": "__main__"})
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class FreshProcesses:
    """Runs scripts, as `python -c` does, each in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._paths = {name: folder / name for name in ("stdout", "stderr")}
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, code: str, *arguments: Path | str) -> str:
        """What the script prints; fails, with what it said, if it does."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        order = {"code": code, "arguments": [str(one) for one in arguments]}
        paths = {name: str(path) for name, path in self._paths.items()}
        self._server.stdin.write(json.dumps({**order, **paths}) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        assert status == 0, self.said()
        return self._paths["stdout"].read_text()

    def said(self) -> str:
        """What the last one wrote to its standard error."""
        return self._paths["stderr"].read_text()

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()
