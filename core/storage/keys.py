"""What things are called in storage, whichever kind it is."""

from __future__ import annotations


def file_key(sha256: str) -> str:
    """Where a data set lies: by content, so that the same content is stored once."""
    return f"files/{sha256[:2]}/{sha256}"


def part_key(part_id: str) -> str:
    """Where a part of an upload lies until the upload is complete."""
    return f"parts/{part_id}"


def job_folder(job_id: str) -> str:
    """What the keys of all that a job has stored begin with."""
    return f"jobs/{job_id}"


def artifact_key(job_id: str, fence: int, path: str) -> str:
    """Where one attempt's artifact lies."""
    return f"jobs/{job_id}/{fence}/artifacts/{path}"


def checkpoint_key(job_id: str, fence: int, step: int) -> str:
    """Where one attempt's checkpoint lies."""
    return f"jobs/{job_id}/{fence}/checkpoints/step-{step:09d}.safetensors"


def sample_key(job_id: str, fence: int, name: str) -> str:
    """Where one attempt's sample lies: a picture or a text by which people see what is learned."""
    return f"jobs/{job_id}/{fence}/samples/{name}"
