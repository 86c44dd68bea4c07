"""Distillation of a language model beside TRL's GKDTrainer, and a Trainer that descends the same divergence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.language_models import CONTEXT, prepared, texts_of, train_here
from benchmarks.timed import Stopwatch, arguments, train_ours, train_theirs

BATCH, LAYERS = 8, 2
TEACHERS_STEPS = 100
JUDGED_ROWS = 64
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "schedule": "linear",
    "warmup": 0.1,
    "weight_decay": 0.01,
    "precision": "float32",
}


class Lesson(NamedTuple):
    """Folders of a teacher and of the student that all begin with, and files to learn from and to judge by.

    Every document fills a row, so that none sees another, whether or not a side keeps them apart.
    """

    teacher: Path
    student: Path
    learn: Path
    held_out: Path


def lesson() -> Lesson:
    """A GPT-2 that has learned from books for a while, and every other layer of it."""
    folder = prepared("causal_language_model")
    found = Lesson(*(folder / name for name in ("teacher", "student", "rows.jsonl", "rows_held_out.jsonl")))
    if not found.held_out.exists():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from core.networks.shortening import TeachersLayers, shortened

        _, artifacts = train_here("causal_language_model", steps=TEACHERS_STEPS, batch_size=BATCH)
        shutil.copytree(artifacts, found.teacher, dirs_exist_ok=True)
        teacher = AutoModelForCausalLM.from_pretrained(found.teacher)
        shortened(teacher, TeachersLayers(layers=LAYERS)).save_pretrained(found.student)
        AutoTokenizer.from_pretrained(found.teacher).save_pretrained(found.student)
        tokenizer = AutoTokenizer.from_pretrained(found.teacher)
        for name, path in {"learn": found.learn, "held_out": found.held_out}.items():
            texts = [text for text in texts_of(folder / f"{name}.jsonl") if len(tokenizer(text).input_ids) >= CONTEXT]
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return found


def ours(steps: int) -> Reading:
    """As a job: objective logits."""
    found = lesson()
    wanted = {"method": "distillation", "objective": "logits", "temperature": 1.0, "alpha": 1.0, "max_length": CONTEXT}
    watch, artifacts = train_ours(
        {**wanted, **SETTINGS, "steps": steps, "batch_size": BATCH},
        dataset=found.learn,
        teacher=found.teacher,
        student=found.student,
    )
    return _read(steps, watch, artifacts)


def gkd(steps: int) -> Reading:
    """TRL's trainer of generalised knowledge distillation, on the texts as they are (lmbda 0), forward (beta 0)."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    def make(student: Any, teacher: Any, tokenizer: Any, told: dict[str, Any], **given: Any) -> Any:
        config = GKDConfig(
            **told, lmbda=0.0, beta=0.0, temperature=1.0, gradient_checkpointing=False, bf16=False, max_length=CONTEXT
        )
        return GKDTrainer(model=student, teacher_model=teacher, args=config, processing_class=tokenizer, **given)

    return _theirs(steps, make)


def trainer(steps: int) -> Reading:
    """A Trainer with the loss of Hugging Face's guide to knowledge distillation."""
    import torch
    import transformers
    from torch.nn import functional

    class Distilling(transformers.Trainer):
        def __init__(self, teacher: Any, **given: Any) -> None:
            super().__init__(**given)
            self.teacher = teacher.eval()

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            answer = model(input_ids=inputs["input_ids"])
            with torch.no_grad():
                wanted = self.teacher(input_ids=inputs["input_ids"]).logits
            own, soft = (each[:, :-1].flatten(0, 1) for each in (answer.logits, wanted))
            loss = functional.kl_div(own.log_softmax(-1), soft.softmax(-1), reduction="batchmean")
            return (loss, answer) if return_outputs else loss

    def make(student: Any, teacher: Any, tokenizer: Any, told: dict[str, Any], **given: Any) -> Any:
        return Distilling(teacher, model=student, args=transformers.TrainingArguments(**told), **given)

    return _theirs(steps, make)


def _theirs(steps: int, make: Callable[..., Any]) -> Reading:
    import datasets
    import torch
    import transformers

    found = lesson()
    tokenizer = transformers.AutoTokenizer.from_pretrained(found.student)
    student, teacher = (
        transformers.AutoModelForCausalLM.from_pretrained(path) for path in (found.student, found.teacher)
    )
    told = arguments(SETTINGS, steps=steps, batch_size=BATCH, max_grad_norm=0.0)

    def together(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}

    rows = datasets.Dataset.from_dict({"input_ids": _rows(found.learn, tokenizer)})
    watch, trained = train_theirs(
        lambda callbacks: make(
            student, teacher, tokenizer, told, train_dataset=rows, data_collator=together, callbacks=callbacks
        )
    )
    trained.model.save_pretrained(told["output_dir"])
    return _read(steps, watch, Path(told["output_dir"]))


def _rows(path: Path, tokenizer: Any) -> list[list[int]]:
    """A row for each text: its first tokens, and its end."""
    return [[*tokenizer(text).input_ids[: CONTEXT - 1], tokenizer.eos_token_id] for text in texts_of(path)]


def _read(steps: int, watch: Stopwatch, artifacts: Path) -> Reading:
    """With the student's divergence from its teacher on what is held out, a token."""
    import torch
    import transformers

    found = lesson()
    tokenizer = transformers.AutoTokenizer.from_pretrained(found.student)
    student, teacher = (
        transformers.AutoModelForCausalLM.from_pretrained(path).eval() for path in (artifacts, found.teacher)
    )
    rows = torch.tensor(_rows(found.held_out, tokenizer)[:JUDGED_ROWS])
    loss = 0.0
    with torch.no_grad():
        for part in rows.split(BATCH):
            own, wanted = (
                network(input_ids=part).logits.log_softmax(-1).flatten(0, 1) for network in (student, teacher)
            )
            loss += float(torch.nn.functional.kl_div(own, wanted, log_target=True, reduction="sum"))
    return watch.reading(steps, held_out_divergence=loss / rows.numel())


BENCHMARKS = [
    Benchmark(
        name="distillation",
        what="A GPT-2 of 4 layers, 128 wide, 8,000 tokens, teaches one of 2; 8 rows of 128 tokens a step.",
        unit="steps/CPU s",
        more_is_better=True,
        goal=Goal("ahead of both at an equal divergence", ratio=1.0),
        ours=Side("Weightworks", ours, ("transformers",)),
        peers=[
            Side("GKDTrainer", gkd, ("trl", "transformers", "accelerate"), is_peer=True),
            Side("Trainer", trainer, ("transformers", "accelerate"), is_peer=True),
        ],
        size="steps",
        sizes=[5, 20],
        full_sizes=[20, 200],
    )
]
