"""Causal language modelling: a decoder learns to go on with a text, token after token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, StringConstraints, model_validator
from torch import nn

from core.data.examples import write_text
from core.data.packing import PackedBatch, PackedRows, pack_stream
from core.data.profile import Kind, Profile
from core.data.token_sequences import between, gathered
from core.errors import InvalidData
from core.networks.language_modeling import keeps_apart, next_token_loss, vocabulary_head
from core.networks.language_models import GPT2, DecoderArchitecture, build_decoder
from core.networks.pretrained import open_pretrained, open_tokenizer
from core.networks.sampling import sample_tokens
from core.networks.tokenizer_training import train_decoder_tokenizer
from core.registry import Example, method
from core.spec import fill, refuse
from core.training.batches import Batch, Batches
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

BETA2 = 0.95  # as GPT-3 (Brown et al. 2020)
VALIDATION_ROWS = 32
SHOWINGS = 10  # in a run, besides those at the ends of epochs
PROMPT_TOKENS = 8  # of a held-out text, where the spec has no prompts
EXAMPLE = Example(
    spec={
        "method": "causal_language_model",
        "architecture": {"architecture": "gpt2", "layers": 1, "hidden_size": 32, "heads": 2},
        "vocabulary": 300,
        "context_length": 32,
        "epochs": 2,
        "learning_rate": 3e-3,
        "sample_length": 12,
    },
    write_dataset=write_text,
)


class CausalLanguageModelSpec(LanguageSpec):
    """Causal language modelling: a decoder (GPT-2, Llama) learns to go on with a text, anew or from a base."""

    method: Literal["causal_language_model"] = Field("causal_language_model", description="The training method.")
    architecture: DecoderArchitecture | None = Field(
        None, description="The network; none: GPT-2 of 4 layers, 256 wide, or the base's."
    )
    weight_decay: float = Field(0.1, ge=0, le=10, description="Decoupled weight decay (AdamW), of matrices.")
    prompts: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=2000)]], Field(max_length=8)] = (
        Field([], description="Beginnings of the texts that are shown; none: of nothing, and of a held-out text.")
    )
    sample_length: int = Field(64, ge=0, le=1024, description="Tokens of the texts that are shown; 0: none are.")
    temperature: float = Field(0.8, gt=0, le=10, description="How freely the texts that are shown are written.")
    top_p: float = Field(0.95, gt=0, le=1, description="Tokens less likely than these together are not written.")

    @model_validator(mode="before")
    @classmethod
    def _settings_of_a_new_model(cls, data: Any) -> Any:
        return fill(data, "architecture", {"architecture": "gpt2"}, when=lambda given: given.get("base") is None)

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.base is not None:
            refuse(self, "architecture", "vocabulary", because="the base has its own")
        elif self.architecture is None or self.vocabulary is None:
            raise ValueError("architecture and vocabulary are needed where there is no base")
        if self.sample_length == 0 and self.prompts:
            raise ValueError("prompts would have no effect: sample_length is 0")
        return self


def check(spec: CausalLanguageModelSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    check_language(spec, profile)


@method(
    reads=(Kind.TEXT,),
    paper="Radford et al. 2019, Language models are unsupervised multitask learners; Llama: Touvron et al. 2023; "
    "packing without leaks: Krell et al. 2021",
    opens_with="transformers (AutoModelForCausalLM, AutoTokenizer); GGUF: see the method's page",
    example=EXAMPLE,
    check=check,
)
def train(spec: CausalLanguageModelSpec, run: Run) -> Mapping[str, float]:
    """Descend the cross-entropy of each next token, given those before it in the same document."""
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
            return model.loss(part)

    for batch in run.steps(batches):
        network.train()
        packed = rows[batch.rows]
        loss = learning.descend(packed, loss_of, over=count_targets(packed))
        run.log(loss=loss, tokens_per_second=throughput.of(int(rows.sizes[batch.rows].sum())))
        if batch.is_epoch_end and held_out is not None:
            learning.validate(lambda: evaluate(model, held_out, spec))
        if should_show(batch, batches):
            show_texts(model, held_out or rows, spec, run)
            throughput.restart()

    learning.finish()
    network.save_pretrained(run.artifacts)
    model.tokenizer.save_pretrained(run.artifacts)
    found = {} if held_out is None else evaluate(model, held_out, spec)
    return {f"valid_{name}": value for name, value in found.items()} | sizes_of(model.network, rows, run)


@dataclass(frozen=True)
class DecoderModel:
    """A decoder, and how it reads texts."""

    network: Any
    tokenizer: Any
    context_length: int
    head: nn.Linear | None
    folder: Path  # where tokens go

    def rows(self, texts: Iterable[str]) -> PackedRows:
        """The texts one after another, each between its begin and its end, cut wherever a row is full."""
        vocabulary = self.network.config.vocab_size
        found = read_tokens(texts, self.tokenizer, vocabulary=vocabulary)
        first, last = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        bounded = (between(block, first=first, last=last) for block in found)
        tokens, lengths, _ = gathered(bounded, folder=self.folder)
        return pack_stream(tokens, lengths, row_length=self.context_length, pad_token=self.tokenizer.pad_token_id or 0)

    def loss(self, batch: PackedBatch) -> torch.Tensor:
        """Cross-entropy of the next tokens, summed, 0-d; no document sees another."""
        return next_token_loss(self.network, batch, head=self.head)

    def write(self, prompt: list[int], spec: CausalLanguageModelSpec) -> str:
        """A text that begins so."""
        written = sample_tokens(
            self.network,
            prompt,
            length=min(spec.sample_length, self.context_length - len(prompt)),
            temperature=spec.temperature,
            top_p=spec.top_p,
            generator=torch.Generator().manual_seed(spec.seed),
            end_token=self.tokenizer.eos_token_id,
        )
        text: str = self.tokenizer.decode([*prompt, *written], skip_special_tokens=True)
        return text


def open_model(spec: CausalLanguageModelSpec, documents: Documents, run: Run) -> DecoderModel:
    """A new decoder with a tokenizer learned from the documents, or the base with its own."""
    if spec.base is None:
        context = choose_context(spec, None)
        assert spec.vocabulary is not None  # noqa: S101 - filled without a base
        tokenizer = train_decoder_tokenizer(Sample(documents), size=spec.vocabulary, max_length=context)
        network: Any = build_decoder(spec.architecture or GPT2(), tokenizer, context_length=context)
    else:
        network, tokenizer, context = open_base(spec, run)
    network.to(run.device)
    return DecoderModel(network, tokenizer, context, vocabulary_head(network), run.folder)


def open_base(spec: CausalLanguageModelSpec, run: Run) -> tuple[Any, Any, int]:
    """The base's network and tokenizer, and how many tokens a row holds."""
    folder = run.inputs["base"]
    network, new = open_pretrained(folder, "AutoModelForCausalLM", param="base")
    tokenizer, limit = open_tokenizer(folder, network, param="base", at_most=MOST_TOKENS)
    config: Any = network.config
    if not keeps_apart(network):
        raise InvalidData(
            f"a model of type {config.model_type!r} lets packed documents see each other: name a base whose "
            "positions can be given (GPT-2, Llama, Mistral, Qwen, Gemma and their like)",
            param="base",
        )
    if new:
        run.message(f"The base lacks weights that start at random: {', '.join(sorted(new)[:3])}", "warn")
    return network, tokenizer, choose_context(spec, limit)


