"""Speech is written down: transcripts are found beside recordings, and learned by frames or word by word."""

from __future__ import annotations

import io
import json
import random
import zipfile
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tokenizers
import torch
import transformers
from contract import Recorder, RequestAfter, run_example, trained, weights_of

from core.data.examples import write_speech
from core.data.profile import Kind, inspect
from core.data.transcribed import read_transcribed
from core.errors import InvalidData
from core.networks.listening import PADDING, ctc_loss
from core.registry import Example
from core.training.transcripts import edits, error_rates

SPEC = {"method": "fine_tuning", "base": "model-base", "task": "speech_recognition", "batch_size": 8}


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("letters") / "data.zip"
    write_speech(path)
    return path


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of waves at 8 kHz without characters, random."""
    folder = tmp_path_factory.mktemp("wav2vec2")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, conv_dim=(32, 32, 32),
        conv_stride=(10, 4, 4), conv_kernel=(20, 8, 8), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        feat_extract_norm="layer", do_stable_layer_norm=True, mask_time_prob=0.0, layerdrop=0.0,
        hidden_dropout=0.0, feat_proj_dropout=0.0, attention_dropout=0.0, final_dropout=0.0,
    )  # fmt: skip
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000, return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of two seconds with a vocabulary of letters, random."""
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    words = {"<|endoftext|>": 0, "<|startoftranscript|>": 1, "<|notimestamps|>": 2, "a": 3, "b": 4, "c": 5}
    fast = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=words, merges=[]))
    fast.decoder = tokenizers.decoders.Fuse()
    fast.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|startoftranscript|> <|notimestamps|> $A <|endoftext|>",
        special_tokens=[(name, number) for name, number in words.items() if number < 3],
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, eos_token="<|endoftext|>", bos_token="<|startoftranscript|>",
        additional_special_tokens=["<|notimestamps|>"],
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    config = transformers.WhisperConfig(
        d_model=32, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=32, num_mel_bins=16, max_source_positions=50, vocab_size=6,
        max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=0, decoder_start_token_id=1,
        init_std=0.1, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    transformers.WhisperForConditionalGeneration(config).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=1, sampling_rate=16_000).save_pretrained(folder)
    return folder


def test_learns_characters_by_frames(tmp_path: Path, letters: Path, wav2vec2: Path) -> None:
    profile = inspect(letters)
    assert (profile.kind, profile.examples, profile.words) == (Kind.SPEECH, 40, 40)
    spec = {**SPEC, "epochs": 35, "learning_rate": 5e-3, "validation_fraction": 0.2}
    metrics, folder, recorder = trained(tmp_path, spec, dataset=letters, base=wav2vec2)
    seen = [values["valid_cer"] for _, values in recorder.metrics_seen if "valid_cer" in values]
    assert metrics["valid_cer"] == pytest.approx(seen[-1])
    assert seen[-1] < 0.2 < seen[0]
    assert "said:" in recorder.samples[-1].path.read_text()
    network = transformers.AutoModelForCTC.from_pretrained(folder)
    processor = transformers.Wav2Vec2Processor.from_pretrained(folder)
    data = read_transcribed(letters, rate=8000, max_seconds=30)
    asked = processor(list(data.waves[:8]), sampling_rate=8000, padding=True, return_tensors="pt")
    with torch.no_grad():
        heard = processor.batch_decode(network(**asked).logits.argmax(-1))
    assert error_rates(data.transcripts[:8], heard)["cer"] < 0.3


def test_learns_word_by_word_and_generates_in_transformers(tmp_path: Path, letters: Path, whisper: Path) -> None:
    spec = {**SPEC, "epochs": 25, "learning_rate": 5e-3, "validation_fraction": 0.2}
    metrics, folder, _ = trained(tmp_path, spec, dataset=letters, base=whisper)
    assert metrics["valid_cer"] < 0.5
    assert metrics["valid_loss"] < 0.7
    network = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(folder)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    from core.networks.listening import WordListener

    data = read_transcribed(letters, rate=16_000, max_seconds=30)
    asked = extractor(list(data.waves[:4]), sampling_rate=16_000, return_tensors="pt").input_features
    listener = WordListener(folder, is_encoder_frozen=False)
    with torch.no_grad():
        ours = listener.write({"input_features": asked}, torch.ones(4), longest=8)
        for row, text in enumerate(ours):
            tokens = torch.tensor([[1, 2]])
            while tokens.shape[1] < 16 and tokens[0, -1] != 0:
                logits = network(input_features=asked[row : row + 1], decoder_input_ids=tokens).logits
                tokens = torch.cat([tokens, logits[:, -1:].argmax(-1)], 1)
            assert text == tokenizer.decode(tokens[0], skip_special_tokens=True)


