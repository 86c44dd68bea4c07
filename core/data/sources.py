"""What a file can hold: a table, texts alone, tagged or in pairs, pictures, recordings, conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from core.data.archives import Container
from core.data.arrays import ArraySet
from core.data.blocks import Block
from core.data.conll import TaggedTokens
from core.data.labels import Classes
from core.data.pictures import Encoded
from core.data.problems import Problems
from core.data.text_pairs import TextPair
from core.errors import InvalidData

TextRow = tuple[str, str, object]  # where it stands, the text, its label


@dataclass(frozen=True)
class TableSource:
    """Rows of numbers; `classes` fills while `blocks` are read."""

    format: str
    columns: tuple[str, ...]
    features: tuple[str, ...]
    blocks: Callable[[], Iterator[Block]]
    has_labels: bool
    classes: Classes = field(default_factory=Classes)


@dataclass(frozen=True)
class TextSource:
    """Documents, which may have labels."""

    format: str
    rows: Callable[[Problems], Iterator[TextRow]]
    columns: tuple[str, ...] = ()
    label: str | None = None


@dataclass(frozen=True)
class PictureSource:
    """Encoded images; `classes_of` names the class of each group that they came in, or None where none has one."""

    format: str
    images: Callable[[Problems], Iterator[Encoded]]
    classes_of: Callable[[list[str]], dict[str, str] | None]


@dataclass(frozen=True)
class SegmentedSource:
    """Images below a folder `images` and their masks below a folder `masks`; `notes` names the classes."""

    path: Path
    container: Container
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoxedSource:
    """Images, and a member that tells of the boxes in them."""

    path: Path
    container: Container
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PixelSource:
    """Images as an array, [n, height, width] with or without channels, and perhaps labels."""

    format: str
    arrays: ArraySet


@dataclass(frozen=True)
class AudioSource:
    """Recordings in an archive, in a folder for each class."""

    path: Path
    container: Container


@dataclass(frozen=True)
class SpeechSource:
    """Recordings in an archive, with transcripts in the member that `notes` names, or in a text beside each."""

    path: Path
    container: Container
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrameSource:
    """Recordings as frames of numbers (MFCC, say), those of all recordings one after another."""

    format: str
    arrays: ArraySet

    def lengths(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """How many frames each recording has."""
        assert self.arrays.lengths is not None  # noqa: S101 - it is a FrameSource for that
        return np.concatenate(list(self.arrays.lengths.blocks())).astype(np.int64)


@dataclass(frozen=True)
class ChatSource:
    """Conversations, or preference pairs."""

    path: Path
    columns: tuple[str, ...]
    is_preference: bool


@dataclass(frozen=True)
class TaggedSource:
    """Sentences with a tag for each token."""

    format: str
    columns: tuple[str, ...]
    rows: Callable[[Problems], Iterator[TaggedTokens]]


@dataclass(frozen=True)
class PairSource:
    """Texts in pairs, one to read and one to write."""

    format: str
    columns: tuple[str, ...]
    rows: Callable[[Problems], Iterator[TextPair]]


Source = (
    TableSource
    | TextSource
    | PictureSource
    | SegmentedSource
    | BoxedSource
    | PixelSource
    | AudioSource
    | SpeechSource
    | FrameSource
    | ChatSource
    | TaggedSource
    | PairSource
)

NOUNS: dict[type[Source], str] = {
    TableSource: "a table",
    TextSource: "text",
    PictureSource: "images",
    PixelSource: "images",
    SegmentedSource: "images and masks",
    BoxedSource: "images and boxes",
    AudioSource: "recordings",
    SpeechSource: "recordings with transcripts",
    FrameSource: "frames of recordings",
    ChatSource: "conversations",
    TaggedSource: "tokens with tags",
    PairSource: "texts in pairs",
}


def wrong_kind(source: Source, wanted: str) -> InvalidData:
    """The error for a data set of another kind than the one that is needed."""
    return InvalidData(f"the data set holds {NOUNS[type(source)]} ({_format_of(source)}); this needs {wanted}")


def _format_of(source: Source) -> str:
    return str(getattr(source, "format", "jsonl" if isinstance(source, ChatSource) else "archive"))
