"""Writing down what is said in recordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from core.data.profile import Kind
from core.data.transcribed import Transcribed, read_transcribed
from core.networks.hearing import WaveInputs, open_extractor
from core.networks.listening import PADDING, Inputs, Listener, open_listener, save_listener
from core.tasks.task import TaskType, TuningSpec
from core.training.batches import hold_out
from core.training.classification import sample_rows
from core.training.devices import autocast
from core.training.lesson import valid_metrics
from core.training.parts import to_device
from core.training.run import Run
from core.training.transcripts import error_rates

MAX_SECONDS = 30.0
EVALUATION_ROWS = 16
JUDGED_ROWS = 200  # of the training data
SHOWN = 8


class Batch(NamedTuple):
    """Recordings as the model hears them, and the tokens of what is said."""

    inputs: Inputs
    samples: torch.Tensor  # [n] of each wave
    labels: torch.Tensor  # [n, most tokens] int64, PADDING behind the last


class Speech:
    """Recordings with their transcripts, ready to be taken by rows."""

    def __init__(self, data: Transcribed, listener: Listener) -> None:
        self.transcripts = data.transcripts
        self.waves = WaveInputs(data.waves, listener.extractor, listener.network)
        self.samples = torch.tensor([len(wave) for wave in data.waves])
        self.labels = [torch.tensor(listener.labels(text)) for text in data.transcripts]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: torch.Tensor) -> Batch:
        """These recordings."""
        labels = pad_sequence([self.labels[row] for row in rows.tolist()], batch_first=True, padding_value=PADDING)
        return Batch(self.waves[rows], self.samples[rows], labels)


@dataclass
class SpeechTask:
    """A pretrained network that writes down what it hears."""

    spec: TuningSpec
    run: Run
    listener: Listener
    training: Speech
    held_out: Speech | None

    @property
    def network(self) -> nn.Module:
        """The whole model."""
        return self.listener.network

    @network.setter
    def network(self, network: nn.Module) -> None:
        self.listener.network = network

    @property
    def head(self) -> tuple[str, ...]:
        """What makes characters of frames; of Whisper the decoder, where the encoder is frozen."""
        return self.listener.head

    @property
    def new_parameters(self) -> frozenset[str]:
        """Those that the base lacked."""
        return self.listener.new_parameters

    @property
    def examples(self) -> int:
        """How many recordings there are."""
        return len(self.training)

    def freeze(self, *, is_head_alone: bool) -> None:
        """The encoder answers anew each time: what it says of all frames would not fit the memory."""

    def batch(self, rows: torch.Tensor, *, generator: torch.Generator) -> Batch:
        """Recordings and what is said in them."""
        return self.training[rows]

    def loss_of(self, part: Batch) -> torch.Tensor:
        """CTC, or the cross-entropy of each token, summed."""
        with autocast(self.spec.precision, self.run.device):
            return self.listener.loss(*part)

    def over(self, batch: Any) -> float:
        """Every token counts the same."""
        return float((batch.labels != PADDING).sum())

    def evaluate(self) -> Mapping[str, float] | None:
        """Loss of a token, word and character error rate of what was held out; shows what is heard."""
        return None if self.held_out is None else self._judge(self.held_out, torch.arange(len(self.held_out)))

    def write_results(self) -> Mapping[str, float]:
        """The model with its vocabulary and feature extractor."""
        rows = sample_rows(len(self.training))[:JUDGED_ROWS]
        found = {f"train_{name}": value for name, value in self._judge(self.training, rows).items()}
        found |= valid_metrics(self)
        save_listener(self.listener, self.run.artifacts)
        return found

    @torch.no_grad()
    def _judge(self, data: Speech, rows: torch.Tensor) -> dict[str, float]:
        self.network.eval()
        longest = max(len(labels) for labels in data.labels)
        total, tokens, heard = 0.0, 0, list[str]()
        for block in rows.split(EVALUATION_ROWS):
            part = to_device(data[block], self.run.device)
            with autocast(self.spec.precision, self.run.device):
                total += float(self.listener.loss(*part))
                heard += self.listener.write(part.inputs, part.samples, longest=longest)
            tokens += int((part.labels != PADDING).sum())
        said = [data.transcripts[row] for row in rows.tolist()]
        lines = [f"said:  {truth}\nheard: {found}\n" for truth, found in zip(said[:SHOWN], heard, strict=False)]
        self.run.show("transcripts", "\n".join(lines))
        return {"loss": total / max(1, tokens), **error_rates(said, heard)}


def open_task(spec: TuningSpec, run: Run) -> SpeechTask:
    """The base with the characters or the tokenizer that the transcripts need."""
    folder = run.inputs["base"]
    rate, seconds = open_extractor(folder, param="base").sampling_rate, spec.max_seconds or MAX_SECONDS
    read = partial(read_transcribed, rate=rate, max_seconds=seconds)
    data = read(run.dataset)
    if data.left_out:
        run.message(
            f"{data.left_out:,} of {data.left_out + len(data):,} recordings are longer than {seconds:g} "
            "seconds and are left out",
            "warn",
        )
    training, held_out = hold_out(data, spec, read_validation=lambda: read(run.inputs["validation"]))
    listener = open_listener(
        folder,
        training.transcripts,
        is_encoder_frozen=spec.strategy == "frozen_encoder",
        reinitialize=spec.reinitialize,
    )
    return SpeechTask(
        spec, run, listener, Speech(training, listener), None if held_out is None else Speech(held_out, listener)
    )


TASK = TaskType(reads=(Kind.SPEECH,), open=open_task)
