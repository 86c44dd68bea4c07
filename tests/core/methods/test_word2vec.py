from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from contract import Recorder, run_example
from gensim.models import KeyedVectors
from torch.nn.functional import logsigmoid

from core import load_model
from core.catalog import method_named
from core.data.examples import write_text
from core.data.profile import Kind, Profile
from core.data.vocabulary import read_corpus
from core.data.word_windows import kept_shares
from core.errors import InvalidData, InvalidSpec
from core.methods.word2vec import (
    Bounds,
    Word2VecSpec,
    blocks_of,
    bound_updates,
    check,
    loss_sum,
    update_cbow,
    update_skip_gram,
)
from core.networks.word_vectors import WordVectors

CPU = torch.device("cpu")
UPDATES = {"skip_gram": update_skip_gram, "cbow": update_cbow}


@pytest.fixture(autouse=True)
def one_thread():
    """Small products are not worth a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def spec_of(**settings) -> Word2VecSpec:
    return Word2VecSpec(**{"dataset": "file-1", "min_count": 1, "subsample": None, **settings})


def random_documents(*, words: int, vocabulary: int, documents: int, seed: int = 0) -> list[str]:
    """Words by Zipf's law, in documents of unequal length, some of a single word."""
    random = np.random.default_rng(seed)
    shares = 1 / np.arange(1, vocabulary + 1)
    text = random.choice(vocabulary, size=words, p=shares / shares.sum())
    ends = np.sort(random.choice(words, size=documents - 1, replace=False))
    return [" ".join(f"w{number}" for number in part) for part in np.split(text, ends)]


def random_network(words: int, size: int) -> WordVectors:
    torch.manual_seed(0)
    network = WordVectors(words, size)
    network.inputs.normal_()
    network.outputs.normal_()
    return network


def slow_loss(inputs, outputs, documents, noise, spec, radii=None):
    """The loss as the paper has it, a word at a time; `noise` [words, negatives] are the words drawn for each."""
    loss, place = torch.zeros(()), 0
    for document in documents:
        for i, word in enumerate(document):
            chance = {j: (spec.window + 1 - abs(i - j)) / spec.window for j in range(len(document)) if j != i}
            near = {j: weight for j, weight in chance.items() if weight > 0}
            against = outputs[noise[place]]
            if spec.architecture == "skip_gram":
                for j, weight in near.items():
                    loss -= weight * logsigmoid(inputs[word] @ outputs[document[j]])
                    loss -= weight * spec.negative * logsigmoid(-(against @ inputs[word])).mean()
            else:
                near = [j for j in near if abs(i - j) <= radii[place]]
                rows = torch.stack([inputs[document[j]] for j in near]) if near else torch.zeros(0, inputs.shape[1])
                # The value is the mean's, the gradient that of the sum: each near word takes the whole step.
                h = rows.sum(0) + (rows.mean(0) - rows.sum(0)).detach() if near else None
                if h is not None:
                    loss -= logsigmoid(h @ outputs[word]) + spec.negative * logsigmoid(-(against @ h)).mean()
            place += 1
    return loss


@pytest.mark.parametrize("architecture", ["skip_gram", "cbow"])
@pytest.mark.parametrize(("window", "negative"), [(2, 3), (5, 5), (10, 20)])
def test_one_step_is_the_gradient_of_the_loss_written_out(architecture, window, negative):
    spec = spec_of(architecture=architecture, window=window, negative=negative, vector_size=7)
    texts = random_documents(words=150, vocabulary=12, documents=15)
    corpus = read_corpus(texts)
    blocks = blocks_of(corpus, spec, epochs=1, device=CPU)
    assert len(blocks) == 1
    block = blocks[0]
    network = random_network(len(corpus.vocabulary), 7)
    before = network.inputs.clone().requires_grad_(), network.outputs.clone().requires_grad_()
    numbers = {word: number for number, word in enumerate(corpus.vocabulary.words)}
    documents = [[numbers[word] for word in text.split()] for text in texts]
    size = block.weights.shape[2]
    noise = block.noise.repeat_interleave(size, 0)
    radii = blocks._chunk(0, 0).radii

    loss = slow_loss(*before, documents, noise, spec, radii)
    torch.testing.assert_close(loss_sum(*before, block, spec)[0], loss, rtol=1e-5, atol=1e-5)
    loss.backward()
    UPDATES[architecture](network, block, spec, Bounds(None, None), 0.1)
    for table, start in zip((network.inputs, network.outputs), before, strict=True):
        torch.testing.assert_close(table, (start - 0.1 * start.grad).detach(), rtol=1e-4, atol=1e-5)


def test_an_epoch_meets_every_pair_of_neighbours_once_and_none_across_documents():
    spec = spec_of(window=3, batch_size=64)
    texts = random_documents(words=3000, vocabulary=40, documents=100)
    corpus = read_corpus(texts)
    blocks = blocks_of(corpus, spec, epochs=2, device=CPU)
    assert len(blocks) > 20
    assert blocks.chunks == 1
    found: Counter[tuple[str, str]] = Counter()
    words = corpus.vocabulary.words
    for block in list(blocks)[: blocks.per_epoch]:
        size = block.weights.shape[2]
        for group, place, centre in block.weights.nonzero().tolist():
            pair = (words[block.centres[group * size + centre]], words[block.nearby[group * size + place]])
            found[pair] += round(3 * float(block.weights[group, place, centre]))
    expected: Counter[tuple[str, str]] = Counter()
    for text in texts:
        document = text.split()
        for i, word in enumerate(document):
            for j in range(max(0, i - 3), min(len(document), i + 4)):
                if j != i:
                    expected[word, document[j]] += 4 - abs(i - j)
    assert found == expected


