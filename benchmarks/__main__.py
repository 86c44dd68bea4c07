"""Run benchmarks: ours and the peers in turn, in fresh processes, and write benchmarks/RESULTS.md.

python -m benchmarks [NAME ...] [--full] [--pairs N] [--list] [--report]    # NAME: how a benchmark's name begins
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

from benchmarks import report
from benchmarks.frame import ROOT, Benchmark, Side, all_benchmarks

LONGEST_SECONDS = 1800

Readings = dict[str, list[dict[str, Any]]]  # of each side


class SideFailed(Exception):  # noqa: N818 - said in the past tense
    """A side could not be measured; says why."""


def main() -> int:
    """Run what the command line names; the exit code is 1 if a side could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", help="how the benchmarks' names begin; all without any")
    parser.add_argument(
        "--full", action="store_true", help="at the sizes that the goals speak of, however long it takes"
    )
    parser.add_argument("--pairs", type=int, help="how often each side is measured")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    parser.add_argument("--report", action="store_true", help="only write RESULTS.md, of the runs that were made")
    chosen = parser.parse_args()
    found = [
        (module, one)
        for module, one in all_benchmarks()
        if not chosen.names or any(one.name.startswith(name) for name in chosen.names)
    ]
    if not found:
        parser.error(f"no benchmark's name begins with {' or '.join(chosen.names)}; --list says which there are")
    if chosen.list:
        print("\n".join(f"{one.name:32} {one.what}" for _, one in found))
        return 0
    failed = False
    for module, benchmark in [] if chosen.report else found:
        sizes = benchmark.full_sizes if chosen.full and benchmark.full_sizes else benchmark.sizes
        result = run(module, benchmark, sizes=list(sizes), pairs=chosen.pairs or benchmark.pairs)
        report.save(benchmark, result, command=_command(benchmark, is_full=chosen.full))
        failed = failed or bool(result["errors"])
    report.write([one for _, one in all_benchmarks()])
    return int(failed)


def _command(benchmark: Benchmark, *, is_full: bool) -> str:
    return f"make bench NAME={benchmark.name}" + (" FULL=1" if is_full else "")


def run(module: str, benchmark: Benchmark, *, sizes: list[int], pairs: int) -> dict[str, Any]:
    """All readings: ours at each size for the slope, then everyone in turn at the last size, `pairs` times."""
    print(f"\n{benchmark.name}: {benchmark.what}", flush=True)
    errors: dict[str, str] = {}
    curve = {}
    for size in sizes[:-1]:
        curve[size] = _try(module, benchmark, benchmark.ours, size, errors)
    readings: Readings = {}
    for _ in range(pairs):
        for side in (benchmark.ours, *benchmark.peers):
            if side.name not in errors:
                reading = _try(module, benchmark, side, sizes[-1], errors)
                readings.setdefault(side.name, []).extend([reading] if reading else [])
    return {"size": sizes[-1], "curve": curve, "readings": readings, "errors": errors}


def _try(module: str, benchmark: Benchmark, side: Side, size: int, errors: dict[str, str]) -> dict[str, Any] | None:
    try:
        reading = run_side(module, benchmark, side, size)
    except SideFailed as error:
        errors[side.name] = str(error)
        print(f"  {side.name} could not be measured: {error}", file=sys.stderr, flush=True)
        return None
    quality = ", ".join(f"{name} {value:.4g}" for name, value in reading["quality"].items())
    print(
        f"  {side.name:24} {benchmark.size} {size:<11,} {reading['value']:<10.4g} {benchmark.unit}"
        f"  {reading['cpu_seconds']:.1f} CPU s of {reading['wall_seconds']:.1f} s,"
        f" {reading['peak_bytes'] / 2**20:.0f} MiB  {quality}",
        flush=True,
    )
    return reading


def run_side(module: str, benchmark: Benchmark, side: Side, size: int) -> dict[str, Any]:
    """One reading, in a fresh process. Raises SideFailed."""
    if not side.python.exists():
        raise SideFailed(f"{side.python.relative_to(ROOT)} does not exist: run `make bench-setup`")
    command = [str(side.python), "-m", "benchmarks.frame", module, benchmark.name, side.name, str(size)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WEIGHTWORKS_ROOT": str(ROOT)}
    began = time.monotonic()
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        raise SideFailed(f"it took longer than {LONGEST_SECONDS} seconds") from None
    if done.returncode:
        raise SideFailed(done.stderr.decode(errors="replace").strip()[-2000:] or f"exit code {done.returncode}")
    reading: dict[str, Any] = json.loads(done.stdout.decode().strip().splitlines()[-1])
    return {**reading, "wall_seconds": time.monotonic() - began}


if __name__ == "__main__":
    sys.exit(main())
