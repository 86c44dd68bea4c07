from __future__ import annotations

import gzip
import io
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import zstandard

from core.data.profile import Profile, inspect
from core.errors import InvalidData, TooLarge

FORMATS = [
    "csv",
    "quoted",
    "jsonl",
    "text",
    "npy",
    "npz",
    "parquet",
    "safetensors",
    "idx",
    "gzip",
    "zstd",
    "zip",
    "tar",
]
CSV = b"a,b,label\n" + b"1.5,2,x\n" * 20


def _sample(format, as_zip, as_tar, image):
    content = io.BytesIO()
    values = np.arange(60.0).reshape(20, 3)
    images = {f"{folder}/{kind}": image(90, format=kind) for folder in "ab" for kind in ("PNG", "JPEG", "GIF", "TIFF")}
    match format:
        case "npy":
            np.save(content, values)
        case "npz":
            np.savez_compressed(content, x=values, y=np.arange(20) % 3)
        case "parquet":
            pq.write_table(pa.table({"text": ["some words here", "two"], "label": [0, 1]}), content)
    return (
        content.getvalue()
        or {
            "csv": CSV,
            "quoted": b'text,label\n"a ""quoted"" word",1\n"two\nlines",2\n',
            "jsonl": b'{"text": "caf\\u00e9 au lait", "label": 1}\n' * 9,
            "text": "größere Worte\n\nund mehr\n".encode() * 9,
            "safetensors": safetensors.numpy.save({"x": values, "y": np.arange(20)}),
            "idx": b"\0\0\x08\3\0\0\0\2\0\0\0\3\0\0\0\4" + bytes(range(24)),
            "gzip": gzip.compress(CSV),
            "zstd": zstandard.compress(CSV),
            "zip": as_zip(images),
            "tar": as_tar(images),
        }[format]
    )


def _mutated(content, chosen):
    changed = bytearray(content)
    for _ in range(chosen.choice([1, 2, 8])):
        place = chosen.randrange(min(len(changed), chosen.choice([100, 10**6])) + 1)
        match chosen.randrange(4):
            case 0:
                changed[place : place + 1] = bytes([chosen.randrange(256)])
            case 1:
                changed[place : place + 4] = chosen.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
            case 2:
                del changed[place : place + chosen.choice([1, 8, 100])]
            case 3:
                changed[place:place] = changed[: chosen.choice([1, 10, 200])]
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")  # Pillow and NumPy warn of what they mend
@pytest.mark.parametrize("format", FORMATS)
def test_whatever_the_bytes_there_is_a_profile_or_a_clear_error(format, write, as_zip, as_tar, image):
    sample = _sample(format, as_zip, as_tar, image)
    path = write(sample)
    assert inspect(path).examples
    chosen = random.Random(format)
    for _ in range(60):
        path.write_bytes(_mutated(sample, chosen))
        try:
            assert isinstance(inspect(path), Profile)
        except (InvalidData, TooLarge) as error:
            str(error.as_dict()).encode()


def test_what_reads_uploads_is_light() -> None:
    """It waits beside every API process, and makes no tensors."""
    code = "import sys, core.inspecting, core.data.inspection; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"torch", "transformers", "sqlalchemy", "fastapi"} & set(done.stdout.split())
