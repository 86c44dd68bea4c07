from __future__ import annotations

from random import Random

import torch

from core.data import vocabulary
from core.data.vocabulary import WORD, read_corpus

DOCUMENTS = ["The cat sat. The cat's hat!", "", "Don't sit, cat: the hat is the cat’s"]


def words_of(corpus):
    return [corpus.vocabulary.words[number] for number in corpus.tokens]


def test_numbers_words_by_falling_frequency_then_first_appearance():
    corpus = read_corpus(DOCUMENTS)
    words = corpus.vocabulary.words
    assert words[:3] == ("the", "cat", "hat")
    assert words[3:] == ("sat", "cat's", "don't", "sit", "is", "cat’s")
    assert corpus.vocabulary.counts.tolist() == [4, 2, 2, 1, 1, 1, 1, 1, 1]
    assert words_of(corpus)[:6] == ["the", "cat", "sat", "the", "cat's", "hat"]
    assert corpus.documents.tolist() == [0] * 6 + [2] * 8
    assert (corpus.words_read, corpus.document_count) == (14, 3)


def test_leaves_out_rare_words_and_those_beyond_the_limit():
    assert read_corpus(DOCUMENTS, min_count=2).vocabulary.words == ("the", "cat", "hat")
    corpus = read_corpus(DOCUMENTS, max_words=2)
    assert corpus.vocabulary.words == ("the", "cat")
    assert words_of(corpus) == ["the", "cat", "the", "cat", "the", "the"]
    assert corpus.words_read == 14


def test_keeps_the_case_when_told():
    assert read_corpus(["The the"], lowercase=False).vocabulary.words == ("The", "the")


def test_takes_documents_apart():
    corpus = read_corpus(DOCUMENTS)
    part = corpus.part(torch.tensor([False, True, True]))
    assert part.documents.unique().tolist() == [2]
    assert words_of(part)[0] == "don't"
    assert part.vocabulary is corpus.vocabulary


def test_reads_nothing_from_nothing():
    corpus = read_corpus(["", "..."])
    assert len(corpus.vocabulary) == len(corpus.tokens) == 0


def test_finds_the_words_that_a_search_of_the_whole_text_finds(monkeypatch):
    letters = [
        "a",
        "B",
        "é",
        "'",
        "’",
        "-",
        "_",
        "7",
        " ",
        "\n",
        "\u2003",
        "\x1c",
        "\u200b",
        "İ",
        "Σ",
        "\ud800",
        "语",
        "́",
    ]
    random = Random(0)
    texts = ["".join(random.choices(letters, k=random.randrange(60))) for _ in range(500)]
    expected = [WORD.findall(text.lower()) for text in texts]
    monkeypatch.setattr(vocabulary, "BATCH_CHARACTERS", 1000)
    corpus = read_corpus(texts)
    assert words_of(corpus) == [word for words in expected for word in words]
    assert corpus.documents.tolist() == [number for number, words in enumerate(expected) for _ in words]
    assert len(corpus.vocabulary) == len(set(words_of(corpus)))
