"""Models that write down speech: by frames (CTC) or word by word (Whisper), with the same face."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from torch import nn
from torch.nn import functional

from core.errors import InvalidData
from core.networks.hearing import LEAST_SECONDS, open_extractor
from core.networks.pretrained import TOKENIZERS, open_config, open_pretrained

PADDING = -100  # in labels, as transformers has it
BEFORE_END = 2  # times the tokens of the longest transcript: a model that goes round in circles is stopped there

Inputs = Mapping[str, torch.Tensor]


class Listener(Protocol):
    """A network, what it hears waves with, and what it writes with."""

    network: nn.Module
    new_parameters: frozenset[str]
    extractor: Any
    tokenizer: Any
    head: tuple[str, ...]

    def labels(self, text: str) -> list[int]:
        """The tokens to be written."""

    def loss(self, inputs: Inputs, samples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Summed over all tokens, 0-d; `samples` [n] of each wave, `labels` [n, most], PADDING behind the last."""

    def write(self, inputs: Inputs, samples: torch.Tensor, *, longest: int) -> list[str]:
        """What is heard in each; `longest`: tokens that a transcript is expected to have at most."""


class FrameListener:
    """A network that writes one character, or nothing, for each frame (Wav2Vec2, HuBERT, WavLM), learned by CTC."""

    def __init__(self, folder: Path, transcripts: Sequence[str]) -> None:
        config = open_config(folder, param="base")
        self.extractor = open_extractor(folder, param="base")
        self.tokenizer = _characters_of(folder) or _new_characters(transcripts)
        self.case = _best_case(self.tokenizer, transcripts)
        config.vocab_size, config.pad_token_id = len(self.tokenizer), self.tokenizer.pad_token_id
        self.network, self.new_parameters = open_pretrained(folder, "AutoModelForCTC", param="base", config=config)
        self.head: tuple[str, ...] = ("lm_head",)

    def labels(self, text: str) -> list[int]:
        """A token a character, in the case that the vocabulary has."""
        found: list[int] = self.tokenizer(CASES[self.case](text)).input_ids
        return found

    def loss(self, inputs: Inputs, samples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Connectionist temporal classification (Graves et al. 2006): minus the logarithm of all alignments."""
        logits = self.network(**inputs).logits.float()
        return ctc_loss(logits, self._frames(samples), labels, blank=self.tokenizer.pad_token_id)

    def write(self, inputs: Inputs, samples: torch.Tensor, *, longest: int) -> list[str]:
        """The likeliest character of each frame, repetitions and blanks taken out."""
        named = self.network(**inputs).logits.argmax(-1).cpu()
        frames = self._frames(samples).tolist()
        return [self.tokenizer.decode(row[:count]) for row, count in zip(named, frames, strict=True)]

    def _frames(self, samples: torch.Tensor) -> torch.Tensor:
        """How many frames waves of so many samples have."""
        least = int(LEAST_SECONDS * self.extractor.sampling_rate)
        network: Any = self.network
        frames: torch.Tensor = network._get_feat_extract_output_lengths(samples.clamp(min=least))
        return frames


CASES: Mapping[str, Callable[[str], str]] = {"as it is": str, "upper case": str.upper, "lower case": str.lower}


def _characters_of(folder: Path) -> Any:
    """The folder's own characters, None where it has none."""
    if not (folder / "vocab.json").exists():
        return None
    try:
        found = transformers.Wav2Vec2CTCTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise InvalidData(f"the vocabulary cannot be opened: {error!s:.300}", param="base") from None
    return found


def _new_characters(transcripts: Sequence[str]) -> Any:
    """A vocabulary of the characters that the transcripts have."""
    import tempfile

    characters = sorted(set("".join(transcripts)) - {" "})
    names = ["<pad>", "<s>", "</s>", "<unk>", "|", *characters]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.json"
        path.write_text(json.dumps({name: number for number, name in enumerate(dict.fromkeys(names))}))
        return transformers.Wav2Vec2CTCTokenizer(str(path))  # type: ignore[no-untyped-call]


def _best_case(tokenizer: Any, transcripts: Sequence[str]) -> str:
    """The case in which the vocabulary lacks the fewest characters; raises InvalidData where it lacks most."""
    characters = "".join(transcripts).replace(" ", "")
    vocabulary = tokenizer.get_vocab()
    missing = {
        name: sum(character not in vocabulary for character in change(characters)) for name, change in CASES.items()
    }
    best = min(missing, key=lambda name: missing[name])
    if missing[best] > len(characters) / 2:
        raise InvalidData(
            f"the base's vocabulary lacks {missing[best]:,} of {len(characters):,} characters of the transcripts: take "
            "vocab.json out of its folder, and it gets a new one",
            param="base",
        )
    return best


def ctc_loss(logits: torch.Tensor, frames: torch.Tensor, labels: torch.Tensor, *, blank: int) -> torch.Tensor:
    """Summed over examples: `logits` [n, most frames, vocabulary], `frames` [n], `labels` [n, most], PADDING behind.

    Where there are fewer frames than characters no alignment exists, and there is no loss.
    """
    is_real = labels != PADDING
    return functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        labels[is_real],
        frames.to(logits.device),
        is_real.sum(1),
        blank=blank,
        reduction="sum",
        zero_infinity=True,
    )


