"""Similarities, beside what nltk 3.10.4 (gleu), rouge-score 0.1.2 and sacreBLEU 2.6.0 (sentence_bleu) answer."""

from __future__ import annotations

import pytest

from core.graders.similarity import SIMILARITIES

NAMES = ("bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l")
ANSWERS = {
    ("the cat sat on the mat", "the cat is on the mat"): (0.379918, 0.5, 0.833333, 0.6, 0.25, 0, 0, 0.833333),
    ("The answer is 42 .", "the answer is 41 , I think ."): (0.129758, 0.153846, 0.6, 0.5, 0.333333, 0, 0, 0.6),
    ("the the the the the", "the cat sat on the mat today"): (0.085153, 0.090909, 0.333333, 0, 0, 0, 0, 0.333333),
    ("one two three four five six", "six five four one two three four five"): (
        *(0.569836, 0.576923, 0.857143, 0.666667, 0.6, 0.5, 0.333333, 0.714286),
    ),
    ("a b c d e f g", "a b c d e f g"): (1,) * 8,
    ("yes", "no"): (0,) * 8,
}


@pytest.mark.parametrize("texts", list(ANSWERS))
def test_equals_the_libraries(texts: tuple[str, str]) -> None:
    found = [SIMILARITIES[name](*texts) for name in NAMES]
    assert found == pytest.approx(ANSWERS[texts], abs=1e-6)


def test_fuzzy_match_ignores_case_and_marks() -> None:
    match = SIMILARITIES["fuzzy_match"]
    assert match("The Answer: 42!", "the answer  42") == 1
    assert match("kitten", "sitting") == pytest.approx(8 / 13)  # four letters of six and seven are common
    assert match("abc", "xyz") == 0


@pytest.mark.parametrize("name", list(SIMILARITIES))
@pytest.mark.parametrize("texts", [("", ""), ("", "a"), ("a", ""), ("...", "!"), ("日本語", "日本")])
def test_any_texts_have_a_similarity(name: str, texts: tuple[str, str]) -> None:
    assert 0 <= SIMILARITIES[name](*texts) <= 1
