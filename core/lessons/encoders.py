"""A student learns how a text encoder represents texts: their embeddings, its hidden states, or its attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn

from core.data.profile import Kind
from core.errors import InvalidData, InvalidSpec
from core.lessons.classes import sizes
from core.lessons.losses import cosine_loss, hidden_loss, relation_loss, relations
from core.lessons.teaching import TeachingSpec
from core.networks.architectures import BERT, bert_config
from core.networks.inheriting import inherit_embeddings, reduction
from core.networks.pretrained import Reading, open_pretrained, open_tokenizer
from core.networks.shortening import TeachersLayers, chosen_layers, shortened
from core.networks.token_ids import TokenIds, encode
from core.spec import JobReference
from core.training.devices import autocast
from core.training.labelled import read_training_data
from core.training.lesson import valid_metrics
from core.training.run import Run

ROWS_AT_ONCE = 64
QUERY_KEY_VALUE = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q_lin", "k_lin", "v_lin"))


class Taught(NamedTuple):
    """What a step learns from: tokens as both take them, and the teacher's embeddings where they were made before."""

    tokens: Mapping[str, torch.Tensor]
    embeddings: torch.Tensor | None  # [rows, the student's width]


@dataclass
class EncodersLesson:
    """A text encoder teaches another one that reads the same tokens."""

    spec: TeachingSpec
    run: Run
    teacher: Any  # transformers models
    student: Any
    reading: Reading
    training: TokenIds
    held_out: TokenIds | None

    def __post_init__(self) -> None:
        self.teacher.requires_grad_(False).eval()
        self.projection: nn.Module = nn.Identity()
        self.targets: torch.Tensor | None = None  # [n, the student's width] embeddings to be met
        self.held_out_targets: torch.Tensor | None = None
        if self.spec.objective == "hidden_states":
            self.projection = _projection(self.student, self.teacher)
        if self.spec.objective == "embeddings":
            self._embed_once()
        modules = {"student": self.student, "projection": self.projection}
        self.network: nn.Module = nn.ModuleDict(modules).to(self.run.device)

    def _embed_once(self) -> None:
        """The teacher's embeddings, in as many dimensions as the student's."""
        targets = self._all_embeddings(self.teacher, self.training)
        reduce = reduction(targets, size=self.student.config.hidden_size)
        self.targets = targets @ reduce
        if self.held_out is not None:
            self.held_out_targets = self._all_embeddings(self.teacher, self.held_out) @ reduce

    @property
    def examples(self) -> int:
        """How many there are to learn from."""
        return len(self.training)

    def batch(self, rows: torch.Tensor, *, generator: torch.Generator) -> Taught:
        """Tokens of texts, and their embeddings."""
        return Taught(self.training[rows], None if self.targets is None else self.targets[rows])

    def loss_of(self, part: Taught) -> torch.Tensor:
        """The distance that the objective names, summed."""
        return self._losses(part).sum()

    def over(self, batch: Taught) -> float:
        """Every text has a loss."""
        return float(len(batch.tokens["input_ids"]))

    def evaluate(self) -> Mapping[str, float] | None:
        """The loss on texts that were held out."""
        return None if self.held_out is None else self._judge(self.held_out, self.held_out_targets)

    def write_results(self) -> Mapping[str, float]:
        """The student as a transformers folder, with the tokenizer."""
        self.student.eval()
        self.student.save_pretrained(self.run.artifacts)
        self.reading.tokenizer.save_pretrained(self.run.artifacts)
        found = {f"train_{name}": value for name, value in self._judge(self.training, self.targets).items()}
        found |= valid_metrics(self)
        return found | sizes(self.student, self.teacher)

    def _losses(self, part: Taught) -> torch.Tensor:
        if part.embeddings is not None:
            return cosine_loss(self._embeddings(self.student, part.tokens), part.embeddings)
        mask = part.tokens["attention_mask"]
        if self.spec.objective == "attention":
            heads = self._relation_heads()
            return sum_of(
                relation_loss(relations(own, mask, heads=heads), relations(wanted, mask, heads=heads), mask)
                for own, wanted in zip(
                    self._queries_keys_values(self.student, part.tokens, learns=True),
                    self._queries_keys_values(self.teacher, part.tokens, learns=False),
                    strict=True,
                )
            )
        own_states = self._hidden_states(self.student, part.tokens, learns=True)
        wanted_states = self._hidden_states(self.teacher, part.tokens, learns=False)
        matched = [0, *(layer + 1 for layer in chosen_layers(len(wanted_states) - 1, len(own_states) - 1))]
        losses = [
            hidden_loss(self.projection(own).float(), wanted_states[layer].float(), mask)
            for own, layer in zip(own_states, matched, strict=True)
        ]
        return (self.spec.hidden_weight or 1.0) * sum_of(losses) / len(losses)

    def _relation_heads(self) -> int:
        wanted = self.spec.relation_heads or int(self.teacher.config.num_attention_heads)
        for network in (self.teacher, self.student):
            width = network.config.hidden_size
            if width % wanted:
                raise InvalidSpec(
                    f"vectors of {width} numbers cannot be cut into {wanted} heads: give a divisor of both widths",
                    param="relation_heads",
                )
        return wanted

    def _forward(self, network: Any, tokens: Mapping[str, torch.Tensor], *, learns: bool) -> Any:
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()), autocast(self.spec.precision, self.run.device):
            return network(**tokens, output_hidden_states=True)

    def _hidden_states(
        self, network: Any, tokens: Mapping[str, torch.Tensor], *, learns: bool
    ) -> Sequence[torch.Tensor]:
        states: Sequence[torch.Tensor] = self._forward(network, tokens, learns=learns).hidden_states
        return states

    def _embeddings(self, network: Any, tokens: Mapping[str, torch.Tensor], *, learns: bool = True) -> torch.Tensor:
        last = self._forward(network, tokens, learns=learns).last_hidden_state.float()
        return pooled(last, tokens["attention_mask"], pooling=self.spec.pooling or "mean")

    def _queries_keys_values(
        self, network: Any, tokens: Mapping[str, torch.Tensor], *, learns: bool
    ) -> Sequence[torch.Tensor]:
        """Of the last layer, [rows, length, width] each."""
        seen: dict[str, torch.Tensor] = {}
        hooks = [
            module.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output.float()))
            for name, module in last_attention(network)
        ]
        try:
            self._forward(network, tokens, learns=learns)
        finally:
            for hook in hooks:
                hook.remove()
        return list(seen.values())

    @torch.no_grad()
    def _all_embeddings(self, network: Any, texts: TokenIds) -> torch.Tensor:
        network.eval().to(self.run.device)
        blocks = torch.arange(len(texts)).split(ROWS_AT_ONCE)
        return torch.cat([self._embeddings(network, self._moved(texts[rows]), learns=False).cpu() for rows in blocks])

    def _moved(self, tokens: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        return {name: tensor.to(self.run.device) for name, tensor in tokens.items()}

    @torch.no_grad()
    def _judge(self, texts: TokenIds, targets: torch.Tensor | None) -> dict[str, float]:
        self.network.eval()
        total = 0.0
        for rows in torch.arange(len(texts)).split(ROWS_AT_ONCE):
            wanted = None if targets is None else targets[rows].to(self.run.device)
            total += float(self._losses(Taught(self._moved(texts[rows]), wanted)).sum())
        loss = total / len(texts)
        return {"loss": loss} if targets is None else {"loss": loss, "cosine": 1 - loss}


def sum_of(losses: Any) -> torch.Tensor:
    """The sum of some tensors of one shape."""
    return torch.stack(list(losses)).sum(0)


def pooled(hidden: torch.Tensor, mask: torch.Tensor, *, pooling: str) -> torch.Tensor:
    """One vector [rows, width] of tokens' vectors [rows, length, width]: their mean, or the first."""
    if pooling == "first":
        return hidden[:, 0]
    weights = mask[..., None].to(hidden.dtype)
    mean: torch.Tensor = (hidden * weights).sum(1) / weights.sum(1)
    return mean


def last_attention(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers that make queries, keys and values in the last layer; raises InvalidSpec where they are not apart."""
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    for names in QUERY_KEY_VALUE:
        found = [[each for each in linear if each[0].rpartition(".")[2] == name] for name in names]
        if all(found):
            return [(name, each[-1][1]) for name, each in zip(names, found, strict=True)]
    raise InvalidSpec(
        "attention compares queries, keys and values, which this model does not make apart: take hidden_states",
        param="objective",
    )


def _projection(student: Any, teacher: Any) -> nn.Module:
    own, wanted = (int(network.config.hidden_size) for network in (student, teacher))
    return nn.Identity() if own == wanted else nn.Linear(own, wanted)


def open_lesson(spec: TeachingSpec, run: Run) -> EncodersLesson:
    """The texts in the teacher's tokens, and both encoders."""
    training, validation = read_training_data(spec, run, needs_labels=False)
    if training.kind is not Kind.TEXT:
        raise InvalidData(f"the teacher reads texts, and the data set holds {training.kind}", param="dataset")
    teacher = open_pretrained(run.inputs["teacher"], "AutoModel", param="teacher").network
    reading = open_tokenizer(run.inputs["teacher"], teacher, param="teacher")
    student = _open_student(spec, teacher, reading, run)
    longest = _longest(spec, reading, student)

    def tokens(texts: Any) -> TokenIds:
        found = encode(texts, reading.tokenizer, max_length=longest)
        if found.truncated:
            run.message(
                f"{found.truncated:,} of {len(texts):,} texts are longer than {longest} tokens, cut there", "warn"
            )
        return found

    return EncodersLesson(
        spec=spec,
        run=run,
        teacher=teacher.to(run.device),
        student=student.to(run.device),
        reading=reading,
        training=tokens(training.examples),
        held_out=None if validation is None else tokens(validation.examples),
    )


def _open_student(spec: TeachingSpec, teacher: Any, reading: Reading, run: Run) -> Any:
    if isinstance(spec.student, str | JobReference):
        student: Any = open_pretrained(run.inputs["student"], "AutoModel", param="student").network
        if student.config.vocab_size != teacher.config.vocab_size:
            raise InvalidSpec(
                "student and teacher must read the same tokens, and their vocabularies differ", param="student"
            )
        return student
    if isinstance(spec.student, TeachersLayers):
        return shortened(teacher, spec.student)
    if isinstance(spec.student, BERT):
        vocabulary, pad = len(reading.tokenizer), reading.tokenizer.pad_token_id
        fresh = transformers.BertModel(bert_config(spec.student, vocabulary=vocabulary, pad_token=pad))
        inherit_embeddings(fresh, teacher)
        return fresh
    raise InvalidSpec(
        f"an encoder's student is bert, teachers_layers, or a model, not {spec.student.architecture}", param="student"
    )


def _longest(spec: TeachingSpec, reading: Reading, student: Any) -> int:
    """How many tokens of a text are read."""
    positions = getattr(student.config, "max_position_embeddings", None) or reading.max_length
    limit = min(reading.max_length, int(positions))
    if spec.max_length is not None and spec.max_length > limit:
        raise InvalidSpec(
            f"max_length is {spec.max_length}, and teacher and student take {limit} tokens", param="max_length"
        )
    return spec.max_length or limit
