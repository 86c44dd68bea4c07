from __future__ import annotations

import io
import struct
import wave

import pytest

from core.data.profile import Kind, inspect


def _wav(seconds=0.1, **changes):
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(int(16000 * seconds)))
    return content.getvalue()


FLAC = b"fLaC\0\0\0\x22" + bytes(10) + (16000 << 12).to_bytes(4, "big") + bytes(40)


def test_recordings_in_folders(write, as_zip, as_tar):
    members = {"yes/1.wav": _wav(), "no/1.wav": _wav(0.2), "no/2.flac": FLAC}
    for content in (as_zip(members), as_tar(members)):
        profile = inspect(write(content))
        assert (profile.kind, profile.format, profile.examples) == (Kind.AUDIO, "audio_archive", 3)
        assert profile.classes == {"no": 2, "yes": 1}


def _claiming(length):
    content = bytearray(_wav())
    struct.pack_into("<L", content, 40, length)
    return bytes(content)


BROKEN = {
    "longer than it is": (_claiming(2**31), "its header claims 2,147,483,648 bytes"),
    "no samples": (_wav(0), "holds no samples"),
    "cut": (_wav()[:30], "its header claims 16 bytes"),
    "no format": (_wav()[:12] + _wav()[36:], "has no format before its samples"),
    "no channels": (_wav()[:22] + bytes(2) + _wav()[24:], "its format has no channels"),
    "text": (b"words", "is neither WAV nor FLAC"),
    "flac, cut": (FLAC[:20], "its FLAC header is broken"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_recordings_are_told_by_member(name, write, as_zip, told):
    content, expected = BROKEN[name]
    (problem,) = told(write(as_zip({"a/1.wav": _wav(), "a/2.wav": content})))
    assert problem.startswith(f"a/2.wav: {expected}")
