"""Fetches a model from a hub, in a process of its own: `python -m core.hub`.

The order comes as JSON on standard input: `url` and `token` of the hub; `name` and `revision` of the model; `folder`,
which is kept from try to try, so that a file that has come whole is not fetched again; `total`, a file that is to say
how many bytes there are; `archive`, the zip to write; `max_bytes`; `parent`, the process to end with. The answer goes
to standard output: how many bytes were `fetched`, the `commit`, and the archive's `bytes` and `sha256`; or `error`.
Only the hub is asked, and whoever it redirects to for the files; the token goes to the hub alone.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import resource
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import httpx2
from huggingface_hub import HfApi, RepoFile, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from core.errors import InvalidData, NotFound, StorageFull, TooLarge, Unavailable, WeightworksError
from core.processes import die_with_parent, limit_memory

BESIDE = frozenset({".json", ".txt", ".model", ".jinja", ".md"})  # what a model is beside its weights
MODEL, GGUF, SAFETENSORS = "model", ".gguf", ".safetensors"
SETTING = "WEIGHTWORKS_HUB_TOKEN"
AT_ONCE = 2
ROOM_BYTES = 2**20  # in an archive, for its members' names
MEMORY_BYTES = 2**30  # that what the hub says may take
YEAR_ONE = (1980, 1, 1, 0, 0, 0)  # of a zip: the same files make the same archive


def main() -> int:
    """Fetch what standard input asks for; answers the exit status, 0 also for an error that is told."""
    order = json.load(sys.stdin)
    die_with_parent(order["parent"])
    limit_memory(MEMORY_BYTES)
    most = order["max_bytes"] + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # of a file, whatever size the hub says that it has
    try:
        answer = fetch(order)
    except WeightworksError as error:
        answer = {"error": error.as_dict()}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")
    return 0


def fetch(order: Mapping[str, Any]) -> dict[str, Any]:
    """Write the archive; raises NotFound, InvalidData, TooLarge or Unavailable, each with its cure."""
    name, folder = order["name"], Path(order["folder"])
    with _alone_in(folder), _told(name, order["revision"]):
        for left in folder.rglob("*.incomplete"):  # of a try that was killed: the library begins such a file anew
            left.unlink()
        token = order["token"] or False
        commit, files = look(HfApi(endpoint=order["url"], token=token), name, order["revision"])
        chosen = choose(files, name=name, max_bytes=order["max_bytes"])
        total = sum(files[path] for path in chosen)
        folder.mkdir(exist_ok=True)
        Path(order["total"]).write_text(str(total))
        patterns = [glob.escape(path) for path in chosen]
        asked = {"endpoint": order["url"], "token": token, "allow_patterns": patterns, "max_workers": AT_ONCE}
        snapshot_download(name, revision=commit, local_dir=folder, **asked)
        made = pack(folder, chosen, Path(order["archive"]))
        shutil.rmtree(folder)
    return {"commit": commit, "fetched": total, **made}


@contextmanager
def _told(name: str, revision: str) -> Iterator[None]:
    """Have what the hub refuses told with its cure."""
    try:
        yield
    except GatedRepoError:
        message = (
            f"'{name}' is given only to those who have accepted its terms: accept them at the hub, with the account "
        )
        raise NotFound(message + f"whose token is {SETTING}", param="name", code="hub_model_gated") from None
    except RevisionNotFoundError:
        raise NotFound(f"'{name}' has no revision '{revision}'", param="revision", code="hub_no_revision") from None
    except RepositoryNotFoundError:
        message = f"the hub has no model '{name}', or shows it only to some: look at its spelling, or set {SETTING}"
        raise NotFound(message, param="name", code="hub_model_not_found") from None
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise _refused(error, name) from None
    except ValueError as error:
        raise InvalidData(f"'{name}' cannot be fetched: {str(error).strip()[:300]}", param="name") from None


def _refused(error: Exception, name: str) -> WeightworksError:
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("storage is full: free some space, then ask again; what has come whole is kept")
    if number == errno.EFBIG:
        return TooLarge(f"'{name}' has a file that is larger than a model may be, whatever the hub says", param="name")
    what = f"{type(error).__name__}: {str(error).strip()[:300]}"
    message = f"the hub could not be read: {what}; ask again: what has come whole is kept"
    return Unavailable(message, code="hub_unreachable")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Have a lock beside the folder: two fetches of a model take turns."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def look(hub: HfApi, name: str, revision: str) -> tuple[str, dict[str, int]]:
    """The commit that a revision is, and its files with their sizes."""
    commit = hub.model_info(name, revision=revision).sha
    assert commit is not None  # noqa: S101 - the hub says it of every model
    tree = hub.list_repo_tree(name, revision=commit, recursive=True)
    files = {one.path: one.size for one in tree if isinstance(one, RepoFile)}
    return commit, {path: size for path, size in files.items() if ".." not in path and not path.startswith("/")}


def choose(files: Mapping[str, int], *, name: str, max_bytes: int) -> list[str]:
    """What of a repository is the model, never anything pickled; raises InvalidData or TooLarge.

    Weights lie at its root: `model*.safetensors`, else any other safetensors, else one GGUF file.
    """
    root = [path for path in files if "/" not in path]
    safetensors = [path for path in root if path.endswith(SAFETENSORS)]
    weights = [path for path in safetensors if path.startswith(MODEL)] or safetensors
    weights = weights or [path for path in root if path.endswith(GGUF)]
    if not weights:
        raise InvalidData(
            f"'{name}' has no safetensors and no GGUF file, and pickled weights are not read: save the model with "
            "safetensors, and upload its folder as a zip",
            param="name",
            code="hub_no_weights",
        )
    if len(weights) > 1 and weights[0].endswith(GGUF):
        raise InvalidData(
            f"'{name}' has {len(weights)} GGUF files, each a model: upload the one that you want",
            param="name",
            code="hub_no_weights",
        )
    chosen = sorted({*weights, *(path for path in files if PurePosixPath(path).suffix in BESIDE)})
    size = sum(files[path] for path in chosen)
    if size > max_bytes:
        raise TooLarge(f"'{name}' has {size:,} bytes, and a model may have {max_bytes:,}", param="name")
    return chosen


def pack(folder: Path, paths: Sequence[str], archive: Path) -> dict[str, Any]:
    """Write the files into a zip as they are, each removed once it is in; answers its bytes and SHA-256."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in paths:
            source = folder / path
            with source.open("rb") as content, file.open(_member(path), "w", force_zip64=True) as target:
                shutil.copyfileobj(content, target, 1 << 20)
            source.unlink()
    with archive.open("rb") as content:
        return {
            "bytes": archive.stat().st_size,
            "sha256": hashlib.file_digest(content, "sha256").hexdigest(),
        }


def _member(path: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(path, date_time=YEAR_ONE)


if __name__ == "__main__":
    sys.exit(main())
