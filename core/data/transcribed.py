"""Recordings of speech with what is said in each."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from core.data.archives import Member, read_members
from core.data.audio import check_audio
from core.data.compression import Limits
from core.data.json_lines import parse_object
from core.data.opening import open_source
from core.data.problems import Problems
from core.data.recordings import Wave, decoded_members
from core.data.sources import SpeechSource, wrong_kind
from core.errors import InvalidData, Problem

if TYPE_CHECKING:
    import torch  # what reads uploads does without

MAX_NOTES_BYTES = 256 * 2**20
MAX_TRANSCRIPT_BYTES = 2**20
FILE_COLUMNS = ("file_name", "path", "file", "audio")
TEXT_COLUMNS = ("transcription", "transcript", "sentence", "text")
COLUMNS = (FILE_COLUMNS, TEXT_COLUMNS)
LAYOUT = (
    "put a metadata.csv or metadata.jsonl with file_name and transcription beside the recordings, or a text of the "
    "same name beside each (1.wav, 1.txt)"
)


@dataclass(frozen=True)
class Transcribed:
    """Recordings and what is said in them; `left_out`: how many were too long, and lack here."""

    waves: tuple[Wave, ...]
    transcripts: tuple[str, ...]
    left_out: int

    def __len__(self) -> int:
        return len(self.waves)

    def rows(self, rows: torch.Tensor) -> Transcribed:
        """Only these rows."""
        chosen = rows.tolist()
        return Transcribed(
            tuple(self.waves[row] for row in chosen), tuple(self.transcripts[row] for row in chosen), self.left_out
        )


def read_transcribed(path: Path, *, rate: int, max_seconds: float) -> Transcribed:
    """All recordings in memory but those longer than `max_seconds`, whose transcripts would say more than is heard."""
    source = open_source(path)
    if not isinstance(source, SpeechSource):
        raise wrong_kind(source, "recordings with transcripts")
    said = survey(source, Limits())
    waves, transcripts, left_out = [], [], 0
    members = decoded_members(source.path, source.container, rate=rate, max_seconds=max_seconds, names=said)
    for name, wave, is_cut in members:
        if is_cut:
            left_out += 1
        else:
            waves.append(wave)
            transcripts.append(said[name])
    if not waves:
        raise InvalidData(f"all recordings are longer than {max_seconds:g} seconds: cut them, or raise max_seconds")
    return Transcribed(tuple(waves), tuple(transcripts), left_out)


def survey(source: SpeechSource, limits: Limits) -> dict[str, str]:
    """What is said in each recording, by its member; raises InvalidData by member or line."""
    problems = Problems()
    if len(source.notes) > 1:
        raise InvalidData(Problem(source.notes[1], f"transcripts are told twice: {source.notes[0]} does it too"))
    recordings: list[str] = []
    texts: dict[str, str] = {}  # by the member that holds them
    for member in read_members(source.path, source.container, problems, limits):
        try:
            if member.name in source.notes or member.name.lower().endswith(".txt"):
                limit = MAX_NOTES_BYTES if member.name in source.notes else MAX_TRANSCRIPT_BYTES
                texts[member.name] = member.read(limit).decode("utf-8-sig")
                continue
            _check_recording(member)
            recordings.append(member.name)
        except ValueError as error:
            problems.add(member.name, str(error))
        except InvalidData as error:
            problems.extend(error.problems)
    problems.check()
    if source.notes:
        return _of_table(source.notes[0], texts[source.notes[0]], recordings, problems)
    return _beside(recordings, texts, problems)


def _check_recording(member: Member) -> None:
    with member.open() as stream:
        check_audio(stream, member.size)


def _beside(recordings: list[str], texts: Mapping[str, str], problems: Problems) -> dict[str, str]:
    """Transcripts in texts of the same name as their recordings."""
    by_stem = {str(PurePosixPath(name).with_suffix("")): text for name, text in texts.items()}
    found: dict[str, str] = {}
    for name in recordings:
        text = by_stem.pop(str(PurePosixPath(name).with_suffix("")), None)
        if text is None:
            problems.add(name, f"has no transcript: {LAYOUT}")
        elif not text.strip():
            problems.add(f"{PurePosixPath(name).with_suffix('.txt')}", "is empty: leave the recording out")
        else:
            found[name] = " ".join(text.split())
    for stem in by_stem:
        problems.add(f"{stem}.txt", "has no recording of the same name")
    problems.check()
    return found


def _of_table(place: str, text: str, recordings: list[str], problems: Problems) -> dict[str, str]:
    """Transcripts in a table; files are named from the table's folder, or from the archive's root."""
    folder = PurePosixPath(place).parent
    known = set(recordings)
    found: dict[str, str] = {}
    for where, file, transcript in _rows(place, text, problems):
        member = next((name for name in (str(folder / file), file) if name in known), None)
        if member is None:
            problems.add(where, f"there is no recording {file[:200]!r} in the archive")
        elif member in found:
            problems.add(where, f"names {file[:200]!r} a second time")
        elif not transcript.strip():
            problems.add(where, "the transcript is empty: leave the recording out")
        else:
            found[member] = " ".join(transcript.split())
    for name in recordings:
        if name not in found and not problems:
            problems.add(name, f"has no transcript in {place}")
    problems.check()
    if not found:
        raise InvalidData(Problem(place, f"holds no transcripts: {LAYOUT}"))
    return found


def _rows(place: str, text: str, problems: Problems) -> Iterator[tuple[str, str, str]]:
    """Where it stands, the file and the transcript of each row."""
    reader = _lines_of_json if place.lower().endswith(".jsonl") else _lines_of_csv
    try:
        for where, row in reader(place, text, problems):
            file, transcript = (next((row[name] for name in names if name in row), None) for names in COLUMNS)
            if isinstance(file, str) and isinstance(transcript, str):
                yield where, file, transcript
            else:
                problems.add(where, f"has no file_name or no transcription: {LAYOUT}")
    except csv.Error as error:
        problems.add(place, f"cannot be read: {error}")


def _lines_of_json(place: str, text: str, problems: Problems) -> Iterator[tuple[str, Mapping[str, object]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"{place}, line {number}", parse_object(line.strip())
        except ValueError as error:
            problems.add(f"{place}, line {number}", str(error))


def _lines_of_csv(place: str, text: str, problems: Problems) -> Iterator[tuple[str, Mapping[str, object]]]:
    rows = csv.DictReader(text.splitlines(keepends=True), delimiter="\t" if place.lower().endswith(".tsv") else ",")
    for row in rows:
        yield f"{place}, line {rows.line_num}", row
