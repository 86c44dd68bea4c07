"""Recordings as waves, and as frames: what a network hears a few milliseconds at a time."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from core.data.archives import Container, read_members
from core.data.folders import folder_classes, folder_of
from core.data.labels import Classes
from core.data.natural_order import natural
from core.data.opening import array_labels, open_source
from core.data.problems import Problems
from core.data.sources import AudioSource, FrameSource, wrong_kind
from core.errors import InvalidData, TooLarge

if TYPE_CHECKING:
    import torch  # where it is used, it is imported then: who reads uploads makes no tensors, and is light without it

MAX_RECORDING_BYTES = 256 * 2**20
MAX_BYTES = 64 * 2**30
RATES = (1_000, 384_000)
WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.01  # as speech is usually cut
LOUDNESS_FLOOR = 1e-6  # of a wave in [-1, 1]: what is quieter counts as silence

Wave = npt.NDArray[np.float32]  # [samples]


@dataclass(frozen=True)
class Hearing:
    """How waves become frames: `bins` mel bands of `rate` samples a second, every 10 ms, as logarithms of energy."""

    rate: int = 16_000
    bins: int = 64


@dataclass(frozen=True)
class Waves:
    """Recordings as one channel each, in [-1, 1] and at one rate; `cut`: how many were longer than what is kept."""

    waves: tuple[Wave, ...]
    where: tuple[str, ...]
    labels: torch.Tensor | None  # [n] int64, an index into class_names
    class_names: tuple[str, ...]
    cut: int


@dataclass(frozen=True)
class Frames:
    """Recordings as frames of one number; short ones go on with their last frame."""

    frames: torch.Tensor  # [n, features, frames] float32
    labels: torch.Tensor | None  # [n] int64, an index into class_names
    class_names: tuple[str, ...]
    cut: int
    hearing: Hearing | None  # None: they came as frames


def read_waves(path: Path, *, rate: int, max_seconds: float) -> Waves:
    """All recordings of an archive in memory, of each the first `max_seconds`; raises InvalidData by member."""
    import torch

    source = open_source(path)
    if isinstance(source, FrameSource):
        raise InvalidData("the data set holds frames, and the base hears waves: send a zip of WAV or FLAC files")
    if not isinstance(source, AudioSource):
        raise wrong_kind(source, "recordings")
    waves, where, cut = [], [], 0
    for name, wave, is_cut in decoded_members(source.path, source.container, rate=rate, max_seconds=max_seconds):
        waves.append(wave)
        where.append(name)
        cut += is_cut
    groups = folder_classes({folder_of(name) for name in where}) if where else None
    if groups is None:
        return Waves(tuple(waves), tuple(where), None, (), cut)
    names = sorted(set(groups.values()), key=natural)
    labels = torch.tensor([names.index(groups[folder_of(name)]) for name in where])
    return Waves(tuple(waves), tuple(where), labels, tuple(names), cut)


def decoded_members(
    path: Path, container: Container, *, rate: int, max_seconds: float, names: Collection[str] | None = None
) -> Iterator[tuple[str, Wave, bool]]:
    """Name, wave and whether it was cut, of every recording, or of those with these names, in the archive's order."""
    problems = Problems()
    total = 0
    for member in read_members(path, container, problems):
        if names is not None and member.name not in names:
            continue
        try:
            wave, is_cut = decode(member.read(MAX_RECORDING_BYTES), rate=rate, max_seconds=max_seconds)
        except ValueError as error:
            problems.add(member.name, str(error))
            continue
        except InvalidData as error:
            problems.extend(error.problems)
            continue
        total += wave.nbytes
        if total > MAX_BYTES:
            raise TooLarge(
                f"the recordings take over {MAX_BYTES // 2**30} GiB: set a smaller max_seconds", param="file"
            )
        yield member.name, wave, is_cut
    problems.check()


