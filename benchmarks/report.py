"""benchmarks/RESULTS.md, made of what the runs left in benchmarks/results."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.frame import HERE, Benchmark

RESULTS = HERE / "RESULTS.md"
FOLDER = HERE / "results"

HEAD = """# Results

Made by `make bench` (`FULL=1`: at the sizes that the goals speak of); not written by hand. Each side is measured in
fresh processes, in turn (A B A B ...), on the same data and threads. A ratio is ours to the peer's: its median over the
pairs, and its range. *Short* says that a goal is missed. `benchmarks/NOTES.md` tells what was tried.

"""


def save(benchmark: Benchmark, result: dict[str, Any], *, command: str) -> None:
    """Keep one benchmark's run as JSON."""
    FOLDER.mkdir(exist_ok=True)
    told = {
        **result,
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": _machine(),
        "torch": importlib.metadata.version("torch"),
    }
    (FOLDER / f"{benchmark.name}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _machine() -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} cores of {model}"


def write(benchmarks: Sequence[Benchmark]) -> None:
    """Write RESULTS.md: a table of all rows, then each with its details."""
    runs = [(one, json.loads(path.read_text())) for one in benchmarks if (path := FOLDER / f"{one.name}.json").exists()]
    rows = [row for benchmark, run in runs for row in _rows(benchmark, run)]
    table = ["| benchmark | peer | goal | ours | peer's | ratio (range) | |", "|---|---|---|---|---|---|---|", *rows]
    details = "\n".join(_details(benchmark, run) for benchmark, run in runs)
    RESULTS.write_text(HEAD + "\n".join(table) + "\n\n" + details, encoding="utf-8")


def _rows(benchmark: Benchmark, run: dict[str, Any]) -> list[str]:
    ours = run["readings"].get(benchmark.ours.name, [])
    rows = []
    for peer in benchmark.peers:
        theirs = run["readings"].get(peer.name, [])
        ratios = _ratios(ours, theirs)
        cells = (
            benchmark.name,
            peer.name,
            benchmark.goal.text,
            _value(benchmark, ours),
            _value(benchmark, theirs),
            _range(ratios) if ratios else "not measured",
            verdict(benchmark, peer.name, ratios, ours),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def verdict(benchmark: Benchmark, peer: str, ratios: Sequence[float], ours: Sequence[dict[str, Any]]) -> str:
    """Whether the goal was met beside this peer."""
    if not ours or not ratios:
        return ""
    asked, ratio = benchmark.goal.ratio_to(peer), statistics.median(ratios)
    if over := [name for name, most in benchmark.goal.limits.items() if _median(ours, name) > most]:
        return f"*short* ({', '.join(over)})"
    if asked is None:
        return "met" if benchmark.goal.limits else ""
    return "met" if (ratio >= asked if benchmark.more_is_better else ratio <= asked) else "*short*"


def _median(readings: Sequence[dict[str, Any]], quality: str) -> float:
    return statistics.median(float(reading["quality"][quality]) for reading in readings)


def _ratios(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> list[float]:
    return [mine["value"] / other["value"] for mine, other in zip(ours, theirs, strict=False)]


def _range(numbers: Sequence[float]) -> str:
    return f"{statistics.median(numbers):.3g} ({min(numbers):.3g} to {max(numbers):.3g})"


def _value(benchmark: Benchmark, readings: Sequence[dict[str, Any]]) -> str:
    if not readings:
        return ""
    return f"{statistics.median(reading['value'] for reading in readings):.4g} {benchmark.unit}"


def _details(benchmark: Benchmark, run: dict[str, Any]) -> str:
    lines = [
        f"## {benchmark.name}\n",
        f"{benchmark.what.rstrip('.')}. Goal: {benchmark.goal.text}. {benchmark.size}: {run['size']:,}.\n",
        f"| side | {benchmark.unit} (range) | CPU s | wall s | peak MiB | quality | versions |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, readings in run["readings"].items():
        if readings:
            lines.append(_side_row(name, readings))
    lines += [f"\n{name} could not be measured: `{why.splitlines()[-1]}`" for name, why in run["errors"].items()]
    if told := _slope(benchmark, run):
        lines.append(f"\n{told}")
    lines.append(f"\n`{run['command']}`, {run['date']}, torch {run['torch']}, {run['machine']}\n")
    return "\n".join(lines)


def _side_row(name: str, readings: Sequence[dict[str, Any]]) -> str:
    middle = {key: statistics.median(reading[key] for reading in readings) for key in ("cpu_seconds", "wall_seconds")}
    peak = max(reading["peak_bytes"] for reading in readings) / 2**20
    quality = ", ".join(f"{what} {_median(readings, what):.4g}" for what in readings[0]["quality"])
    versions = ", ".join(f"{package} {version}" for package, version in readings[0]["versions"].items())
    values = _range([reading["value"] for reading in readings])
    cpu, wall = f"{middle['cpu_seconds']:.2f}", f"{middle['wall_seconds']:.2f}"
    return f"| {name} | {values} | {cpu} | {wall} | {peak:.0f} | {quality} | {versions} |"


def _slope(benchmark: Benchmark, run: dict[str, Any]) -> str:
    """How our figure and memory change with the size: the exponent between the smallest and the largest."""
    ours = run["readings"].get(benchmark.ours.name, [])
    points = [(int(size), reading) for size, reading in run["curve"].items() if reading and int(size)]
    if not points or not ours:
        return ""
    last = (
        run["size"],
        {"value": statistics.median(one["value"] for one in ours), "peak_bytes": ours[0]["peak_bytes"]},
    )
    told = "; ".join(
        f"{size:,}: {reading['value']:.4g} {benchmark.unit}, {reading['peak_bytes'] / 2**20:.0f} MiB"
        for size, reading in [*points, last]
    )
    return (
        f"Ours by {benchmark.size}: {told}. As {benchmark.size} to the power of {_exponent(points[0], last, 'value')}, "
        f"memory {_exponent(points[0], last, 'peak_bytes')}."
    )


def _exponent(first: tuple[int, dict[str, Any]], last: tuple[int, dict[str, Any]], key: str) -> str:
    return f"{math.log(last[1][key] / first[1][key]) / math.log(last[0] / first[0]):.2f}"
