"""Masked language modelling: an encoder learns to guess the words that are hidden from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional

from core.data.examples import write_text
from core.data.masking import Masking, generator_of
from core.data.packing import IGNORED, PackedBatch, PackedRows, pack_singly, pack_whole
from core.data.profile import Kind, Profile
from core.data.token_sequences import between, cut, gathered
from core.errors import InvalidData
from core.networks.language_models import BERT, EncoderArchitecture, build_encoder
from core.networks.masked_modeling import can_pack, masked_logits, prediction_head
from core.networks.pretrained import open_pretrained, open_tokenizer
from core.networks.tokenizer_training import TokenizerKind, train_encoder_tokenizer
from core.registry import Example, method
from core.spec import fill, refuse
from core.training.batches import Batches
from core.training.devices import autocast
from core.training.documents import Documents, Sample, read_split
from core.training.language import (
    MOST_TOKENS,
    LanguageSpec,
    check_language,
    choose_context,
    count_targets,
    decaying_matrices,
    perplexity,
    read_tokens,
    say_what_was_read,
    sizes_of,
)
from core.training.learning import Learning
from core.training.parts import to_device
from core.training.run import Run
from core.training.throughput import Throughput

BETA2 = 0.98  # as RoBERTa (Liu et al. 2019)
VALIDATION_ROWS = 64
SHOWN_TEXTS = 4
SHOWN_TOKENS = 48
EXAMPLE = Example(
    spec={
        "method": "masked_language_model",
        "architecture": {"architecture": "bert", "layers": 1, "hidden_size": 32, "heads": 2},
        "vocabulary": 300,
        "context_length": 32,
        "whole_word_masking": True,
        "epochs": 2,
        "learning_rate": 3e-3,
    },
    write_dataset=write_text,
)


class MaskedLanguageModelSpec(LanguageSpec):
    """Masked language modelling: an encoder (BERT, ModernBERT) learns to guess hidden words, anew or from a base."""

    method: Literal["masked_language_model"] = Field("masked_language_model", description="The training method.")
    architecture: EncoderArchitecture | None = Field(
        None, description="The network; none: BERT of 4 layers, 256 wide, or the base's."
    )
    tokenizer: TokenizerKind | None = Field(
        None, description="Kind of the tokenizer that is learned from the data set; wordpiece, or the base's."
    )
    lowercase: bool | None = Field(
        None, description="Whether the tokenizer that is learned takes capitals for small letters; it does."
    )
    masking_rate: float = Field(0.15, gt=0, le=0.9, description="Part of the tokens that are to be guessed.")
    whole_word_masking: bool = Field(
        False, description="Hide all tokens of a word together: harder, and better for words cut in many tokens."
    )
    weight_decay: float = Field(0.01, ge=0, le=10, description="Decoupled weight decay (AdamW), of matrices.")

    @model_validator(mode="before")
    @classmethod
    def _settings_of_a_new_model(cls, data: Any) -> Any:
        for name, default in {
            "architecture": {"architecture": "bert"},
            "tokenizer": "wordpiece",
            "lowercase": True,
        }.items():
            data = fill(data, name, default, when=lambda given: given.get("base") is None)
        return data

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        settings = ("architecture", "tokenizer", "lowercase", "vocabulary")
        if self.base is not None:
            refuse(self, *settings, because="the base has its own")
        for name in settings:
            if self.base is None and getattr(self, name) is None:
                raise ValueError(f"{name} is needed where there is no base")
        return self


def check(spec: MaskedLanguageModelSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    check_language(spec, profile)


def masked_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the hidden tokens, summed, 0-d; `logits` [hidden, vocabulary] (Devlin et al. 2019)."""
    return functional.cross_entropy(logits.float(), targets[targets != IGNORED], reduction="sum")


