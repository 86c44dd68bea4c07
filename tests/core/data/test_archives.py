from __future__ import annotations

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
import zstandard

from core.data import archives
from core.data.profile import inspect
from core.errors import InvalidData, TooLarge


def _told(write, content):
    with pytest.raises(InvalidData) as caught:
        inspect(write(content))
    return [str(problem) for problem in caught.value.problems]


OUTSIDE = ["../a.png", "a/../../b.png", "/etc/a.png", "..\\a.png", "C:\\a.png", "\\\\host\\a.png", "a/..", "C:/a.png"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_paths_that_lead_out(name, write, as_zip, as_tar, image):
    for content in (as_zip({"ok.png": image(), name: image()}), as_tar({"ok.png": image(), name: image()})):
        (problem,) = _told(write, content)
        assert "a path that leads out of the archive" in problem


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_links_and_devices_in_a_tar(kind, write, image):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        good = tarfile.TarInfo("a.png")
        good.size = len(image())
        archive.addfile(good, io.BytesIO(image()))
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
    (problem,) = _told(write, content.getvalue())
    assert problem == "b.png: a link or a device; archives may hold only files and folders"


def test_links_in_a_zip(write, image):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.png", image())
        link = zipfile.ZipInfo("b.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert _told(write, content.getvalue()) == ["b.png: a link or a device; archives may hold only files and folders"]


def test_names_that_are_not_utf8(write, as_tar, image):
    content = as_tar({"a.png": image(), "\udcff.png": image()})
    assert _told(write, content) == ["\\udcff.png: a name that is not UTF-8"]


def test_encrypted(write, as_zip, image):
    content = bytearray(as_zip({"a.png": image()}))
    for magic, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.find(magic) + offset] |= 1
    assert _told(write, bytes(content)) == ["a.png: encrypted: send the archive without a password"]


def test_archives_within_archives(write, as_zip, as_tar, image):
    for inner in (as_zip({"a.png": image()}), as_tar({"a.png": image()}), gzip.compress(image())):
        for outer in (as_zip, as_tar):
            assert "an archive, or compressed, within the archive" in _told(write, outer({"inner": inner}))[0]
            assert _told(write, outer({"a.png": image(), "inner": inner}))[0].startswith("inner: is not an image")


def test_a_tar_without_its_end(write, as_tar, image):
    content = as_tar({"1.png": image(), "2.png": image()})
    header = content.rfind(b"2.png")
    for end in (header, header + 100):
        assert "cut short" in _told(write, content[:end])[0]
    assert "damaged" in _told(write, content[: header + 3] + b"x" + content[header + 4 :])[0]


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_truncated(keep, write, as_zip, as_tar, image):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    members = {f"{index}.png": image(pixels=noise) for index in range(10)}
    for content in (as_zip(members), as_tar(members), gzip.compress(as_tar(members))):
        assert "cut short" in " ".join(_told(write, content.rstrip(b"\0")[: int(len(content.rstrip(b"\0")) * keep)]))


def test_damaged_members_are_told_by_name(write, as_zip, image):
    members = {f"{index}.png": image(size=(100, 100)) for index in range(3)}
    content = bytearray(as_zip(members))
    place = content.find(b"1.png") + 20
    content[place : place + 20] = bytes(20)
    (problem,) = _told(write, bytes(content))
    assert problem.startswith("1.png: damaged or cut short")


def test_a_member_that_lies_about_its_size(write, as_zip, image):
    content = bytearray(as_zip({"a.png": image()}))
    place = content.find(b"PK\1\2") + 24
    content[place : place + 4] = (2**20).to_bytes(4, "little")
    assert "damaged or cut short" in _told(write, bytes(content))[0]


def test_a_directory_that_points_nowhere(write, as_zip, image):
    content = as_zip({"a.png": image()})
    assert _told(write, content[:40] + content[49:])[0].startswith("a.png: damaged")
    assert "damaged" in _told(write, content[:-8] + b"\xff\xff\0\0" + content[-4:])[0]  # it lies about its offset


def test_bombs(write, as_zip, as_tar):
    zeros = bytes(66 * 2**20)
    for content in (as_zip({"a.png": zeros}), gzip.compress(as_tar({"a.png": zeros}), 1)):
        with pytest.raises(TooLarge, match="over 200 times its size"):
            inspect(write(content))
    with pytest.raises(TooLarge, match="over 200 times its size"):
        inspect(write(zstandard.compress(b"1,2\n" * (17 * 2**20))))


def test_limits_on_what_is_unpacked(write, as_zip, as_tar, image):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    members = {f"{index}.png": image(pixels=noise) for index in range(10)}
    for content in (as_zip(members), as_tar(members), gzip.compress(as_tar(members))):
        inspect(write(content))
        with pytest.raises(TooLarge, match="unpacks to over 20,000 bytes"):
            inspect(write(content), max_unpacked_bytes=20_000)
        with pytest.raises(TooLarge, match="over 9 members"):
            inspect(write(content), max_members=9)


def test_zip64_members_are_counted(write, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 5)  # makes small archives zip64
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for index in range(8):
            archive.writestr(f"{index}", b"")
    assert b"PK\6\6" in content.getvalue()
    with pytest.raises(TooLarge, match="over 7 members"):
        inspect(write(content.getvalue()), max_members=7)


def test_long_headers_of_a_tar_are_not_read(write, image, monkeypatch):
    monkeypatch.setattr(archives, "_MAX_TAR_HEADER_BYTES", 1000)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.png")
        info.pax_headers = {"comment": "x" * 2000}
        archive.addfile(info)
    assert "damaged" in _told(write, content.getvalue())[0]


def test_long_names_are_kept(write, image):
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w", format=format) as archive:
            for folder in ("a" * 150, "b" * 150):
                info = tarfile.TarInfo(f"{folder}/{'c' * 90}.png")
                info.size = len(image())
                archive.addfile(info, io.BytesIO(image()))
        assert inspect(write(content.getvalue())).classes == {"a" * 150: 1, "b" * 150: 1}


def test_empty_archives(write, as_zip, as_tar):
    assert _told(write, as_zip({})) == ["the zip archive holds no files"]
    assert _told(write, as_zip({"a/": b"", ".DS_Store": b"x"})) == ["the zip archive holds no files"]
    assert _told(write, as_tar({".hidden": b"x"})) == ["the tar archive holds no files"]


def test_archives_of_other_things(write, as_zip):
    assert _told(write, as_zip({"a.txt": b"words"})) == ["a.txt: no member is an image, a recording or an array"]
    for model in (as_zip({"llama/README.md": b"words", "llama/config.json": b"{}"}), b"GGUF\3\0\0\0"):
        assert _told(write, model) == ["a model, not data: upload it with the purpose base-model"]
