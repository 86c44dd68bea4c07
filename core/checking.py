"""Reads training data with the base's tokenizer before a job is written: `python -m core.checking DESCRIPTOR`.

What a job could not learn from is told by line while whoever sent it still waits. See core/forking.py for how it is
asked. An order has `spec`; `dataset` and `validation`, paths; `base`, or null where the base is yet to be made; how
many `examples` the data set holds; and `reading_seconds`, within which all that is read is.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import transformers

from core.catalog import read_spec
from core.data.conversations import Conversation, Preference, conversations_in, preferences_in
from core.data.model_archive import unpack_reading
from core.data.problems import Problems
from core.data.prompts import GradedPrompt, prompts_in
from core.errors import InvalidData
from core.forking import Order, serve
from core.networks.chat_template import Rendered, give_template
from core.networks.pretrained import MAX_TOKENS, Reading, open_reading
from core.spec import MethodSpec
from core.tasks.language_model import LONGEST, open_causal_config
from core.tasks.reinforcement import item_check
from core.tasks.rendering import Room, render_conversation, render_pair, render_prompt, room_for
from core.tasks.task import TuningSpec

FEW_COPIES = 0.05  # of the examples: what is more is a mistake
IDLE_SECONDS = 600.0
NAMED = 10  # lines in a warning


@dataclass(frozen=True)
class Findings:
    """What a job would learn from; tokens are None where the base, and so its tokenizer, is yet to be made."""

    examples: int
    tokens: int | None  # of one pass over the data set; a pair has both of its conversations'
    learned_tokens: int | None  # those of them that the model is to predict
    warnings: tuple[str, ...] = ()
    width: int | None = None  # of a token's vector in the base

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Findings:
        """What `asdict` made, and JSON brought."""
        return cls(**{**value, "warnings": tuple(value["warnings"])})


class Checks(NamedTuple):
    """How a task's examples are read, and become tokens; `render` raises ValueError for what is not learned from."""

    read: Callable[[Path, Problems, TuningSpec], Iterator[Any]]
    render: Callable[[Any, Any, Room], list[Rendered]]


CHECKS: Mapping[str, Checks] = {
    "chat": Checks(lambda path, problems, spec: conversations_in(path, problems), render_conversation),
    "preference": Checks(
        lambda path, problems, spec: preferences_in(path, problems), lambda *given: list(render_pair(*given))
    ),
    "reinforcement": Checks(
        lambda path, problems, spec: prompts_in(path, problems, check=item_check(spec)),
        lambda *given: [render_prompt(*given)],
    ),
}


def is_checked(spec: MethodSpec) -> bool:
    """Whether a job of this spec has its data read before it is written."""
    return isinstance(spec, TuningSpec) and spec.task in CHECKS


@dataclass
class Reader:
    """Reads a file's examples, and counts; `reading`: the base's, None where there is none yet."""

    spec: TuningSpec
    reading: Reading | None
    until: float  # by the monotonic clock: what comes later is not read
    first: dict[bytes, str] = field(default_factory=dict)  # where each example that is new stands first
    copies: dict[str, str] = field(default_factory=dict)  # where a copy stands: where what it copies does
    ties: list[str] = field(default_factory=list)  # where pairs stand whose answers are the same
    examples: int = 0
    tokens: int = 0
    learned: int = 0
    is_whole: bool = True

    def read(self, path: Path) -> None:
        """All examples that there is time for; raises InvalidData by line."""
        problems = Problems()
        room = None
        if self.reading is not None:
            room = room_for(self.spec, limit=self.reading.max_length, usual=MAX_TOKENS)
        for example in CHECKS[self.spec.task].read(path, problems, self.spec):
            if time.monotonic() > self.until:
                self.is_whole = False
                break
            self.examples += 1
            self._note(example)
            if room is not None:
                self._render(example, room, problems)
        if self.spec.duplicates == "refuse" and len(self.copies) > FEW_COPIES * self.examples:
            self._refuse_copies(problems)
        problems.check()

    def _note(self, example: Conversation | Preference | GradedPrompt) -> None:
        """Whether it is a copy: the same content, wherever it stands."""
        content = json.dumps(vars(example) | {"where": ""}, sort_keys=True)
        first = self.first.setdefault(blake2b(content.encode(), digest_size=12).digest(), example.where)
        if first != example.where:
            self.copies[example.where] = first
        if isinstance(example, Preference) and example.chosen == example.rejected:
            self.ties.append(example.where)

    def _render(self, example: Any, room: Room, problems: Problems) -> None:
        assert self.reading is not None  # noqa: S101 - there is room only then
        try:
            found = CHECKS[self.spec.task].render(self.reading.tokenizer, example, room)
        except ValueError as error:
            problems.add(example.where, str(error))
            return
        self.tokens += sum(len(each.tokens[: room.tokens]) for each in found)
        self.learned += sum(sum(each.learned[: room.tokens]) for each in found)

    def _refuse_copies(self, problems: Problems) -> None:
        for where, other in self.copies.items():
            problems.add(
                where,
                f"it is the same as {other}; {len(self.copies):,} of {self.examples:,} examples are copies: leave them "
                "out, or set duplicates to keep",
            )