@method(
    reads=(Kind.TEXT,),
    paper="Devlin et al. 2019, BERT: Pre-training of deep bidirectional transformers; ModernBERT: Warner et al. 2024, "
    "Smarter, better, faster, longer",
    opens_with="transformers (AutoModelForMaskedLM, AutoTokenizer); a base of fine_tuning and distillation",
    example=EXAMPLE,
    check=check,
)
def train(spec: MaskedLanguageModelSpec, run: Run) -> Mapping[str, float]:
    """Descend the cross-entropy of hidden words, which are drawn anew in every step."""
    documents = read_split(spec, run)
    model = open_model(spec, documents, run)
    network = model.network
    rows = model.rows(documents.training())
    held_out = model.rows(documents.held_out()) if spec.is_validated else None
    say_what_was_read(rows, held_out, context_length=model.context_length, run=run)
    batches = Batches.of(len(rows), spec)
    optimizer = decaying_matrices(network, spec, beta2=BETA2)
    learning = Learning(network, spec, run, total=len(batches), optimizer=optimizer)
    throughput = Throughput()

    def loss_of(part: PackedBatch) -> torch.Tensor:
        with autocast(spec.precision, run.device):
            logits = model.logits(part)
        return masked_loss(logits, part.targets)

    for batch in run.steps(batches):
        network.train()
        hidden = model.hide(rows, batch.rows, generator=generator_of(spec.seed, batch.step))
        loss = learning.descend(hidden, loss_of, over=count_targets(hidden))
        run.log(loss=loss, tokens_per_second=throughput.of(int(rows.sizes[batch.rows].sum())))
        if batch.is_epoch_end:
            if held_out is not None:
                learning.validate(lambda: evaluate(model, held_out, spec))
            show_guesses(model, held_out or rows, run)
            throughput.restart()

    learning.finish()
    network.save_pretrained(run.artifacts)
    model.tokenizer.save_pretrained(run.artifacts)
    found = {} if held_out is None else evaluate(model, held_out, spec)
    return {f"valid_{name}": value for name, value in found.items()} | sizes_of(network, rows, run)


@dataclass(frozen=True)
class EncoderModel:
    """An encoder that guesses hidden words, and how it reads texts."""

    network: Any
    tokenizer: Any
    context_length: int
    masking: Masking
    is_whole_word: bool
    head: Sequence[nn.Module]
    is_packed: bool
    folder: Path  # where tokens go

    def rows(self, texts: Iterable[str]) -> PackedRows:
        """The texts in rows; long ones go on in another sequence, short ones share a row."""
        vocabulary = self.network.config.vocab_size
        found = read_tokens(texts, self.tokenizer, vocabulary=vocabulary, with_words=self.is_whole_word)
        begin, end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        longest = self.context_length - (begin is not None) - (end is not None)
        pieces = (between(cut(block, longest=longest), first=begin, last=end) for block in found)
        tokens, lengths, begins_word = gathered(pieces, folder=self.folder)
        pad = self.tokenizer.pad_token_id
        if not self.is_packed:
            return pack_singly(tokens, lengths, pad_token=pad, begins_word=begins_word)
        return pack_whole(tokens, lengths, row_length=self.context_length, pad_token=pad, begins_word=begins_word)

    def hide(self, rows: PackedRows, chosen: torch.Tensor, *, generator: torch.Generator) -> PackedBatch:
        """The chosen rows with words to guess."""
        return self.masking.masked(rows[chosen], words=rows.words(chosen), generator=generator)

    def logits(self, batch: PackedBatch) -> torch.Tensor:
        """Of the hidden tokens, [hidden, vocabulary]."""
        return masked_logits(self.network, batch, head=self.head, is_packed=self.is_packed)


