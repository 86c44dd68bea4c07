"""Real bytes of every format, in files whose names say nothing."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.data.profile import inspect
from core.errors import InvalidData

Members = Mapping[str, bytes]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Write content to a fresh file."""

    def _write(content: str | bytes) -> Path:
        path = tmp_path / f"file-{len(list(tmp_path.iterdir()))}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


@pytest.fixture
def told() -> Callable[[Path], list[str]]:
    """The problems that `inspect` tells of a file, as `where: what`."""

    def _told(path: Path) -> list[str]:
        with pytest.raises(InvalidData) as caught:
            inspect(path)
        return [str(problem) for problem in caught.value.problems]

    return _told


@pytest.fixture
def as_zip() -> Callable[[Members], bytes]:
    def _zip(members: Members) -> bytes:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in members.items():
                archive.writestr(name, value)
        return content.getvalue()

    return _zip


@pytest.fixture
def as_tar() -> Callable[[Members], bytes]:
    def _tar(members: Members) -> bytes:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for name, value in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(value)
                archive.addfile(info, io.BytesIO(value))
        return content.getvalue()

    return _tar


@pytest.fixture
def image() -> Callable[..., bytes]:
    """An image file of one colour, or of these pixels."""

    def _image(
        colour: object = 0,
        *,
        mode: str = "L",
        size: tuple[int, int] = (6, 4),
        format: str = "PNG",
        pixels: object = None,
    ) -> bytes:
        content = io.BytesIO()
        made = Image.new(mode, size, colour) if pixels is None else Image.fromarray(np.asarray(pixels))
        made.save(content, format)
        return content.getvalue()

    return _image
