"""Sentences with a tag for each token, from two columns of lists or from CoNLL files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from core.data.conll import TaggedTokens
from core.data.labels import label_name
from core.data.problems import Problems, shown
from core.data.records import Records
from core.errors import InvalidData

TOKEN_NAMES = ("tokens", "words", "forms")
TAG_NAMES = ("tags", "ner_tags", "labels", "pos_tags", "upos")


def choose_tagged_columns(
    records: Records, *, tokens: str | None = None, tags: str | None = None
) -> tuple[str, str] | None:
    """The columns of tokens and of tags, both of lists: as named, else the usual names; None where there are none."""
    for name in (tokens, tags):
        if name is not None and name not in records.names:
            raise InvalidData(f"there is no column {name!r}; there are {', '.join(map(repr, records.names[:20]))}")
    lists = [name for name in records.names if _holds_lists(records.sample[name])]
    tokens = tokens or next((name for name in TOKEN_NAMES if name in lists), None)
    others = [name for name in lists if name != tokens]
    tags = tags or next((name for name in TAG_NAMES if name in others), others[0] if len(others) == 1 else None)
    return None if tokens is None or tags is None else (tokens, tags)


def _holds_lists(values: Sequence[object]) -> bool:
    """Whether most values are lists; a column of a Parquet file shows its type instead of values."""
    filled = [value for value in values if value is not None]
    is_list = [isinstance(value, list) or str(value).startswith(("list<", "large_list<")) for value in filled]
    return sum(is_list) * 2 > len(filled)


def tagged_rows(records: Records, names: tuple[str, str], problems: Problems) -> Iterator[TaggedTokens]:
    """The sentences of two columns; empty ones are left out."""
    for where, (tokens, tags) in records.rows(names, problems):
        try:
            sentence = TaggedTokens(where, *_checked(names, tokens, tags))
        except ValueError as error:
            problems.add(where, str(error))
        else:
            if sentence.tokens:
                yield sentence


def _checked(names: tuple[str, str], tokens: object, tags: object) -> tuple[list[str], list[str]]:
    for name, values in zip(names, (tokens, tags), strict=True):
        if not isinstance(values, list):
            raise ValueError(f"{name!r} is not a list")
    assert isinstance(tokens, list)  # noqa: S101 - seen to just now
    assert isinstance(tags, list)  # noqa: S101
    if len(tokens) != len(tags):
        raise ValueError(f"{names[1]!r} has {len(tags)} entries, {names[0]!r} {len(tokens)}")
    for number, token in enumerate(tokens, 1):
        if not isinstance(token, str) or not token.strip():
            raise ValueError(f"entry {number} of {names[0]!r} is not a word: {shown(token)}")
    named = []
    for number, tag in enumerate(tags, 1):
        try:
            named.append(label_name(tag))
        except ValueError as error:
            raise ValueError(f"entry {number} of {names[1]!r}: {error}") from None
    return tokens, named
