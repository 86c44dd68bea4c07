from __future__ import annotations

from pathlib import Path

import pytest
from gensim.models.phrases import Phrases
from gensim.test.utils import datapath

from core.data.phrases import PhraseRule
from core.data.vocabulary import WORD, read_corpus


def joined(documents, **rule):
    corpus = read_corpus(documents, phrases=PhraseRule(**{"passes": 1, "threshold": 1.0, "min_count": 1, **rule}))
    return [corpus.vocabulary.words[number] for number in corpus.tokens], corpus


def test_joins_what_comes_together_more_often_than_by_chance():
    # (13 - 2) * 61 / (18 * 13) = 2.87 for new york and 3.7 for is far; at most 2.0 for the others, but she is: 3.3
    documents = ["new york", "in new york", "she is new"] * 5 + ["by new york", "is far", "is far"] * 3
    words, corpus = joined(documents, min_count=2, threshold=2.5)
    assert (
        words
        == " ".join(documents)
        .replace("new york", "new_york")
        .replace("is far", "is_far")
        .replace("she is", "she_is")
        .split()
    )
    assert corpus.words_read == len(" ".join(documents).split())
    assert corpus.vocabulary.counts.sum() == len(words)


@pytest.mark.parametrize(("min_count", "threshold"), [(5, 1.0), (2, 10.0), (10, 0.3)])
def test_joins_the_same_pairs_as_gensim(min_count, threshold):
    documents = Path(datapath("lee_background.cor")).read_text(encoding="utf-8").splitlines()
    sentences = [WORD.findall(document.lower()) for document in documents]
    theirs = Phrases(sentences, min_count=min_count, threshold=threshold)
    # gensim's score has the number of different words and pairs where word2vec's has that of all words.
    ours = threshold * sum(map(len, sentences)) / len(theirs.vocab)
    expected = [word for sentence in sentences for word in theirs[sentence]]
    assert any("_" in word for word in expected)
    assert joined(documents, min_count=min_count, threshold=ours)[0] == expected


def test_a_second_pass_joins_what_the_first_made():
    documents = ["new york times", "new york times", "new york", "times", "york"] * 10
    once, twice = (joined(documents, passes=passes, threshold=1.0, min_count=5)[0] for passes in (1, 2))
    assert once[:3] == ["new_york", "times", "new_york"]
    assert twice[:3] == ["new_york_times", "new_york_times", "new_york"]


def test_pairs_that_overlap_are_joined_from_the_left_and_none_across_documents():
    assert joined(["ha ha ha", "b c", "ha ha ha", "b c"], threshold=0.1)[0][:4] == ["ha_ha", "ha", "b_c", "ha_ha"]


@pytest.mark.parametrize("documents", [["", ""], ["one"], ["a b"]])
def test_leaves_a_text_without_phrases_as_it_is(documents):
    assert joined(documents, min_count=5)[0] == " ".join(documents).split()
