"""Graders: what they are made of, which are refused and why, and what they give."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from core.graders import Grader, check_item, grade, names_of_items

CHECK = {
    "type": "string_check",
    "name": "exact",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.reference_answer }}",
    "operation": "eq",
}
SIMILAR = {
    "type": "text_similarity",
    "name": "near",
    "input": "{{ sample.output_json.said }}",
    "reference": "{{ item.reference_answer }}",
    "evaluation_metric": "rouge_1",
}
ITEM = {"messages": [], "reference_answer": "Forty Two"}


def made(value: dict[str, Any]) -> Any:
    return TypeAdapter(Grader).validate_python(value)


def multi(formula: str, **graders: Any) -> dict[str, Any]:
    return {"type": "multi", "name": "both", "graders": graders, "calculate_output": formula}


@pytest.mark.parametrize(
    ("operation", "text", "reward"),
    [
        ("eq", "Forty Two", 1),
        ("eq", "forty two", 0),
        ("ne", "forty two", 1),
        ("ne", "Forty Two", 0),
        ("like", "It is Forty Two.", 1),
        ("like", "It is forty two.", 0),
        ("ilike", "It is forty two.", 1),
        ("ilike", "forty", 0),
    ],
)
def test_string_checks(operation: str, text: str, reward: float) -> None:
    assert grade(made({**CHECK, "operation": operation}), ITEM, text).reward == reward


def test_a_formula_of_graders() -> None:
    grader = made(multi("0.25 * near + 0.75 * exact", near=SIMILAR, exact={**CHECK, "operation": "ilike"}))
    found = grade(grader, ITEM, '{"said": "forty"}')
    assert found.parts == {"near": pytest.approx(2 / 3), "exact": 0.0}
    assert found.reward == pytest.approx(1 / 6)
    assert (found.failure, found.error) == (None, None)


def test_one_grader_has_its_own_name() -> None:
    assert grade(made({**multi("1 - exact"), "graders": CHECK}), ITEM, "no").reward == 1


@pytest.mark.parametrize(
    ("grader", "text", "failure", "error"),
    [
        (SIMILAR, "not JSON", "sample", "'sample.output_json.said' is not there"),
        (SIMILAR, '{"other": 1}', "sample", "'sample.output_json.said' is not there"),
        ({**CHECK, "reference": "{{ item.other }}"}, "", "item", "'item.other' is not there"),
        (multi("1 / exact", exact=CHECK), "wrong", "formula", "division by zero in '1 / exact' where exact is 0"),
    ],
)
def test_what_cannot_be_graded_gets_nothing_and_says_why(
    grader: dict[str, Any], text: str, failure: str, error: str
) -> None:
    found = grade(made(grader), ITEM, text)
    assert (found.reward, found.failure, found.error) == (0, failure, error)


def test_items_are_checked_before_anything_is_written() -> None:
    grader = made(multi("near", near={**SIMILAR, "reference": "{{ item.answers[1] }}"}, exact=CHECK))
    assert names_of_items(grader) == {"answers", "reference_answer"}
    check_item(grader, {**ITEM, "answers": ["a", "b"]})
    with pytest.raises(
        ValueError, match=r"'item.answers\[1\]', which is not there; there is: reference_answer, answers"
    ):
        check_item(grader, {**ITEM, "answers": ["a"]})
    with pytest.raises(ValueError, match=r"'item.reference_answer' has 100,001 characters"):
        check_item(grader, {"answers": ["a", "b"], "reference_answer": "x" * 100_001})


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        ({"type": "python", "name": "a", "source": "def grade(): ..."}, "python are refused: this server runs no code"),
        ({"type": "score_model", "name": "a", "model": "b", "input": []}, "score_model are refused"),
        ({"type": "label_model"}, "label_model are refused"),
        (multi("a", a={"type": "python", "source": "1"}), "python are refused"),
        ({**SIMILAR, "evaluation_metric": "cosine"}, "cosine compares embeddings of a hosted model"),
        ({**SIMILAR, "evaluation_metric": "meteor"}, "meteor needs the synonyms of WordNet"),
        ({**CHECK, "reference": "{{ items.x }}"}, "names nothing"),
        ({**CHECK, "operation": "contains"}, "'eq', 'ne', 'like' or 'ilike'"),
        ({**CHECK, "extra": 1}, "Extra inputs"),
        ({**CHECK, "input": None}, "valid string"),
        (multi("exact + other", exact=CHECK), "names 'other', and there are only the graders: exact"),
        (multi("exact +", exact=CHECK), "cannot be read"),
        (multi("min", min=CHECK), "a function of formulas|is a function"),
        (multi("1"), "at least 1 item"),
        (multi("a", **{"not a name": CHECK}), "match pattern"),
        (multi("a", a=multi("b", b=CHECK)), "expected tags"),
        ({**multi("a"), "graders": 3}, "type"),
        ({"type": "guess"}, "expected tags"),
        ({}, "Unable to extract tag"),
    ],
)
def test_refuses(grader: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        made(grader)


def test_survives_json() -> None:
    for value in (
        CHECK,
        SIMILAR,
        multi("near * exact", near=SIMILAR, exact=CHECK),
        {**multi("exact"), "graders": CHECK},
    ):
        assert made(value).model_dump(mode="json") == value
        assert made(made(value).model_dump()) == made(value)