def test_every_epoch_thins_out_frequent_words_anew():
    spec = spec_of(subsample=1e-2, batch_size=1024)
    corpus = read_corpus(random_documents(words=50_000, vocabulary=500, documents=50))
    blocks = blocks_of(corpus, spec, epochs=2, device=CPU)
    counts = [torch.zeros(500), torch.zeros(500)]
    for block in blocks:
        is_real = block.weights.sum(1).view(-1) > 0
        counts[block.epoch] += torch.bincount(block.centres[is_real], minlength=500)
    frequencies = corpus.vocabulary.counts / corpus.vocabulary.counts.sum()
    expected = kept_shares(frequencies, 1e-2) * corpus.vocabulary.counts
    assert not torch.equal(*counts)
    for count in counts:
        assert torch.all((count - expected).abs() < 5 * expected.sqrt() + 5)
    f = frequencies[0]
    assert kept_shares(frequencies, 1e-2)[0] == pytest.approx(float((0.01 / f) ** 0.5 + 0.01 / f))


def learn(texts: list[str], **settings):
    spec = spec_of(**settings)
    corpus = read_corpus(texts)
    torch.manual_seed(spec.seed)
    network = WordVectors(len(corpus.vocabulary), spec.vector_size)
    network.name_words(corpus.vocabulary.words)
    blocks = blocks_of(corpus, spec, epochs=spec.epochs, device=CPU)
    bounds = bound_updates(blocks, spec)
    for block in blocks:
        rate = spec.learning_rate * (1 - block.step / len(blocks))
        UPDATES[spec.architecture](network, block, spec, bounds, rate)
    return network


@pytest.mark.parametrize("architecture", ["skip_gram", "cbow"])
def test_words_that_keep_the_same_company_come_close(architecture, tmp_path):
    write_text(tmp_path / "text")
    network = learn(
        (tmp_path / "text").read_text().lower().replace(".", "").splitlines(),
        architecture=architecture, vector_size=16, epochs=20, batch_size=256, subsample=1e-2,
    )  # fmt: skip
    animals, machines = ["dog", "cat", "horse", "bird", "fox"], ["engine", "motor", "pump", "drill", "crane"]
    vectors = torch.nn.functional.normalize(torch.stack([network.vector(word) for word in animals + machines]), dim=1)
    cosines = vectors @ vectors.T
    within = torch.cat([cosines[:5, :5][~torch.eye(5, dtype=bool)], cosines[5:, 5:][~torch.eye(5, dtype=bool)]])
    assert within.mean() > cosines[:5, 5:].mean() + 0.4


@pytest.mark.parametrize("architecture", ["skip_gram", "cbow"])
@pytest.mark.parametrize("vocabulary", [2, 30, 3000])
@pytest.mark.parametrize("settings", [{}, {"learning_rate": 0.1}, {"batch_size": 65_536}, {"negative": 20}])
def test_stays_within_bounds_on_any_corpus(architecture, vocabulary, settings):
    for seed in range(2):
        texts = random_documents(words=8000, vocabulary=vocabulary, documents=20, seed=seed)
        network = learn(texts, architecture=architecture, seed=seed, vector_size=16, epochs=4, **settings)
        assert network.inputs.norm(dim=1).max() < 50
        assert network.outputs.norm(dim=1).max() < 50


def test_the_number_of_threads_does_not_change_the_weights():
    texts = random_documents(words=20_000, vocabulary=300, documents=20)
    tables = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        tables.append(learn(texts, epochs=1).inputs)
    torch.set_num_threads(1)
    assert torch.equal(*tables)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("word2vec")
    write_text(folder / "dataset")
    recorder = Recorder()
    example = method_named("word2vec").example
    run_example(example, folder / "run", inputs={"dataset": folder / "dataset"}, recorder=recorder)
    assert any("valid_loss" in values for _, values in recorder.metrics_seen)
    assert any(message.startswith("Nearest to") for message in recorder.messages)
    return folder / "run" / "artifacts"


def test_gensim_opens_the_vectors(artifacts):
    vectors = KeyedVectors.load_word2vec_format(artifacts / "vectors.txt")
    network = load_model(artifacts)
    assert vectors.index_to_key == list(network.words)
    np.testing.assert_allclose(vectors.vectors, network.inputs.numpy(), rtol=1e-5)
    ours, theirs = network.nearest("dog", 5), vectors.most_similar("dog", topn=5)
    assert [word for word, _ in ours] == [word for word, _ in theirs]
    np.testing.assert_allclose([cosine for _, cosine in ours], [cosine for _, cosine in theirs], rtol=1e-4)


def test_an_unknown_word_has_no_vector(artifacts):
    with pytest.raises(KeyError):
        load_model(artifacts).nearest("aardvark")


def test_refuses_too_little_text(tmp_path):
    with pytest.raises(InvalidSpec, match="min_count"):
        check(Word2VecSpec(dataset="file-1"), Profile(Kind.TEXT, "text", examples=1, words=8))
    (tmp_path / "dataset").write_text("the same again and the same\n" * 4)
    with pytest.raises(InvalidData, match="min_count"):
        run_example(method_named("word2vec").example, tmp_path, inputs={"dataset": tmp_path / "dataset"}, min_count=9)
