"""Naming the tag of each token: entities, parts of speech, semantic roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional

from core.data.profile import Kind, Profile
from core.data.text import TaggedText, read_tagged_text
from core.errors import InvalidData
from core.networks.classifier import HEADS
from core.networks.pretrained import fresh, open_config, open_pretrained, open_tokenizer
from core.networks.token_ids import TokenIds
from core.tasks.classification import shortened
from core.tasks.task import TaskType, TuningSpec, check_split
from core.training.batches import hold_out
from core.training.classification import balanced_weights, cross_entropy
from core.training.devices import autocast
from core.training.parts import to_device
from core.training.run import Run
from core.training.tagging_scores import entity_scores, marks_entities

IGNORED = -100  # the label of what is no token's first piece
EVALUATION_ROWS = 64
SHOWN = 5
AUTO = "AutoModelForTokenClassification"


@dataclass(frozen=True)
class Tagged:
    """Sentences as the network takes them, and the tag of each piece that begins a token."""

    pieces: TokenIds
    labels: TokenIds  # indices of tags, IGNORED elsewhere
    text: TaggedText

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, rows: torch.Tensor) -> tuple[Mapping[str, torch.Tensor], torch.Tensor]:
        """What the network takes, and labels [rows, longest]."""
        return self.pieces[rows], self.labels[rows]["input_ids"]


@dataclass
class TokenClassification:
    """An encoder with a head that names the tag of each token."""

    spec: TuningSpec
    run: Run
    network: nn.Module
    tokenizer: Any
    new_parameters: frozenset[str]
    training: Tagged
    held_out: Tagged | None
    class_names: tuple[str, ...]
    weights: torch.Tensor  # [classes] of each tag in the loss

    @property
    def head(self) -> tuple[str, ...]:
        """What makes logits of features."""
        found = [name for name in HEADS if isinstance(getattr(self.network, name, None), nn.Module)]
        if not found:
            raise InvalidData(f"{type(self.network).__name__} has no part called {', '.join(HEADS)}", param="base")
        return (found[0],)

    @property
    def examples(self) -> int:
        """How many sentences there are to learn from."""
        return len(self.training)

    def freeze(self, *, is_head_alone: bool) -> None:
        """Features of all tokens would take too much memory to be remembered."""

    def batch(self, rows: torch.Tensor, *, generator: torch.Generator) -> Any:
        """Sentences and their labels."""
        return self.training[rows]

    def loss_of(self, part: Any) -> torch.Tensor:
        """Weighted cross-entropy of the tokens' tags, summed."""
        inputs, labels = part
        is_token = labels != IGNORED
        with autocast(self.spec.precision, self.run.device):
            logits = self.network(**inputs).logits[is_token]
        smoothing = self.spec.label_smoothing
        return cross_entropy(logits.float(), labels[is_token], weights=self.weights, smoothing=smoothing).sum()

    def over(self, batch: Any) -> float:
        """Every token has a loss."""
        return max(1.0, float((batch[1] != IGNORED).sum()))

    def evaluate(self) -> Mapping[str, float] | None:
        """Loss and accuracy a token, and where tags mark entities, precision, recall and F1 of these."""
        return None if self.held_out is None else self._judge(self.held_out)[0]

    def write_results(self) -> Mapping[str, float]:
        """The model with its tags' names, the tokenizer, and some sentences as they were tagged."""
        metrics: dict[str, float] = {}
        if self.held_out is not None:
            found, tags = self._judge(self.held_out)
            metrics = {f"valid_{name}": value for name, value in found.items()}
            self._show(self.held_out.text, tags)
        self.network.save_pretrained(self.run.artifacts)  # type: ignore[operator]
        self.tokenizer.save_pretrained(self.run.artifacts)
        return metrics

    @torch.no_grad()
    def _judge(self, data: Tagged) -> tuple[dict[str, float], list[list[str]]]:
        """Metrics, and the tags of each sentence's tokens that are within reach."""
        self.network.eval()
        total = right = count = 0.0
        truth: list[list[str]] = []
        named: list[list[str]] = []
        for rows in torch.arange(len(data)).split(EVALUATION_ROWS):
            inputs, labels = to_device(data[rows], self.run.device)
            with autocast(self.spec.precision, self.run.device):
                logits = self.network(**inputs).logits.float()
            is_token, best = labels != IGNORED, logits.argmax(2)
            total += float(functional.cross_entropy(logits[is_token], labels[is_token], reduction="sum"))
            right += float((best == labels)[is_token].sum())
            count += float(is_token.sum())
            for row in range(len(rows)):
                truth.append([self.class_names[index] for index in labels[row][is_token[row]].tolist()])
                named.append([self.class_names[index] for index in best[row][is_token[row]].tolist()])
        metrics = {"loss": total / max(1.0, count), "accuracy": right / max(1.0, count)}
        if marks_entities(self.class_names):
            metrics |= {f"entity_{name}": value for name, value in entity_scores(truth, named)._asdict().items()}
        return metrics, named

    def _show(self, text: TaggedText, tags: Sequence[Sequence[str]]) -> None:
        lines = []
        for tokens, wanted, found in list(zip(text.tokens, text.tags, tags, strict=True))[:SHOWN]:
            pairs = zip(tokens, wanted, found, strict=False)
            words = (f"{token}/{tag}" if tag == true else f"{token}/{tag}({true}!)" for token, true, tag in pairs)
            lines.append(" ".join(words))
        self.run.show("tagged", "\n".join(lines) + "\n", caption="token/tag, and (true tag!) where it is wrong")


