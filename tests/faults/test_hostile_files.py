"""Whatever file is sent: a clear refusal, bounded time and memory, nothing stored, and an API that still answers."""

from __future__ import annotations

import gzip
import os
import pickle
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pytest
import zstandard

from tests.api.service import Service, new_project, upload, wait_for
from tests.faults import hostile_files as made
from tests.faults.limited import MIB, SECONDS, limited, undisturbed


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    with limited(tmp_path_factory.mktemp("hostile"), redis_url) as service:
        yield service


@pytest.fixture(scope="module")
def http(service: Service) -> Iterator[httpx.Client]:
    with service.client(new_project(service)) as client:
        upload(client)
        yield client


Made = Callable[[], bytes]
PICTURE = made.image()


def tar_bomb() -> bytes:
    return gzip.compress(made.as_tar({"a.png": bytes(70 * MIB)}), 6)


ARCHIVES: dict[str, tuple[Made, str]] = {
    "zip: a path that leads out": (lambda: made.as_zip({"../../a.png": PICTURE}), "leads out of the archive"),
    "zip: an absolute path": (lambda: made.as_zip({"/etc/a.png": PICTURE}), "leads out of the archive"),
    "zip: a link": (made.zip_link, "a link or a device"),
    "zip: encrypted": (made.encrypted, "without a password"),
    "zip: a bomb": (lambda: made.as_zip({"a.png": bytes(70 * MIB)}), "archive bombs"),
    "zip: a bomb of overlapping members": (
        lambda: made.zip_of_many(5000, size=60 * MIB),
        "over 274,877,906,944 bytes",
    ),
    "zip: over 10^6 members": (lambda: made.zip_of_many(10**6 + 1), "over 1,000,000 members"),
    "zip: 10^6 members": (lambda: made.zip_of_many(10**6), "MiB of memory"),
    "zip: in a zip": (lambda: made.as_zip({"a": made.as_zip({"a.png": PICTURE})}), "within the archive"),
    "zip: truncated": (lambda: made.as_zip({"a.png": PICTURE})[:-30], "cut short"),
    "tar: a path that leads out": (lambda: made.as_tar({"../a.png": PICTURE}), "leads out of the archive"),
    "tar: an absolute path": (lambda: made.as_tar({"/etc/a.png": PICTURE}), "leads out of the archive"),
    **{
        f"tar: {name}": (lambda kind=kind: made.tar_link(kind), "a link or a device")
        for name, kind in {
            "a link": tarfile.SYMTYPE,
            "a hard link": tarfile.LNKTYPE,
            "a device": tarfile.CHRTYPE,
            "a pipe": tarfile.FIFOTYPE,
        }.items()
    },
    "tar: a bomb": (tar_bomb, "archive bombs"),
    "tar: 10^6 members": (lambda: made.tar_of_many(10**6 + 1), "a: no member is an image"),
    "tar: long names for ever": (lambda: made.tar_of_long_names(3000), "damaged"),
    "tar: truncated": (lambda: made.as_tar({"a.png": PICTURE})[:600], "cut short"),
    "tar: in a tar": (lambda: made.as_tar({"a": made.as_tar({"a.png": PICTURE})}), "within the archive"),
    "gzip: a bomb": (lambda: gzip.compress(b"1,2\n" * (18 * MIB), 6), "over 200 times its size"),
    "gzip: truncated": (lambda: gzip.compress(os.urandom(3000))[:-9], "cut short"),
    "gzip: twice": (lambda: gzip.compress(gzip.compress(b"1,2\n")), "compressed twice"),
    "zstd: a bomb": (lambda: zstandard.compress(b"1,2\n" * (18 * MIB)), "over 200 times its size"),
    "zstd: asks for a large window": (lambda: b"\x28\xb5\x2f\xfd\0\xff" + bytes(100), "zstd stream is damaged"),
    "zstd: truncated": (lambda: zstandard.compress(b"1,2\n" * 9999)[:-9], "cut short"),
}
DATA: dict[str, tuple[Made, str]] = {
    "pickle": (lambda: pickle.dumps(made.Evil()), "a pickle, which can run code"),
    "pickle in text": (lambda: pickle.dumps({"a": made.Evil()}, 0), "a pickle, which can run code"),
    "pickle of PyTorch": (made.torch_file, "a pickle, which can run code"),
    "pickle called a picture": (lambda: made.as_zip({"a.png": pickle.dumps([1])}), "a.png: a pickle"),
    "npy: objects": (lambda: made.npy(np.array([made.Evil()]), allow_pickle=True), "pickles and never loaded"),
    "npz: objects": (lambda: made.npz(x=np.array([[{}]], dtype=object)), "pickles and never loaded"),
    "npy: a huge header": (lambda: made.npy_with_header(b"(" + b"1," * MIB + b")"), "NumPy header cannot be read"),
    "npy: a deep header": (lambda: made.npy_with_header(b"(" * 9000), "NumPy header cannot be read"),
    "npy: lies about its length": (
        lambda: made.npy_with_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000, 9)}"),
        "promises 360,000,000,000 bytes",
    ),
    "npy: words": (lambda: made.npy(np.array([["a", "b"]])), "is not numeric"),
    "npy: complex numbers": (lambda: made.npy(np.ones((2, 2), complex)), "is not numeric"),
    "npy: not finite": (lambda: made.npy(np.array([[1.0, np.nan], [np.inf, 0]])), "row 1"),
    "csv: not a number": (lambda: b"a,b\n1,2\n3,nan\n", "line 3"),
    "csv: infinite": (lambda: b"a,b\n1,2\n3,-inf\n", "line 3"),
    "csv: ragged": (lambda: b"a,b\n1,2\n3\n", "line 3"),
    "csv: words for numbers": (lambda: b"a,b\n1,2\n3,x\n4,5\n", "line 3"),
    "csv: not UTF-8": (lambda: b"a,b\n1,2\n3,\xff\n4,5\n", "line 3"),
    "csv: a nul": (lambda: b"a,b\n1,2\n3,\0\n4,5\n", "line 3"),
    "text: not UTF-8": (lambda: b"good words\nbad \xff words\n" * 3, "line 2"),
    "text: a nul": (lambda: b"good words\nbad \0 words\n", "line 2"),
    "text: a line of 100 MB": (lambda: b"".join(made.long_line(100 * MIB)), "line 1: longer than 64 MiB"),
    "json: deep": (lambda: b'{"a": ' + b"[" * 10**6 + b"\n", "nested too deeply"),
    "json: NaN": (lambda: b'{"a": NaN}\n', "line 1"),
    "json: a number of 10^6 digits": (lambda: b'{"a": ' + b"1" * 10**6 + b"}\n", "line 1"),
    "json: ten million lists in a line": (lambda: b'{"a": [' + b"[]," * (10 * MIB) + b"1]}\n", "MiB of memory"),
    "json: too many names": (
        lambda: b"{" + b",".join(b'"a name that is rather long %d":1' % i for i in range(300_000)) + b"}\n",
        "too many, or too long",
    ),
    "image: claims 10^9 pixels": (lambda: made.as_zip({"a.png": made.png_claiming(31_623, 31_623)}), "a.png: claims"),
    "image: a comment that unpacks": (lambda: made.as_zip({"a.png": made.png_text_bomb()}), "a.png: is not an image"),
    "image: broken": (lambda: made.as_zip({"a.png": PICTURE[:40]}), "a.png: "),
    "wav: lies about its length": (lambda: made.as_zip({"a.wav": made.wav_claiming(2**31)}), "a.wav: its header"),
    "wav: cut": (lambda: made.as_zip({"a.wav": made.recording()[:30]}), "a.wav: its header"),
    "idx: lies about its length": (lambda: made.idx(60_000, 28, 28), "promises 47,040,000 bytes"),
    "safetensors: a header that is not there": (lambda: made.safetensors_file({}, length=2**39), "safetensors header"),
    "safetensors: a deep header": (lambda: made.safetensors_file(b'{"a":' + b"[" * 10**6), "safetensors header"),
    "safetensors: values beyond the end": (lambda: made.safetensors_file(made.tensor([99, 9], 0, 3564)), "cut short"),
    "safetensors: lies about its shape": (lambda: made.safetensors_file(made.tensor([9, 9], 0, 16)), "promises"),
    "safetensors: less than nothing": (lambda: made.safetensors_file(made.tensor([-2, -2], 0, 16)), "promises"),
    "parquet: cut": (lambda: made.parquet(pa.table({"a": [1.0]}))[:-20], "Parquet file is damaged"),
    "parquet: not finite": (lambda: made.parquet(pa.table({"a": [1.0, float("nan")]})), "row 2"),
    "parquet: a text that is meant often": (lambda: made.parquet_of_one_long_text(1000), "MiB of memory"),
    "parquet: texts that share their beginnings": (lambda: made.parquet_of_shared_beginnings(250), "MiB of memory"),
    "nothing known": (lambda: os.urandom(3000), "format is not known"),
    "blanks": (lambda: b"\n" * (40 * MIB), "empty"),
}


