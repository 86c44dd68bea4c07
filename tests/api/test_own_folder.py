"""Folders of processes that were killed are removed by the next one; those of living ones stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from api.own_folder import OwnFolder

ROOT = Path(__file__).parents[2]
MAKES_ONE = """
import time
from api.own_folder import OwnFolder
folder = OwnFolder("mine")
(folder.path / "kept").write_text("a")
print("made", flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", MAKES_ONE], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        (folder,) = tmp_path.iterdir()
        os.utime(folder, (0, 0))
        OwnFolder("mine").close()
        assert (folder / "mine" / "kept").exists()
        process.send_signal(signal.SIGKILL)
    own = OwnFolder("mine")
    assert list(tmp_path.iterdir()) == [own.path.parent]
    own.close()
    assert not list(tmp_path.iterdir())


def test_what_another_program_calls_so_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    other = tmp_path / "mine-and-not-yours"
    other.mkdir()
    os.utime(other, (0, 0))
    OwnFolder("mine").close()
    assert list(tmp_path.iterdir()) == [other]
