"""Word vectors by word2vec: skip-gram and CBOW, three objectives, phrases and subwords, in small matrix products."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch.nn import functional

from core.data.examples import write_text
from core.data.huffman import HuffmanTree, huffman_tree
from core.data.phrases import PhraseRule
from core.data.profile import Kind, Profile
from core.data.subwords import NGrams
from core.data.text import read_documents
from core.data.vocabulary import Corpus, read_corpus
from core.data.word_windows import WordWindows
from core.errors import InvalidData, InvalidSpec
from core.networks.saving import save_network
from core.networks.word_learning import Objective, bound_updates, loss_sum, update
from core.networks.word_vectors import VOCABULARY, WordVectors, write_word2vec
from core.registry import Example, method
from core.spec import MethodSpec, fill, refuse
from core.training.artifacts import write_json
from core.training.batches import split
from core.training.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_RATE = 1e-4  # what the learning rate falls to, as a share of the first
LOSS_EVERY = 64  # steps; the loss costs as much as the step
SKIPPED_WORDS, DRAWN_WORDS = 40, 150  # in the picture: the first few stand for nothing


class Word2VecSpec(MethodSpec):
    """Word vectors by word2vec: skip-gram or CBOW, of words, phrases and subwords (fastText)."""

    method: Literal["word2vec"] = Field("word2vec", description="The training method.")
    architecture: Literal["skip_gram", "cbow"] = Field(
        "skip_gram", description="Predict the neighbours from the word, or the word from the mean of its neighbours."
    )
    objective: Literal["negative_sampling", "nce", "hierarchical_softmax"] = Field(
        "negative_sampling",
        description="Tell true words from noise; the same for true log-probabilities (nce); or take turns down a tree.",
    )
    vector_size: int = Field(100, ge=1, le=4096, description="Numbers in a word's vector.")
    window: int = Field(5, ge=1, le=64, description="Words before and behind that count as neighbours, at most.")
    negative: int | None = Field(
        None, ge=1, le=64, description="Noise words that weigh against each true one; none: 5, or no noise in a tree."
    )
    subsample: float | None = Field(
        1e-3,
        gt=0,
        lt=1,
        description="Share of the text above which a word's occurrences are thinned out; none: all stay.",
    )
    min_count: int = Field(5, ge=1, description="Words that occur less often are left out.")
    max_vocabulary: int | None = Field(None, ge=2, description="Most words to keep, the frequent first; none: all.")
    lowercase: bool = Field(True, description="Turn the text to lower case.")
    phrases: int | None = Field(
        None,
        ge=1,
        le=8,
        description="Passes that join pairs such as new_york, each on what the last made; none: words.",
    )
    phrase_threshold: float | None = Field(
        None, gt=0, description="How many times more often than by chance a pair must occur; none: 100, with phrases."
    )
    subwords: bool = Field(
        False, description="Make vectors of character n-grams too (fastText), so that unknown words have one."
    )
    min_n: int | None = Field(None, ge=1, le=16, description="Fewest characters of an n-gram; none: 3, with subwords.")
    max_n: int | None = Field(None, ge=1, le=16, description="Most characters of an n-gram; none: 6, with subwords.")
    buckets: int | None = Field(
        None, ge=1, lt=2**31, description="Numbers that n-grams are hashed to; none: 2,000,000, with subwords."
    )
    epochs: int = Field(5, ge=1, le=100_000, description="Passes over the data set.")
    batch_size: int = Field(
        512, ge=32, le=65_536, description="Words a step learns from, about; if not given, 1024 in CBOW."
    )
    learning_rate: float = Field(0.05, gt=0, le=1, description="Size of a step at first; it falls linearly to zero.")
    validation_fraction: float | None = Field(
        0.01, gt=0, le=0.5, description="Part of the documents held out for the validation loss; none: no such loss."
    )
    checkpoint_every: int | None = Field(
        None, ge=1, description="Steps between checkpoints; none: every 30 seconds, or rarer where one takes long."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, data: Any) -> Any:
        data = fill(data, "negative", 5, when=lambda given: given.get("objective") != "hierarchical_softmax")
        data = fill(data, "batch_size", 1024, when=lambda given: given.get("architecture") == "cbow")
        data = fill(data, "phrase_threshold", 100.0, when=lambda given: given.get("phrases") is not None)
        for field, default in {"min_n": 3, "max_n": 6, "buckets": 2_000_000}.items():
            data = fill(data, field, default, when=lambda given: given.get("subwords"))
        return data

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if self.objective == "hierarchical_softmax":
            refuse(self, "negative", because="hierarchical_softmax draws no noise words")
        elif self.negative is None:
            raise ValueError(f"negative must be a number with {self.objective}")
        if self.phrases is None:
            refuse(self, "phrase_threshold", because="no phrases are joined unless phrases says in how many passes")
        elif self.phrase_threshold is None:
            raise ValueError("phrase_threshold must be a number with phrases")
        if not self.subwords:
            refuse(self, "min_n", "max_n", "buckets", because="it is about n-grams: set subwords to true")
        elif self.ngrams is None or self.ngrams.min_n > self.ngrams.max_n:
            raise ValueError("with subwords, min_n, max_n and buckets must be numbers, and min_n at most max_n")
        return self

    @property
    def phrase_rule(self) -> PhraseRule | None:
        """How words are joined, if they are."""
        if self.phrases is None or self.phrase_threshold is None:
            return None
        return PhraseRule(self.phrases, self.phrase_threshold, self.min_count)

    @property
    def ngrams(self) -> NGrams | None:
        """How words are cut into subwords, if they are."""
        if self.min_n is None or self.max_n is None or self.buckets is None:
            return None
        return NGrams(self.min_n, self.max_n, self.buckets)


def new_objective(spec: Word2VecSpec, network: WordVectors, blocks: WordWindows) -> Objective:
    """What the updates need, on the network's device; gives the network's biases their start."""
    device = network.inputs.device
    log_noise = tree = None
    if spec.objective == "nce":
        log_noise = (blocks.noise_shares * (spec.negative or 0)).log().float().to(device)
        network.outputs[:, -1] = blocks.word_shares.log()  # at first every word is as probable as it is frequent
    if spec.objective == "hierarchical_softmax":
        tree = HuffmanTree(*(part.to(device) for part in huffman_tree(blocks.corpus.vocabulary.counts)))
    objective = Objective(
        architecture=spec.architecture,
        window=spec.window,
        negative=spec.negative or 0,
        subwords=network.rows_of(network.words) if spec.subwords else None,
        log_noise=log_noise,
        tree=tree,
    )
    return replace(objective, bounds=bound_updates(blocks, network, objective, learning_rate=spec.learning_rate))


def new_network(spec: Word2VecSpec, words: Sequence[str]) -> WordVectors:
    """Fresh vectors: an output for each word, with a bias in NCE, or for each of the tree's inner nodes."""
    outputs_size = {
        "negative_sampling": None,
        "nce": (len(words), spec.vector_size + 1),
        "hierarchical_softmax": (len(words) - 1, spec.vector_size),
    }[spec.objective]
    return WordVectors.for_words(words, spec.vector_size, outputs_size=outputs_size, ngrams=spec.ngrams)


