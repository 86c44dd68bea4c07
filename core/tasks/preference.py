"""Preferring the better of two answers: direct preference optimization, without a reward model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from core.data.conversations import Preference, read_preferences
from core.data.packing import IGNORED, NO_SEQUENCE, PackedBatch, PackedRows, few_rows
from core.data.profile import Kind
from core.errors import InvalidData
from core.networks.chat_template import Rendered
from core.networks.language_modeling import decoder, vocabulary_head
from core.tasks.language_model import LanguageModel, open_chat_model
from core.tasks.rendering import render_each, render_pair, room_for
from core.tasks.task import TaskType, TuningSpec
from core.training.batches import read_parts
from core.training.devices import autocast
from core.training.lesson import report_base, valid_metrics
from core.training.parts import to_device
from core.training.run import Run

EVALUATION_ROWS = 4


class PairBatch(NamedTuple):
    """Pairs of answers to the same prompts, and how likely the base found each: [pairs, 2], chosen first."""

    chosen: PackedBatch
    rejected: PackedBatch
    reference: torch.Tensor


class Pairs(NamedTuple):
    """All pairs; a row is a whole conversation whose answer is to be judged."""

    chosen: PackedRows
    rejected: PackedRows
    reference: torch.Tensor  # [pairs, 2] float32

    def rows(self, rows: torch.Tensor) -> PairBatch:
        """These pairs."""
        return PairBatch(self.chosen[rows], self.rejected[rows], self.reference[rows])


def preference_losses(
    chosen: torch.Tensor, rejected: torch.Tensor, reference: torch.Tensor, *, beta: float, smoothing: float = 0.0
) -> torch.Tensor:
    """Of each pair, [pairs]: -log sigmoid(beta * margin), equation 7 of Rafailov et al. 2023, where

        margin = (log p(chosen) - log p_base(chosen)) - (log p(rejected) - log p_base(rejected)).

    `chosen`, `rejected` [pairs]: log-probabilities of whole answers; `reference` [pairs, 2]: the base's of both.
    `smoothing`: how often a pair is believed to be labelled the wrong way round (Mitchell 2023, conservative DPO).
    """
    margins = beta * ((chosen - reference[:, 0]) - (rejected - reference[:, 1]))
    return -(1 - smoothing) * functional.logsigmoid(margins) - smoothing * functional.logsigmoid(-margins)


def answer_log_probabilities(network: nn.Module, batch: PackedBatch, *, head: nn.Linear | None) -> torch.Tensor:
    """The log-probability of each row's targets together, [rows] float32."""
    inputs = {"input_ids": batch.tokens, "position_ids": batch.positions, "use_cache": False}
    rows, places = (batch.targets != IGNORED).nonzero(as_tuple=True)
    if head is None:
        logits = network(**inputs).logits[rows, places]
    else:
        logits = head(decoder(network)(**inputs).last_hidden_state[rows, places])
    losses = functional.cross_entropy(logits.float(), batch.targets[rows, places], reduction="none")
    return -torch.zeros(len(batch.tokens), device=losses.device).index_add(0, rows, losses)


