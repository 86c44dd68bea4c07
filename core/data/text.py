"""Documents and labelled texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core.data.labels import Classes
from core.data.problems import Problems
from core.data.records import LABEL_NAMES
from core.data.sources import TextSource, open_source, wrong_kind
from core.errors import InvalidData


@dataclass(frozen=True)
class LabelledText:
    """Texts and the class of each."""

    texts: tuple[str, ...]
    labels: torch.Tensor  # [n] int64, an index into class_names
    class_names: tuple[str, ...]


def read_documents(path: Path) -> Iterator[str]:
    """The documents, empty ones left out: of plain text, or of the text column of JSON Lines, CSV or Parquet.

    Raises InvalidData by line, in the end or after a hundred problems.
    """
    return _documents(_open(path))


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