def open_task(spec: TuningSpec, run: Run) -> TokenClassification:
    """The base with a head for the tags of the data."""
    read = partial(read_tagged_text, tokens=spec.tokens, tags=spec.tags)
    data = read(run.dataset)
    names = data.class_names
    if len(names) < 2:
        raise InvalidData(f"all tokens have the tag {names[0]!r}; there must be two or more", param="dataset")
    training, held_out = hold_out(data, spec, read_validation=lambda: read(run.inputs["validation"]))
    if held_out is not None:
        _check_tags(held_out, names)
    network, new = _open_network(spec, run, names)
    tokenizer, reach = open_tokenizer(run.inputs["base"], network, param="base")
    if not tokenizer.is_fast:
        raise InvalidData(
            "the base's tokenizer cannot tell the pieces of a token: it needs a tokenizer.json", param="base"
        )
    length = reach if spec.max_length is None else shortened(spec.max_length, reach)
    learned = _encoded(training, tokenizer, names, length, run)
    return TokenClassification(
        spec=spec,
        run=run,
        network=network.to(run.device),
        tokenizer=tokenizer,
        new_parameters=new,
        training=learned,
        held_out=None if held_out is None else _encoded(held_out, tokenizer, names, length, run),
        class_names=names,
        weights=_weights(spec, learned, len(names)).to(run.device),
    )


def _check_tags(held_out: TaggedText, names: Sequence[str]) -> None:
    unknown = [name for name in held_out.class_names if name not in names]
    if unknown:
        raise InvalidData(f"tag {unknown[0]!r} is not among those that are learned", param="validation")


def _open_network(spec: TuningSpec, run: Run, names: Sequence[str]) -> tuple[nn.Module, frozenset[str]]:
    folder = run.inputs["base"]
    config = open_config(folder, param="base")
    if type(config) not in transformers.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING:
        raise InvalidData(
            f"a model of type '{config.model_type}' cannot learn to tag tokens: name an encoder (BERT and its like)",
            param="base",
        )
    is_same = tuple(config.id2label.values()) == tuple(names) and "ForTokenClassification" in str(config.architectures)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    if spec.reinitialize:
        return fresh(config, AUTO), frozenset()
    network, new = open_pretrained(folder, AUTO, param="base", config=config)
    return network, new if is_same else new | _fresh_head(network)


def _fresh_head(network: nn.Module) -> frozenset[str]:
    """Forget what a head knew of other tags, though there were as many; answers the names of its parameters."""
    fresh = set()
    for name, module in network.named_modules():
        if name.split(".")[0] in HEADS and isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            fresh |= {f"{name}.{parameter}" for parameter, _ in module.named_parameters()}
    return frozenset(fresh)


def _encoded(text: TaggedText, tokenizer: Any, names: Sequence[str], length: int, run: Run) -> Tagged:
    """Sentences as pieces; the first piece of a token bears its tag (Devlin et al. 2019, section 5.3)."""
    numbers = {name: number for number, name in enumerate(names)}
    pieces: list[int] = []
    labels: list[int] = []
    lengths: list[int] = []
    cut = lost = 0
    for tokens, tags in zip(text.tokens, text.tags, strict=True):
        found = tokenizer(list(tokens), is_split_into_words=True, truncation=True, max_length=length)
        owners = found.word_ids()
        first = [owner is not None and owner not in owners[:place] for place, owner in enumerate(owners)]
        pieces += found["input_ids"]
        labels += [numbers[tags[owner]] if is_first else IGNORED for owner, is_first in zip(owners, first, strict=True)]
        lengths.append(len(owners))
        cut += len(owners) == length and sum(first) < len(tokens)
        lost += len(owners) < length and sum(first) < len(tokens)
    if cut:
        run.message(f"{cut:,} of {len(text):,} sentences are longer than {length} tokens and are cut there", "warn")
    if lost:
        run.message(
            f"{lost:,} of {len(text):,} sentences hold tokens that the base's tokenizer reads as nothing", "warn"
        )
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        tokenizer.backend_tokenizer.no_truncation()  # it would be saved with the tokenizer
    as_ids = [torch.tensor(values, dtype=torch.int32) for values in (pieces, labels)]
    return Tagged(
        TokenIds(as_ids[0], lengths, pad_token=tokenizer.pad_token_id or 0, truncated=cut),
        TokenIds(as_ids[1], lengths, pad_token=IGNORED, truncated=cut),
        text,
    )


def _weights(spec: TuningSpec, data: Tagged, classes: int) -> torch.Tensor:
    if spec.class_weights is None:
        return torch.ones(classes)
    labels = data.labels.tokens
    return balanced_weights(labels[labels != IGNORED].long(), classes)


def check(spec: TuningSpec, profile: Profile) -> None:
    """Refuse what has nothing to tell apart."""
    if spec.tags is None and profile.classes is not None and len(profile.classes) < 2:
        raise InvalidData(f"all tokens have the tag {next(iter(profile.classes))!r}", param="dataset")
    check_split(spec, profile)


TASK = TaskType(reads=(Kind.TOKENS,), open=open_task, check=check)
