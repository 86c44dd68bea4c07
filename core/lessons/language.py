"""A student learns the next tokens that a language model expects, or the texts that it writes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.data.packing import IGNORED, PackedBatch, PackedRows, pack_stream, pack_whole
from core.data.profile import Kind
from core.errors import InvalidData, InvalidSpec
from core.lessons.classes import sizes
from core.lessons.losses import taught_tokens, token_loss
from core.lessons.teaching import TeachingSpec
from core.networks.language_modeling import decoder, keeps_apart, linear_loss, next_token_loss, vocabulary_head
from core.networks.pretrained import Reading, open_pretrained, open_tokenizer
from core.networks.shortening import TeachersLayers, shortened
from core.networks.token_ids import TokenIds, encode
from core.spec import JobReference
from core.training.devices import autocast
from core.training.labelled import read_training_data
from core.training.lesson import valid_metrics
from core.training.run import Run

PROMPTS_AT_ONCE = 16
ROWS_AT_ONCE = 8
SHOWN = 3
SHOWN_TOKENS = 48
DEFAULT_ALPHA = 0.9


@dataclass
class LanguageLesson:
    """A causal language model teaches another one that reads the same tokens."""

    spec: TeachingSpec
    run: Run
    teacher: Any  # transformers models
    student: Any
    reading: Reading
    training: PackedRows
    held_out: PackedRows | None
    prompts: Sequence[torch.Tensor]  # a few, to show what student and teacher write

    def __post_init__(self) -> None:
        self.teacher.requires_grad_(False).eval()
        self.network: nn.Module = self.student
        self.head = vocabulary_head(self.student)
        self.teachers_head = vocabulary_head(self.teacher)

    @property
    def examples(self) -> int:
        """How many rows of tokens there are to learn from."""
        return len(self.training)

    def batch(self, rows: torch.Tensor, *, generator: torch.Generator) -> PackedBatch:
        """Rows of tokens."""
        return self.training[rows]

    def loss_of(self, part: PackedBatch) -> torch.Tensor:
        """Against the teacher's next tokens and the true ones, or against what the teacher wrote; summed."""
        with autocast(self.spec.precision, self.run.device):
            if self.spec.objective == "sequences":
                return next_token_loss(self.student, part, head=self.head)
            if self.head is not None and self.teachers_head is not None:
                return self._loss_in_blocks(part, self.head, self.teachers_head)
            return self._token_loss(*self._both_logits(part))

    def _token_loss(self, own: torch.Tensor, wanted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return token_loss(own.float(), wanted.float(), targets, **self._weights)

    @property
    def _weights(self) -> dict[str, float]:
        return {"temperature": self.spec.temperature or 1.0, "alpha": self.spec.alpha or DEFAULT_ALPHA}

    def _loss_in_blocks(self, part: PackedBatch, head: nn.Linear, teachers: nn.Linear) -> torch.Tensor:
        """`_token_loss` that never holds all logits of either: of a large vocabulary they are most of the memory."""
        inputs, is_target = _inputs(part), part.targets != IGNORED
        with torch.no_grad():
            wanted = decoder(self.teacher)(**inputs).last_hidden_state[is_target]
        hidden = decoder(self.student)(**inputs).last_hidden_state[is_target]
        judge = taught_tokens(lambda rows: teachers(wanted[rows]), part.targets[is_target], **self._weights)
        return linear_loss(hidden, head.weight, judge, bias=head.bias)

    def over(self, batch: PackedBatch) -> float:
        """Every token that is to be predicted has a loss."""
        return float(max(1, int((batch.targets != IGNORED).sum())))

    def evaluate(self) -> Mapping[str, float] | None:
        """The loss, the perplexity of the true tokens, and how often both expect the same token."""
        return None if self.held_out is None else self._judge(self.held_out)

    def write_results(self) -> Mapping[str, float]:
        """The student as a transformers folder with the tokenizer; shows what both write."""
        self.student.eval()
        self.student.save_pretrained(self.run.artifacts)
        self.reading.tokenizer.save_pretrained(self.run.artifacts)
        self._show()
        found = valid_metrics(self)
        return found | sizes(self.student, self.teacher)

    def _both_logits(self, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The student's and the teacher's [targets, vocabulary], and the true tokens [targets]."""
        inputs, is_target = _inputs(batch), batch.targets != IGNORED
        with torch.no_grad():
            wanted = self.teacher(**inputs).logits[is_target]
        return self.student(**inputs).logits[is_target], wanted, batch.targets[is_target]

    @torch.no_grad()
    def _judge(self, rows: PackedRows) -> dict[str, float]:
        self.student.eval()
        loss = true = same = count = 0.0
        for block in torch.arange(len(rows)).split(ROWS_AT_ONCE):
            batch = PackedBatch(*(tensor.to(self.run.device) for tensor in rows[block]))
            with autocast(self.spec.precision, self.run.device):
                own, wanted, targets = self._both_logits(batch)
            crossed = float(functional.cross_entropy(own.float(), targets, reduction="sum"))
            is_told = self.spec.objective == "sequences"
            loss += crossed if is_told else float(self._token_loss(own, wanted, targets))
            true += crossed
            same += float((own.argmax(1) == wanted.argmax(1)).sum())
            count += len(targets)
        count = max(1.0, count)
        return {"loss": loss / count, "perplexity": math.exp(min(true / count, 50)), "agreement": same / count}

    def _show(self) -> None:
        texts = []
        for prompt in self.prompts[:SHOWN]:
            written = [
                self.reading.tokenizer.decode(written_by(network, [prompt], reading=self.reading, run=self.run)[0])
                for network in (self.teacher, self.student)
            ]
            texts.append(f"teacher: {written[0]}\nstudent: {written[1]}")
        if texts:
            self.run.show("written", "\n\n".join(texts), caption="What teacher and student write after the same words")


def _inputs(batch: PackedBatch) -> dict[str, Any]:
    return {"input_ids": batch.tokens, "position_ids": batch.positions, "use_cache": False}


def open_lesson(spec: TeachingSpec, run: Run) -> LanguageLesson:
    """The texts in the teacher's tokens, or what it writes, and both models."""
    if spec.objective not in ("logits", "sequences"):
        raise InvalidSpec(
            f"a language model teaches logits or sequences, not {spec.objective}: take one of these", param="objective"
        )
    training, validation = read_training_data(spec, run, needs_labels=False)
    if training.kind is not Kind.TEXT:
        raise InvalidData(f"the teacher reads texts, and the data set holds {training.kind}", param="dataset")
    teacher = open_pretrained(run.inputs["teacher"], "AutoModelForCausalLM", param="teacher").network.to(run.device)
    reading = open_tokenizer(run.inputs["teacher"], teacher, param="teacher")
    student = _open_student(spec, teacher, run)
    length = min(spec.max_length or reading.max_length, reading.max_length)
    rows = [
        None if data is None else _rows(spec, data.examples, teacher, reading, length, run)
        for data in (training, validation)
    ]
    assert rows[0] is not None  # noqa: S101 - there always is something to learn from
    return LanguageLesson(
        spec=spec,
        run=run,
        teacher=teacher,
        student=student,
        reading=reading,
        training=rows[0],
        held_out=rows[1],
        prompts=_prompts(
            encode([*training.examples[:SHOWN]], reading.tokenizer, max_length=length), spec.prompt_tokens or 8
        ),
    )


def _open_student(spec: TeachingSpec, teacher: Any, run: Run) -> Any:
    if isinstance(spec.student, str | JobReference):
        opened = open_pretrained(run.inputs["student"], "AutoModelForCausalLM", param="student")
        student: Any = opened.network.to(run.device)
        if student.config.vocab_size != teacher.config.vocab_size:
            raise InvalidSpec(
                "student and teacher must read the same tokens, and their vocabularies differ", param="student"
            )
    elif isinstance(spec.student, TeachersLayers):
        student = shortened(teacher, spec.student)
    else:
        raise InvalidSpec(
            f"a language model's student is teachers_layers or a model, not {spec.student.architecture}: name a causal "
            "language model that reads the teacher's tokens",
            param="student",
        )
    for name, network in {"teacher": teacher, "student": student}.items():
        if not keeps_apart(network):
            raise InvalidSpec(
                f"a {network.config.model_type} model does not keep texts apart that lie in one row: name another",
                param=name,
            )
    return student


def _rows(spec: TeachingSpec, texts: Any, teacher: Any, reading: Reading, length: int, run: Run) -> PackedRows:
    """The texts, each ended, one after another in rows; or the teacher's own, of which the prompts are not learned."""
    tokens = encode(list(texts), reading.tokenizer, max_length=length - 1)
    pad = reading.tokenizer.pad_token_id
    if spec.objective == "logits":
        ended, lengths = _ended(tokens, end=reading.tokenizer.eos_token_id)
        return pack_stream(ended, lengths, row_length=length, pad_token=pad)
    prompts = _prompts(tokens, spec.prompt_tokens or 1)
    run.message(f"The teacher goes on from {len(prompts):,} beginnings")
    written = []
    for start in range(0, len(prompts), PROMPTS_AT_ONCE):
        block = prompts[start : start + PROMPTS_AT_ONCE]
        written += written_by(teacher, block, reading=reading, run=run, length=length)
    is_new = [torch.arange(len(text)) >= len(prompt) for text, prompt in zip(written, prompts, strict=True)]
    return pack_whole(
        torch.cat(written).int(),
        [len(text) for text in written],
        row_length=length,
        pad_token=pad,
        learned=torch.cat(is_new),
    )


def _ended(tokens: TokenIds, *, end: int | None) -> tuple[torch.Tensor, list[int]]:
    """All texts' tokens, each text with an end behind it, and how many there are of each."""
    if end is None:
        return tokens.tokens, tokens.lengths.tolist()
    pieces = tokens.tokens.split(tokens.lengths.tolist())
    ending = torch.tensor([end], dtype=tokens.tokens.dtype)
    return torch.cat([part for piece in pieces for part in (piece, ending)]), (tokens.lengths + 1).tolist()


def _prompts(tokens: TokenIds, length: int) -> list[torch.Tensor]:
    """The first tokens of each text."""
    return [piece[:length].long() for piece in tokens.tokens.split(tokens.lengths.tolist()) if len(piece)]


@torch.no_grad()
def written_by(
    network: Any, prompts: Sequence[torch.Tensor], *, reading: Reading, run: Run, length: int = SHOWN_TOKENS
) -> list[torch.Tensor]:
    """What a language model goes on to write from each prompt, the likeliest token each time: prompt, text and end."""
    tokenizer = reading.tokenizer
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):  # what is generated follows on the right: padding stands left
        ids[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    network.eval()
    answer = network.generate(
        input_ids=ids.to(run.device),
        attention_mask=mask.to(run.device),
        max_new_tokens=max(1, min(length, reading.max_length) - longest),
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    ).cpu()
    texts = []
    for row, prompt in enumerate(prompts):
        new = answer[row, longest:]
        ends = (new == tokenizer.eos_token_id).nonzero() if tokenizer.eos_token_id is not None else new[:0]
        texts.append(torch.cat([prompt, new[: int(ends[0]) + 1] if len(ends) else new]))
    return texts
