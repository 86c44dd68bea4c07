"""Uploaded models: a zip or tar of a Hugging Face folder with safetensors weights or a GGUF file, or that file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from core.data.archives import Container, Member, read_members
from core.data.compression import Limits, open_data
from core.data.gguf_header import check_gguf, is_gguf
from core.data.problems import Problems
from core.data.recognise import is_tar
from core.errors import InvalidData

CONFIG = "config.json"
MAX_CONFIG_BYTES = 2**20
MAX_HEADER_BYTES = 32 * 2**20  # a third of the format's own limit, and more than any model has
MAX_MEMBERS = 1000
MAX_LAYERS, MAX_SIZE = 10_000, 10**9  # what a config.json may ask for
# What a model folder may bring: data. Everything else (pickled weights, Python files) is left out, never executed.
KEPT = frozenset({".safetensors", ".json", ".txt", ".model", ".md", ".jinja", ".csv", ".png", ".gguf"})
READING = frozenset({".json", ".txt", ".model", ".jinja"})  # what tells how it reads: all but weights
PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".joblib"})


def inspect_model_archive(path: Path, *, max_unpacked_bytes: int = 256 * 2**30) -> None:
    """Check that this is one model folder with a config.json and safetensors weights, or a GGUF file, with or without
    a folder around it; raises InvalidData.
    """
    problems = Problems()
    if _is_gguf(path):
        _check_bare(path)
        return
    root = _root(path, max_unpacked_bytes)
    has_weights = False
    for name, member in _below(root, path, problems, max_unpacked_bytes):
        suffix = PurePosixPath(name).suffix.lower()
        has_weights = has_weights or suffix in (".safetensors", ".gguf")
        if suffix in PICKLED:
            problems.add(member.name, "pickled weights are not read: save the model with safetensors")
        elif suffix == ".safetensors":
            _check_weights(member, problems)
        elif suffix == ".gguf":
            _check_gguf(member, problems)
        elif name == CONFIG:
            _check_config(member, problems)
    if not has_weights:
        problems.add(root or "the archive", "holds no .safetensors and no .gguf file: save the model with safetensors")
    problems.check()


def unpack_model_archive(
    path: Path, folder: Path, *, max_unpacked_bytes: int = 256 * 2**30, kept: Collection[str] = KEPT
) -> None:
    """Unpack the model into `folder`, which is whole or absent afterwards; raises InvalidData.

    Only files of kinds that hold data are taken.
    """
    if folder.exists():
        return
    problems = Problems()
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if _is_gguf(path):
        shutil.copyfile(path, partial / "model.gguf")
        partial.replace(folder)
        return
    for name, member in _below(_root(path, max_unpacked_bytes), path, problems, max_unpacked_bytes):
        if PurePosixPath(name).suffix.lower() in kept:
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
    problems.check()
    partial.replace(folder)


def unpack_reading(path: Path, folder: Path, *, max_unpacked_bytes: int = 256 * 2**30) -> None:
    """Of a model unpack what tells how it reads: its configuration and tokenizer, or the GGUF file that holds both."""
    if _is_gguf(path):
        folder.mkdir(parents=True)
        (folder / "model.gguf").symlink_to(path.absolute())
        return
    names = [name for name, _ in _below(_root(path, max_unpacked_bytes), path, Problems(), max_unpacked_bytes)]
    kept = READING if any(name.lower().endswith(".safetensors") for name in names) else KEPT
    unpack_model_archive(path, folder, max_unpacked_bytes=max_unpacked_bytes, kept=kept)


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return is_gguf(file.read(8))


def _root(path: Path, max_unpacked_bytes: int) -> str:
    """The folder in the archive that holds the outermost config.json, or else the outermost GGUF file."""
    problems = Problems()
    members = read_members(path, _container(path), problems, _limits(max_unpacked_bytes))
    names = [member.name for member in members]
    problems.check()
    found = [name for name in names if PurePosixPath(name).name == CONFIG] or [
        name for name in names if name.endswith(".gguf")
    ]
    if not found:
        raise InvalidData(
            "the archive has no config.json and no .gguf file: send a zip or tar of a Hugging Face model folder"
        )
    outermost = min(found, key=lambda name: (name.count("/"), name))
    return outermost.rpartition("/")[0]


def _below(root: str, path: Path, problems: Problems, max_unpacked_bytes: int) -> Iterator[tuple[str, Member]]:
    """The members inside the model's folder, each with its path in there."""
    start = f"{root}/" if root else ""
    for member in read_members(path, _container(path), problems, _limits(max_unpacked_bytes)):
        if member.name.startswith(start):
            yield member.name.removeprefix(start), member


def _check_config(member: Member, problems: Problems) -> None:
    try:
        config = json.loads(member.read(MAX_CONFIG_BYTES))
    except (ValueError, RecursionError) as error:
        problems.add(member.name, f"is not JSON: {error}")
        return
    if not isinstance(config, dict) or "model_type" not in config:
        problems.add(member.name, "names no model_type: it is not a Hugging Face model's")
    elif "auto_map" in config:
        problems.add(member.name, "needs Python code of its own (auto_map), which is never run here")
    else:
        for name, value in _absurd(config):
            problems.add(member.name, f"{name} is {value:,}: no model is that large")


def _absurd(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The sizes that would keep whoever builds such a network busy for ever."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _absurd(value)
        elif isinstance(value, int) and value > (MAX_LAYERS if "layer" in name else MAX_SIZE):
            yield name, value


def _check_weights(member: Member, problems: Problems) -> None:
    """Whether the file's header describes all of its content; whatever is no safetensors fails here."""
    with member.open() as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if length <= min(MAX_HEADER_BYTES, member.size - 8) else b""
    try:
        described = json.loads(header)
        ends = [tensor["data_offsets"][1] for name, tensor in described.items() if name != "__metadata__"]
        is_whole = max(ends, default=0) == member.size - 8 - length
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        is_whole = False
    if not is_whole:
        problems.add(member.name, "is not safetensors, whatever its name says, or it is cut short")


def _check_gguf(member: Member, problems: Problems) -> None:
    try:
        with member.open() as stream:
            check_gguf(stream, member.size)
    except ValueError as error:
        problems.add(member.name, str(error))


def _check_bare(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            check_gguf(stream, path.stat().st_size)
    except ValueError as error:
        raise InvalidData(f"the GGUF file {error}") from None


def _container(path: Path) -> Container:
    with path.open("rb") as file:
        if file.read(4).startswith(b"PK\x03\x04"):
            return "zip"
    with open_data(path) as stream:
        if is_tar(stream.read(1024)):
            return "tar"
    raise InvalidData("a base model is sent as a zip or tar of its folder, or as a GGUF file")


def _limits(max_unpacked_bytes: int) -> Limits:
    return Limits(unpacked_bytes=max_unpacked_bytes, members=MAX_MEMBERS)
