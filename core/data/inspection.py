"""Reads a data set from end to end, keeps nothing, and sums up what it holds."""

from __future__ import annotations

from collections import Counter

import numpy as np

from core.data import boxed, segmented, transcribed
from core.data.archives import read_members
from core.data.audio import check_audio
from core.data.chats import check_conversation, check_preference
from core.data.compression import Limits
from core.data.folders import folder_classes, folder_of
from core.data.json_lines import read_objects
from core.data.labels import Classes
from core.data.natural_order import natural
from core.data.opening import array_labels
from core.data.pictures import scan
from core.data.pixels import layout_of, pixel_blocks
from core.data.problems import Problems
from core.data.profile import Kind, Profile
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
    TextSource,
)
from core.errors import InvalidData


def profile_of(source: Source, limits: Limits) -> Profile:
    """The profile of what was opened; raises InvalidData for whatever is wrong anywhere in it."""
    match source:
        case TableSource():
            return _table(source)
        case TextSource():
            return _text(source)
        case PictureSource():
            return _pictures(source)
        case SegmentedSource():
            masks = segmented.survey(source, limits, decode=True)
            return Profile(Kind.SEGMENTED, "image_archive", len(masks.sizes), classes=masks.classes())
        case BoxedSource():
            boxes = boxed.survey(source, limits, decode=True)
            return Profile(Kind.BOXED, "image_archive", len(boxes.boxes), classes=boxes.classes)
        case PixelSource():
            return _pixels(source)
        case AudioSource():
            return _audio(source, limits)
        case SpeechSource():
            said = transcribed.survey(source, limits)
            words = sum(len(text.split()) for text in said.values())
            return Profile(Kind.SPEECH, "audio_archive", len(said), words=words)
        case FrameSource():
            return _frames(source)
        case ChatSource():
            return _chats(source, limits)
        case TaggedSource():
            return _tagged(source)
        case PairSource():
            return _pairs(source)


def _table(source: TableSource) -> Profile:
    rows = sum(len(block.features) for block in source.blocks())
    classes = source.classes.counts if source.has_labels else None
    return Profile(Kind.TABLE, source.format, rows, source.columns, classes, (len(source.features),))


def _text(source: TextSource) -> Profile:
    problems = Problems()
    classes = Classes()
    examples = words = 0
    for where, text, label in source.rows(problems):
        examples += 1
        words += len(text.split())
        if source.label is not None:
            try:
                classes.add_one(label)
            except ValueError as error:
                problems.add(f"{where}, column {source.label!r}", str(error))
    problems.check()
    if not examples:
        raise InvalidData("there are no documents")
    counts = None if source.label is None else classes.counts
    return Profile(Kind.TEXT, source.format, examples, source.columns, counts, words=words)


def _pictures(source: PictureSource) -> Profile:
    found = scan(source.images, decode=True)
    groups = source.classes_of(list(found.groups))
    counts = None if groups is None else _counted(groups, Counter(found.codes), list(found.groups))
    shape = (found.channels, *found.size) if found.size and not found.other else None
    return Profile(Kind.IMAGES, source.format, found.examples, classes=counts, shape=shape)


def _counted(groups: dict[str, str], counts: Counter[int], names: list[str]) -> dict[str, int]:
    """How many examples each class has, from those of its groups."""
    totals: Counter[str] = Counter()
    for code, name in enumerate(names):
        totals[groups[name]] += counts[code]
    return {name: totals[name] for name in sorted(totals, key=natural)}


def _pixels(source: PixelSource) -> Profile:
    for _ in pixel_blocks(source.arrays.features):
        pass
    counts = None
    if source.arrays.labels is not None:
        classes = Classes()
        array_labels(source.arrays, classes)
        counts = classes.counts
    layout = layout_of(source.arrays.features)
    return Profile(Kind.IMAGES, source.format, len(source.arrays.features), classes=counts, shape=layout.shape)


def _audio(source: AudioSource, limits: Limits) -> Profile:
    problems = Problems()
    folders: Counter[str] = Counter()
    for member in read_members(source.path, source.container, problems, limits):
        try:
            with member.open() as stream:
                check_audio(stream, member.size)
            folders[folder_of(member.name)] += 1
        except ValueError as error:
            problems.add(member.name, str(error))
        except InvalidData as error:
            problems.extend(error.problems)
    problems.check()
    groups = folder_classes(folders)
    names = list(folders)
    counts = None if groups is None else _counted(groups, Counter(dict(enumerate(folders.values()))), names)
    return Profile(Kind.AUDIO, "audio_archive", folders.total(), classes=counts)


def _frames(source: FrameSource) -> Profile:
    problems = Problems()
    start = 0
    for block in source.arrays.features.blocks():
        for row in np.flatnonzero(~np.isfinite(block).all(1)):
            problems.add(f"{source.arrays.features.name}, row {start + row + 1}", "is not finite")
        start += len(block)
    problems.check()
    classes = Classes()
    if source.arrays.labels is not None:
        array_labels(source.arrays, classes)
    counts = None if source.arrays.labels is None else classes.counts
    lengths = source.lengths()
    shape = (source.arrays.features.shape[1], int(lengths.max()))
    return Profile(Kind.AUDIO, source.format, len(lengths), classes=counts, shape=shape)


def _chats(source: ChatSource, limits: Limits) -> Profile:
    problems = Problems()
    check = check_preference if source.is_preference else check_conversation
    examples = 0
    for where, value in read_objects(source.path, problems, limits):
        try:
            check(value)
            examples += 1
        except ValueError as error:
            problems.add(where, str(error))
    problems.check()
    kind = Kind.PREFERENCES if source.is_preference else Kind.CONVERSATIONS
    return Profile(kind, "jsonl", examples, source.columns)


def _tagged(source: TaggedSource) -> Profile:
    problems = Problems()
    classes = Classes()
    examples = words = 0
    for sentence in source.rows(problems):
        examples += 1
        words += len(sentence.tokens)
        try:
            classes.add(sentence.tags)
        except ValueError as error:
            problems.add(sentence.where, str(error))
    problems.check()
    if not examples:
        raise InvalidData("there are no sentences")
    return Profile(Kind.TOKENS, source.format, examples, source.columns, classes.counts, words=words)


def _pairs(source: PairSource) -> Profile:
    problems = Problems()
    examples = words = 0
    for pair in source.rows(problems):
        examples += 1
        words += len(pair.source.split()) + len(pair.target.split())
    problems.check()
    if not examples:
        raise InvalidData("there are no pairs")
    return Profile(Kind.PAIRS, source.format, examples, source.columns, words=words)
