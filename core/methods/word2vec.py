"""Word vectors by word2vec: skip-gram and CBOW with negative sampling, in small matrix products."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch.nn.functional import softplus

from core.data.examples import write_text
from core.data.profile import Kind, Profile
from core.data.text import read_documents
from core.data.vocabulary import Corpus, read_corpus
from core.data.word_windows import Block, WordWindows, sum_windows, windows
from core.errors import InvalidData, InvalidSpec
from core.networks.saving import save_network
from core.networks.word_vectors import VOCABULARY, WordVectors, write_word2vec
from core.registry import Example, method
from core.spec import MethodSpec
from core.training.artifacts import write_json
from core.training.batches import split
from core.training.run import Run

LEAST_RATE = 1e-4  # what the learning rate falls to, as a share of the first
MOST_MOVEMENT = 4.0  # of a word in one step: the learning rate times the gradients expected to be summed for it
LOSS_EVERY = 64  # steps; the loss costs as much as the step


class Word2VecSpec(MethodSpec):
    """Word vectors by word2vec: skip-gram or CBOW with negative sampling and subsampling of frequent words."""

    method: Literal["word2vec"] = Field("word2vec", description="The training method.")
    architecture: Literal["skip_gram", "cbow"] = Field(
        "skip_gram", description="Predict the neighbours from the word, or the word from the mean of its neighbours."
    )
    vector_size: int = Field(100, ge=1, le=4096, description="Numbers in a word's vector.")
    window: int = Field(5, ge=1, le=64, description="Words before and behind that count as neighbours, at most.")
    negative: int = Field(5, ge=1, le=64, description="Noise words that weigh against each true one.")
    subsample: float | None = Field(
        1e-3,
        gt=0,
        lt=1,
        description="Share of the text above which a word's occurrences are thinned out; none: all stay.",
    )
    min_count: int = Field(5, ge=1, description="Words that occur less often are left out.")
    max_vocabulary: int | None = Field(None, ge=2, description="Most words to keep, the frequent first; none: all.")
    lowercase: bool = Field(True, description="Turn the text to lower case.")
    epochs: int = Field(5, ge=1, le=100_000, description="Passes over the data set.")
    batch_size: int = Field(512, ge=32, le=65_536, description="Words a step learns from, about.")
    learning_rate: float = Field(0.05, gt=0, le=1, description="Size of a step at first; it falls linearly to zero.")
    validation_fraction: float | None = Field(
        0.01, gt=0, le=0.5, description="Part of the documents held out for the validation loss; none: no such loss."
    )
    checkpoint_every: int | None = Field(None, ge=1, description="Steps between checkpoints; none: every 30 seconds.")


class Bounds(NamedTuple):
    """What a word's summed update is multiplied by, so that frequent words stay stable; None where all are 1."""

    inputs: torch.Tensor | None  # [words]
    outputs: torch.Tensor | None


