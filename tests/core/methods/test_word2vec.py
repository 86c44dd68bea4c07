from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contract import Recorder, RequestAfter, run_example, weights_of
from gensim.models import KeyedVectors
from gensim.test.utils import datapath
from pydantic import ValidationError
from torch.nn.functional import logsigmoid

from core import load_model
from core.catalog import method_named
from core.data.examples import write_text
from core.data.profile import Kind, Profile
from core.data.vocabulary import read_corpus
from core.data.word_windows import kept_shares
from core.errors import InvalidData, InvalidSpec
from core.methods.word2vec import Word2VecSpec, blocks_of, check, new_network, new_objective
from core.networks.word_learning import Bounds, loss_sum, update

CPU = torch.device("cpu")
LEE = datapath("lee_background.cor")  # 300 news reports, 60,000 words
OBJECTIVES = [{}, {"objective": "nce"}, {"objective": "hierarchical_softmax"}, {"subwords": True}]


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


def slow_words(network):
    """Each word's vector, a word at a time: the value is the mean of its rows, the gradient that of the sum."""
    rows = [(own, *network.rows_of([word]).rows.tolist()[1:]) for own, word in enumerate(network.words)]
    parts = [network.inputs[list(own)] for own in rows]
    return torch.stack([part.sum(0) + (part.mean(0) - part.sum(0)).detach() for part in parts])


def slow_prediction(network, objective, h, word, noise):
    """What predicting a word from h costs, by the paper of each objective; `noise` are the words drawn."""
    if objective.tree is not None:
        path = zip(objective.tree.nodes[word].tolist(), objective.tree.signs[word].tolist(), strict=True)
        return -sum(logsigmoid(sign * (h @ network.outputs[node])) for node, sign in path if sign)
    if objective.log_noise is None:
        against = logsigmoid(-(network.outputs[noise] @ h)).mean()
        return -logsigmoid(h @ network.outputs[word]) - objective.negative * against
    scores = network.outputs[:, :-1] @ h + network.outputs[:, -1]  # log p(word | h)
    odds = scores - objective.log_noise  # of coming from the text, not from the noise
    return -logsigmoid(odds[word]) - objective.negative * logsigmoid(-odds[noise]).mean()


def slow_loss(network, objective, documents, noise, radii=None):
    """The loss as the papers have it, a word at a time; `noise` [words, negatives] are the words drawn for each."""
    loss, place, window, inputs = torch.zeros(()), 0, objective.window, slow_words(network)
    for document in documents:
        for i, word in enumerate(document):
            chance = {j: (window + 1 - abs(i - j)) / window for j in range(len(document)) if j != i}
            near = {j: weight for j, weight in chance.items() if weight > 0}
            if objective.architecture == "skip_gram":
                for j, weight in near.items():
                    loss += weight * slow_prediction(network, objective, inputs[word], document[j], noise[place])
            elif near := [j for j in near if abs(i - j) <= radii[place]]:
                rows = torch.stack([inputs[document[j]] for j in near])
                # The value is the mean's, the gradient that of the sum: each near word takes the whole step.
                h = rows.sum(0) + (rows.mean(0) - rows.sum(0)).detach()
                loss += slow_prediction(network, objective, h, word, noise[place])
            place += 1
    return loss


def radii_of(block, spec):
    """How far each centre's window reaches: as drawn, or to the document's ends."""
    centres = block.near_to.members.tensor_split(block.near_to.starts[1:].long())
    radii = [0] * block.centres.numel()
    for place, owners in enumerate(centres):
        for centre in owners.tolist():
            radii[centre] = max(radii[centre], abs(place - spec.window - centre))
    return radii


