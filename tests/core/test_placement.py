"""What a job starts from lies where its trainer is told, from a disk and from a bucket; a checkpoint with its bases."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.jobs.inputs import CheckpointInput, FileInput, Input, ModelInput
from core.placement import place_inputs
from core.storage import DiskStorage, Storage, file_key
from tests.s3 import open_bucket

SHA256 = "ab" * 32


@pytest.fixture(params=["disk", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "disk":
        return DiskStorage(tmp_path / "storage")
    s3 = request.getfixturevalue("s3")
    return open_bucket(s3.new_bucket(), s3.url, tmp_path / "scratch")


def test_a_checkpoint_comes_with_all_that_it_stands_on(storage: Storage, tmp_path: Path) -> None:
    keys = {"k-1": b"first", "k-2": b"second", file_key(SHA256): b"archive", "m": b"weights"}
    for key, content in keys.items():
        (tmp_path / "source").write_bytes(content)
        storage.link(tmp_path / "source", key)
        (tmp_path / "source").unlink()  # on a disk, storage has the file itself
    uploaded = FileInput("file-1", "tiny.zip", SHA256, is_model=True)
    first = CheckpointInput("ckpt-1", "job-1", 10, "k-1", "1", uploaded)
    second = CheckpointInput("ckpt-2", "job-2", 20, "k-2", "2", first)
    made = CheckpointInput("ckpt-3", "job-3", 30, "k-1", "1", ModelInput("job-0", "model-0", {"deep/m": "m"}))
    found: dict[str, Input] = {"base": second, "teacher": made}
    places = place_inputs(found, storage=storage, folder=tmp_path / "inputs")
    base = places["base"]
    assert Path(base["checkpoint"]).read_bytes() == b"second"
    assert Path(base["base"]["checkpoint"]).read_bytes() == b"first"
    assert Path(base["base"]["base"]["archive"]).read_bytes() == b"archive"
    assert (base["sha256"], base["base"]["sha256"]) == ("2", "1")
    assert Path(places["teacher"]["base"]["path"], "deep/m").read_bytes() == b"weights"
    yet_to_be_made = [base["path"], base["base"]["path"], base["base"]["base"]["path"], places["teacher"]["path"]]
    assert len({*yet_to_be_made, base["checkpoint"], base["base"]["checkpoint"]}) == 6
    assert not any(Path(path).exists() for path in yet_to_be_made)
