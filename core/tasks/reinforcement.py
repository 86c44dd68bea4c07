"""Completing prompts as a grader rewards it: reinforcement fine-tuning by group relative policy optimization."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from core.data.packing import IGNORED, NO_SEQUENCE, PackedBatch, few_rows
from core.data.profile import Kind, Profile
from core.data.prompts import GradedPrompt, read_prompts
from core.errors import InvalidData, InvalidSpec
from core.graders import check_item, grade, names_of_items
from core.memory import is_out_of_memory
from core.networks.generation import complete
from core.networks.language_modeling import token_log_probabilities, vocabulary_head
from core.tasks.language_model import LanguageModel, open_chat_model
from core.tasks.rendering import render_each, render_prompt, room_for
from core.tasks.rollouts import Completion, Prompt, Rollout, figures_of, pack_completions
from core.tasks.task import TaskType, TuningSpec, check_split
from core.training.batches import read_parts
from core.training.devices import autocast
from core.training.lesson import report_base, valid_metrics
from core.training.parts import to_device
from core.training.policy_gradient import group_advantages, kl_to_base, policy_losses
from core.training.run import Run

ROWS_AT_ONCE = 8  # where no gradient is kept
PROMPTS_AT_ONCE = 64  # that are answered for an evaluation
SHOWN_CHARACTERS = 2000


@dataclass
class ReinforcementTask:
    """A language model that learns to complete prompts so that a grader rewards it.

    Nothing is dropped (dropout) while it learns: the policy whose gradient is taken is the one that wrote.
    """

    spec: TuningSpec
    run: Run
    model: LanguageModel
    network: nn.Module  # the model's, or the same with adapters
    base: nn.Module | None  # a frozen copy; None: the network without its adapters, or nothing to be held near to
    training: Sequence[Prompt]
    held_out: Sequence[Prompt]
    head: tuple[str, ...] = ()
    new_parameters: frozenset[str] = frozenset()
    accuracy: str = "reward"

    def __post_init__(self) -> None:
        self._reward = torch.zeros(())
        self.vocabulary_head = vocabulary_head(self.network)
        self.base_head = self.vocabulary_head if self.base is None else vocabulary_head(self.base)
        self.ends = self.model.turn_ends
        self.prompts_at_once = PROMPTS_AT_ONCE
        self.run.watch.should_fall = False
        if self.run.step == 0:
            self.show("before training")
        report_base(self, self.run)

    @property
    def examples(self) -> int:
        """How many prompts there are to learn from."""
        return len(self.training)

    def freeze(self, *, is_head_alone: bool) -> None:
        """There is nothing to remember."""

    def batch(self, rows: torch.Tensor, *, generator: torch.Generator) -> Rollout:
        """What the model writes now behind these prompts, `group_size` times each, and how much better than the rest
        of its group each completion is. The draws are torch's own.
        """
        prompts, size = [self.training[row] for row in rows.tolist()], self.spec.group_size
        written = self.completions(prompts, count=size, temperature=self.spec.temperature)
        rewards = torch.tensor([each.grade.reward for each in written]).view(-1, size)
        self.run.log(**figures_of(written, rewards, ends=self.ends))
        self._reward = rewards.mean()
        packed = pack_completions(written, pad_token=self.model.tokenizer.pad_token_id or 0)
        old = None
        if self.spec.updates > 1:
            old = self._log_probabilities(self.network, packed, head=self.vocabulary_head)
        return Rollout(packed, group_advantages(rewards).flatten(), old, self._reference(packed))

    def completions(
        self, prompts: Sequence[Prompt], *, count: int = 1, temperature: float | None = None
    ) -> list[Completion]:
        """`count` completions of each prompt with their grades; the likeliest where `temperature` is None."""
        self.network.eval()
        found: list[list[int]] = []
        while len(found) < len(prompts) * count:
            done = len(found) // count
            try:
                found += self._complete(prompts[done : done + self.prompts_at_once], count, temperature)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.prompts_at_once == 1:
                    raise
                self.prompts_at_once = max(1, min(self.prompts_at_once, len(prompts)) // 2)
                self.run.message(f"Memory ran out: {self.prompts_at_once} prompts are completed at once", "warn")
        return [self._graded(prompts[place // count], tokens) for place, tokens in enumerate(found)]

    def loss_of(self, part: Rollout) -> torch.Tensor:
        """The tokens' losses, summed."""
        with autocast(self.spec.precision, self.run.device):
            new = token_log_probabilities(
                self.network, part.packed, head=self.vocabulary_head, temperature=self.spec.temperature
            )
        rows, places = (part.packed.targets != IGNORED).nonzero(as_tuple=True)
        old = new.detach() if part.old is None else part.old[rows, places]
        kl = None if part.reference is None else kl_to_base(new, part.reference[rows, places])
        if kl is not None:
            self.run.log(kl=kl.mean())
        return policy_losses(new, old, part.advantages[rows], kl=kl, beta=self.spec.beta).sum()

    def over(self, batch: Rollout) -> float:
        """Every token that was written has a loss."""
        return float((batch.packed.targets != IGNORED).sum())

    def take_accuracy(self) -> torch.Tensor:
        """The mean reward of the last batch."""
        return self._reward

    def tokens_in(self, batch: Rollout) -> int:
        """Those of prompts and of completions."""
        return int((batch.packed.sequences != NO_SEQUENCE).sum())

    def evaluate(self) -> Mapping[str, float] | None:
        """The mean reward of the likeliest completions, its negative as the loss, and how many tokens they have."""
        if not self.held_out:
            return None
        written = self.completions(self.held_out)
        reward = sum(each.grade.reward for each in written) / len(written)
        length = sum(len(each.tokens) for each in written) / len(written)
        return {"loss": 0.0 - reward, "reward": reward, "completion_length": length}

    def show(self, when: str) -> None:
        """Let people read the likeliest completions now, and their rewards."""
        prompts = (self.held_out or self.training)[: self.spec.samples]
        if not prompts:
            return
        answers = []
        for each in self.completions(prompts):
            asked = "\n".join(f"[{message['role']}] {message['content']}" for message in each.prompt.source.messages)
            failure = f" ({each.grade.error})" if each.grade.error else ""
            answers.append(
                f"{asked[-SHOWN_CHARACTERS:]}\n[written] {each.text}\n[reward] {each.grade.reward:g}{failure}"
            )
        self.run.show("completions", "\n\n".join(answers) + "\n", caption=when)

    def write_results(self) -> Mapping[str, float]:
        """The model and its tokenizer, as transformers opens them."""
        self.show("after training")
        self.network.save_pretrained(self.run.artifacts)  # type: ignore[operator]
        self.model.tokenizer.save_pretrained(self.run.artifacts)
        return valid_metrics(self)

    def _complete(self, prompts: Sequence[Prompt], count: int, temperature: float | None) -> list[list[int]]:
        with autocast(self.spec.precision, self.run.device):
            return complete(
                self.network,
                [prompt.tokens for prompt in prompts],
                count=count,
                max_new_tokens=self.spec.max_completion_tokens,
                ends=self.ends,
                pad_token=self.model.tokenizer.pad_token_id or 0,
                temperature=temperature,
            )

    def _graded(self, prompt: Prompt, tokens: Sequence[int]) -> Completion:
        assert self.spec.grader is not None  # noqa: S101 - the spec sees to it
        text = self.model.tokenizer.decode(tokens, skip_special_tokens=True)
        return Completion(prompt, tokens, text, grade(self.spec.grader, prompt.source.item, text))

    def _reference(self, packed: PackedBatch) -> torch.Tensor | None:
        if self.spec.beta == 0:
            return None
        with self._as_base() as base:
            return self._log_probabilities(base, packed, head=self.base_head)

    @contextmanager
    def _as_base(self) -> Iterator[nn.Module]:
        if self.base is not None:
            yield self.base
        else:
            with self.network.disable_adapter():  # type: ignore[operator]
                yield self.network

    @torch.no_grad()
    def _log_probabilities(self, network: nn.Module, packed: PackedBatch, *, head: nn.Linear | None) -> torch.Tensor:
        """Of each target, at its place, [rows, longest] on the CPU; 0 where there is none."""
        found = torch.zeros(packed.targets.shape)
        for rows in few_rows(torch.full((len(found),), found.shape[1]), most=ROWS_AT_ONCE):
            part = PackedBatch(*(each[rows] for each in packed))
            with autocast(self.spec.precision, self.run.device):
                values = token_log_probabilities(
                    network, to_device(part, self.run.device), head=head, temperature=self.spec.temperature
                )
            places = (part.targets != IGNORED).nonzero(as_tuple=True)
            found[rows[places[0]], places[1]] = values.cpu()
        return found