@dataclass
class PreferenceTask:
    """A language model that learns to find better answers likelier than worse ones."""

    spec: TuningSpec
    run: Run
    model: LanguageModel
    network: nn.Module
    vocabulary_head: nn.Linear | None
    training: Pairs
    held_out: Pairs | None
    head: tuple[str, ...] = ()
    new_parameters: frozenset[str] = frozenset()
    accuracy: str = "reward_accuracy"

    def __post_init__(self) -> None:
        self._right = torch.zeros(2, device=self.run.device)  # and of how many
        report_base(self, self.run)

    @property
    def examples(self) -> int:
        """How many pairs there are to learn from."""
        return len(self.training.reference)

    def freeze(self, *, is_head_alone: bool) -> None:
        """There is nothing to remember."""

    def batch(self, rows: torch.Tensor, *, generator: torch.Generator) -> PairBatch:
        """Pairs."""
        return self.training.rows(rows)

    def loss_of(self, part: PairBatch) -> torch.Tensor:
        """The pairs' losses, summed."""
        chosen, rejected = self.log_probabilities(part)
        losses = preference_losses(
            chosen, rejected, part.reference, beta=self.spec.beta, smoothing=self.spec.label_smoothing
        )
        is_right = (chosen - rejected).detach() > part.reference[:, 0] - part.reference[:, 1]
        self._right += torch.stack([is_right.sum(), is_right.new_tensor(len(is_right), dtype=torch.int64)])
        return losses.sum()

    def take_accuracy(self) -> torch.Tensor:
        """Part of the pairs whose better answer had gained more on the base than the worse, before the step."""
        found = self._right[0] / self._right[1].clamp(min=1)
        self._right.zero_()
        return found

    def tokens_in(self, batch: PairBatch) -> int:
        """Those of both conversations."""
        return sum(int((side.sequences != NO_SEQUENCE).sum()) for side in (batch.chosen, batch.rejected))

    def log_probabilities(self, part: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the chosen and of the rejected answers, [pairs] each."""
        with autocast(self.spec.precision, self.run.device):
            chosen = answer_log_probabilities(self.network, part.chosen, head=self.vocabulary_head)
            rejected = answer_log_probabilities(self.network, part.rejected, head=self.vocabulary_head)
        return chosen, rejected

    def over(self, batch: PairBatch) -> float:
        """Every pair has a loss."""
        return float(len(batch.reference))

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float] | None:
        """Loss; how often the better answer gained more on the base than the worse (`reward_accuracy`), and how much
        more, times beta (`reward_margin`); how often it is the likelier by itself (`preferred`).
        """
        if self.held_out is None:
            return None
        self.network.eval()
        found = []
        for rows in _few_pairs(self.held_out.chosen, self.held_out.rejected):
            part = to_device(self.held_out.rows(rows), self.run.device)
            chosen, rejected = self.log_probabilities(part)
            losses = preference_losses(chosen, rejected, part.reference, beta=self.spec.beta)
            margins = self.spec.beta * ((chosen - rejected) - (part.reference[:, 0] - part.reference[:, 1]))
            found.append(torch.stack([losses, (margins > 0).float(), margins, (chosen > rejected).float()]))
        means = torch.cat(found, 1).mean(1).tolist()
        return dict(zip(("loss", "reward_accuracy", "reward_margin", "preferred"), means, strict=True))

    def write_results(self) -> Mapping[str, float]:
        """The model and its tokenizer, as transformers opens them."""
        self.network.save_pretrained(self.run.artifacts)  # type: ignore[operator]
        self.model.tokenizer.save_pretrained(self.run.artifacts)
        return valid_metrics(self)


def open_task(spec: TuningSpec, run: Run) -> PreferenceTask:
    """The base, and the pairs with the log-probabilities that the base gives them, before anything is learned."""
    model = open_chat_model(spec, run)
    training, held_out = read_parts(read_preferences, run.inputs, spec)
    head = vocabulary_head(model.network)
    return PreferenceTask(
        spec=spec,
        run=run,
        model=model,
        network=model.network,
        vocabulary_head=head,
        training=_pairs(training, model, spec=spec, run=run, head=head, param="dataset"),
        held_out=_pairs(held_out, model, spec=spec, run=run, head=head, param="validation") if held_out else None,
    )


def _pairs(
    preferences: Sequence[Preference],
    model: LanguageModel,
    *,
    spec: TuningSpec,
    run: Run,
    head: nn.Linear | None,
    param: str,
) -> Pairs:
    room = room_for(spec, limit=model.limit, usual=model.max_length)
    rendered = render_each(render_pair, preferences, tokenizer=model.tokenizer, room=room)
    fitting = [pair for pair in rendered if pair.longest <= room.tokens]
    if len(fitting) < len(rendered):
        count = f"{len(rendered) - len(fitting):,} of {len(rendered):,} pairs"
        run.message(f"{count} are longer than {room.tokens} tokens and are left out: set max_length", "warn")
    if not fitting:
        raise InvalidData(f"no pair is left within {room.tokens} tokens", param=param)
    pad_token = model.tokenizer.pad_token_id or 0
    chosen, rejected = (_rows([pair[side] for pair in fitting], pad_token) for side in (0, 1))
    return Pairs(chosen, rejected, _reference(model.network, chosen, rejected, spec=spec, run=run, head=head))


def _rows(rendered: Sequence[Rendered], pad_token: int) -> PackedRows:
    tokens = torch.tensor([token for each in rendered for token in each.tokens], dtype=torch.int32)
    learned = torch.tensor([is_learned for each in rendered for is_learned in each.learned])
    sizes = torch.tensor([len(each.tokens) for each in rendered])
    return PackedRows(tokens, sizes, starts=sizes.cumsum(0) - sizes, pad_token=pad_token, learned=learned)


@torch.no_grad()
def _reference(
    network: nn.Module, chosen: PackedRows, rejected: PackedRows, *, spec: TuningSpec, run: Run, head: nn.Linear | None
) -> torch.Tensor:
    """The base's log-probabilities of both answers, [pairs, 2], on the CPU."""
    network.eval()
    found: list[Any] = []
    for rows in _few_pairs(chosen, rejected):
        with autocast(spec.precision, run.device):
            sides = [
                answer_log_probabilities(network, to_device(side[rows], run.device), head=head)
                for side in (chosen, rejected)
            ]
        found.append(torch.stack(sides, 1).cpu())
    return torch.cat(found)


def _few_pairs(chosen: PackedRows, rejected: PackedRows) -> list[torch.Tensor]:
    return few_rows(torch.maximum(chosen.sizes, rejected.sizes), most=EVALUATION_ROWS)


TASK = TaskType(reads=(Kind.PREFERENCES,), open=open_task)
