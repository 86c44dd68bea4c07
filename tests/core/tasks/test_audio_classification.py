"""Recordings are learned by name: from scratch as frames, and by bases that hear waves."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from contract import Recorder, RequestAfter, method_named, run_example, trained, weights_of

from core import load_model
from core.catalog import read_spec
from core.data.examples import write_recordings
from core.data.profile import Kind, inspect
from core.data.recordings import Hearing, log_mel, read_frames, read_waves, resampled
from core.errors import InvalidData, InvalidSpec
from core.registry import Example

TUNING = {"method": "fine_tuning", "base": "model-base", "task": "audio_classification", "batch_size": 8}
SCRATCH = {
    "method": "classification",
    "architecture": {"architecture": "convnet", "channels": [16, 16]},
    "epochs": 10,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "validation_fraction": 0.25,
}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recordings") / "data.zip"
    write_recordings(path, count=48)
    return path


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory, recordings: Path) -> tuple[dict[str, float], Path]:
    metrics, folder, _ = trained(tmp_path_factory.mktemp("scratch"), SCRATCH, dataset=recordings)
    return metrics, folder


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as people upload it: an encoder of waves at 8 kHz without a head, random."""
    folder = tmp_path_factory.mktemp("wav2vec2")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, conv_dim=(32, 32, 32),
        conv_stride=(10, 4, 4), conv_kernel=(20, 8, 8), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        classifier_proj_size=32, feat_extract_norm="layer", do_stable_layer_norm=True, mask_time_prob=0.0,
    )  # fmt: skip
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000, return_attention_mask=True)
    extractor.save_pretrained(folder)
    return folder


def test_learns_recordings_from_scratch(scratch: tuple[dict[str, float], Path], recordings: Path) -> None:
    metrics, folder = scratch
    assert metrics["valid_accuracy"] > 0.9
    config = json.loads((folder / "config.json").read_text())
    assert config["hearing"] == {"rate": 16_000, "bins": 64}
    hearing = Hearing(**config["hearing"])
    network, (_, frames) = load_model(folder), config["arguments"]["shape"]
    waves = read_waves(recordings, rate=hearing.rate, max_seconds=10)
    heard = log_mel(waves.waves[3], hearing)
    heard = torch.cat([heard, heard[:, -1:].expand(-1, frames - heard.shape[1])], 1)
    assert config["id2label"][str(int(network(heard[None]).argmax()))] == Path(waves.where[3]).parent.name


def test_a_base_made_here_learns_other_classes(
    tmp_path: Path, recordings: Path, scratch: tuple[dict[str, float], Path]
) -> None:
    with zipfile.ZipFile(recordings) as old, zipfile.ZipFile(tmp_path / "data", "w") as new:
        for name in old.namelist():
            new.writestr(name.replace("rising", "up").replace("falling", "down"), old.read(name))
    spec = {**TUNING, "strategy": "frozen_encoder", "epochs": 20, "learning_rate": 3e-2}
    metrics, folder, _ = trained(tmp_path / "run", spec, dataset=tmp_path / "data", base=scratch[1])
    assert metrics["train_accuracy"] > 0.9
    assert list(json.loads((folder / "config.json").read_text())["id2label"].values()) == ["down", "up"]


def test_learns_from_a_base_that_hears_waves(tmp_path: Path, recordings: Path, wav2vec2: Path) -> None:
    spec = {**TUNING, "epochs": 10, "learning_rate": 3e-3, "validation_fraction": 0.25}
    metrics, folder, _ = trained(tmp_path, spec, dataset=recordings, base=wav2vec2)
    assert metrics["valid_accuracy"] > 0.8
    network = transformers.AutoModelForAudioClassification.from_pretrained(folder)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    waves = read_waves(recordings, rate=8000, max_seconds=10)
    asked = extractor(list(waves.waves[:6]), sampling_rate=8000, padding=True, return_tensors="pt")
    with torch.no_grad():
        named = [network.config.id2label[int(index)] for index in network(**asked).logits.argmax(1)]
    assert sum(name == Path(where).parent.name for name, where in zip(named, waves.where, strict=False)) >= 5


def test_resumed_it_ends_where_the_uninterrupted_run_ends(tmp_path: Path, recordings: Path, wav2vec2: Path) -> None:
    example = Example({**TUNING, "steps": 4}, lambda path: None)
    inputs = {"dataset": recordings, "base": wav2vec2}
    run_example(example, tmp_path / "whole", inputs=inputs)
    recorder, control = Recorder(), RequestAfter("interrupt", steps=2)
    assert run_example(example, tmp_path / "1", inputs=inputs, recorder=recorder, control=control) is None
    run_example(example, tmp_path / "2", inputs=inputs, resume=recorder.checkpoints[-1].path)
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "2")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


@pytest.mark.parametrize("make", ["whisper", "spectrogram"])
def test_takes_bases_that_hear_spectrograms(tmp_path: Path, recordings: Path, make: str) -> None:
    base = tmp_path / "base"
    if make == "whisper":
        config = transformers.WhisperConfig(
            d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, decoder_layers=1,
            decoder_attention_heads=2, decoder_ffn_dim=16, num_mel_bins=8, max_source_positions=100, vocab_size=50,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )  # fmt: skip
        transformers.WhisperForAudioClassification(config).save_pretrained(base)
        transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=2).save_pretrained(base)
    else:
        sizes = transformers.ASTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_length=60,
            num_mel_bins=32,
        )  # fmt: skip
        transformers.ASTForAudioClassification(sizes).save_pretrained(base)
        transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=60).save_pretrained(base)
    metrics, folder, _ = trained(tmp_path / "run", {**TUNING, "steps": 2}, dataset=recordings, base=base)
    assert 0 <= metrics["train_accuracy"] <= 1
    assert transformers.AutoModelForAudioClassification.from_pretrained(folder).config.id2label[1] == "rising"
    assert (folder / "preprocessor_config.json").exists()