def loss_sum(
    inputs: torch.Tensor, outputs: torch.Tensor, block: Block, spec: Word2VecSpec
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mikolov's negative-sampling loss summed over the block's predictions, and their number (or weight).

    -log sigmoid(output of the true word . h), and -log sigmoid(-output . h) for `negative` noise words, where h is the
    word's input vector (skip-gram), or the mean of its neighbours' (CBOW).
    """
    groups, _, size = block.weights.shape
    nearby = windows(
        (outputs if spec.architecture == "skip_gram" else inputs)[block.nearby], size=size, window=spec.window
    )
    if spec.architecture == "skip_gram":
        h = inputs[block.centres].view(groups, size, -1)
        true = (softplus(-nearby @ h.mT) * block.weights).sum()
        counts = block.weights.sum(1)  # [groups, size]
    else:
        neighbours = block.weights.sum(1)  # [groups, size]
        h = block.weights.mT @ nearby / neighbours.clamp(min=1)[..., None]
        counts = neighbours.clamp(max=1)  # none for a word without neighbours
        true = (softplus(-(h * outputs[block.centres].view_as(h)).sum(-1)) * counts).sum()
    against = softplus(outputs[block.noise] @ h.mT).mean(1)
    return true + spec.negative * (against * counts).sum(), counts.sum()


def update_skip_gram(network: WordVectors, block: Block, spec: Word2VecSpec, bounds: Bounds, rate: float) -> None:
    """One step down the gradient of `loss_sum`: each word predicts the words near it."""
    groups, _, size = block.weights.shape
    predicted = torch.cat((block.nearby, block.noise.view(-1)))
    h = network.inputs.index_select(0, block.centres).view(groups, size, -1)
    rows = network.outputs.index_select(0, predicted)  # [length + 2 * window + groups * negatives, vector_size]
    steps = torch.empty_like(rows)
    noise, noise_steps = (part[len(block.nearby) :].view(groups, -1, spec.vector_size) for part in (rows, steps))
    nearby = windows(rows[: len(block.nearby)], size=size, window=spec.window)
    errors = torch.bmm(nearby, h.mT).neg_().sigmoid_().mul_(block.weights).mul_(rate)
    h_steps = torch.bmm(errors.mT, nearby)
    sum_windows(torch.bmm(errors, h), window=spec.window, out=steps[: len(block.nearby)])
    noise_weights = block.weights.sum(1, keepdim=True).mul_(-rate * spec.negative / noise.shape[1])
    learn_from_noise(noise, h, noise_weights, noise_steps=noise_steps, h_steps=h_steps)
    add_rows(network.inputs, block.centres, h_steps, bounds.inputs)
    add_rows(network.outputs, predicted, steps, bounds.outputs)


def update_cbow(network: WordVectors, block: Block, spec: Word2VecSpec, bounds: Bounds, rate: float) -> None:
    """One step down the gradient of `loss_sum`: the mean of the near words predicts the word.

    As in word2vec, each near word takes the whole step of the mean instead of its share.
    """
    groups, _, size = block.weights.shape
    predicted = torch.cat((block.centres, block.noise.view(-1)))
    rows = network.outputs.index_select(0, predicted)  # [length + groups * negatives, vector_size]
    steps = torch.empty_like(rows)
    true, noise = (part.view(groups, -1, spec.vector_size) for part in rows.tensor_split([len(block.centres)]))
    true_steps, noise_steps = (
        part.view(groups, -1, spec.vector_size) for part in steps.tensor_split([len(block.centres)])
    )
    nearby = windows(network.inputs.index_select(0, block.nearby), size=size, window=spec.window)
    neighbours = block.weights.sum(1).unsqueeze(2)  # [groups, size, 1]
    h = torch.bmm(block.weights.mT, nearby).div_(neighbours.clamp(min=1))
    counts = neighbours.clamp_(max=1)  # none for a word without neighbours
    errors = (h * true).sum(2, keepdim=True).neg_().sigmoid_().mul_(counts).mul_(rate)
    h_steps = errors * true
    torch.mul(errors, h, out=true_steps)
    noise_weights = counts.mT.mul(-rate * spec.negative / noise.shape[1])
    learn_from_noise(noise, h, noise_weights, noise_steps=noise_steps, h_steps=h_steps)
    nearby_steps = h.new_empty(len(block.nearby), spec.vector_size)
    sum_windows(torch.bmm(block.weights, h_steps), window=spec.window, out=nearby_steps)
    add_rows(network.inputs, block.nearby, nearby_steps, bounds.inputs)
    add_rows(network.outputs, predicted, steps, bounds.outputs)


def learn_from_noise(
    noise: torch.Tensor, h: torch.Tensor, weights: torch.Tensor, *, noise_steps: torch.Tensor, h_steps: torch.Tensor
) -> None:
    """Move noise words and `h` apart: writes the noise words' steps, and adds to those of `h`.

    `noise` [groups, negatives, n], `h` [groups, size, n], `weights` [groups, 1, size] of each `h`, below zero.
    """
    errors = torch.bmm(noise, h.mT).sigmoid_().mul_(weights)
    torch.bmm(errors, h, out=noise_steps)
    h_steps.baddbmm_(errors.mT, noise)


def add_rows(table: torch.Tensor, words: torch.Tensor, steps: torch.Tensor, bounds: torch.Tensor | None) -> None:
    """Add each step to its word's row; scatter_add_ sums in the order of the steps, whatever the number of threads."""
    steps = steps.view(len(words), -1)
    if bounds is not None:
        steps.mul_(bounds.index_select(0, words)[:, None])
    table.scatter_add_(0, words[:, None].expand_as(steps), steps)


def bound_updates(blocks: WordWindows, spec: Word2VecSpec) -> Bounds:
    """Limit what one step may move a word: min(1, limit / expected).

    Within a step all gradients are taken at the same place, so that the sum of very many overshoots, and may diverge.
    """
    neighbours = spec.window + 1  # on average, with random radii
    if spec.architecture == "skip_gram":
        inputs = blocks.word_shares * neighbours * (1 + spec.negative)
        outputs = (blocks.word_shares + blocks.noise_shares * spec.negative) * neighbours
    else:
        inputs = blocks.word_shares * neighbours * (1 + spec.negative)
        outputs = blocks.word_shares + blocks.noise_shares * spec.negative
    most = MOST_MOVEMENT / (spec.learning_rate * blocks.centres)
    factors = [(most / gradients).clamp(max=1) for gradients in (inputs, outputs)]
    return Bounds(*(None if bool((factor == 1).all()) else factor.to(blocks.device) for factor in factors))


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
    network = WordVectors(len(corpus.vocabulary), spec.vector_size).to(run.device)
    network.name_words(corpus.vocabulary.words)
    blocks = blocks_of(corpus, spec, epochs=spec.epochs, device=run.device)
    bounds = bound_updates(blocks, spec)
    update = update_skip_gram if spec.architecture == "skip_gram" else update_cbow
    run.track(network=network)
    started, first_step = time.monotonic(), run.step
    for block in run.steps(blocks):
        if block.step % LOSS_EVERY == 0:
            total, count = loss_sum(network.inputs, network.outputs, block, spec)
            run.log(loss=total / count.clamp(min=1))
        update(network, block, spec, bounds, spec.learning_rate * max(LEAST_RATE, 1 - block.step / len(blocks)))
        if block.is_epoch_end:
            report(network, held_out, spec, run)
    seconds = time.monotonic() - started
    save(network, corpus, run)
    metrics: dict[str, float] = {"vocabulary_size": len(corpus.vocabulary), "words": corpus.words_read}
    if run.step > first_step:
        metrics["words_per_second"] = corpus.words_read * (run.step - first_step) / blocks.per_epoch / seconds
    return metrics | valid_loss(network, held_out, spec)


def read(spec: Word2VecSpec, run: Run) -> tuple[Corpus, WordWindows | None]:
    """The words to learn from, and the blocks of those held out."""
    corpus = read_corpus(
        read_documents(run.dataset),
        min_count=spec.min_count,
        max_words=spec.max_vocabulary,
        lowercase=spec.lowercase,
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
        random_radius=spec.architecture == "cbow",
        device=device,
    )


def valid_loss(network: WordVectors, held_out: WordWindows | None, spec: Word2VecSpec) -> dict[str, float]:
    """The mean loss of predictions in documents that were held out, if any were."""
    if held_out is None:
        return {}
    sums = [loss_sum(network.inputs, network.outputs, block, spec) for block in held_out]
    total, count = (torch.stack(numbers).double().sum() for numbers in zip(*sums, strict=True))
    return {"valid_loss": float(total / count)}


def report(network: WordVectors, held_out: WordWindows | None, spec: Word2VecSpec, run: Run) -> None:
    """Send the validation loss, and the nearest words of a few as a taste."""
    if measured := valid_loss(network, held_out, spec):
        run.report(**measured)
    for word in network.words[100:1000:300] or network.words[:3]:
        run.message(f"Nearest to {word}: {', '.join(near for near, _ in network.nearest(word, 5))}")


def save(network: WordVectors, corpus: Corpus, run: Run) -> None:
    """Weights and configuration, the vocabulary with its counts, and the vectors as text."""
    save_network(network, run.artifacts)
    vocabulary = {"words": list(network.words), "counts": corpus.vocabulary.counts.tolist()}
    write_json(run.artifacts / VOCABULARY, vocabulary)
    write_word2vec(network, run.artifacts / "vectors.txt")