@torch.no_grad()
def evaluate(model: DecoderModel, held_out: PackedRows, spec: CausalLanguageModelSpec) -> dict[str, float]:
    """Loss and perplexity on what was held out, whole."""
    total = count = 0.0
    for chosen in torch.arange(len(held_out)).split(VALIDATION_ROWS):
        batch = held_out[chosen]
        with autocast(spec.precision, model.network.device):
            total += float(model.loss(to_device(batch, model.network.device)))
        count += float(count_targets(batch))
    return {"loss": total / count, "perplexity": perplexity(total / count)}


def should_show(batch: Batch, batches: Batches) -> bool:
    """At the ends of epochs, and a few times in a run of few long ones."""
    return batch.is_epoch_end or (batch.step + 1) % max(1, len(batches) // SHOWINGS) == 0


def show_texts(model: DecoderModel, rows: PackedRows, spec: CausalLanguageModelSpec, run: Run) -> None:
    """Let people read what the model writes, with the same draws every time."""
    if not spec.sample_length:
        return
    model.network.eval()
    begin = [token for token in (model.tokenizer.bos_token_id,) if token is not None]
    prompts = [begin + model.tokenizer.encode(prompt, add_special_tokens=False) for prompt in spec.prompts]
    if not prompts:
        opening = rows.tokens[: len(begin) + PROMPT_TOKENS].tolist()
        prompts = [begin, opening] if begin else [opening]
    texts = [model.write(prompt[: model.context_length // 2], spec) for prompt in prompts]
    run.show("texts", "\n\n---\n\n".join(texts), caption=f"Texts as the model writes them at step {run.step}")