def check(spec: Word2VecSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    if profile.words is not None and profile.words < 2 * spec.min_count:
        raise InvalidSpec(
            f"the data set has {profile.words:,} words: too few for two that occur {spec.min_count} times; "
            "lower min_count, or send more text",
            param="min_count",
        )


@method(
    reads=(Kind.TEXT,),
    paper="Mikolov et al. 2013, Distributed Representations of Words and Phrases and their Compositionality",
    opens_with="gensim: KeyedVectors.load_word2vec_format('vectors.txt'); safetensors",
    example=Example(spec={"method": "word2vec", "vector_size": 24, "batch_size": 256}, write_dataset=write_text),
    check=check,
)
@torch.no_grad()
def train(spec: Word2VecSpec, run: Run) -> Mapping[str, float]:
    """Count the words, then go through the text in blocks, each word and its neighbours learning from each other."""
    corpus, held_out = read(spec, run)
    network = new_network(spec, corpus.vocabulary.words).to(run.device)
    blocks = blocks_of(corpus, spec, epochs=spec.epochs, device=run.device)
    objective = new_objective(spec, network, blocks)
    run.track(network=network)
    started, first_step = time.monotonic(), run.step
    for block in run.steps(blocks):
        if block.step % LOSS_EVERY == 0:
            total, count = loss_sum(network, block, objective)
            run.log(loss=total / count.clamp(min=1))
        update(network, block, objective, spec.learning_rate * max(LEAST_RATE, 1 - block.step / len(blocks)))
        if block.is_epoch_end:
            report(network, held_out, objective, run)
    seconds = time.monotonic() - started
    save(network, corpus, run)
    metrics: dict[str, float] = {"vocabulary_size": len(corpus.vocabulary), "words": corpus.words_read}
    if run.step > first_step:
        metrics["words_per_second"] = corpus.words_read * (run.step - first_step) / blocks.per_epoch / seconds
    return metrics | valid_loss(network, held_out, objective)


def read(spec: Word2VecSpec, run: Run) -> tuple[Corpus, WordWindows | None]:
    """The words to learn from, and the blocks of those held out."""
    corpus = read_corpus(
        read_documents(run.dataset),
        min_count=spec.min_count,
        max_words=spec.max_vocabulary,
        lowercase=spec.lowercase,
        phrases=spec.phrase_rule,
    )
    if len(corpus.vocabulary) < 2:
        raise InvalidData(
            f"fewer than two words occur {spec.min_count} times or more: lower min_count", param="dataset"
        )
    run.message(f"{corpus.words_read:,} words read, {len(corpus.vocabulary):,} different ones kept")
    if spec.validation_fraction is None:
        return corpus, None
    if corpus.document_count < 2:
        run.message("There is but one document: none is held out, and there will be no validation loss", "warn")
        return corpus, None
    _, held_out = split(corpus.document_count, fraction=spec.validation_fraction, seed=spec.seed)
    chosen = torch.zeros(corpus.document_count, dtype=torch.bool).index_fill_(0, held_out, True)
    return corpus.part(~chosen), blocks_of(corpus.part(chosen), spec, epochs=1, device=run.device)


def blocks_of(corpus: Corpus, spec: Word2VecSpec, *, epochs: int, device: torch.device) -> WordWindows:
    """The blocks that a spec asks for; CBOW's mean takes in random neighbours, skip-gram weighs each by its chance."""
    return WordWindows(
        corpus,
        window=spec.window,
        negative=spec.negative,
        subsample=spec.subsample,
        words=spec.batch_size,
        epochs=epochs,
        seed=spec.seed,
        is_cbow=spec.architecture == "cbow",
        device=device,
    )


def valid_loss(network: WordVectors, held_out: WordWindows | None, objective: Objective) -> dict[str, float]:
    """The mean loss of predictions in documents that were held out, if any were."""
    if held_out is None:
        return {}
    sums = [loss_sum(network, block, objective) for block in held_out]
    total, count = (torch.stack(numbers).double().sum() for numbers in zip(*sums, strict=True))
    return {"valid_loss": float(total / count)}


def report(network: WordVectors, held_out: WordWindows | None, objective: Objective, run: Run) -> None:
    """Send the validation loss, and show the nearest words of a few as a taste."""
    if measured := valid_loss(network, held_out, objective):
        run.report(**measured)
    tasted = network.words[100:1000:150] or network.words[:6]
    lines = (f"{word}: {', '.join(near for near, _ in network.nearest(word, 6))}" for word in tasted)
    run.show("nearest_words", "\n".join(lines), caption="Words and those whose vectors point the same way")


def save(network: WordVectors, corpus: Corpus, run: Run) -> None:
    """Weights and configuration, the vocabulary with its counts, and the vectors as text."""
    save_network(network, run.artifacts)
    vocabulary = {"words": list(network.words), "counts": corpus.vocabulary.counts.tolist()}
    write_json(run.artifacts / VOCABULARY, vocabulary)
    write_word2vec(network, run.artifacts / "vectors.txt")
    shown = run.show("words", draw_words(network), caption="Frequent words on the first two principal components")
    shutil.copyfile(shown, run.artifacts / "words.png")


def draw_words(network: WordVectors) -> Figure:
    """The frequent words, after the very first, where their vectors lie in the plane in which they differ most."""
    from matplotlib.figure import Figure

    first = min(SKIPPED_WORDS, len(network.words) // 4)
    words = network.words[first : first + DRAWN_WORDS]
    vectors = functional.normalize(network.vectors[first : first + len(words)].cpu(), dim=1)
    _, _, axes = torch.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    figure = Figure(figsize=(8, 8))
    plot = figure.add_axes((0.02, 0.02, 0.96, 0.96), xticks=[], yticks=[])
    places = ((vectors - vectors.mean(0)) @ axes[:2].mT).tolist()
    for word, (x, y) in zip(words, places, strict=True):
        plot.text(x, y, word, fontsize=8, ha="center", va="center")
    plot.update_datalim(places)
    plot.autoscale_view()
    return figure
