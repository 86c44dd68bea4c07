"""word2vec beside gensim, Mikolov's C program and fastText: words per CPU second at the same quality.

All learn from the first words of IMDB's reviews, in five passes (everybody's default), on one thread: 100 numbers a
vector, window 5, 5 negatives, words thinned out from 1e-3, at least 5 times in the text; the learning rate is each
one's own default. Timed is everything from the text's file to the vectors in memory; starting the interpreter and
importing libraries is not, on either side. The C program also writes its vectors, which is a small part.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data import CACHE
from benchmarks.frame import Benchmark, Goal, Reading, Side
from benchmarks.methods.one_thread import timed, use_one_thread

EPOCHS = 5
ALL_WORDS = 11_141_400


def text(words: int) -> Path:
    """The first reviews that have so many words together, one a line."""
    from benchmarks.quality.word2vec import texts

    path = CACHE / f"imdb-learn-{words}.txt"
    if not path.exists():
        left, lines = words, []
        with texts()[0].open(encoding="utf-8") as reviews:
            for review in reviews:
                if left <= 0:
                    break
                lines.append(review)
                left -= review.count(" ") + 1
        path.write_text("".join(lines), encoding="utf-8")
    return path


def word_count(path: Path) -> int:
    """How many words it has."""
    with path.open(encoding="utf-8") as lines:
        return sum(len(line.split()) for line in lines)


def ours(architecture: str, words: int) -> Reading:
    """A job, as a worker runs it, to its last step."""
    use_one_thread()
    import torch

    from benchmarks.quality.training import Terminal
    from core.catalog import read_spec
    from core.execution import train
    from core.networks.loading import load_model
    from core.training.run import Run

    ends: list[float] = []

    class Clock(Terminal):
        """Notes the CPU's time whenever the run tells how far it is."""

        def progress(self, step: int, total: int | None) -> None:
            ends.append(time.process_time())

    torch.set_num_threads(1)
    path = text(words)
    given = {"method": "word2vec", "dataset": "file-text", "architecture": architecture, "epochs": EPOCHS}
    spec = read_spec({**given, "device": "cpu", "validation_fraction": None})
    with tempfile.TemporaryDirectory() as folder:
        run = Run(spec=spec, inputs={"dataset": path}, folder=Path(folder), reporter=Clock())
        begun = time.process_time()
        train(run, lineage={})
        network: Any = load_model(run.artifacts)
        quality = judged(list(network.words), network.inputs, network.outputs, architecture, path)
    return reading(path, ends[-1] - begun, quality, training=ends[-1] - ends[0])


def gensim(architecture: str, words: int) -> Reading:
    """Its fastest way: from a file, by one worker."""
    use_one_thread()
    from gensim.models import Word2Vec

    path = text(words)
    options: dict[str, Any] = {"vector_size": 100, "window": 5, "negative": 5, "sample": 1e-3, "min_count": 5}
    model = Word2Vec(sg=architecture == "skip_gram", seed=1, workers=1, **options)
    _, counting = timed(lambda: model.build_vocab(corpus_file=str(path)))
    amounts = {"total_examples": model.corpus_count, "total_words": model.corpus_total_words}
    _, training = timed(lambda: model.train(corpus_file=str(path), epochs=EPOCHS, **amounts))
    quality = judged(model.wv.index_to_key, model.wv.vectors, model.syn1neg, architecture, path)
    return reading(path, counting + training, quality, training=training)


def fasttext(words: int) -> Reading:
    """Without subwords, which makes it the same model."""
    use_one_thread()
    import fasttext as library

    path = text(words)
    options = {"dim": 100, "ws": 5, "neg": 5, "t": 1e-3, "minCount": 5, "maxn": 0, "epoch": EPOCHS}
    model, seconds = timed(
        lambda: library.train_unsupervised(str(path), model="skipgram", thread=1, verbose=0, **options)
    )
    names = model.get_words()
    inputs, outputs = model.get_input_matrix()[: len(names)], model.get_output_matrix()
    return reading(path, seconds, judged(names, inputs, outputs, "skip_gram", path))


