"""Templates: what they put in, and what they refuse before any job starts."""

from __future__ import annotations

import time
from typing import Any

import pytest

from core.graders.templates import LONGEST, AbsentError, fill_in, places

VALUES: dict[str, Any] = {
    "item": {"reference_answer": "42", "n": 3, "deep": {"list": ["a", {"b-c": None}]}, "braces": "{{ item.n }}"},
    "sample": {"output_text": '{"x": true}', "output_json": {"x": True}},
}


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{ item.reference_answer }}", "42"),
        ("{{item.n}} of {{ sample.output_json.x }}", "3 of true"),
        ("{{ item.deep.list[0] }}{{ item.deep.list[1].b-c }}", "anull"),
        ("{{ item.deep }}", '{"list": ["a", {"b-c": null}]}'),
        ("{{ item.braces }}", "{{ item.n }}"),
        ("{ {% x %} } {{\nitem.n\n}}", "{ {% x %} } 3"),
    ],
)
def test_fills_in(template: str, filled: str) -> None:
    assert fill_in(template, VALUES) == filled


@pytest.mark.parametrize(
    "name", ["item.other", "item.deep.list[2]", "item.n.x", "item.deep[0]", "sample.output_json.y"]
)
def test_what_is_absent_is_told_with_its_name(name: str) -> None:
    with pytest.raises(AbsentError, match=f"'{name}'".replace("[", r"\[")) as raised:
        fill_in(f"{{{{ {name} }}}}", VALUES)
    assert raised.value.space == name.partition(".")[0]


def test_what_never_closes_is_refused_at_once() -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="do not match"):
        list(places("{{" * (LONGEST // 2)))
    assert time.process_time() - started < 1.0  # searched from each opening to the end, it takes many


def test_nothing_grows_without_end() -> None:
    values = {"item": {"long": "x" * (LONGEST // 10)}, "sample": {}}
    assert len(fill_in("{{item.long}}" * 10, values)) == LONGEST
    with pytest.raises(ValueError, match="more than 100,000 characters with its places filled"):
        fill_in("{{item.long}}" * 11, values)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ item }}", "names nothing"),
        ("{{ reference }}", "names nothing"),
        ("{{ item.a | upper }}", "names nothing"),
        ("{{ item.__class__() }}", "names nothing"),
        ("{{ item.a", "do not match"),
        ("item.a }}", "do not match"),
        ("{{ sample.output_tools[0].x }}", "'sample.output_tools' is not known here"),
        ("{{ sample.output_text.x }}", "output_text is a text"),
    ],
)
def test_refuses_what_names_nothing(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(places(template))


def test_attributes_of_values_are_not_names() -> None:
    with pytest.raises(AbsentError):
        fill_in("{{ item.reference_answer.__class__ }}", VALUES)
