"""What a benchmark is: one figure of ours and of its peers, each measured in a fresh process.

python -m benchmarks.frame MODULE BENCHMARK SIDE SIZE    # measure one side once; the reading is printed as JSON
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import pkgutil
import platform
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
OURS = ROOT / ".venv" / "bin" / "python"
PEERS = ROOT / ".cache" / "bench" / "bin" / "python"


@dataclass(frozen=True)
class Reading:
    """What one run told.

    `value`: in the benchmark's unit. `quality`: what must be read beside it. `cpu_seconds`, `peak_bytes`: of the part
    that counts; None for the whole process and the children that it waited for. `versions`: of what is no package.
    """

    value: float
    quality: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    cpu_seconds: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Side:
    """Us, or a peer. `measure`: takes a size. `packages`: whose versions are written down."""

    name: str
    measure: Callable[[int], Reading]
    packages: Sequence[str] = ()
    is_peer: bool = False

    @property
    def python(self) -> Path:
        """The interpreter that has what this side needs."""
        return PEERS if self.is_peer else OURS


@dataclass(frozen=True)
class Goal:
    """What is asked.

    `ratio`: of our value to a peer's, at least (or at most, where less is better); `ratios`: to the peers by name where
    they differ; `limits`: the most that figures of our quality may be.
    """

    text: str
    ratio: float | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)

    def ratio_to(self, peer: str) -> float | None:
        """What is asked beside this peer, if anything is."""
        return self.ratios.get(peer, self.ratio)


@dataclass(frozen=True)
class Benchmark:
    """One row. `sizes`, `full_sizes`: the axis named `size`, small first; the goal speaks of the last."""

    name: str
    what: str
    unit: str
    more_is_better: bool
    goal: Goal
    ours: Side
    peers: Sequence[Side]
    size: str
    sizes: Sequence[int]
    full_sizes: Sequence[int] = ()
    pairs: int = 3

    def side(self, name: str) -> Side:
        """Ours or a peer, by name."""
        return next(side for side in (self.ours, *self.peers) if side.name == name)


def all_benchmarks() -> Iterator[tuple[str, Benchmark]]:
    """Each benchmark, with the module that holds it."""
    for folder in ("service", "methods"):
        for found in pkgutil.iter_modules([str(HERE / folder)]):
            name = f"benchmarks.{folder}.{found.name}"
            for benchmark in getattr(importlib.import_module(name), "BENCHMARKS", []):
                yield name, benchmark


def main(module: str, benchmark: str, side: str, size: str) -> None:
    """Measure one side, and print the reading with the versions that gave it."""
    found = next(one for one in importlib.import_module(module).BENCHMARKS if one.name == benchmark)
    chosen = found.side(side)
    reading = asdict(chosen.measure(int(size)))
    itself, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    if reading["cpu_seconds"] is None:
        reading["cpu_seconds"] = sum(used.ru_utime + used.ru_stime for used in (itself, children))
    if reading["peak_bytes"] is None:
        reading["peak_bytes"] = max(itself.ru_maxrss, children.ru_maxrss) * 1024
    packages = {name: importlib.metadata.version(name) for name in chosen.packages}
    versions = {"python": platform.python_version(), **packages, **reading["versions"]}
    print(json.dumps({**reading, "versions": versions}))


if __name__ == "__main__":
    main(*sys.argv[1:])
