"""Writing one text after reading another: translations, summaries, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn
from torch.nn import functional

from core.data.profile import Kind
from core.data.text import read_text_pairs
from core.data.text_pairs import TextPair
from core.errors import InvalidData
from core.networks.generation import write
from core.networks.pretrained import Reading, fresh, open_config, open_pretrained, open_tokenizer
from core.networks.token_ids import TokenIds, encode
from core.tasks.classification import shortened
from core.tasks.task import TaskType, TuningSpec
from core.training.batches import read_parts
from core.training.devices import autocast
from core.training.lesson import report_base, valid_metrics
from core.training.parts import to_device
from core.training.run import Run
from core.training.translation_scores import bleu, chrf

EVALUATION_ROWS = 32
WRITTEN = 50  # held-out pairs that are written out, to be compared
AUTO = "AutoModelForSeq2SeqLM"


class PairBatch(NamedTuple):
    """Texts to read and texts to write, padded."""

    source: Mapping[str, torch.Tensor]
    target: Mapping[str, torch.Tensor]


class TokenPairs(NamedTuple):
    """All pairs as tokens, and as they were."""

    source: TokenIds
    target: TokenIds
    texts: Sequence[TextPair]

    def rows(self, rows: torch.Tensor) -> PairBatch:
        """These pairs."""
        return PairBatch(self.source[rows], self.target[rows])


@dataclass
class SequenceToSequence:
    """An encoder-decoder that learns to write the second text of each pair."""

    spec: TuningSpec
    run: Run
    network: nn.Module
    reading: Reading
    training: TokenPairs
    held_out: TokenPairs | None
    head: tuple[str, ...] = ()
    new_parameters: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        report_base(self, self.run)

    @property
    def examples(self) -> int:
        """How many pairs there are to learn from."""
        return len(self.training.texts)

    def freeze(self, *, is_head_alone: bool) -> None:
        """There is nothing to remember."""

    def batch(self, rows: torch.Tensor, *, generator: torch.Generator) -> PairBatch:
        """Pairs."""
        return self.training.rows(rows)

    def loss_of(self, part: PairBatch) -> torch.Tensor:
        """Cross-entropy of the target's tokens, summed."""
        logits, wanted = self._logits(part)
        return functional.cross_entropy(logits, wanted, label_smoothing=self.spec.label_smoothing, reduction="sum")

    def _logits(self, part: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [tokens, vocabulary] of the targets' tokens, each made of those before it, and the tokens."""
        network: Any = self.network
        wanted, is_token = part.target["input_ids"], part.target["attention_mask"].bool()
        with autocast(self.spec.precision, self.run.device):
            before = network.prepare_decoder_input_ids_from_labels(labels=wanted)
            logits = network(**part.source, decoder_input_ids=before, use_cache=False).logits
        return logits[is_token].float(), wanted[is_token]

    def over(self, batch: PairBatch) -> float:
        """Every token of a target has a loss."""
        return float(batch.target["attention_mask"].sum())

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float] | None:
        """Loss and accuracy a token, given those before it; chrF and BLEU of what it writes by itself."""
        if self.held_out is None:
            return None
        self.network.eval()
        total = right = count = 0.0
        for rows in torch.arange(len(self.held_out.texts)).split(EVALUATION_ROWS):
            logits, wanted = self._logits(to_device(self.held_out.rows(rows), self.run.device))
            total += float(functional.cross_entropy(logits, wanted, reduction="sum"))
            right += float((logits.argmax(1) == wanted).sum())
            count += len(wanted)
        written = self._written(self.held_out.source, min(WRITTEN, len(self.held_out.texts)))
        wanted_texts = [pair.target for pair in self.held_out.texts[:WRITTEN]]
        self._show(self.held_out.texts, written)
        scores = {"chrf": chrf(written, wanted_texts), "bleu": bleu(written, wanted_texts)}
        return {"loss": total / count, "accuracy": right / count, **scores}

    def _written(self, sources: TokenIds, count: int) -> list[str]:
        """What the network writes for the first of these sources."""
        tokenizer, texts = self.reading.tokenizer, []
        for row in range(count):
            written = write(
                self.network,
                sources[torch.tensor([row])]["input_ids"][0].tolist(),
                max_new_tokens=self.spec.sample_tokens,
                ends=[] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id],
                pad_token=tokenizer.pad_token_id or 0,
                beams=self.spec.beams,
            )
            texts.append(tokenizer.decode(written, skip_special_tokens=True))
        return texts

    def _show(self, pairs: Sequence[TextPair], written: Sequence[str]) -> None:
        shown = list(zip(pairs, written, strict=False))[: self.spec.samples]
        if shown:
            lines = [f"[read] {pair.source}\n[written] {text}\n[wanted] {pair.target}" for pair, text in shown]
            self.run.show("written", "\n\n".join(lines) + "\n")

    def write_results(self) -> Mapping[str, float]:
        """The model and its tokenizer, as transformers opens them."""
        self.network.save_pretrained(self.run.artifacts)  # type: ignore[operator]
        self.reading.tokenizer.save_pretrained(self.run.artifacts)
        return valid_metrics(self)


def open_task(spec: TuningSpec, run: Run) -> SequenceToSequence:
    """The base, and the pairs as its tokens."""
    pairs, held_out = read_parts(partial(read_text_pairs, source=spec.source, target=spec.target), run.inputs, spec)
    network = _open_network(spec, run).to(run.device)
    reading = open_tokenizer(run.inputs["base"], network, param="base")
    if spec.max_length is not None:
        reading = Reading(reading.tokenizer, shortened(spec.max_length, reading.max_length))
    return SequenceToSequence(
        spec=spec,
        run=run,
        network=network,
        reading=reading,
        training=_encoded(pairs, reading, run),
        held_out=_encoded(held_out, reading, run) if held_out else None,
    )


def _open_network(spec: TuningSpec, run: Run) -> nn.Module:
    folder = run.inputs["base"]
    config = open_config(folder, param="base")
    if type(config) not in transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        raise InvalidData(
            f"a model of type '{config.model_type}' does not write one text after reading another: name an "
            "encoder-decoder (T5, BART, Marian)",
            param="base",
        )
    if spec.reinitialize:
        return fresh(config, AUTO)
    opened = open_pretrained(folder, AUTO, param="base", config=config)
    if opened.new_parameters:
        raise InvalidData(f"the base lacks weights: {', '.join(sorted(opened.new_parameters)[:3])}", param="base")
    return opened.network


def _encoded(pairs: Sequence[TextPair], reading: Reading, run: Run) -> TokenPairs:
    tokenizer, length = reading
    source = encode([pair.source for pair in pairs], tokenizer, max_length=length)
    target = encode([pair.target for pair in pairs], tokenizer, max_length=length, is_target=True)
    cut = max(source.truncated, target.truncated)
    if cut:
        run.message(
            f"{cut:,} or more of {len(pairs):,} pairs are longer than {length} tokens and are cut there", "warn"
        )
    return TokenPairs(source, target, pairs)


TASK = TaskType(reads=(Kind.PAIRS,), open=open_task)
