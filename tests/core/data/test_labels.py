from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from core.data.labels import Classes, label_name
from core.data.natural_order import natural


@pytest.mark.parametrize(
    ("value", "name"),
    [("cat", "cat"), (" cat ", "cat"), (3, "3"), (3.0, "3"), ("3.0", "3"), ("007", "007"), (True, "1")],
)
def test_names(value, name):
    assert label_name(value) == name


@pytest.mark.parametrize(
    "value", [None, "", " ", 0.5, "0.5", ".5", "1.5e3", float("nan"), "nan", [1], "x" * 201, "a\0b"]
)
def test_what_cannot_be_a_label(value):
    with pytest.raises(ValueError, match=r"."):
        label_name(value)
    with pytest.raises(ValueError, match=r"."):
        Classes().add([value])


def test_numbers_follow_the_natural_order_of_names():
    classes = Classes()
    codes = np.concatenate([classes.add(["b", "a10"]), classes.add(["a9", "b", 2, "2.0", 10])])
    assert classes.names == ("2", "10", "a9", "a10", "b")
    assert classes.order()[codes].tolist() == [4, 3, 2, 4, 0, 0, 1]
    assert list(classes.counts.items()) == [("2", 2), ("10", 1), ("a9", 1), ("a10", 1), ("b", 2)]


def test_natural_order():
    names = ["-2", "-1", "0", "1", "01", "9", "10", "a", "a1", "a2b", "a10", "a10b2", "b", "Z"]
    shuffled = names[:]
    random.Random(0).shuffle(shuffled)
    assert sorted(shuffled, key=natural) == ["-2", "-1", "0", "01", "1", *names[5:]]
    for first, second in itertools.product(names, repeat=2):
        assert (natural(first) < natural(second)) + (natural(second) < natural(first)) == (first != second)
