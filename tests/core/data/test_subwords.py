from __future__ import annotations

import numpy as np
import pytest
from gensim.models.fasttext_inner import compute_ngrams_bytes, ft_hash_bytes

from core.data.subwords import NGrams, hash_ngrams

WORDS = ["a", "", "where", "banana", "über", "l’amour", "日本語", "😀smile", "new_york"]


@pytest.mark.parametrize("cut", [NGrams(3, 6, 2_000_000), NGrams(1, 3, 50), NGrams(5, 5, 1)])
def test_hashes_the_ngrams_that_fasttext_does(cut):
    places, buckets = hash_ngrams(WORDS, cut)
    for number, word in enumerate(WORDS):
        theirs = [ft_hash_bytes(ngram) % cut.buckets for ngram in compute_ngrams_bytes(word, cut.min_n, cut.max_n)]
        assert sorted(buckets[places == number]) == sorted(theirs)
    assert np.all(np.diff(places) >= 0)


def test_no_words_have_no_ngrams():
    places, buckets = hash_ngrams([], NGrams(3, 6, 100))
    assert len(places) == len(buckets) == 0
