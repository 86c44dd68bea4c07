from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch

from core.data.profile import Kind, Profile
from core.data.recognise import is_pickle, recognise


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/never", "w"))


PICKLED = {
    "dict": {"a": 1},
    "list": [1, 2, 3],
    "code": Evil(),
    "array": np.ones(3),
    "long list": list(range(300_000)),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", PICKLED)
def test_pickles_are_refused_under_any_name(kind, protocol, write, told):
    (problem,) = told(write(pickle.dumps(PICKLED[kind], protocol)))
    assert problem.startswith("a pickle, which can run code")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_save_are_refused(zipped, write, told):
    content = io.BytesIO()
    torch.save({"x": torch.ones(3)}, content, _use_new_zipfile_serialization=zipped)
    assert "a pickle" in told(write(content.getvalue()))[0]


def test_pickles_within_archives_are_refused(write, as_zip, as_tar, image, told):
    for pack in (as_zip, as_tar):
        assert told(write(pack({"a.npy": pickle.dumps([1, 2])})))[0].startswith("a.npy: a pickle")
        assert told(write(pack({"a.png": image(), "b.png": pickle.dumps([1, 2])})))[0].startswith(
            "b.png: is not an image"
        )


@pytest.mark.parametrize("text", [b"cat\ndog\n", b"(a)\n", b"c\n", b"]", b"control\nfreak\n."])
def test_words_are_no_pickle(text):
    assert not is_pickle(text, is_whole=True)


FORMATS = {
    "csv": b"a,b\n1,2\n",
    "tsv": b"a\tb\n1\t2\n",
    "jsonl": b' {"a": 1}\n',
    "text": b"a few words\n",
    "npy": b"\x93NUMPY\1\0",
    "idx": b"\0\0\x08\3\0\0\0\1",
    "parquet": b"PAR1....",
    "safetensors": b"\x10\0\0\0\0\0\0\0{}",
}


@pytest.mark.parametrize("format", FORMATS)
def test_formats_are_known_by_their_bytes(format, write):
    assert recognise(write(FORMATS[format])).format == format


@pytest.mark.parametrize(
    "magic", [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a", b"%PDF-1.7", b"\x89HDF\r\n", b"\xfd7zXZ\0", b"ARROW1\0"]
)
def test_other_formats_are_named_with_their_cure(magic, write, told):
    assert ":" in told(write(magic + bytes(50)))[0]


def test_profiles_survive_json():
    profile = Profile(Kind.IMAGES, "npz", 3, ("a",), {"2": 1, "10": 2}, (1, 2, 3))
    value = profile.as_dict()
    assert value["kind"] == "images"
    value["classes"] = {"10": 2, "2": 1}  # as a database may give them back
    again = Profile.from_dict(value)
    assert again == profile
    assert list(again.classes) == ["2", "10"]
    assert Profile.from_dict(Profile(Kind.TEXT, "text", 1).as_dict()) == Profile(Kind.TEXT, "text", 1)


def test_empty(write, told):
    assert told(write(b"")) == ["the file is empty"]
