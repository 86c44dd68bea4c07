"""Which models stay open."""

from __future__ import annotations

import pytest
from torch import nn

from core.errors import InvalidRequest
from core.networks.word_vectors import WordVectors
from core.serving.shelf import Shelf

BYTES = 2 * 3 * 4 * 4  # of inputs and outputs of three words and four numbers each


def model() -> WordVectors:
    made = WordVectors.for_words(["a", "b", "c"], 4)
    assert isinstance(made, nn.Module)
    return made


def filled(shelf: Shelf, keys: str) -> Shelf:
    for key in keys:
        shelf.make_room(BYTES)
        shelf.put(key, model())
    return shelf


def kept(shelf: Shelf, keys: str) -> str:
    return "".join(key for key in keys if shelf.get(key) is not None)


def test_the_one_used_longest_ago_goes_first() -> None:
    shelf = filled(Shelf(count=2, memory_bytes=2**20), "ab")
    assert shelf.get("a") is not None
    assert kept(filled(shelf, "c"), "abc") == "ac"


def test_as_many_go_as_the_memory_needs() -> None:
    shelf = filled(Shelf(count=9, memory_bytes=4 * BYTES), "abc")
    assert kept(shelf, "abc") == "abc"
    assert kept(filled(shelf, "d"), "abcd") == "bcd"
    shelf.make_room(3 * BYTES)
    assert kept(shelf, "abcd") == ""


def test_one_that_never_fits_is_refused_and_the_others_stay() -> None:
    shelf = filled(Shelf(count=2, memory_bytes=4 * BYTES), "a")
    with pytest.raises(InvalidRequest, match="SERVING_MEMORY_BYTES"):
        shelf.make_room(4 * BYTES)
    assert kept(shelf, "a") == "a"