@pytest.mark.parametrize("name", [*ARCHIVES, *DATA])
def test_a_hostile_file_is_refused(service: Service, http: httpx.Client, name: str) -> None:
    write, words = {**ARCHIVES, **DATA}[name]
    content = write()
    with undisturbed(service):
        answer = http.post("/v1/files", files={"file": ("innocent.csv", content)}, timeout=SECONDS)
    assert answer.status_code in (413, 422), answer.text
    error = answer.json()["error"]
    assert words in error["message"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "file")
    assert [file["filename"] for file in http.get("/v1/files").json()["data"]] == ["table.csv"]
    assert not Path("/tmp/weightworks-was-here").exists()


def model(**changes: bytes | None) -> bytes:
    members = {"m/config.json": b'{"model_type": "bert"}', "m/model.safetensors": made.safetensors_file({}, b"")}
    return made.as_zip({name: value for name, value in {**members, **changes}.items() if value is not None})


MODELS: dict[str, tuple[Made, str]] = {
    "pickled weights": (lambda: model(**{"m/pytorch_model.bin": pickle.dumps(made.Evil())}), "pickled weights"),
    "pickled weights called safetensors": (
        lambda: model(**{"m/model.safetensors": pickle.dumps(made.Evil())}),
        "is not safetensors",
    ),
    "no weights": (lambda: model(**{"m/model.safetensors": None}), "save the model with safetensors"),
    "code of its own": (
        lambda: model(**{"m/config.json": b'{"model_type": "x", "auto_map": {"AutoModel": "m.M"}}'}),
        "never run here",
    ),
    "a path that leads out": (lambda: model(**{"m/../../x.json": b"{}"}), "leads out of the archive"),
    "absurd sizes": (
        lambda: model(**{"m/config.json": b'{"model_type": "bert", "num_hidden_layers": 1000000000}'}),
        "num_hidden_layers",
    ),
    "weights of a deep header": (
        lambda: model(**{"m/model.safetensors": made.safetensors_file(b'{"a":' + b"[" * 10**6)}),
        "is not safetensors",
    ),
    "a bomb": (lambda: model(**{"m/a.json": bytes(70 * MIB)}), "archive bombs"),
    "a single file of weights": (lambda: made.safetensors_file({}, b""), "sent as a zip or tar"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_hostile_model_is_refused(service: Service, http: httpx.Client, name: str) -> None:
    write, words = MODELS[name]
    content = write()
    with undisturbed(service):
        answer = http.post("/v1/files", files={"file": ("m.zip", content)}, data={"purpose": "base-model"})
    assert answer.status_code in (413, 422), answer.text
    assert words in answer.json()["error"]["message"]
    assert http.get("/v1/models").json()["data"] == []
    assert not Path("/tmp/weightworks-was-here").exists()


def readers(service: Service) -> list[psutil.Process]:
    return service.api.process.children(recursive=True)


def test_a_reader_that_ends_without_a_word_ends_only_its_upload(service: Service, http: httpx.Client) -> None:
    content = b'a,b\n"' + b"x\n" * (4 * MIB)
    (server,) = readers(service)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(http.post, "/v1/files", files={"file": ("a.zip", content)}, timeout=SECONDS)
        wait_for(lambda: [reader for reader in readers(service) if reader.pid != server.pid])[0].kill()
        refused = asked.result()
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "too_demanding")
    server.kill()
    wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    with service.client(new_project(service)) as other:
        assert upload(other)["kind"] == "table"