@pytest.mark.parametrize("architecture", ["skip_gram", "cbow"])
@pytest.mark.parametrize(
    "settings",
    [
        {"window": 2, "negative": 3},
        {"window": 5, "negative": 5},
        {"window": 10, "negative": 20},
        {"objective": "nce", "window": 3, "negative": 7},
        {"objective": "hierarchical_softmax", "window": 3},
        {"subwords": True, "min_n": 1, "max_n": 3, "buckets": 40},
        {"subwords": True, "objective": "nce"},
        {"subwords": True, "objective": "hierarchical_softmax"},
    ],
)
def test_one_step_is_the_gradient_of_the_loss_written_out(architecture, settings):
    spec = spec_of(architecture=architecture, vector_size=7, **settings)
    texts = random_documents(words=150, vocabulary=12, documents=15)
    corpus = read_corpus(texts)
    blocks = blocks_of(corpus, spec, epochs=1, device=CPU)
    assert len(blocks) == 1
    block = blocks[0]
    network = new_network(spec, corpus.vocabulary.words)
    unbounded = Bounds(torch.ones(1), torch.ones(1))
    objective = replace(new_objective(spec, network, blocks), bounds=unbounded)
    torch.manual_seed(0)
    for table in (network.inputs, network.outputs):
        table.normal_().requires_grad_()
    documents = [[network.numbers[word] for word in text.split()] for text in texts]
    noise = block.noise.repeat_interleave(block.centres.shape[1], 0)
    loss = slow_loss(network, objective, documents, noise, radii_of(block, spec) if architecture == "cbow" else None)
    torch.testing.assert_close(loss_sum(network, block, objective)[0], loss, rtol=1e-5, atol=1e-5)
    loss.backward()
    expected = [(table - 0.1 * table.grad).detach() for table in (network.inputs, network.outputs)]
    with torch.no_grad():
        update(network, block, objective, 0.1)
    for table, stepped in zip((network.inputs, network.outputs), expected, strict=True):
        torch.testing.assert_close(table.detach(), stepped, rtol=1e-4, atol=1e-4)


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
        for group, place, centre in block.weights.nonzero().tolist():
            pair = (words[block.centres[group, centre]], words[block.nearby[group, place]])
            found[pair] += round(3 * float(block.weights[group, place, centre]))
    expected: Counter[tuple[str, str]] = Counter()
    for text in texts:
        document = text.split()
        for i, word in enumerate(document):
            for j in range(max(0, i - 3), min(len(document), i + 4)):
                if j != i:
                    expected[word, document[j]] += 4 - abs(i - j)
    assert found == expected


def test_windows_of_cbow_are_whole_and_end_with_the_document_in_every_step():
    spec = spec_of(architecture="cbow", window=3, batch_size=64)
    texts = [" ".join(f"w{document}x{place}" for place in range(1 + document)) for document in range(40)]
    blocks = blocks_of(corpus := read_corpus(texts), spec, epochs=1, device=CPU)
    assert len(blocks) > 10
    words, met, radii = corpus.vocabulary.words, Counter(), Counter()
    for block in blocks:
        near = [part.tolist() for part in block.near.members.tensor_split(block.near.starts[1:].long())]
        inverse = [[] for _ in near]
        for place, owners in enumerate(block.near_to.members.tensor_split(block.near_to.starts[1:].long())):
            for centre in owners.tolist():
                inverse[centre].append(int(block.nearby[0, place]))
        assert near == inverse
        assert block.counts.view(-1).tolist() == [len(part) for part in near]
        for centre, part in zip(block.centres.view(-1).tolist(), near, strict=True):
            if part:
                document, own = map(int, words[centre][1:].split("x"))
                radius = max(abs(int(words[word].split("x")[1]) - own) for word in part)
                places = range(max(0, own - radius), min(document, own + radius) + 1)
                assert [words[word] for word in part] == [f"w{document}x{place}" for place in places if place != own]
                met[centre] += 1
                radii[radius] += 1
    assert set(met.values()) == {1}
    assert len(met) == len(words) - 1  # the first stands alone
    assert set(radii) == {1, 2, 3}


def test_every_epoch_thins_out_frequent_words_anew():
    spec = spec_of(subsample=1e-2, batch_size=1024)
    corpus = read_corpus(random_documents(words=50_000, vocabulary=500, documents=50))
    blocks = blocks_of(corpus, spec, epochs=2, device=CPU)
    counts = [torch.zeros(500), torch.zeros(500)]
    for block in blocks:
        is_real = block.weights.sum(1) > 0
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
    corpus = read_corpus(texts, min_count=spec.min_count)
    torch.manual_seed(spec.seed)
    network = new_network(spec, corpus.vocabulary.words)
    blocks = blocks_of(corpus, spec, epochs=spec.epochs, device=CPU)
    objective = new_objective(spec, network, blocks)
    for block in blocks:
        update(network, block, objective, spec.learning_rate * (1 - block.step / len(blocks)))
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
@pytest.mark.parametrize(
    "settings", [*OBJECTIVES, {"learning_rate": 0.1}, {"batch_size": 65_536}, {"negative": 20}]
)  # fmt: skip
def test_stays_within_bounds_on_any_corpus(architecture, vocabulary, settings):
    for seed in range(1 if settings in OBJECTIVES[1:] else 2):
        texts = random_documents(words=8000, vocabulary=vocabulary, documents=20, seed=seed)
        network = learn(texts, architecture=architecture, seed=seed, vector_size=16, epochs=4, **settings)
        assert network.inputs.norm(dim=1).max() < 50
        assert network.outputs.norm(dim=1).max() < 50


