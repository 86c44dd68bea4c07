from __future__ import annotations

import gzip
import io
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch
import zstandard
from PIL import Image

from core.data.images import read_images
from core.data.profile import Kind, inspect
from core.errors import InvalidData, TooLarge

PIXELS = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4) * 10
COLOURS = np.stack([PIXELS, PIXELS + 1, PIXELS + 2], axis=-1)


def _npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _npz(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def _idx(array):
    codes = {"u1": 8, "i4": 12}
    head = bytes([0, 0, codes[array.dtype.str[1:]], array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def _png_that_claims(width, height):
    def chunk(name, content):
        return struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))

    header = struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


ARRAYS = {
    "npy": _npy(PIXELS),
    "npy of one channel": _npy(PIXELS[..., None]),
    "npy, channels first": _npy(PIXELS[:, None]),
    "npy in Fortran's order": _npy(np.asfortranarray(PIXELS)),
    "npy of integers": _npy(PIXELS.astype(np.int64)),
    "npy of floats to 255": _npy(PIXELS.astype(np.float32)),
    "npy of floats to 1": _npy(PIXELS / 255),
    "npz": _npz(images=PIXELS),
    "safetensors": safetensors.numpy.save({"images": PIXELS}),
    "idx3": _idx(PIXELS),
    "idx3 in gzip": gzip.compress(_idx(PIXELS)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_grey_images(name, write):
    path = write(ARRAYS[name])
    images = read_images(path)
    assert images.pixels.dtype == torch.uint8
    assert images.pixels.tolist() == PIXELS[:, None].tolist()
    assert images.labels is None
    profile = inspect(path)
    assert (profile.kind, profile.examples, profile.shape) == (Kind.IMAGES, 2, (1, 3, 4))


@pytest.mark.parametrize("array", [COLOURS, COLOURS.transpose(0, 3, 1, 2)])
def test_arrays_of_coloured_images(array, write):
    assert read_images(write(_npy(array))).pixels.tolist() == COLOURS.transpose(0, 3, 1, 2).tolist()
    assert inspect(write(_npy(array))).shape == (3, 3, 4)


def test_bits_are_black_and_white(write):
    assert read_images(write(_npy(PIXELS > 50))).pixels.unique().tolist() == [0, 255]


def test_mnist_as_an_archive_of_idx_files(write, as_zip, as_tar):
    members = {
        "t10k-images-idx3-ubyte": _idx(PIXELS[:1]),
        "train-labels-idx1-ubyte": _idx(np.array([7, 3], np.uint8)),
        "train-images-idx3-ubyte": _idx(PIXELS),
        "t10k-labels-idx1-ubyte": _idx(np.array([1], np.uint8)),
    }
    for content in (as_zip(members), as_tar(members), gzip.compress(as_tar(members))):
        images = read_images(write(content))
        assert images.pixels.tolist() == PIXELS[:, None].tolist()
        assert images.labels.tolist() == [1, 0]
        assert images.class_names == ("3", "7")
        profile = inspect(write(content))
        assert (profile.format, profile.examples, profile.classes) == ("idx", 2, {"3": 1, "7": 1})


FOLDERS = ("cat/2.png", "cat/10.png", "dog/1.png")


@pytest.mark.parametrize("root", ["", "./", "data/", "a/b/"])
@pytest.mark.parametrize("container", ["zip", "tar", "tar.gz", "tar.zst", "zip.gz"])
def test_a_folder_for_each_class(root, container, write, as_zip, as_tar, image):
    members = {root + name: image(index * 10) for index, name in enumerate(FOLDERS)}
    members |= {"__MACOSX/._1.png": b"x", ".DS_Store": b"x", root + "cat/.hidden": b"x", "cat/Thumbs.db": b"x"}
    content = (as_zip if "zip" in container else as_tar)(members)
    content = {"gz": gzip.compress, "zst": zstandard.compress}.get(container[4:], bytes)(content)
    images = read_images(write(content))
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 10, 20]
    assert images.labels.tolist() == [0, 0, 1]
    assert images.class_names == ("cat", "dog")
    profile = inspect(write(content))
    assert (profile.kind, profile.format, profile.shape) == (Kind.IMAGES, "image_archive", (1, 4, 6))
    assert profile.classes == {"cat": 2, "dog": 1}


def test_no_folders_no_labels_and_one_folder_one_class(write, as_zip, image):
    flat = write(as_zip({"1.png": image(), "2.png": image()}))
    assert read_images(flat).labels is None
    assert inspect(flat).classes is None
    single = write(as_zip({"cat/1.png": image(), "cat/2.png": image()}))
    assert read_images(single).labels.tolist() == [0, 0]
    assert inspect(single).classes == {"cat": 2}


def test_folders_within_a_class_and_classes_that_are_numbers(write, as_zip, image):
    path = write(as_zip({"10/a/1.png": image(), "9/1.png": image(), "10/2.png": image()}))
    images = read_images(path)
    assert images.class_names == ("9", "10")
    assert images.labels.tolist() == [1, 0, 1]


def test_huggingface_parquet(write, image):
    table = {"image": [{"bytes": image(5), "path": "1.png"}, {"bytes": image(7), "path": None}], "label": [1, 0]}
    content = io.BytesIO()
    pq.write_table(pa.table(table), content)
    images = read_images(write(content.getvalue()))
    assert images.pixels[:, 0, 0, 0].tolist() == [5, 7]
    assert images.labels.tolist() == [1, 0]
    assert inspect(write(content.getvalue())).classes == {"0": 1, "1": 1}


def test_parquet_of_bytes_without_labels(write, image, told):
    content = io.BytesIO()
    pq.write_table(pa.table({"image": [image(5), image(6)]}), content)
    assert read_images(write(content.getvalue())).labels is None
    pq.write_table(pa.table({"image": [image(5), None, b"no"]}), content := io.BytesIO())
    assert told(write(content.getvalue())) == [
        "row 2: is empty",
        "row 3: is not an image, or a broken one (PNG, JPEG, GIF, BMP, TIFF, WebP)",
    ]


def test_channels(write, as_zip, image):
    mixed = write(as_zip({"1.png": image(9), "2.png": image((0, 255, 0), mode="RGB")}))
    assert inspect(mixed).shape == (3, 4, 6)
    assert read_images(mixed).pixels[:, :, 0, 0].tolist() == [[9, 9, 9], [0, 255, 0]]
    assert read_images(mixed, channels=1).pixels[:, :, 0, 0].tolist() == [[9], [150]]
    assert read_images(write(_npy(PIXELS)), channels=3).pixels[0, :, 0, 1].tolist() == [10, 10, 10]
    assert read_images(write(_npy(COLOURS)), channels=1).pixels.shape == (2, 1, 3, 4)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_of_pixels(mode, write, as_zip, image):
    format = "TIFF" if mode == "CMYK" else "PNG"
    deep = np.full((4, 6), 0x8000, np.uint16) if mode == "I;16" else None
    content = image(mode=mode, format=format, pixels=deep)
    images = read_images(write(as_zip({"1": content})))
    assert images.pixels.shape == (1, 1 if mode in ("1", "L", "LA", "I;16") else 3, 4, 6)
    assert mode != "I;16" or images.pixels.unique().tolist() == [128]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_every_format_of_images(format, write, as_zip, image):
    path = write(as_zip({"1": image((200, 10, 10), mode="RGB", format=format)}))
    assert np.allclose(read_images(path).pixels[0, :, 0, 0].numpy(), [200, 10, 10], atol=3)
    assert inspect(path).shape == (3, 4, 6)


def test_sizes(write, as_zip, image):
    path = write(as_zip({"1.png": image(9), "2.png": image(200, size=(5, 5))}))
    assert inspect(path).shape is None
    with pytest.raises(InvalidData, match=r"'1.png' is 6x4 pixels, '2.png' is 5x5\): set image_size"):
        read_images(path)
    images = read_images(path, size=(2, 3))
    assert images.pixels.shape == (2, 1, 2, 3)
    assert images.pixels[:, 0, 0, 0].tolist() == [9, 200]
    assert read_images(path, size=8).pixels.shape == (2, 1, 8, 8)
    assert read_images(write(_npy(COLOURS)), size=5).pixels.shape == (2, 3, 5, 5)
    with pytest.raises(TooLarge, match="set a smaller image_size"):
        read_images(path, size=2**20)


def test_resizing_is_pillows(write, as_zip, image):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 12), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((5, 7), Image.Resampling.BILINEAR))
    assert np.array_equal(read_images(write(as_zip({"1": image(pixels=pixels)})), size=(7, 5)).pixels[0, 0], expected)
    assert np.array_equal(read_images(write(_npy(pixels[None])), size=(7, 5)).pixels[0, 0], expected)