def test_learns_frames_of_any_make(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lengths, labels = random.integers(9, 16, 60), random.integers(0, 2, 60)
    rows = [
        np.linspace(0, 1 - 2 * label, length)[:, None] + random.normal(0, 0.2, (length, 5))
        for length, label in zip(lengths, labels, strict=True)
    ]
    np.savez(tmp_path / "data", x=np.concatenate(rows), lengths=lengths, y=labels)
    profile = inspect(tmp_path / "data.npz")
    assert (profile.kind, profile.examples, profile.shape) == (Kind.AUDIO, 60, (5, 15))
    metrics, folder, _ = trained(tmp_path, SCRATCH, dataset=tmp_path / "data.npz")
    assert metrics["valid_accuracy"] > 0.9
    metrics, folder, _ = trained(tmp_path / "on", {**TUNING, "steps": 5}, dataset=tmp_path / "data.npz", base=folder)
    assert metrics["train_accuracy"] > 0.9


@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 16_000), (8000, 16_000), (16_000, 8000)])
def test_resampling_keeps_a_tone_and_lets_none_through_that_is_too_high(rate: int, wanted: int) -> None:
    times = np.arange(rate) / rate
    tone = np.sin(2 * np.pi * 1000 * times).astype(np.float32)
    found = resampled(tone, rate, wanted)
    assert len(found) == wanted
    inner = slice(wanted // 10, -wanted // 10)
    assert np.abs(found - np.sin(2 * np.pi * 1000 * np.arange(wanted) / wanted))[inner].max() < 0.02
    if wanted < rate:
        high = np.sin(2 * np.pi * 0.75 * rate / 2 * times).astype(np.float32)
        assert np.abs(resampled(high, rate, wanted))[inner].max() < 0.02


def test_a_tone_is_loudest_in_its_own_band() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    spectrum = log_mel(tone, Hearing())
    assert spectrum.shape == (64, 98)
    from transformers.audio_utils import mel_to_hertz

    edges = mel_to_hertz(np.linspace(0, 45.2456, 66), mel_scale="slaney")  # 45.2 mel are 8 kHz
    band = int(spectrum.mean(1).argmax())
    assert edges[band] < 1000 < edges[band + 2]


def test_recordings_are_mixed_to_one_channel_and_cut(tmp_path: Path) -> None:
    content = io.BytesIO()
    left = np.full(8000, 0.5)
    soundfile.write(content, np.stack([left, -left / 2], 1), 8000, format="FLAC", subtype="PCM_16")
    with zipfile.ZipFile(tmp_path / "data", "w") as archive:
        archive.writestr("a/1.flac", content.getvalue())
    found = read_waves(tmp_path / "data", rate=8000, max_seconds=0.5)
    assert (found.cut, len(found.waves[0])) == (1, 4000)
    assert np.allclose(found.waves[0], 0.125, atol=1e-4)
    assert read_frames(tmp_path / "data", hearing=Hearing(), max_seconds=0.5, frames=60).frames.shape == (1, 64, 60)


def test_refuses_what_does_not_fit(
    tmp_path: Path, recordings: Path, wav2vec2: Path, scratch: tuple[dict[str, float], Path]
) -> None:
    np.savez(tmp_path / "frames", x=np.ones((40, 5)), lengths=[20, 20], y=[0, 1])
    with pytest.raises(InvalidData, match="the base hears waves: send a zip"):
        trained(tmp_path / "1", {**TUNING, "steps": 1}, dataset=tmp_path / "frames.npz", base=wav2vec2)
    with pytest.raises(InvalidData, match="the base learned from recordings"):
        trained(tmp_path / "2", {**TUNING, "steps": 1}, dataset=tmp_path / "frames.npz", base=scratch[1])
    with pytest.raises(InvalidSpec, match="the base hears"):
        trained(tmp_path / "3", {**TUNING, "steps": 1, "max_seconds": 1}, dataset=recordings, base=scratch[1])
    with pytest.raises(InvalidSpec, match="max_seconds would have no effect"):
        read_spec({**TUNING, "task": "text_classification", "dataset": "file-1", "max_seconds": 3})
    check = method_named("classification").check
    assert check is not None
    spec = read_spec({"method": "classification", "dataset": "file-1", "architecture": {"architecture": "resnet"}})
    with pytest.raises(InvalidSpec, match="resnet is for images"):
        check(spec, inspect(recordings))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((9, 3)), "lengths": [4, 4]}, "sum up to the 9 rows, not 8"),
        ({"x": np.ones((9, 3)), "lengths": [9, 0]}, "must be positive"),
        ({"x": np.ones((2, 9, 3)), "lengths": [9, 9]}, "lie one after another"),
        ({"x": np.ones((9, 3)), "lengths": [5.0, 4.0]}, "one whole number a sequence"),
        ({"x": np.full((9, 3), np.nan), "lengths": [9]}, "row 1: is not finite"),
        ({"x": np.ones((9, 3)), "lengths": [5, 4], "y": [1, 2, 3]}, "2 rows need"),
    ],
)
def test_refuses_frames_that_do_not_add_up(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "data", **arrays)
    with pytest.raises(InvalidData, match=message):
        inspect(tmp_path / "data.npz")