@pytest.mark.parametrize("architecture", ["skip_gram", "cbow"])
def test_the_number_of_threads_does_not_change_the_weights(architecture):
    texts = random_documents(words=6_000, vocabulary=300, documents=20)
    tables = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        tables.append(learn(texts, architecture=architecture, epochs=1, vector_size=20).inputs)
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
    texts = [sample.path.read_text() for sample in recorder.samples if sample.name == "nearest_words"]
    assert len(texts) == method_named("word2vec").spec.model_fields["epochs"].default
    assert all(len(line.split(", ")) == 6 for line in texts[-1].splitlines())
    assert (folder / "run" / "artifacts" / "words.png").read_bytes().startswith(b"\x89PNG")
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


PAIRS = [
    ("israeli", "palestinian"), ("bin", "laden"), ("al", "qaeda"), ("afghanistan", "taliban"), ("arafat", "hamas"),
    ("qantas", "unions"), ("prime", "minister"), ("test", "wicket"), ("fire", "firefighters"), ("interest", "rates"),
]  # fmt: skip


@pytest.mark.parametrize("architecture", ["skip_gram", "cbow"])
@pytest.mark.parametrize("settings", OBJECTIVES)
def test_words_of_the_same_news_come_close(architecture, settings):
    texts = Path(LEE).read_text(encoding="utf-8").splitlines()
    network = learn(
        texts, architecture=architecture, vector_size=32, batch_size=128, min_count=5, subsample=1e-3,
        learning_rate=0.1, **settings,
    )  # fmt: skip
    vectors = torch.nn.functional.normalize(network.vectors, dim=1)
    ranks = []
    for word, other in PAIRS:
        cosines = vectors @ vectors[network.numbers[word]]
        ranks.append(int((cosines > cosines[network.numbers[other]]).sum()))
    assert 1800 < len(network.words) < 1900  # by chance the median is 900
    assert np.median(ranks) < (40 if architecture == "skip_gram" else 150)


def test_scores_of_nce_are_log_probabilities():
    texts = random_documents(words=30_000, vocabulary=20, documents=1)
    network = learn(texts, objective="nce", window=1, epochs=10, vector_size=8, batch_size=256, learning_rate=0.1)
    scores = network.inputs @ network.outputs[:, :-1].T + network.outputs[:, -1]
    shares = 1 / torch.arange(1, 21)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(20), atol=0.1, rtol=0)
    by_name = scores[:, [network.numbers[f"w{number}"] for number in range(20)]]
    torch.testing.assert_close(by_name.exp().mean(0), shares / shares.sum(), atol=0.02, rtol=0.1)


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "nce", "architecture": "cbow", "phrases": 1, "phrase_threshold": 2.0},
        {"objective": "hierarchical_softmax"},
        {"subwords": True, "architecture": "cbow"},
    ],
)
def test_every_objective_resumes_bit_for_bit_and_opens_in_gensim(settings, tmp_path):
    write_text(tmp_path / "dataset", documents=100)
    example, inputs = method_named("word2vec").example, {"dataset": tmp_path / "dataset"}
    changes = {"epochs": 2, "batch_size": 64, **settings}
    whole, recorder = Recorder(), Recorder()
    run_example(example, tmp_path / "whole", inputs=inputs, recorder=whole, **changes)
    control = RequestAfter("interrupt", steps=whole.steps[-1] // 2)
    assert run_example(example, tmp_path / "a", inputs=inputs, recorder=recorder, control=control, **changes) is None
    run_example(example, tmp_path / "b", inputs=inputs, resume=recorder.checkpoints[-1].path, **changes)
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "b")
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    vectors = KeyedVectors.load_word2vec_format(tmp_path / "b" / "artifacts" / "vectors.txt")
    network = load_model(tmp_path / "b" / "artifacts")
    assert vectors.index_to_key == list(network.words)
    assert any("_" in word for word in network.words) == ("phrases" in settings)
    np.testing.assert_allclose(vectors.vectors, network.vectors.numpy(), rtol=1e-4, atol=1e-7)
    assert ("sleepless" in network.numbers, len(network.words) > 30) == (False, True)
    if "subwords" in settings:
        assert "sleeps" in [word for word, _ in network.nearest("sleepless", 3)]
        torch.testing.assert_close(network(torch.tensor([1]))[0], network.vector(network.words[1]))
        with pytest.raises(KeyError):
            network.vector("ӝӝӝ")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"objective": "hierarchical_softmax", "negative": 5}, "negative would have no effect"),
        ({"negative": None}, "negative must be a number"),
        ({"phrase_threshold": 10.0}, "phrase_threshold would have no effect"),
        ({"phrases": 2, "phrase_threshold": None}, "phrase_threshold must be a number"),
        ({"min_n": 2}, "min_n would have no effect"),
        ({"buckets": 100}, "set subwords to true"),
        ({"subwords": True, "min_n": 5, "max_n": 4}, "min_n at most max_n"),
    ],
)
def test_refuses_settings_without_effect(settings, field):
    with pytest.raises(ValidationError, match=field):
        spec_of(**settings)