def check(
    spec: TuningSpec, inputs: Mapping[str, Path], reading: Reading | None, *, examples: int, seconds: float
) -> Findings:
    """Read all files of a spec, as far as that takes so many seconds; `examples`: how many the data set holds.

    Raises InvalidData, of field `dataset` or `validation`, by line.
    """
    until = time.monotonic() + seconds
    readers = {}
    for name, path in inputs.items():
        readers[name] = Reader(spec, reading, until)
        try:
            readers[name].read(path)
        except InvalidData as error:
            error.param = name
            raise
    training = readers["dataset"]
    share = examples / max(1, training.examples)
    return Findings(
        examples=examples,
        tokens=None if reading is None else round(training.tokens * share),
        learned_tokens=None if reading is None else round(training.learned * share),
        warnings=tuple(_warnings(readers, seconds=seconds)),
    )


def _warnings(readers: Mapping[str, Reader], *, seconds: float) -> Iterator[str]:
    training = readers["dataset"]
    if training.copies:
        yield (
            f"{len(training.copies):,} of {training.examples:,} examples are exact copies of others, and are learned "
            f"that much more often: {_named(list(training.copies))}. Leave them out, unless that is meant."
        )
    if training.ties:
        yield (
            f"{len(training.ties):,} of {training.examples:,} pairs of the data set hold the same answer twice, of "
            f"which nothing is learned: {_named(training.ties)}. Leave them out."
        )
    if "validation" in readers:
        held_out = readers["validation"]
        shared = [where for key, where in held_out.first.items() if key in training.first]
        if shared:
            yield (
                f"{len(shared):,} of {held_out.examples:,} validation examples also stand in the data set: "
                f"{_named(shared)} of the validation file. Validation will look too good: take them out of one of them."
            )
    for name, reader in readers.items():
        if not reader.is_whole:
            yield (
                f"Before the job was written, the first {reader.examples:,} examples of {name} were read, which took "
                f"{seconds:g} seconds: what is wrong in the others is told when it runs."
            )


def _named(places: list[str]) -> str:
    more = f" and {len(places) - NAMED:,} more" if len(places) > NAMED else ""
    return ", ".join(places[:NAMED]) + more


class Base(NamedTuple):
    """A base without its weights: how it reads, with a chat template, and how wide a token's vector is in it."""

    reading: Reading
    width: int | None


def open_base(place: Mapping[str, Any], *, max_unpacked_bytes: int) -> Base:
    """The base; raises InvalidData.

    `place`: `folder`, where what tells it is kept for the next time, `archive`, which it is taken from, and `scratch`,
    a folder that is removed also where this is killed: what is unpacked may be large.
    """
    folder = Path(place["folder"])
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=place["scratch"]) as scratch:
            unpacked = Path(scratch) / "base"
            unpack_reading(Path(place["archive"]), unpacked, max_unpacked_bytes=max_unpacked_bytes)
            config = open_causal_config(unpacked)
            base = _open(unpacked, config)
            if any(unpacked.glob("*.gguf")):  # which holds the weights too
                kept = Path(scratch) / "kept"
                config.save_pretrained(kept)
                base.reading.tokenizer.save_pretrained(kept)
                unpacked = kept
            _keep(unpacked, folder)
        return base
    return _open(folder, open_causal_config(folder))


def _keep(unpacked: Path, folder: Path) -> None:
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    shutil.copytree(unpacked, partial, dirs_exist_ok=True)
    try:
        partial.rename(folder)
    except OSError:  # somebody else was quicker
        shutil.rmtree(partial)


def _open(folder: Path, config: Any) -> Base:
    reading = open_reading(folder, config, param="base", at_most=LONGEST)
    give_template(reading.tokenizer)
    return Base(reading, getattr(config, "hidden_size", None))


def _answer(order: Order) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    spec: Any = read_spec(order["spec"])
    inputs = {name: Path(order[name]) for name in ("dataset", "validation") if order.get(name)}
    reading = width = None
    if order["base"] is not None:
        reading, width = open_base(order["base"], max_unpacked_bytes=order["max_unpacked_bytes"])
    found = check(spec, inputs, reading, examples=order["examples"], seconds=order["reading_seconds"])
    return asdict(replace(found, width=width))


def _warm_up() -> None:
    """Import what transformers imports lazily."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    for name in ("AutoConfig", "AutoTokenizer", "LlamaConfig", "PreTrainedTokenizerFast", "GPT2Config"):
        getattr(transformers, name)
    len(transformers.MODEL_FOR_CAUSAL_LM_MAPPING)


if __name__ == "__main__":
    serve(int(sys.argv[1]), _answer, warm_up=_warm_up, idle_seconds=IDLE_SECONDS)
