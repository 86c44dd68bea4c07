"""Removes from storage what nothing points to: what kills left between storage and database.

Whatever is being put there has no row yet. So only what has lain still for the grace is looked at; it is listed first
and looked up in the tables afterwards; what a living process has open as an incoming file, under whatever name by now,
or an attempt that runs has put there, is left alone whatever its age; and contents, which can come back at any moment,
are put back if they did.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence

from api.collected import Collected
from api.contents import forget
from api.dependencies import Server
from core.inventory import Found, files_below, folder_as_one, is_streamed_into, names_in, time_of
from core.jobs.pointers import Pointers, known_contents, known_parts, pointers_of
from core.storage import job_folder, sample_key

JOBS_AT_ONCE = 100
SAMPLE = re.compile(r"^jobs/[^/]+/[0-9]+/samples/")
SHA256 = re.compile(r"[0-9a-f]{64}")


def collect_orphans(server: Server, collected: Collected) -> None:
    """Look through all of the storage, and remove what nothing points to and nobody is at work on."""
    before = time_of(server.storage) - server.settings.collect_grace_seconds
    _collect_incoming(server, collected, before)
    _collect_parts(server, collected, before)
    _collect_contents(server, collected, before)
    _collect_jobs(server, collected, before)
    _collect_runs(server, collected, before)


def _collect_incoming(server: Server, collected: Collected, before: float) -> None:
    """Files that were streamed in, and folders of previews, by processes that were killed."""
    for name in names_in(server.storage, "incoming"):
        found = folder_as_one(server.storage, f"incoming/{name}")
        path = server.storage.path(found.key)
        patience = server.settings.preview_seconds if path.is_dir() else 0.0
        if found.changed_at >= before - patience or is_streamed_into(server.storage, found.key):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        collected.add("unfinished uploads", size=found.bytes)


def _collect_parts(server: Server, collected: Collected, before: float) -> None:
    old = _old(files_below(server.storage, "parts"), before)
    with server.database.read() as session:
        known = known_parts(session, [_name(found) for found in old])
    for found in old:
        if _name(found) not in known and not is_streamed_into(server.storage, found.key):
            server.storage.delete(found.key)
            collected.add("parts", size=found.bytes)


def _collect_contents(server: Server, collected: Collected, before: float) -> None:
    """Contents that no file has, and the files beside them that a link was to replace them by."""
    for folder in names_in(server.storage, "files"):
        old = _old(files_below(server.storage, f"files/{folder}"), before)
        hashes = [_name(found) for found in old if SHA256.fullmatch(_name(found))]
        with server.database.read() as session:
            known = known_contents(session, hashes)
        for found in old:
            if _name(found) in known or is_streamed_into(server.storage, found.key):
                continue
            if SHA256.fullmatch(_name(found)):
                forget(server, _name(found), inode=found.inode)
            else:
                server.storage.delete(found.key)
            collected.add("contents", size=found.bytes)


def _collect_jobs(server: Server, collected: Collected, before: float) -> None:
    """Artifacts, checkpoints and samples that no row has, and all of jobs that are not there any more."""
    for job_ids in _some_at_once(names_in(server.storage, "jobs")):
        old = {job_id: _old(files_below(server.storage, job_folder(job_id)), before) for job_id in job_ids}
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
    """The folders of attempts that are over, whose workers did not live to remove them."""
    for job_ids in _some_at_once(names_in(server.storage, "runs")):
        runs = [
            folder_as_one(server.storage, f"runs/{job_id}/{fence}")
            for job_id in job_ids
            for fence in names_in(server.storage, f"runs/{job_id}")
        ]
        with server.database.read() as session:
            pointers = pointers_of(session, job_ids)
        for found in runs:
            _, job_id, fence = found.key.split("/")
            is_live = job_id in pointers and str(pointers[job_id].live_fence) == fence
            if found.changed_at < before and not is_live:
                server.storage.delete_folder(found.key)
                collected.add("folders of attempts", size=found.bytes)


def _some_at_once(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), JOBS_AT_ONCE):
        yield names[start : start + JOBS_AT_ONCE]


def _old(files: Iterator[Found], before: float) -> list[Found]:
    return [found for found in files if found.changed_at < before]


def _name(found: Found) -> str:
    return found.key.rpartition("/")[2]
