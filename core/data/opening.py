"""A file opened as what it holds, which its content tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.data.archives import Container, read_members
from core.data.arrays import ArraySet, label_values, open_arrays
from core.data.blocks import Block, record_blocks
from core.data.chats import is_conversation, is_preference
from core.data.compression import DEFAULT_LIMITS, Limits
from core.data.conll import choose_conll_columns, conll_columns, conll_sentences
from core.data.delimited import DelimitedFile
from core.data.documents import plain_documents
from core.data.folders import folder_classes, folder_of
from core.data.json_lines import JsonLinesFile
from core.data.labels import Classes, label_name
from core.data.layouts import layout_of_images, layout_of_recordings
from core.data.parquet import ParquetFile
from core.data.pictures import MAX_IMAGE_BYTES, Encoded
from core.data.problems import Problems
from core.data.recognise import Found, recognise
from core.data.records import Records, choose_roles
from core.data.sources import (
    AudioSource,
    BoxedSource,
    ChatSource,
    FrameSource,
    PairSource,
    PictureSource,
    PixelSource,
    SegmentedSource,
    Source,
    SpeechSource,
    TableSource,
    TaggedSource,
    TextRow,
    TextSource,
)
from core.data.tagged_tokens import choose_tagged_columns, tagged_rows
from core.data.text_pairs import choose_pair_columns, pair_rows
from core.errors import InvalidData


@dataclass(frozen=True)
class ColumnNames:
    """Columns by name where they are given; none: found by the usual names."""

    tokens: str | None = None
    tags: str | None = None
    source: str | None = None
    target: str | None = None


USUAL = ColumnNames()


def open_source(
    path: Path,
    *,
    text: str | None = None,
    label: str | None = None,
    columns: ColumnNames = USUAL,
    limits: Limits = DEFAULT_LIMITS,
) -> Source:
    """What the file holds, recognised from its content; columns by name where they are given."""
    found = recognise(path, limits)
    if found.format == "text":
        return TextSource("text", lambda problems: _plain_rows(path, problems, limits))
    if found.format in ("conllu", "conll"):
        return _conll(path, found.format, columns, limits)
    if found.format == "image_archive" and found.container:
        layout = layout_of_images(path, found.container, limits)
        if layout.kind == "masks":
            return SegmentedSource(path, found.container, layout.notes)
        if layout.kind == "boxes":
            return BoxedSource(path, found.container, layout.notes)
        return _picture_archive(path, found.container, limits)
    if found.format == "audio_archive" and found.container:
        layout = layout_of_recordings(path, found.container, limits)
        if layout.kind == "transcripts":
            return SpeechSource(path, found.container, layout.notes)
        return AudioSource(path, found.container)
    if found.format in ("npy", "npz", "safetensors", "idx"):
        return _of_arrays(open_arrays(path, found.format, container=found.container, label=label, limits=limits))
    return _of_records(_open_records(path, found, limits), path, text=text, label=label, columns=columns)


def _plain_rows(path: Path, problems: Problems, limits: Limits) -> Iterator[TextRow]:
    for where, text in plain_documents(path, problems, limits):
        yield where, text, None


def _open_records(path: Path, found: Found, limits: Limits) -> DelimitedFile | JsonLinesFile | ParquetFile:
    if found.format == "parquet":
        return ParquetFile(path, limits)
    if found.dialect is not None:
        return DelimitedFile(path, found.dialect, limits)
    return JsonLinesFile(path, limits)


def _of_records(
    records: DelimitedFile | JsonLinesFile | ParquetFile,
    path: Path,
    *,
    text: str | None,
    label: str | None,
    columns: ColumnNames,
) -> Source:
    if isinstance(records, JsonLinesFile) and (is_conversation(records.names) or is_preference(records.names)):
        return ChatSource(path, records.names, is_preference(records.names))
    if isinstance(records, ParquetFile) and records.image_column is not None:
        return _picture_records(records, records.image_column, label)
    if text is None and label is None and (found := _of_two_columns(records, columns)) is not None:
        return found
    roles = choose_roles(records, text=text, label=label)
    if roles.text is not None:
        return _text_records(records, roles.text, roles.label)
    classes = Classes()
    blocks = lambda: record_blocks(records, roles, classes)  # noqa: E731
    return TableSource(records.format, records.names, roles.features, blocks, roles.label is not None, classes)


def _of_two_columns(records: Records, columns: ColumnNames) -> Source | None:
    """Tagged tokens or texts in pairs, if these are such records."""
    tagged = choose_tagged_columns(records, tokens=columns.tokens, tags=columns.tags)
    if tagged is not None:
        return TaggedSource(records.format, records.names, lambda problems: tagged_rows(records, tagged, problems))
    pair = choose_pair_columns(records, source=columns.source, target=columns.target)
    if pair is not None:
        return PairSource(records.format, records.names, lambda problems: pair_rows(records, pair, problems))
    return None


def _conll(path: Path, format: str, columns: ColumnNames, limits: Limits) -> TaggedSource:
    names = conll_columns(path, format, limits)
    places = choose_conll_columns(names, tokens=columns.tokens, tags=columns.tags)
    return TaggedSource(format, names, lambda problems: conll_sentences(path, names, places, problems, limits))


def _text_records(records: Records, text: str, label: str | None) -> TextSource:
    names = [text] if label is None else [text, label]

    def rows(problems: Problems) -> Iterator[TextRow]:
        for where, values in records.rows(names, problems):
            document = values[0]
            if not isinstance(document, str):
                problems.add(f"{where}, column {text!r}", "empty" if document is None else "not a string")
            elif document and not document.isspace():
                yield where, document, values[-1] if label else None

    return TextSource(records.format, rows, records.names, label)


def _picture_records(records: ParquetFile, column: str, label: str | None) -> PictureSource:
    roles = choose_roles(records, text=column, label=label)
    names = [column] if roles.label is None else [column, roles.label]

    def images(problems: Problems) -> Iterator[Encoded]:
        for where, values in records.rows(names, problems):
            content = values[0].get("bytes") if isinstance(values[0], dict) else values[0]
            try:
                group = "" if roles.label is None else label_name(values[1])
            except ValueError as error:
                problems.add(f"{where}, column {roles.label!r}", str(error))
                continue
            yield Encoded(where, group, content if isinstance(content, bytes) else b"")

    is_labelled = roles.label is not None
    return PictureSource("parquet", images, lambda groups: {each: each for each in groups} if is_labelled else None)


def _picture_archive(path: Path, container: Container, limits: Limits) -> PictureSource:
    def images(problems: Problems) -> Iterator[Encoded]:
        for member in read_members(path, container, problems, limits):
            try:
                yield Encoded(member.name, folder_of(member.name), member.read(MAX_IMAGE_BYTES))
            except InvalidData as error:
                problems.extend(error.problems)

    return PictureSource("image_archive", images, folder_classes)


def _of_arrays(arrays: ArraySet) -> Source:
    if arrays.lengths is not None:
        return FrameSource(arrays.format, arrays)
    if len(arrays.features.shape) > 2:
        return PixelSource(arrays.format, arrays)
    classes = Classes()
    names = tuple(f"column_{index + 1}" for index in range(arrays.features.shape[1]))
    columns = names if arrays.labels is None else (*names, arrays.labels.name)
    blocks = lambda: _array_blocks(arrays, names, classes)  # noqa: E731
    return TableSource(arrays.format, columns, names, blocks, arrays.labels is not None, classes)


def _array_blocks(arrays: ArraySet, names: tuple[str, ...], classes: Classes) -> Iterator[Block]:
    problems = Problems()
    labels = None if arrays.labels is None else array_labels(arrays, classes)
    start = 0
    for values in arrays.features.blocks():
        with np.errstate(over="ignore", invalid="ignore"):
            block = np.require(values.astype(np.float32, copy=False), requirements=("C", "W"))
            may_be_infinite = not np.isfinite(block.sum())  # takes a third of the time that looking at each value takes
        if may_be_infinite:
            for row, column in np.argwhere(~np.isfinite(block)):
                problems.add(f"row {start + row + 1}, column {names[column]!r}", f"{values[row, column]} is not finite")
        stop = start + len(block)
        yield Block(block, None if labels is None else labels[start:stop])
        start = stop
    problems.check()


def array_labels(arrays: ArraySet, classes: Classes) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """All labels of the set, as provisional numbers."""
    if arrays.labels is None:
        raise InvalidData("the arrays have no labels")
    try:
        return np.concatenate([classes.add(values) for values in label_values(arrays.labels)])
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidData(f"array {arrays.labels.name!r}: {error}") from error