def c_program(words: int) -> Reading:
    """Mikolov's, as PyPI's word2vec compiles it; it keeps no outputs, so that there is no loss to compute."""
    from gensim.models import KeyedVectors

    path = text(words)
    with tempfile.TemporaryDirectory() as folder:
        vectors = Path(folder) / "vectors.bin"
        options = "-size 100 -window 5 -negative 5 -hs 0 -sample 1e-3 -min-count 5 -threads 1 -cbow 0 -binary 1"
        program = str(Path(sys.executable).parent / "word2vec")
        command = [program, "-train", str(path), "-output", str(vectors), "-iter", str(EPOCHS), *options.split()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = KeyedVectors.load_word2vec_format(str(vectors), binary=True)
    return reading(path, used.ru_utime + used.ru_stime, similarity(found))


def reading(path: Path, seconds: float, quality: dict[str, float], *, training: float | None = None) -> Reading:
    """Words of the text times the passes, by CPU seconds; beside it those of the passes alone, where they are known."""
    words = word_count(path) * EPOCHS
    alone = {} if training is None else {"words_per_cpu_second_without_reading": words / training}
    return Reading(words / seconds, quality | alone, cpu_seconds=seconds)


def judged(words: list[str], inputs: Any, outputs: Any, architecture: str, learned: Path) -> dict[str, float]:
    """The loss on held-out reviews, and how well the vectors know what people say of words."""
    import torch
    from gensim.models import KeyedVectors

    from benchmarks.quality.word2vec import held_out_loss, texts
    from core.networks.word_vectors import WordVectors

    network = WordVectors(len(words), inputs.shape[1])
    network.inputs.copy_(torch.as_tensor(inputs))
    network.outputs.copy_(torch.as_tensor(outputs))
    network.name_words(words)
    vectors = KeyedVectors(inputs.shape[1])
    vectors.add_vectors(words, network.inputs.numpy().copy())
    return {"held_out_loss": held_out_loss(network, architecture, learned, texts()[1]), **similarity(vectors)}


def similarity(vectors: Any) -> dict[str, float]:
    """The usual questions, those of them whose words are known."""
    from gensim.test.utils import datapath

    return {
        "wordsim_353": float(vectors.evaluate_word_pairs(datapath("wordsim353.tsv"))[1][0]),
        "simlex_999": float(vectors.evaluate_word_pairs(datapath("simlex999.txt"))[1][0]),
        "analogies": float(vectors.evaluate_word_analogies(datapath("questions-words.txt"))[0]),
    }


def benchmark(architecture: str, goal: Goal, *peers: Side) -> Benchmark:
    """One architecture's."""
    name = architecture.replace("_", "-")
    return Benchmark(
        name=f"word2vec-{name}",
        what=f"word vectors by {name} of IMDB's reviews, five passes, reading included",
        unit="words/CPU s",
        more_is_better=True,
        goal=goal,
        ours=Side("Weightworks", partial(ours, architecture), ("torch",)),
        peers=(Side("gensim", partial(gensim, architecture), ("gensim",), is_peer=True), *peers),
        size="words",
        sizes=(50_000, 200_000),
        full_sizes=(1_000_000, ALL_WORDS),
    )


BENCHMARKS = [
    benchmark(
        "skip_gram",
        Goal("at least 8x gensim, and ahead of all, at an equal loss", ratio=1.0, ratios={"gensim": 8.0}),
        Side("fastText", fasttext, ("fasttext-wheel",), is_peer=True),
        Side("C word2vec", c_program, ("word2vec",), is_peer=True),
    ),
    benchmark("cbow", Goal("at least 2x gensim, at an equal loss", ratio=2.0)),
]
