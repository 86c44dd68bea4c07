"""A token a line, its tags in columns, a blank line between sentences: CoNLL-U, and CoNLL with BIO tags."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from core.data.compression import DEFAULT_LIMITS, Limits, open_data, read_head
from core.data.lines import read_lines
from core.data.problems import Problems
from core.errors import InvalidData

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_LINES_TRIED = 500
_BIO = re.compile(r"O|[BIESLU]-\S+")


class TaggedTokens(NamedTuple):
    """A sentence: where it stands, its tokens, and a tag for each."""

    where: str
    tokens: Sequence[str]
    tags: Sequence[str]


def conll_format(head: bytes) -> Literal["conllu", "conll"] | None:
    """Which of the two begins here: ten columns with tabs, or columns of which the last holds BIO tags."""
    lines = head.decode(errors="replace").removeprefix("\ufeff").splitlines()[:_LINES_TRIED]
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    if len(rows) > 1:
        rows = rows[:-1]  # the last one may be cut short
    if rows and sum(map(_is_conllu, rows)) * 3 > len(rows) * 2:  # the others are told as mistakes
        return "conllu"
    cells = [line.split() for line in rows]
    widths = {len(row) for row in cells}
    is_tagged = widths and min(widths) == max(widths) >= 2 and all(_BIO.fullmatch(row[-1]) for row in cells)
    return "conll" if is_tagged and any(row[-1] != "O" for row in cells) else None


def _is_conllu(line: str) -> bool:
    cells = line.split("\t")
    return len(cells) == len(CONLLU) and re.fullmatch(r"\d+([-.]\d+)?", cells[0]) is not None


def conll_columns(path: Path, format: str, limits: Limits = DEFAULT_LIMITS) -> tuple[str, ...]:
    """The names of the columns; those of plain CoNLL have none but their numbers."""
    if format == "conllu":
        return CONLLU
    head = read_head(path, limits).decode(errors="replace").removeprefix("\ufeff")
    first = next(line for line in head.splitlines() if line.strip() and not line.startswith("#"))
    return tuple(f"column_{number + 1}" for number in range(len(first.split())))


def choose_conll_columns(columns: Sequence[str], *, tokens: str | None, tags: str | None) -> tuple[int, int]:
    """Places of the tokens and of the tags: as named, else form and upos, or the first and the last column."""
    usual = ("form", "upos") if tuple(columns) == CONLLU else (columns[0], columns[-1])
    for name in (tokens, tags):
        if name is not None and name not in columns:
            raise InvalidData(f"there is no column {name!r}; there are {', '.join(map(repr, columns))}")
    return columns.index(tokens or usual[0]), columns.index(tags or usual[1])


def conll_sentences(
    path: Path, columns: Sequence[str], places: tuple[int, int], problems: Problems, limits: Limits = DEFAULT_LIMITS
) -> Iterator[TaggedTokens]:
    """The sentences; multiword tokens and empty nodes of CoNLL-U, and document marks, are left out."""
    tokens: list[str] = []
    tags: list[str] = []
    start = 0
    separator = "\t" if tuple(columns) == CONLLU else None
    with open_data(path, limits) as stream:
        for number, line in read_lines(stream, problems):
            if not line.strip():
                if tokens:
                    yield TaggedTokens(f"line {start}", tokens, tags)
                tokens, tags = [], []
                continue
            if (cells := _cells(line, number, separator, columns, problems)) is None:
                continue
            start = start if tokens else number
            tag = cells[places[1]]
            if tag == "_":
                problems.add(f"line {number}", f"column {columns[places[1]]!r} is empty (_): name another in tags")
            tokens.append(cells[places[0]])
            tags.append(tag)
    if tokens:
        yield TaggedTokens(f"line {start}", tokens, tags)


def _cells(
    line: str, number: int, separator: str | None, columns: Sequence[str], problems: Problems
) -> list[str] | None:
    """The line's columns, if it is a token's."""
    cells = line.split(separator)
    if len(cells) != len(columns):
        if not line.startswith("#"):
            problems.add(f"line {number}", f"has {len(cells)} columns, not {len(columns)}")
        return None
    is_conllu = separator is not None
    if (is_conllu and not cells[0].isdigit()) or cells[0] == "-DOCSTART-":
        return None
    return cells
