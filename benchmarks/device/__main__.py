"""Measure on a GPU, and hold every method to its promises there; the exit code is 2 where there is none.

python -m benchmarks.device [NAME ...]    # NAME: how a measurement's name begins; all without any

Each runs in a fresh process. The table is printed, and written to benchmarks/results/gpu-<machine>.json with versions.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.device import learning, serving
from benchmarks.device.flops import peak_of

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 1200
SERVING, CORRECTNESS = "service", "contract"
CONTRACT = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=600", "tests/core/test_every_method.py"]


def main(arguments: list[str] | None = None) -> int:
    """Measure what the command line names; 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device")
    parser.add_argument("names", nargs="*", help="how the measurements' names begin")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a fresh process is asked for
    asked = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stderr.write("There is no GPU here: nothing was measured.\n")
        return 2
    if asked.one:
        numbers = serving.measure() if asked.one == SERVING else learning.measure(asked.one, "cuda")
        sys.stdout.write(f"\n{json.dumps(numbers)}\n")
        return 0
    every = [*learning.MEASURED, SERVING, CORRECTNESS]
    chosen = [name for name in every if not asked.names or any(name.startswith(each) for each in asked.names)]
    if not chosen:
        parser.error(f"nothing begins with {' or '.join(asked.names)}: there are {', '.join(every)}")
    found = {name: _tell(name, contract() if name == CORRECTNESS else measured(name)) for name in chosen}
    write(found)
    return int(any("error" in numbers or numbers.get("failed") for numbers in found.values()))


def measured(name: str) -> dict[str, Any]:
    """What a fresh process found, or the `error` that it ended with."""
    return _run(["-m", "benchmarks.device", "--one", name], lambda said: json.loads(said.splitlines()[-1]))


def contract() -> dict[str, Any]:
    """How many tests of what every method promises passed on the device."""
    return _run(CONTRACT, counted, WEIGHTWORKS_TEST_DEVICE="cuda")


def counted(said: str) -> dict[str, Any]:
    """pytest's closing line as numbers; raises ValueError where it has none."""
    found = {what: int(count) for count, what in re.findall(r"(\d+) (passed|failed|skipped|error)", said)}
    if "passed" not in found:
        raise ValueError(said[-2000:])
    failures = re.findall(r"^(?:FAILED|ERROR) (.*)$", said, re.MULTILINE)
    return {**found, "failures": failures} if failures else found


def _run(command: list[str], read: Any, **environment: str) -> dict[str, Any]:
    given = {**os.environ, "PYTHONPATH": str(ROOT), "WEIGHTWORKS_ROOT": str(ROOT), **environment}
    try:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=given, capture_output=True, text=True, timeout=LONGEST_SECONDS
        )
        if done.returncode and command is not CONTRACT:
            return {"error": done.stderr.strip()[-2000:] or f"exit code {done.returncode}"}
        found: dict[str, Any] = read(done.stdout.strip())
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return {"error": str(error)[-2000:]}
    return found


def _tell(name: str, numbers: dict[str, Any]) -> dict[str, Any]:
    sys.stdout.write(f"\n{name}\n")
    for key, value in numbers.items():
        sys.stdout.write(f"  {key:24} {value:,.4g}\n" if isinstance(value, int | float) else f"  {key:24} {value}\n")
    sys.stdout.flush()
    return numbers


def write(found: dict[str, Any]) -> Path:
    """Keep what was found, beside what an earlier run on this machine found and this one did not measure."""
    device = torch.cuda.get_device_properties(0)
    path = ROOT / "benchmarks" / "results" / f"gpu-{re.sub('[^a-z0-9]+', '-', platform.node().lower())}.json"
    path.parent.mkdir(exist_ok=True)
    earlier = json.loads(path.read_text(encoding="utf-8"))["found"] if path.exists() else {}
    about = {
        "device": device.name,
        "device_bytes": device.total_memory,
        "peak_flops": peak_of(device.name),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": "python -m benchmarks.device",
    }
    path.write_text(json.dumps({**about, "found": {**earlier, **found}}, indent=2) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