@pytest.mark.parametrize("base", ["wav2vec2", "whisper"])
def test_resumed_it_ends_where_the_uninterrupted_run_ends(
    tmp_path: Path, letters: Path, base: str, request: pytest.FixtureRequest
) -> None:
    example = Example({**SPEC, "steps": 4}, lambda path: None)
    inputs = {"dataset": letters, "base": request.getfixturevalue(base)}
    run_example(example, tmp_path / "whole", inputs=inputs)
    recorder, control = Recorder(), RequestAfter("interrupt", steps=2)
    assert run_example(example, tmp_path / "1", inputs=inputs, recorder=recorder, control=control) is None
    run_example(example, tmp_path / "2", inputs=inputs, resume=recorder.checkpoints[-1].path)
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "2")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_a_frozen_encoder_leaves_the_decoder_to_learn(tmp_path: Path, letters: Path, whisper: Path) -> None:
    before = transformers.WhisperForConditionalGeneration.from_pretrained(whisper).state_dict()
    spec = {**SPEC, "steps": 2, "strategy": "frozen_encoder"}
    _, folder, _ = trained(tmp_path, spec, dataset=letters, base=whisper)
    after = transformers.WhisperForConditionalGeneration.from_pretrained(folder).state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed
    assert not [name for name in changed if "encoder." in name and "decoder." not in name]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
def test_adapters_in_whisper_are_merged(tmp_path: Path, letters: Path, whisper: Path) -> None:
    spec = {**SPEC, "steps": 2, "strategy": "lora", "lora": {"rank": 2}}
    metrics, folder, _ = trained(tmp_path, spec, dataset=letters, base=whisper)
    assert metrics["trained_parameters"] < metrics["parameters"]
    before = transformers.WhisperForConditionalGeneration.from_pretrained(whisper).state_dict()
    after = transformers.WhisperForConditionalGeneration.from_pretrained(folder).state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {name.split(".")[1] for name in changed} == {"encoder", "decoder"}
    assert torch.equal(before["model.decoder.embed_tokens.weight"], after["model.decoder.embed_tokens.weight"])


def test_ctc_sums_over_all_alignments() -> None:
    logits, labels = torch.randn(2, 4, 3), torch.tensor([[1, 2], [1, PADDING]])
    frames = torch.tensor([4, 3])
    total = 0.0
    for row, wanted in enumerate(([1, 2], [1])):
        chances = logits[row].softmax(-1)
        count = int(frames[row])
        sums = 0.0
        for path in product(range(3), repeat=count):
            folded = [token for place, token in enumerate(path) if token and (not place or path[place - 1] != token)]
            if folded == wanted:
                sums += float(torch.stack([chances[place, token] for place, token in enumerate(path)]).prod())
        total -= float(np.log(sums))
    assert float(ctc_loss(logits, frames, labels, blank=0)) == pytest.approx(total, rel=1e-4)


def test_edits_are_those_of_the_slow_formula() -> None:
    def slow(first: str, second: str) -> int:
        @cache
        def distance(i: int, j: int) -> int:
            if not i or not j:
                return i + j
            swap = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
            return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, swap)

        return distance(len(first), len(second))

    draw = random.Random(0)
    for _ in range(50):
        first, second = ("".join(draw.choices("abc", k=draw.randint(0, 7))) for _ in range(2))
        assert edits(first, second) == slow(first, second)


