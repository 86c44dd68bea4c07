"""Predicting the next token of texts: pretraining goes on, in a field of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn

from core.data.packing import IGNORED, NO_SEQUENCE, PackedBatch, PackedRows, few_rows, pack_stream
from core.data.profile import Kind, Profile
from core.data.text import read_documents
from core.errors import InvalidData
from core.networks.chat_template import ends_of_turn, give_template
from core.networks.generation import ends_of_text, write
from core.networks.language_modeling import next_token_loss, vocabulary_head
from core.networks.pretrained import MAX_TOKENS, fresh, open_config, open_pretrained, open_tokenizer
from core.tasks.classification import shortened
from core.tasks.task import TaskType, TuningSpec
from core.training.batches import read_parts
from core.training.devices import autocast
from core.training.lesson import report_base, valid_metrics
from core.training.parts import to_device
from core.training.run import Run

EVALUATION_ROWS = 8
PROMPT_TOKENS = 16
LONGEST = 32_768
CAUSAL = "AutoModelForCausalLM"


class Prompt(NamedTuple):
    """What the model is to go on from, as tokens and as people read it, and what it would ideally write."""

    tokens: Sequence[int]
    shown: str
    wanted: str = ""


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model of transformers with its tokenizer."""

    network: Any
    tokenizer: Any
    max_length: int  # in tokens, of a text that is read
    limit: int  # in tokens, that the base takes

    @property
    def turn_ends(self) -> list[int]:
        """The tokens that end an answer: those of a text, and what the chat template writes behind one."""
        return sorted({*ends_of_text(self.network, self.tokenizer), *ends_of_turn(self.tokenizer)})


def open_language_model(spec: TuningSpec, run: Run) -> LanguageModel:
    """The base on its device; raises InvalidData for what is no causal language model, or cannot be told positions."""
    folder = run.inputs["base"]
    config = open_causal_config(folder)
    if spec.reinitialize:
        network = fresh(config, CAUSAL)
    else:
        network, missing = open_pretrained(folder, CAUSAL, param="base", config=config)
        if missing:
            raise InvalidData(f"the base lacks weights: {', '.join(sorted(missing)[:3])}", param="base")
    if "position_ids" not in signature(network.forward).parameters:
        raise InvalidData(f"models of type '{config.model_type}', which take no position_ids, cannot be tuned here")
    network = network.to(run.device).eval()
    logits = _try_out(network)
    if not logits.isfinite().all():
        raise InvalidData("the base's weights make no numbers (NaN, or infinity): they are broken", param="base")
    if not torch.allclose(logits[0], logits[1], atol=1e-4, rtol=1e-3):  # what it says depends on what follows
        raise InvalidData(f"the base ('{config.model_type}') sees the tokens that it is to predict", param="base")
    reading = open_tokenizer(folder, network, param="base", at_most=LONGEST)
    _check_embeddings(network, reading.tokenizer)
    length = min(reading.max_length, MAX_TOKENS)
    if spec.max_length is not None:
        length = shortened(spec.max_length, reading.max_length)
    return LanguageModel(network, reading.tokenizer, length, limit=reading.max_length)


def open_chat_model(spec: TuningSpec, run: Run) -> LanguageModel:
    """As `open_language_model`, with a chat template: a base that has none is given a plain one, which is said."""
    model = open_language_model(spec, run)
    if give_template(model.tokenizer):
        run.message("The base has no chat template: it gets a plain one (ChatML), which is saved with it", "info")
    return model


def open_causal_config(folder: Path) -> Any:
    """The base's configuration; raises InvalidData for what is no causal language model."""
    config = open_config(folder, param="base")
    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InvalidData(
            f"a model of type '{config.model_type}' does not write texts: name a causal language model (GPT-2, Llama "
            "and their like)",
            param="base",
        )
    return config


def _check_embeddings(network: Any, tokenizer: Any) -> None:
    rows, largest = network.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values())
    if largest >= rows:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise InvalidData(
            f"the tokenizer has the token {largest} ('{token}'), and the base embeddings of 0 to {rows - 1}: upload "
            "the base with the tokenizer that it was trained with, or resize its embeddings",
            param="base",
        )


@torch.no_grad()
def _try_out(network: nn.Module) -> torch.Tensor:
    """What it says behind the same three tokens, which other ones follow: [2, 3, vocabulary]."""
    tokens = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]], device=next(network.parameters()).device)
    logits: torch.Tensor = network(input_ids=tokens, use_cache=False).logits[:, :3]
    return logits