BROKEN = {
    "truncated png": (lambda image: image(size=(200, 200), pixels=None)[:-30], "cannot be decoded"),
    "truncated jpeg": (lambda image: image(size=(200, 200), format="JPEG")[:-300], "cannot be decoded"),
    "no image": (lambda image: b"these are words", "is not an image, or a broken one"),
    "empty": (lambda image: b"", "is empty"),
    "50 million pixels": (lambda image: _png_that_claims(8000, 6251), "claims 8000x6251 pixels"),
    "100 million pixels": (lambda image: _png_that_claims(10_000, 10_000), "claims more than 50,000,000 pixels"),
    "a billion pixels": (lambda image: _png_that_claims(100_000, 10_000), "claims more than 50,000,000 pixels"),
    "postscript": (lambda image: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_images_are_told_by_member(name, write, as_zip, as_tar, image, told):
    make, expected = BROKEN[name]
    members = {"a/good.png": image(), "a/bad.png": make(image), "b/good.png": image(), "b/bad.png": make(image)}
    for content in (as_zip(members), as_tar(members)):
        problems = told(write(content))
        assert len(problems) == 2
        assert problems[0].startswith(f"a/bad.png: {expected}")
        assert problems[1].startswith(f"b/bad.png: {expected}")
        with pytest.raises(InvalidData, match=expected):
            read_images(write(content), size=4)


WRONG = {
    "fractions": (_npy(np.full((2, 3, 3), 255.5)), ["the array, image 1: 255.5 is no pixel: use 0 to 255, or 0 to 1"]),
    "negative": (_npy(PIXELS.astype(np.int16) - 1), ["the array, image 1: -1 is no pixel"]),
    "nan": (_npy(np.full((2, 3, 3), np.nan)), ["the array, image 1: nan is no pixel"]),
    "channels": (_npy(np.zeros((2, 4, 4, 2))), ["the array: shape (2, 4, 4, 2) has no axis of 1 or 3 channels"]),
    "five axes": (_npy(np.zeros((2, 1, 1, 1, 1))), ["the array: 5 dimensions"]),
    "idx, labels alone": (_idx(np.array([1, 2], np.uint8)), ["the array: 1 dimensions"]),
    "idx, cut": (_idx(PIXELS)[:-1], ["the array: its header promises 24 bytes of values; there are 23"]),
    "idx, huge": (b"\0\0\x08\3" + b"\xff" * 12, ["the array: its header promises"]),
    "one image": (b"\x89PNG\r\n\x1a\n123", ["a single image or recording: send a zip or tar"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_with_its_place(name, write, told):
    content, expected = WRONG[name]
    problems = told(write(content))
    assert len(problems) == len(expected), problems
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)


def test_idx_that_do_not_fit(write, as_zip, told):
    images, labels = _idx(PIXELS), _idx(np.array([1, 2, 3], np.uint8))
    assert told(write(as_zip({"i": images, "l": labels}))) == ["l: its shape is (3,); 2 rows need (2,)"]
    assert "expected one IDX file of images" in told(write(as_zip({"i": images, "j": images})))[0]
    assert told(write(as_zip({"i": images, "readme": b"words words"}))) == ["readme: not an IDX file"]


def test_mixed_folders_and_splits(write, as_zip, image, told):
    assert "some files lie in the archive's root" in told(write(as_zip({"1": image(), "a/2": image()})))[0]
    assert (
        "some files lie in folder 'a'" in told(write(as_zip({"a/1": image(), "a/b/2": image(), "a/c/2": image()})))[0]
    )
    assert "are splits" in told(write(as_zip({"train/a/1": image(), "test/a/2": image()})))[0]
