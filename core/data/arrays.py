"""Arrays in files: NumPy's .npy and .npz, safetensors, and the IDX files of MNIST, alone or in an archive."""

from __future__ import annotations

import io
import json
import math
import struct
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from core.data.archives import Container, open_member, read_members
from core.data.compression import DEFAULT_LIMITS, Limits, open_seekable
from core.data.problems import Problems
from core.errors import InvalidData, Problem

FEATURE_NAMES = ("x", "data", "features", "images", "pixels", "inputs", "x_train", "train_images")
LENGTHS_NAME = "lengths"  # of sequences whose rows lie one after another
ARRAY_LABEL_NAMES = ("y", "labels", "label", "target", "targets", "y_train", "train_labels")
_MAX_HEADER_BYTES = 16 * 2**20
_BLOCK_BYTES = 4 * 2**20
# what NumPy's parser of headers, Python's own, raises
_BROKEN_HEADER = (ValueError, KeyError, SyntaxError, RecursionError, MemoryError, TypeError, tokenize.TokenError)
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_SAFETENSORS_TYPES = {
    "BOOL": "?", "U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2",
}  # fmt: skip


Opener = Callable[[int], AbstractContextManager[BinaryIO]]  # a stream that stands so many bytes after its beginning


@dataclass(frozen=True)
class StoredArray:
    """An array that lies in a file; `open` gives a stream that stands at its first value."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    open: Callable[[], AbstractContextManager[BinaryIO]]
    is_fortran: bool = False
    is_bfloat16: bool = False

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """How many bytes the values take in the file."""
        return math.prod(self.shape) * self.dtype.itemsize

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """The values, a few megabytes of rows at a time."""
        row_bytes = max(1, self.nbytes // max(1, len(self)))
        rows = max(1, _BLOCK_BYTES // row_bytes)
        with self.open() as stream:
            whole = self._columns(stream) if self.is_fortran else None
            for start in range(0, len(self), rows):
                stop = min(len(self), start + rows)
                yield self._decoded(self._rows(stream, stop - start) if whole is None else whole[start:stop])

    def _rows(self, stream: BinaryIO, rows: int) -> npt.NDArray[Any]:
        shape = (rows, *self.shape[1:])
        content = np.empty(math.prod(shape) * self.dtype.itemsize, np.uint8)
        filled = _read_into(stream, content)
        return self._whole(content[:filled], math.prod(shape)).view(self.dtype).reshape(shape)

    def _columns(self, stream: BinaryIO) -> npt.NDArray[Any]:
        """An array in Fortran's order, mapped where it is a plain file."""
        try:
            stream.fileno()
        except io.UnsupportedOperation:
            content = np.frombuffer(stream.read(self.nbytes), np.uint8)
            return self._whole(content, math.prod(self.shape)).view(self.dtype).reshape(self.shape, order="F")
        return np.memmap(stream, dtype=self.dtype, mode="r", offset=stream.tell(), shape=self.shape, order="F")

    def _whole(self, content: npt.NDArray[np.uint8], values: int) -> npt.NDArray[np.uint8]:
        if len(content) < values * self.dtype.itemsize:
            raise InvalidData(Problem(self.name, "cut short: the header promises more values"))
        return content

    def _decoded(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return (values.astype(np.uint32) << 16).view(np.float32) if self.is_bfloat16 else values


def _read_into(stream: BinaryIO, content: npt.NDArray[np.uint8]) -> int:
    """Fill the array as far as the stream goes; answers how far that is."""
    filled = 0
    reader = cast(io.BufferedIOBase, stream)
    while filled < len(content) and (count := reader.readinto(content[filled:].data)):
        filled += count
    return filled


@dataclass(frozen=True)
class ArraySet:
    """The array to learn from and, where there is one, its labels, one for each row, or each sequence of rows."""

    format: str
    features: StoredArray
    labels: StoredArray | None = None
    lengths: StoredArray | None = None  # the rows are those of so many sequences, one after another


def open_arrays(
    path: Path,
    format: str,
    *,
    container: Container | None = None,
    label: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> ArraySet:
    """The arrays of such a file; raises InvalidData where names, types or sizes do not fit."""
    if format == "npz":
        return _paired(format, _npz_arrays(path, limits), label)
    if format == "safetensors":
        return _paired(format, _safetensors_arrays(path, limits), label)
    if container is not None:
        return _idx_pair(_idx_members(path, container, limits))
    if label is not None:
        raise InvalidData(f"a single array has no column {label!r}: send an .npz with x and y, or a table with names")
    with open_seekable(path, limits) as stream:
        read = _read_npy if format == "npy" else _read_idx
        array = read(stream, "the array", _size(stream), partial(_open_file, path, limits))
    return _checked(ArraySet(format, array))


def _size(stream: BinaryIO) -> int:
    size = stream.seek(0, 2)
    stream.seek(0)
    return size


def _read_npy(stream: BinaryIO, name: str, size: int, open_at: Opener) -> StoredArray:
    """The array behind NumPy's header, of which only numbers and words pass."""
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, is_fortran, dtype = read(stream)
    except _BROKEN_HEADER as error:
        raise InvalidData(Problem(name, f"its NumPy header cannot be read: {error!s:.100}")) from error
    if dtype.hasobject:
        raise InvalidData(Problem(name, "holds Python objects, which are pickles and never loaded: save it as numbers"))
    offset = stream.tell()
    array = StoredArray(name, shape, dtype, partial(open_at, offset), is_fortran=is_fortran and len(shape) > 1)
    return _sized(array, size - offset)


@contextmanager
def _open_file(path: Path, limits: Limits, offset: int) -> Iterator[BinaryIO]:
    with open_seekable(path, limits) as stream:
        stream.seek(offset)
        yield stream


@contextmanager
def _open_member(path: Path, container: Container, name: str, limits: Limits, offset: int) -> Iterator[BinaryIO]:
    with open_member(path, container, name, limits) as stream:
        stream.read(offset)  # a tar that is compressed cannot seek
        yield stream


def _sized(array: StoredArray, available: int) -> StoredArray:
    """The array, once its header and its bytes agree."""
    if any(length < 0 for length in array.shape) or array.nbytes != available:
        raise InvalidData(
            Problem(array.name, f"its header promises {array.nbytes:,} bytes of values; there are {available:,}")
        )
    return array


def _npz_arrays(path: Path, limits: Limits) -> dict[str, StoredArray]:
    found = {}
    problems = Problems()
    for member in read_members(path, "zip", problems, limits):
        opener = partial(_open_member, path, "zip", member.name, limits)
        try:
            with member.open() as stream:
                found[member.name.removesuffix(".npy")] = _read_npy(stream, member.name, member.size, opener)
        except InvalidData as error:
            problems.extend(error.problems)
    problems.check()
    return found


def _safetensors_arrays(path: Path, limits: Limits) -> dict[str, StoredArray]:
    with open_seekable(path, limits) as stream:
        size = _size(stream)
        (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
        if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
            raise InvalidData("the safetensors header is cut short or too long")
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            return {name: _tensor(path, name, entry, 8 + length, size, limits) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidData(f"the safetensors header cannot be read: {error!s:.100}") from error


def _tensor(path: Path, name: str, entry: Mapping[str, Any], base: int, size: int, limits: Limits) -> StoredArray:
    if entry["dtype"] not in _SAFETENSORS_TYPES:
        raise InvalidData(Problem(name, f"type {entry['dtype']} cannot be read: use F32, I64 or U8"))
    start, end = map(int, entry["data_offsets"])
    shape = tuple(map(int, entry["shape"]))
    if not 0 <= start <= end <= size - base:
        raise InvalidData(Problem(name, "cut short: its values lie beyond the end of the file"))
    opener = partial(_open_file, path, limits, base + start)
    dtype = np.dtype(_SAFETENSORS_TYPES[entry["dtype"]])
    return _sized(StoredArray(name, shape, dtype, opener, is_bfloat16=entry["dtype"] == "BF16"), end - start)


def is_idx(head: bytes) -> bool:
    """Whether these bytes begin an IDX file."""
    return len(head) >= 8 and head[:2] == b"\0\0" and head[2] in _IDX_TYPES and 1 <= head[3] <= 4


def _read_idx(stream: BinaryIO, name: str, size: int, open_at: Opener) -> StoredArray:
    head = stream.read(4)
    if not is_idx(head + bytes(4)):
        raise InvalidData(Problem(name, "not an IDX file"))
    offset = 4 + 4 * head[3]
    shape = struct.unpack(f">{head[3]}I", stream.read(4 * head[3]).ljust(4 * head[3], b"\0"))
    return _sized(StoredArray(name, shape, np.dtype(_IDX_TYPES[head[2]]), partial(open_at, offset)), size - offset)


def _idx_members(path: Path, container: Container, limits: Limits) -> dict[str, StoredArray]:
    found = {}
    problems = Problems()
    for member in read_members(path, container, problems, limits):
        opener = partial(_open_member, path, container, member.name, limits)
        try:
            with member.open() as stream:
                found[member.name] = _read_idx(stream, member.name, member.size, opener)
        except InvalidData as error:
            problems.extend(error.problems)
    problems.check()
    return found


def _idx_pair(found: Mapping[str, StoredArray]) -> ArraySet:
    """The images and the labels; of several pairs, as MNIST has, the one called train."""
    images = {name: array for name, array in found.items() if len(array.shape) > 1}
    labels = {name: array for name, array in found.items() if len(array.shape) == 1}
    if len(images) > 1:
        images, labels = ({name: array for name, array in each.items() if "train" in name} for each in (images, labels))
    if len(images) != 1 or len(labels) > 1:
        raise InvalidData(f"expected one IDX file of images and one of labels; there are {_listed(list(found))}")
    return _checked(ArraySet("idx", *images.values(), *labels.values()))


def _paired(format: str, found: Mapping[str, StoredArray], label: str | None) -> ArraySet:
    """The features and the labels by their usual names; a single array is the features."""
    by_name = {name.lower(): array for name, array in found.items()}
    if label is not None and label not in found:
        raise InvalidData(f"there is no array {label!r}; there are {_listed(list(found))}")
    labels = found[label] if label else next((by_name[name] for name in ARRAY_LABEL_NAMES if name in by_name), None)
    features = next((by_name[name] for name in FEATURE_NAMES if name in by_name), None)
    lengths = by_name.get(LENGTHS_NAME)
    others = [array for array in found.values() if array is not labels and array is not lengths]
    if features is None and len(others) == 1:
        features = others[0]
    if features is None:
        raise InvalidData(
            f"no array is called {_listed(FEATURE_NAMES[:4])}; there are {_listed(list(found)) or 'none'}"
        )
    return _checked(ArraySet(format, features, labels, lengths))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (" ..." if len(names) > 10 else "")


def _checked(arrays: ArraySet) -> ArraySet:
    """The arrays, once their types and shapes can be learned from."""
    features, labels = arrays.features, arrays.labels
    if features.dtype.kind not in "biuf":
        raise InvalidData(Problem(features.name, f"type {features.dtype} is not numeric: save it as float32 or uint8"))
    if not 2 <= len(features.shape) <= 4:
        cure = "a table has two (rows, columns), images three or four (images, height, width, channels)"
        raise InvalidData(Problem(features.name, f"{len(features.shape)} dimensions: {cure}"))
    if 0 in features.shape:
        raise InvalidData(Problem(features.name, f"empty: its shape is {features.shape}"))
    if arrays.lengths is not None:
        _check_lengths(arrays.lengths, features)
    if labels is not None:
        _check_labels(labels, len(features if arrays.lengths is None else arrays.lengths))
    return arrays


def _check_lengths(lengths: StoredArray, features: StoredArray) -> None:
    if lengths.dtype.kind not in "iu" or len(lengths.shape) != 1:
        raise InvalidData(Problem(lengths.name, "must be one whole number a sequence: how many rows it has"))
    if len(features.shape) != 2:
        cure = "with lengths, the rows of all sequences lie one after another, as [rows, features]"
        raise InvalidData(Problem(features.name, f"{len(features.shape)} dimensions: {cure}"))
    values = np.concatenate(list(lengths.blocks())).astype(np.int64)
    if (values < 1).any() or (values > len(features)).any() or values.sum() != len(features):
        raise InvalidData(
            Problem(lengths.name, f"must be positive and sum up to the {len(features):,} rows, not {values.sum():,}")
        )


def _check_labels(labels: StoredArray, count: int) -> None:
    if labels.dtype.kind not in "biufUS":
        raise InvalidData(Problem(labels.name, f"type {labels.dtype} cannot hold labels: use whole numbers or words"))
    if labels.shape not in ((count,), (count, 1)):
        raise InvalidData(Problem(labels.name, f"its shape is {labels.shape}; {count:,} rows need ({count},)"))


def label_values(array: StoredArray) -> Iterator[list[object]]:
    """The labels, a block at a time, as Python's numbers and strings."""
    for block in array.blocks():
        values = block.reshape(-1)
        yield (np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values).tolist()