def open_model(spec: MaskedLanguageModelSpec, documents: Documents, run: Run) -> EncoderModel:
    """A new encoder with a tokenizer learned from the documents, or the base with its own."""
    if spec.base is None:
        context = choose_context(spec, None)
        assert spec.tokenizer is not None and spec.vocabulary is not None  # noqa: S101, PT018 - filled without a base
        tokenizer = train_encoder_tokenizer(
            Sample(documents),
            kind=spec.tokenizer,
            size=spec.vocabulary,
            lowercase=bool(spec.lowercase),
            max_length=context,
        )
        network: Any = build_encoder(spec.architecture or BERT(), tokenizer, context_length=context)
    else:
        network, tokenizer, context = open_base(spec, run)
    network.to(run.device)
    masking = Masking.of(tokenizer, vocabulary=network.config.vocab_size, rate=spec.masking_rate)
    is_packed = can_pack(network)
    if not is_packed:
        run.message("This base cannot tell texts apart that share a row: each gets a row of its own, which is slower")
    return EncoderModel(
        network, tokenizer, context, masking, spec.whole_word_masking, prediction_head(network), is_packed, run.folder
    )


def open_base(spec: MaskedLanguageModelSpec, run: Run) -> tuple[Any, Any, int]:
    """The base's network and tokenizer, and how many tokens a row holds."""
    folder = run.inputs["base"]
    network, new = open_pretrained(folder, "AutoModelForMaskedLM", param="base")
    tokenizer, limit = open_tokenizer(folder, network, param="base", at_most=MOST_TOKENS)
    if tokenizer.mask_token_id is None:
        raise InvalidData("the base's tokenizer has no mask token: name a base of BERT's family", param="base")
    if new:
        run.message(f"The base lacks weights that start at random: {', '.join(sorted(new)[:3])}", "warn")
    return network, tokenizer, choose_context(spec, limit)


@torch.no_grad()
def evaluate(model: EncoderModel, held_out: PackedRows, spec: MaskedLanguageModelSpec) -> dict[str, float]:
    """Loss, accuracy and perplexity of the guesses in what was held out, where always the same words are hidden."""
    loss, right, count = 0.0, 0, 0
    for number, chosen in enumerate(torch.arange(len(held_out)).split(VALIDATION_ROWS)):
        hidden = model.hide(held_out, chosen, generator=generator_of(spec.seed, -1 - number))
        batch = to_device(hidden, model.network.device)
        with autocast(spec.precision, model.network.device):
            logits = model.logits(batch)
        loss += float(masked_loss(logits, batch.targets))
        right += int((logits.argmax(1) == batch.targets[batch.targets != IGNORED]).sum())
        count += int(count_targets(hidden))
    return {"loss": loss / count, "accuracy": right / count, "perplexity": perplexity(loss / count)}


@torch.no_grad()
def show_guesses(model: EncoderModel, rows: PackedRows, run: Run) -> None:
    """Let people see a few texts with hidden words, what the network guesses, and what stood there."""
    chosen = torch.linspace(0, len(rows) - 1, min(SHOWN_TEXTS, len(rows))).long()
    hidden = model.hide(rows, chosen, generator=generator_of(run.spec.seed, 0))
    batch, hidden = (PackedBatch(*(each[:, :SHOWN_TOKENS] for each in found)) for found in (rows[chosen], hidden))
    is_target = hidden.targets != IGNORED
    asked = hidden._replace(tokens=torch.where(is_target, model.masking.mask_token, batch.tokens))
    model.network.eval()
    guesses = batch.tokens.masked_scatter(
        is_target, model.logits(to_device(asked, model.network.device)).argmax(1).cpu()
    )
    texts = []
    for row in range(len(batch.tokens)):
        is_shown = (batch.sequences[row] == batch.sequences[row, 0]) & ~model.masking.is_special[batch.tokens[row]]
        lines = [model.tokenizer.decode(each[row][is_shown]) for each in (asked.tokens, guesses, batch.tokens)]
        texts.append(
            "\n".join(f"{name}: {line}" for name, line in zip(("hidden ", "guessed", "true   "), lines, strict=True))
        )
    run.show("guesses", "\n\n".join(texts), caption="Texts with hidden words, and what the network guesses")