def test_error_rates_of_hand_made_cases() -> None:
    found = error_rates(["The cat sat.", "Don’t go!"], ["the bat", "don't go"])
    assert found == {"wer": pytest.approx(2 / 5), "cer": pytest.approx(5 / 19)}


def wav(seconds: float = 0.3) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, np.sin(np.arange(int(8000 * seconds)) / 5), 8000, format="WAV")
    return content.getvalue()


def archive(path: Path, members: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


LAYOUTS: dict[str, dict[str, bytes | str]] = {
    "csv": {"d/metadata.csv": 'file_name,transcription\n1.wav,"one, two"\n'},
    "tsv": {"d/metadata.tsv": "path\tsentence\n1.wav\tone, two\n"},
    "jsonl": {"metadata.jsonl": '{"file_name": "d/1.wav", "text": "one,  two"}\n'},
    "beside": {"d/1.txt": "one,\ntwo\n"},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_transcripts_are_found_wherever_they_lie(tmp_path: Path, name: str) -> None:
    data = archive(tmp_path / "data", {**LAYOUTS[name], "d/1.wav": wav()})
    assert inspect(data).words == 2
    assert read_transcribed(data, rate=16_000, max_seconds=1).transcripts == ("one, two",)


WRONG: dict[str, tuple[dict[str, bytes | str], str]] = {
    "no transcript": ({"2.wav": wav(), "1.txt": "one"}, "2.wav: has no transcript: put a metadata.csv"),
    "no recording": ({"1.txt": "one", "2.txt": "two"}, "2.txt: has no recording of the same name"),
    "empty": ({"1.txt": " \n"}, "1.txt: is empty"),
    "unknown": ({"m.csv": "file_name,text\n3.wav,three\n"}, "m.csv, line 2: there is no recording '3.wav'"),
    "no column": ({"m.csv": "name,text\n1.wav,one\n"}, "m.csv, line 2: has no file_name or no transcription"),
    "twice": ({"m.csv": "file_name,text\n1.wav,one\n1.wav,two\n"}, "m.csv, line 3: names '1.wav' a second time"),
    "two tables": ({"m.csv": "a", "n.csv": "a"}, "n.csv: transcripts are told twice"),
    "not JSON": ({"m.jsonl": "{"}, "m.jsonl, line 1: not JSON"),
    "broken": ({"1.txt": "one", "2.wav": b"RIFF----WAVE"}, "2.wav: holds no samples"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_by_member_or_line(tmp_path: Path, name: str) -> None:
    members, message = WRONG[name]
    data = archive(tmp_path / "data", {"1.wav": wav(), **members})
    with pytest.raises(InvalidData) as raised:
        inspect(data)
    assert any(str(problem).startswith(message) for problem in raised.value.problems), raised.value.problems


def test_recordings_that_are_too_long_are_left_out(tmp_path: Path, wav2vec2: Path) -> None:
    members: dict[str, bytes | str] = {"1.wav": wav(), "2.wav": wav(0.6), "1.txt": "one", "2.txt": "two"}
    data = archive(tmp_path / "data", members)
    spec = {**SPEC, "steps": 1, "max_seconds": 0.5}
    _, _, recorder = trained(tmp_path / "run", spec, dataset=data, base=wav2vec2)
    assert any("1 of 2 recordings are longer than 0.5 seconds" in text for text in recorder.messages)
    with pytest.raises(InvalidData, match="all recordings are longer than"):
        read_transcribed(data, rate=8000, max_seconds=0.1)


def test_refuses_bases_that_do_not_write(tmp_path: Path, letters: Path, wav2vec2: Path) -> None:
    base = tmp_path / "base"
    transformers.ASTConfig().save_pretrained(base)
    (base / "preprocessor_config.json").write_text((wav2vec2 / "preprocessor_config.json").read_text())
    with pytest.raises(InvalidData, match="cannot learn to write down speech: name Wav2Vec2"):
        trained(tmp_path / "1", {**SPEC, "steps": 1}, dataset=letters, base=base)
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "X": 5}
    for file in wav2vec2.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    (base / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(InvalidData, match="lacks 120 of 120 characters"):
        trained(tmp_path / "2", {**SPEC, "steps": 1}, dataset=letters, base=base)
