"""Storage tells why a disk refuses, and leaves nothing half there; tests/faults has disks that are really full."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from core.errors import InvalidData
from core.storage import DiskStorage, refusal_of


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 507, "storage_full"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 507, "storage_full"),
        (OSError(errno.EROFS, "Read-only file system", "/srv/secret/storage"), 503, "storage_unavailable"),
    ],
)
def test_a_disk_that_refuses_is_told_with_its_reason(error: Exception, status: int, code: str) -> None:
    failure = RuntimeError("it could not be written")
    failure.__cause__ = error
    refusal = refusal_of(failure)
    assert refusal is not None
    assert (refusal.status, refusal.code) == (status, code)
    assert "secret" not in refusal.message


def test_what_users_wrote_is_no_full_disk() -> None:
    assert refusal_of(InvalidData("line 3: 'No space left on device (os error 28)' is not a number")) is None
    assert refusal_of(FileNotFoundError(2, "no such file")) is None


def test_a_key_that_cannot_be_linked_leaves_nothing(tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    (tmp_path / "source").write_text("content")
    with pytest.raises(OSError, match="taken"):
        storage.link(tmp_path / "source", "taken")
    assert [path.name for path in tmp_path.glob("taken*")] == ["taken"]
