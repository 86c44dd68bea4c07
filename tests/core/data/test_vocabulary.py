from __future__ import annotations

import torch

from core.data.vocabulary import read_corpus

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