def decode(content: bytes, *, rate: int, max_seconds: float) -> tuple[Wave, bool]:
    """One recording as a single channel at `rate`, and whether it went on; raises ValueError where it is broken."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if not RATES[0] <= file.samplerate <= RATES[1]:
                raise ValueError(f"{file.samplerate:,} samples a second: a recording has {RATES[0]:,} to {RATES[1]:,}")
            own_rate, kept = file.samplerate, int(max_seconds * file.samplerate)
            wave = file.read(kept, dtype="float32", always_2d=True).mean(1)
            is_cut = file.tell() < file.frames
    except soundfile.LibsndfileError as error:
        raise ValueError(f"cannot be decoded: {error!s:.100}") from error
    if not len(wave):
        raise ValueError("holds no samples")
    return resampled(wave, own_rate, rate), is_cut


def resampled(wave: Wave, own_rate: int, rate: int) -> Wave:
    """The wave [samples] at another rate, by a polyphase filter that lets no mirror images through."""
    if own_rate == rate:
        return wave
    from scipy.signal import resample_poly  # type: ignore[import-untyped]

    shared = gcd(own_rate, rate)
    found: Wave = resample_poly(wave, rate // shared, own_rate // shared).astype(np.float32)
    return found


def read_frames(path: Path, *, hearing: Hearing, max_seconds: float, frames: int | None = None) -> Frames:
    """All recordings as frames: those of an .npz as they are, those of an archive as log-mel spectrograms.

    `frames`: how many each has; none: as many as the longest.
    """
    source = open_source(path)
    if isinstance(source, FrameSource):
        return _stored_frames(source, frames)
    found = read_waves(path, rate=hearing.rate, max_seconds=max_seconds)
    spectra = [log_mel(wave, hearing) for wave in found.waves]
    cut = found.cut if frames is None else sum(spectrum.shape[1] > frames for spectrum in spectra)
    return Frames(_stacked(spectra, frames), found.labels, found.class_names, cut, hearing)


def log_mel(wave: Wave, hearing: Hearing) -> torch.Tensor:
    """Logarithms of the energy [bins, frames] in mel bands (Slaney's), in windows of 25 ms, every 10 ms."""
    import torch
    from torch.nn import functional

    window, hop = round(WINDOW_SECONDS * hearing.rate), round(HOP_SECONDS * hearing.rate)
    samples = functional.pad(torch.from_numpy(wave), (0, max(0, window - len(wave))))
    shape = torch.hann_window(window)
    spectrum = torch.stft(samples, window, hop, window=shape, center=False, return_complex=True).abs().square()
    power = spectrum / shape.square().sum()
    return (_mel_bands(hearing, window) @ power).clamp(min=LOUDNESS_FLOOR).log()


def _mel_bands(hearing: Hearing, window: int) -> torch.Tensor:
    """How much of each frequency [window / 2 + 1] goes into each band, [bins, frequencies]."""
    import torch
    from transformers.audio_utils import mel_filter_bank

    bands = mel_filter_bank(window // 2 + 1, hearing.bins, 0.0, hearing.rate / 2, hearing.rate, mel_scale="slaney")
    return torch.from_numpy(bands.T).float()


def _stored_frames(source: FrameSource, frames: int | None) -> Frames:
    """Sequences that lie one after another."""
    import torch

    rows = torch.from_numpy(np.concatenate([block.astype(np.float32) for block in source.arrays.features.blocks()]))
    spectra = [sequence.T for sequence in rows.split(source.lengths().tolist())]
    cut = 0 if frames is None else sum(spectrum.shape[1] > frames for spectrum in spectra)
    stacked = _stacked(spectra, frames)
    if source.arrays.labels is None:
        return Frames(stacked, None, (), cut, None)
    classes = Classes()
    codes = array_labels(source.arrays, classes)
    return Frames(stacked, torch.from_numpy(classes.order()[codes]), classes.names, cut, None)


def _stacked(spectra: list[torch.Tensor], frames: int | None) -> torch.Tensor:
    import torch
    from torch.nn import functional

    longest = frames or max(spectrum.shape[1] for spectrum in spectra)
    needed = 4 * len(spectra) * len(spectra[0]) * longest
    if needed > MAX_BYTES:
        raise TooLarge(f"the recordings take {needed / 2**30:,.0f} GiB: set a smaller max_seconds", param="file")
    return torch.stack(
        [
            functional.pad(spectrum[None, :, :longest], (0, max(0, longest - spectrum.shape[1])), mode="replicate")[0]
            for spectrum in spectra
        ]
    )
