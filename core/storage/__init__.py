"""Data sets, checkpoints and weights under keys: on a disk, or in an object storage that speaks S3."""

from __future__ import annotations

from core.settings import Settings
from core.storage.disk import DiskStorage
from core.storage.folders import Found
from core.storage.interface import Storage, Stored
from core.storage.keys import artifact_key, checkpoint_key, file_key, job_folder, part_key, sample_key
from core.storage.refusals import refusal_of

__all__ = [
    "DiskStorage",
    "Found",
    "Storage",
    "Stored",
    "artifact_key",
    "checkpoint_key",
    "file_key",
    "job_folder",
    "open_storage",
    "part_key",
    "refusal_of",
    "sample_key",
]


def open_storage(settings: Settings, *, retry_seconds: float) -> Storage:
    """The storage that the settings name. Not before a fork: an object storage has threads.

    `retry_seconds`: how long one that does not answer is asked again; a disk is asked once.
    """
    if not settings.storage_url.startswith("s3://"):
        return DiskStorage(settings.storage_path)
    from core.storage.objects import ObjectStorage  # trainers, which import this package, are spared it

    return ObjectStorage(settings, retry_seconds=retry_seconds)