def open_task(spec: TuningSpec, run: Run) -> ReinforcementTask:
    """The base, and the prompts as its chat template has them."""
    model = open_chat_model(spec, run)
    training, held_out = read_parts(partial(read_prompts, check=item_check(spec)), run.inputs, spec)
    needs_copy = spec.beta > 0 and spec.strategy != "lora"
    return ReinforcementTask(
        spec=spec,
        run=run,
        model=model,
        network=model.network,
        base=copy.deepcopy(model.network).requires_grad_(False) if needs_copy else None,
        training=_prompts(training, model, spec, run, param="dataset"),
        held_out=_prompts(held_out, model, spec, run, param="validation") if held_out else [],
    )


def item_check(spec: TuningSpec) -> Callable[[Mapping[str, Any]], None]:
    """Raises ValueError for a line of a data set that does not have what the spec's grader names."""
    assert spec.grader is not None  # noqa: S101 - the spec sees to it
    return partial(check_item, spec.grader)


def _prompts(
    found: Sequence[GradedPrompt], model: LanguageModel, spec: TuningSpec, run: Run, *, param: str
) -> list[Prompt]:
    """Those that leave room for a completion; raises InvalidData by line."""
    room = room_for(spec, limit=model.limit, usual=model.max_length)
    rendered = render_each(render_prompt, found, tokenizer=model.tokenizer, room=room)
    prompts = [Prompt(one.tokens, each) for one, each in zip(rendered, found, strict=True)]
    kept = [prompt for prompt in prompts if len(prompt.tokens) <= room.tokens]
    if len(kept) < len(prompts):
        count = f"{len(prompts) - len(kept):,} of {len(prompts):,} prompts"
        run.message(f"{count} are longer than {room.tokens} tokens ({room.says}) and are left out", "warn")
    if not kept:
        raise InvalidData(f"no prompt is left within {room.tokens} tokens ({room.says})", param=param)
    return kept


def check(spec: TuningSpec, profile: Profile) -> None:
    """Refuse a single prompt that is to be split, and a grader that names fields which the data set does not have."""
    check_split(spec, profile)
    assert spec.grader is not None  # noqa: S101 - the spec sees to it
    if missing := names_of_items(spec.grader) - set(profile.columns):
        there = ", ".join(name for name in profile.columns if name != "messages") or "nothing beside messages"
        raise InvalidSpec(
            f"the grader names 'item.{min(missing)}', and lines of the data set have: {there:.200}", param="grader"
        )


TASK = TaskType(reads=(Kind.CONVERSATIONS,), open=open_task, check=check)
