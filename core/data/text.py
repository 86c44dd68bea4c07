"""Documents, and texts with a label, with a tag for each token, or in pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core.data.labels import Classes
from core.data.opening import ColumnNames, open_source
from core.data.problems import Problems
from core.data.records import LABEL_NAMES
from core.data.sources import PairSource, TaggedSource, TextSource, wrong_kind
from core.data.text_pairs import TextPair
from core.errors import InvalidData


@dataclass(frozen=True)
class LabelledText:
    """Texts and the class of each."""

    texts: tuple[str, ...]
    labels: torch.Tensor  # [n] int64, an index into class_names
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class TaggedText:
    """Sentences and a tag for each of their tokens."""

    tokens: tuple[Sequence[str], ...]
    tags: tuple[Sequence[str], ...]
    class_names: tuple[str, ...]  # all tags, in natural order

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, rows: torch.Tensor) -> TaggedText:
        """Only these rows."""
        chosen = rows.tolist()
        return TaggedText(
            tuple(self.tokens[row] for row in chosen), tuple(self.tags[row] for row in chosen), self.class_names
        )


def read_documents(path: Path, *, text: str | None = None) -> Iterator[str]:
    """The documents, empty ones left out: of plain text, or of the text column of JSON Lines, CSV or Parquet.

    `text`: that column; none: found by name.

    Raises InvalidData by line, in the end or after a hundred problems.
    """
    return _documents(_open(path, text=text))


def read_labelled_text(path: Path, *, text: str | None = None, label: str | None = None) -> LabelledText:
    """All texts and their labels, from the columns so named, or else from those that bear the usual names."""
    source = _open(path, text=text, label=label)
    if source.label is None:
        usual = ", ".join(LABEL_NAMES)
        raise InvalidData(f"the texts have no labels: name the column that holds them, or call it one of {usual}")
    problems = Problems()
    classes = Classes()
    texts: list[str] = []
    codes: list[int] = []
    for where, document, value in source.rows(problems):
        try:
            codes.append(classes.add_one(value))
            texts.append(document)
        except ValueError as error:
            problems.add(f"{where}, column {source.label!r}", str(error))
    problems.check()
    if not texts:
        raise InvalidData("there are no documents")
    labels = classes.order()[np.array(codes, dtype=np.int64)]
    return LabelledText(tuple(texts), torch.from_numpy(labels), classes.names)


def read_tagged_text(path: Path, *, tokens: str | None = None, tags: str | None = None) -> TaggedText:
    """All sentences, from the columns so named, or else from those that bear the usual names; raises InvalidData."""
    source = open_source(path, columns=ColumnNames(tokens=tokens, tags=tags))
    if not isinstance(source, TaggedSource):
        raise wrong_kind(source, "tokens with tags")
    problems = Problems()
    classes = Classes()
    sentences = []
    for sentence in source.rows(problems):
        classes.add(sentence.tags)
        sentences.append(sentence)
    problems.check()
    if not sentences:
        raise InvalidData("there are no sentences")
    return TaggedText(tuple(each.tokens for each in sentences), tuple(each.tags for each in sentences), classes.names)


def read_text_pairs(path: Path, *, source: str | None = None, target: str | None = None) -> list[TextPair]:
    """All pairs, from the columns so named, or else from those that bear the usual names; raises InvalidData."""
    opened = open_source(path, columns=ColumnNames(source=source, target=target))
    if not isinstance(opened, PairSource):
        raise wrong_kind(opened, "texts in pairs, such as source and target")
    problems = Problems()
    found = list(opened.rows(problems))
    problems.check()
    if not found:
        raise InvalidData("there are no pairs")
    return found


def _open(path: Path, *, text: str | None = None, label: str | None = None) -> TextSource:
    source = open_source(path, text=text, label=label)
    if not isinstance(source, TextSource):
        raise wrong_kind(source, "text")
    return source


def _documents(source: TextSource) -> Iterator[str]:
    problems = Problems()
    is_empty = True
    for _, text, _ in source.rows(problems):
        is_empty = False
        yield text
    problems.check()
    if is_empty:
        raise InvalidData("there are no documents")