class WordListener:
    """An encoder of sounds and a decoder that writes token by token (Whisper), learned by cross-entropy."""

    def __init__(self, folder: Path, *, is_encoder_frozen: bool) -> None:
        self.extractor = open_extractor(folder, param="base")
        if not any((folder / name).exists() for name in TOKENIZERS):
            raise InvalidData("the model folder has no tokenizer: put tokenizer.json beside config.json", param="base")
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.network, self.new_parameters = open_pretrained(folder, "AutoModelForSpeechSeq2Seq", param="base")
        self.head: tuple[str, ...] = ("model.decoder",) if is_encoder_frozen else ()
        config: Any = self.network.config
        self.start, self.end = config.decoder_start_token_id, config.eos_token_id
        self.prefix = self.tokenizer("").input_ids[:-1]
        if self.prefix[:1] != [self.start]:
            self.prefix = [self.start, *self.prefix]
        self.most = config.max_target_positions

    def labels(self, text: str) -> list[int]:
        """All tokens but the first, which the decoder is given: what kind of text it is, the text, the end."""
        found: list[int] = self.tokenizer(text).input_ids
        return (found[1:] if found[:1] == [self.start] else found)[: self.most - 1]

    def loss(self, inputs: Inputs, samples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of every token, given those before it."""
        before = labels.roll(1, 1).masked_fill(labels.roll(1, 1) == PADDING, self.end)
        before[:, 0] = self.start
        logits = self.network(**inputs, decoder_input_ids=before).logits.float()
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=PADDING, reduction="sum")

    def write(self, inputs: Inputs, samples: torch.Tensor, *, longest: int) -> list[str]:
        """The likeliest token after those before it, until the end."""
        network: Any = self.network
        heard = network.get_encoder()(inputs["input_features"])
        tokens = torch.tensor([self.prefix], device=samples.device).expand(len(samples), -1)
        past, given, is_done = None, tokens, torch.zeros(len(samples), dtype=torch.bool, device=samples.device)
        for _ in range(min(BEFORE_END * longest, self.most - len(self.prefix))):
            answer = network(encoder_outputs=heard, decoder_input_ids=given, past_key_values=past, use_cache=True)
            past = answer.past_key_values
            given = answer.logits[:, -1:].argmax(-1).masked_fill(is_done[:, None], self.end)
            tokens = torch.cat([tokens, given], 1)
            is_done |= given[:, 0] == self.end
            if is_done.all():
                break
        found: list[str] = self.tokenizer.batch_decode(tokens.cpu(), skip_special_tokens=True)
        return found


def open_listener(
    folder: Path, transcripts: Sequence[str], *, is_encoder_frozen: bool, reinitialize: bool
) -> FrameListener | WordListener:
    """The model in `folder`, ready to learn these transcripts; raises InvalidData."""
    config = open_config(folder, param="base")
    found: FrameListener | WordListener
    if config.model_type == "whisper":
        found = WordListener(folder, is_encoder_frozen=is_encoder_frozen)
    elif type(config) in transformers.MODEL_FOR_CTC_MAPPING:
        found = FrameListener(folder, transcripts)
    else:
        raise InvalidData(
            f"a model of type '{config.model_type}' cannot learn to write down speech: name Wav2Vec2, HuBERT, WavLM or "
            "Whisper",
            param="base",
        )
    if reinitialize:
        found.network = type(found.network)(found.network.config)
    return found


def save_listener(listener: Listener, folder: Path) -> None:
    """Write weights, vocabulary and what hears."""
    listener.network.save_pretrained(folder)  # type: ignore[operator]
    listener.tokenizer.save_pretrained(folder)
    listener.extractor.save_pretrained(folder)
