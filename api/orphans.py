"""Removes from storage what nothing points to: what kills left between storage and database.

Whatever is being put there has no row yet. So only what has lain still for the grace is looked at; it is listed first
and looked up in the tables afterwards; what a living process has open as an incoming file, under whatever name by now,
or an attempt that runs has put there, is left alone whatever its age; and contents, which can come back at any moment,
are put back if they did.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from api.checking import FOLDERS, STARTING_SECONDS
from api.collected import Collected
from api.contents import forget
from api.dependencies import Server
from core.jobs.pointers import Pointers, known_contents, known_parts, pointers_of
from core.storage import Found, job_folder, sample_key
from core.storage.folders import clock_of, folder_as_one, is_locked, names_in, remove

JOBS_AT_ONCE = 100
SAMPLE = re.compile(r"^jobs/[^/]+/[0-9]+/samples/")
SHA256 = re.compile(r"[0-9a-f]{64}")


def collect_orphans(server: Server, collected: Collected) -> None:
    """Look through all of the storage, and remove what nothing points to and nobody is at work on."""
    grace = server.settings.collect_grace_seconds
    here = clock_of(server.storage.incoming) - grace
    _collect_incoming(server, collected, here)
    _collect_runs(server, collected, here)
    server.storage.tidy()
    before = server.storage.now() - grace
    _collect_parts(server, collected, before)
    _collect_contents(server, collected, before)
    _collect_jobs(server, collected, before)
    collected.add("unfinished objects", count=server.storage.collect(before))


def _collect_incoming(server: Server, collected: Collected, before: float) -> None:
    """Files that were streamed in, and folders of previews and of checks, by processes that were killed."""
    checking, preview = server.settings.check_seconds + STARTING_SECONDS, server.settings.preview_seconds
    for name in names_in(server.storage.incoming):
        found = folder_as_one(server.storage.scratch, f"incoming/{name}")
        path = server.storage.scratch / found.key
        longest = checking if name.startswith(FOLDERS) else preview
        patience = longest if path.is_dir() else 0.0
        if found.changed_at < before - patience and not is_locked(path):
            remove(path)
            collected.add("unfinished uploads", size=found.bytes)


def _collect_parts(server: Server, collected: Collected, before: float) -> None:
    old = _old(server.storage.files_below("parts"), before)
    with server.database.read() as session:
        known = known_parts(session, [_name(found) for found in old])
    for found in old:
        if _name(found) not in known and not server.storage.is_streamed_into(found.key):
            server.storage.delete(found.key)
            collected.add("parts", size=found.bytes)


def _collect_contents(server: Server, collected: Collected, before: float) -> None:
    """Contents that no file has, and the files beside them that a link was to replace them by."""
    for folder in server.storage.names_in("files"):
        old = _old(server.storage.files_below(f"files/{folder}"), before)
        hashes = [_name(found) for found in old if SHA256.fullmatch(_name(found))]
        with server.database.read() as session:
            known = known_contents(session, hashes)
        for found in old:
            if _name(found) in known or server.storage.is_streamed_into(found.key):
                continue
            if SHA256.fullmatch(_name(found)):
                forget(server, _name(found), version=found.version)
            else:
                server.storage.delete(found.key)
            collected.add("contents", size=found.bytes)


def _collect_jobs(server: Server, collected: Collected, before: float) -> None:
    """Artifacts, checkpoints and samples that no row has, and all of jobs that are not there any more."""
    for job_ids in _some_at_once(server.storage.names_in("jobs")):
        old = {job_id: _old(server.storage.files_below(job_folder(job_id)), before) for job_id in job_ids}
        with server.database.read() as session:
            pointers = pointers_of(session, job_ids)
        for job_id, files in old.items():
            for found in _unknown(files, job_id, pointers.get(job_id)):
                server.storage.delete(found.key)
                collected.add("files of jobs", size=found.bytes)


def _unknown(files: Sequence[Found], job_id: str, pointers: Pointers | None) -> Sequence[Found]:
    """Those that the job, if it is there still, does not point to."""
    if pointers is None:
        return files
    keys = pointers.keys | {sample_key(job_id, fence, path) for fence, path in pointers.samples}
    live = f"{job_folder(job_id)}/{pointers.live_fence}/"
    unknown = [found for found in files if found.key not in keys and not found.key.startswith(live)]
    return [found for found in unknown if not (pointers.is_unfinished and SAMPLE.search(found.key))]


def _collect_runs(server: Server, collected: Collected, before: float) -> None:
    """The folders of attempts on this machine that are over, whose workers did not live to remove them."""
    scratch = server.storage.scratch
    for job_ids in _some_at_once(names_in(scratch / "runs")):
        runs = [
            folder_as_one(scratch, f"runs/{job_id}/{fence}")
            for job_id in job_ids
            for fence in names_in(scratch / "runs" / job_id)
        ]
        with server.database.read() as session:
            pointers = pointers_of(session, job_ids)
        for found in runs:
            _, job_id, fence = found.key.split("/")
            is_live = job_id in pointers and str(pointers[job_id].live_fence) == fence
            if found.changed_at < before and not is_live:
                remove(scratch / found.key)
                with contextlib.suppress(OSError):
                    (scratch / "runs" / job_id).rmdir()
                collected.add("folders of attempts", size=found.bytes)


def _some_at_once(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), JOBS_AT_ONCE):
        yield names[start : start + JOBS_AT_ONCE]


def _old(files: Iterator[Found], before: float) -> list[Found]:
    return [found for found in files if found.changed_at < before]


def _name(found: Found) -> str:
    return found.key.rpartition("/")[2]
