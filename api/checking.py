"""Has training data checked against its base before a job is written; see core/checking.py."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api import submission
from api.own_folder import OwnFolder
from api.readers import Readers
from api.turns import OneOfEach
from core.checking import Findings, is_checked
from core.data.model_archive import READING
from core.errors import InvalidData, InvalidRequest, InvalidSpec, WeightworksError
from core.forking import TOO_DEMANDING
from core.jobs.database import Database
from core.jobs.inputs import CheckpointInput, FileInput, Input, ModelInput
from core.settings import Settings
from core.spec import MethodSpec
from core.storage import Storage, file_key

AT_ONCE = 2
REMEMBERED = 256  # what was found, and refused
BASES = 16  # whose tokenizers are kept
FOLDERS = "check-"  # how the names of folders begin that are needed during a check
STARTING_SECONDS = 60  # beyond those of reading: to open a base, however busy the machine is
# What of a spec makes a difference to what is found.
SETTINGS = {"task", "max_length", "max_completion_tokens", "too_long", "duplicates", "grader"}

Inputs = Mapping[str, Input]


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a job's data before it is written: what was found, or why the job is refused."""

    findings: Findings | None = None  # None: there was nothing to check
    refusal: WeightworksError | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the job's first events are to say."""
        return () if self.findings is None else self.findings.warnings

    def enforce(self) -> None:
        """Raise the refusal, if there is one."""
        if self.refusal is not None:
            raise self.refusal


UNCHECKED = Verdict()


class Checker:
    """Remembers what it found; starts the process that checks when it is first needed."""

    def __init__(self, settings: Settings, database: Database, storage: Storage) -> None:
        self._settings, self._database, self._storage = settings, database, storage
        self._readers = Readers("core.checking", at_once=AT_ONCE)
        self._turns = OneOfEach()
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Future[Findings]] = OrderedDict()
        self._folder = OwnFolder("checking")

    async def judge(self, project_id: str, spec: MethodSpec, *, local: Collection[str] = ()) -> Verdict:
        """Read the data of a spec that teaches a language model to answer; may take as long as the settings allow.

        A project has one read at a time, so that others find their turn. The errors of a submission come as a refusal:
        where the same was submitted before, they do not matter. `local`: the names of jobs that are submitted with it.
        """
        if not is_checked(spec):
            return UNCHECKED
        async with self._turns.of(project_id):
            return await self._readers.in_turn(self._judge, project_id, spec, local)

    def close(self) -> None:
        """End the process, and forget the bases."""
        self._readers.close()
        self._folder.close()

    def _judge(self, project_id: str, spec: MethodSpec, local: Collection[str]) -> Verdict:
        try:
            with self._database.read() as session:
                profile, found = submission.data_to_check(session, project_id, spec, local=local)
            return Verdict(self._findings(spec, found, examples=profile.examples))
        except InvalidRequest as error:
            return Verdict(refusal=error)

    def _findings(self, spec: MethodSpec, found: Inputs, *, examples: int) -> Findings:
        """From memory, from whoever is reading the same just now, or by reading; raises what is to be told."""
        settings = spec.model_dump(mode="json", include=SETTINGS)
        key = _key_of({**settings, **{name: _identity(one) for name, one in found.items()}})
        with self._lock:
            is_mine = key not in self._known
            future = self._known.setdefault(key, Future())
            self._known.move_to_end(key)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        if is_mine:
            self._fulfil(future, key, spec, found, examples=examples)
        error = future.exception()
        if error is not None:
            raise copy.copy(error)  # what is remembered is raised again, and may be added to
        return future.result()

    def _fulfil(self, future: Future[Findings], key: str, spec: MethodSpec, found: Inputs, *, examples: int) -> None:
        """Read, and forget what may go well another time: it was no fault of the data, or took too long just now."""
        try:
            future.set_result(self._read(spec, found, examples=examples))
        except BaseException as error:
            if not isinstance(error, InvalidData | InvalidSpec) or error.code == TOO_DEMANDING:
                with self._lock:
                    self._known.pop(key, None)
            future.set_exception(error)

    def _read(self, spec: MethodSpec, found: Inputs, *, examples: int) -> Findings:
        memory_bytes, seconds = self._settings.inspection_memory_bytes, self._settings.check_seconds
        with tempfile.TemporaryDirectory(prefix=FOLDERS, dir=self._storage.incoming) as folder:
            order: dict[str, Any] = {
                "spec": spec.model_dump(mode="json"),
                "base": self._place_base(found["base"], Path(folder)) if "base" in found else None,
                "examples": examples,
                "reading_seconds": seconds,
                "seconds": seconds + STARTING_SECONDS,
                "memory_bytes": memory_bytes,
                "max_unpacked_bytes": self._settings.max_unpacked_bytes,
            }
            for name, one in found.items():
                if isinstance(one, FileInput) and name != "base":
                    order[name] = str(self._storage.fetch(file_key(one.sha256), Path(folder) / name))
            try:
                return Findings.from_dict(self._readers.ask(order, of="training data"))
            except EOFError:
                raise InvalidData(
                    f"it cannot be read with the base's tokenizer within {seconds + STARTING_SECONDS} seconds and "
                    f"{memory_bytes // 2**20:,} MiB of memory, or it crashes its reader: shorten its longest lines, or "
                    "look at the base's tokenizer and chat template",
                    param="dataset",
                    code=TOO_DEMANDING,
                ) from None

    def _place_base(self, base: Input, scratch: Path) -> dict[str, str]:
        """Where the base's tokenizer is kept from check to check, and an archive to take it from."""
        self._forget_bases()
        if isinstance(base, CheckpointInput):  # reads as what it was learned on does
            return self._place_base(base.base, scratch)
        folder = self._folder.path / _key_of(_identity(base))
        with suppress(FileNotFoundError):
            os.utime(folder)
        if isinstance(base, FileInput):
            archive = self._storage.fetch(file_key(base.sha256), scratch / "base.archive")
            return {"folder": str(folder), "archive": str(archive), "scratch": str(scratch)}
        if not folder.exists():
            self._assemble(base, folder, scratch)
        return {"folder": str(folder)}

    def _assemble(self, base: ModelInput, folder: Path, scratch: Path) -> None:
        """Put together what tells how a trained model reads."""
        partial = Path(tempfile.mkdtemp(dir=self._folder.path))
        for path, key in base.files.items():
            if "/" not in path and Path(path).suffix in READING:
                shutil.copyfile(self._storage.fetch(key, scratch / path), partial / path)
        try:
            partial.rename(folder)
        except OSError:  # somebody else was quicker
            shutil.rmtree(partial)

    def _forget_bases(self) -> None:
        kept = sorted(self._folder.path.iterdir(), key=_used_at)
        for folder in kept[: -BASES * 2]:  # those that are being read are younger
            shutil.rmtree(folder, ignore_errors=True)


def _used_at(folder: Path) -> float:
    with suppress(FileNotFoundError):  # whoever made it has renamed it, or another thread has forgotten it
        return folder.stat().st_mtime
    return 0.0


def _identity(one: Input) -> str:
    """The same for what reads the same, or is the same."""
    if isinstance(one, CheckpointInput):
        return _identity(one.base)
    return one.sha256 if isinstance(one, FileInput) else one.model_id


def _key_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
