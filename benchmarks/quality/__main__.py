"""Measure a method's figures, print them, and write them into its page in docs/methods."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality import Figure

DOCS = Path(__file__).parents[2] / "docs" / "methods"
BLOCK = re.compile(r"(<!-- figures -->\n).*?(<!-- /figures -->)", re.DOTALL)


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    rows = [f"| {figure.what} | {figure.asked} | {figure.reached} | {figure.note} |" for figure in figures]
    return "\n".join(["| what | asked | reached | note |", "|---|---|---|---|", *rows]) + "\n"


def main(name: str) -> None:
    """Measure and write down the figures of one method."""
    measured = table(importlib.import_module(f"benchmarks.quality.{name}").measure())
    sys.stdout.write(measured)
    page = DOCS / f"{name}.md"
    if page.exists():
        text = page.read_text(encoding="utf-8")
        page.write_text(BLOCK.sub(lambda found: found[1] + measured + found[2], text), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