@dataclass
class NextTokens:
    """A language model that learns which tokens come next in packed sequences."""

    spec: TuningSpec
    run: Run
    model: LanguageModel
    network: nn.Module  # the model's, or the same with adapters
    training: PackedRows
    held_out: PackedRows | None
    prompts: Sequence[Prompt]
    ends: Sequence[int]  # tokens that end what the model writes
    head: tuple[str, ...] = ()
    new_parameters: frozenset[str] = frozenset()
    accuracy: str = "token_accuracy"

    def __post_init__(self) -> None:
        self._right = torch.zeros((), dtype=torch.int64, device=self.run.device)
        self._asked = torch.zeros((), dtype=torch.int64, device=self.run.device)
        self.vocabulary_head = vocabulary_head(self.network)
        if self.run.step == 0:
            self.show("before training")
        report_base(self, self.run)

    @property
    def examples(self) -> int:
        """How many rows there are to learn from."""
        return len(self.training)

    def freeze(self, *, is_head_alone: bool) -> None:
        """There is nothing to remember."""

    def batch(self, rows: torch.Tensor, *, generator: torch.Generator) -> PackedBatch:
        """Packed rows."""
        return self.training[rows]

    def loss_of(self, part: PackedBatch) -> torch.Tensor:
        """Cross-entropy of the next tokens, summed."""
        loss = self._loss(part, self._right)
        self._asked += (part.targets != IGNORED).sum()
        return loss

    def _loss(self, part: PackedBatch, right: torch.Tensor) -> torch.Tensor:
        with autocast(self.spec.precision, self.run.device):
            return next_token_loss(self.network, part, head=self.vocabulary_head, right=right)

    def take_accuracy(self) -> torch.Tensor:
        """Part of the targets that were the likeliest token, before the step."""
        found = self._right / self._asked.clamp(min=1)
        self._right.zero_()
        self._asked.zero_()
        return found

    def tokens_in(self, batch: PackedBatch) -> int:
        """All that are read, whether or not they are to be predicted."""
        return int((batch.sequences != NO_SEQUENCE).sum())

    def over(self, batch: PackedBatch) -> float:
        """Every token that is to be predicted has a loss."""
        return max(1.0, float((batch.targets != IGNORED).sum()))

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float] | None:
        """Loss a token and its exponential, and how often the right token was the likeliest."""
        if self.held_out is None:
            return None
        total = count = 0.0
        right = torch.zeros((), dtype=torch.int64, device=self.run.device)
        for rows in few_rows(self.held_out.sizes, most=EVALUATION_ROWS):
            batch = self.held_out[rows]
            total += float(self._loss(to_device(batch, self.run.device), right))
            count += float((batch.targets != IGNORED).sum())
        return {
            "loss": total / count,
            "perplexity": math.exp(min(total / count, 100.0)),
            self.accuracy: float(right) / count,
        }

    def show(self, when: str) -> None:
        """Let people read what the model writes now."""
        if not self.prompts or self.spec.samples == 0:
            return
        answers = []
        for prompt in self.prompts:
            written = write(
                self.network,
                prompt.tokens,
                max_new_tokens=min(self.spec.sample_tokens, self.model.limit - len(prompt.tokens)),
                ends=self.ends,
                pad_token=self.model.tokenizer.pad_token_id or 0,
            )
            text = self.model.tokenizer.decode(written, skip_special_tokens=True)
            wanted = f"\n[wanted] {prompt.wanted}" if prompt.wanted else ""
            answers.append(f"{prompt.shown}\n[written] {text}{wanted}")
        self.run.show("answers", "\n\n".join(answers) + "\n", caption=when)

    def write_results(self) -> Mapping[str, float]:
        """The model and its tokenizer, as transformers opens them."""
        self.show("after training")
        self.network.save_pretrained(self.run.artifacts)  # type: ignore[operator]
        self.model.tokenizer.save_pretrained(self.run.artifacts)
        return valid_metrics(self)


def open_task(spec: TuningSpec, run: Run) -> NextTokens:
    """The base, and the texts as its tokens, each ended, in rows as long as the base takes."""
    model = open_language_model(spec, run)
    texts, held_out = read_parts(partial(read_documents, text=spec.text), run.inputs, spec)
    if spec.validation_fraction is not None and not held_out:
        raise InvalidData("one document cannot be split for validation", param="dataset")
    return NextTokens(
        spec=spec,
        run=run,
        model=model,
        network=model.network,
        training=_packed(texts, model),
        held_out=_packed(held_out, model) if held_out else None,
        prompts=_prompts(held_out or texts, model, spec.samples),
        ends=ends_of_text(model.network, model.tokenizer),
    )


def _packed(texts: Sequence[str], model: LanguageModel) -> PackedRows:
    sequences = list(_encoded(texts, model.tokenizer))
    tokens = torch.tensor([token for sequence in sequences for token in sequence], dtype=torch.int32)
    lengths = [len(sequence) for sequence in sequences]
    if max(lengths, default=0) < 2:
        raise InvalidData("the documents are of single tokens, which nothing follows", param="dataset")
    pad_token = model.tokenizer.pad_token_id or 0
    return pack_stream(tokens, lengths, row_length=model.max_length, pad_token=pad_token)


def _encoded(texts: Iterable[str], tokenizer: Any) -> Iterable[list[int]]:
    """The texts' tokens, what ends a text among them."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for text in texts:
        ids = tokenizer(text, return_attention_mask=False, verbose=False)["input_ids"]
        yield [*ids, *(end if ids[-1:] != end else [])]


def _prompts(texts: Sequence[str], model: LanguageModel, count: int) -> list[Prompt]:
    prompts = []
    for text in texts[:count]:
        tokens = model.tokenizer(text, verbose=False)["input_ids"][: min(PROMPT_TOKENS, model.limit - 1)]
        prompts.append(Prompt(tokens, model.tokenizer.decode(tokens, skip_special_tokens=True)))
    return prompts


def check(spec: TuningSpec, profile: Profile) -> None:
    """Any texts will do."""


TASK = TaskType(reads=(Kind.TEXT,), check=check, open=open_task)
