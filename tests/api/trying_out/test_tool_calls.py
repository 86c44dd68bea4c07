"""Calls of tools are found in what models write, however it comes; all else is the text that it is."""

from __future__ import annotations

import json

import pytest

from api.trying_out.tool_calls import Call, CallReader, read_calls

TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("weather", "time")]
ARGUMENTS = {"city": "Zürich <tool_call>", "days": [1, 2.5, None]}
WEATHER, TIME = Call("weather", json.dumps(ARGUMENTS)), Call("time", "{}")


def tagged(name: str, arguments: object, *, key: str = "arguments") -> str:
    return f"<tool_call>\n{json.dumps({'name': name, key: arguments}, ensure_ascii=False)}\n</tool_call>"


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        (tagged("weather", ARGUMENTS), "", [WEATHER]),
        (f"Let me see.\n\n{tagged('weather', ARGUMENTS)}\n{tagged('time', {})}\n", "Let me see.", [WEATHER, TIME]),
        (f"{tagged('time', {})} And then?", " And then?", [TIME]),
        (tagged("time", {}).removesuffix("</tool_call>"), "", [TIME]),
        (json.dumps({"name": "weather", "parameters": ARGUMENTS}), "", [WEATHER]),
        ('\n{"type": "function", "name": "time", "parameters": {}} ', "", [TIME]),
    ],
    ids=["Hermes", "text and two", "text behind", "without its end", "Llama", "Llama, with a type"],
)
def test_calls_are_found_wherever_the_text_is_cut(text: str, said: str, calls: list[Call]) -> None:
    assert read_calls(text, TOOLS) == (said, calls)
    for size in (1, 2, 3, 7, 11):
        reader = CallReader(TOOLS)
        parts = [part for start in range(0, len(text), size) for part in reader.add(text[start : start + size])]
        parts += reader.finish()
        assert "".join(part for part in parts if isinstance(part, str)) == said
        assert [part for part in parts if isinstance(part, Call)] == calls
        assert reader.calls == len(calls)


@pytest.mark.parametrize(
    "text",
    [
        " Nothing to call. \n",
        tagged("nobody", {}),
        tagged("time", "now"),
        "a <tool_call> b </tool_call> c",
        "<tool_call>{",
        '{"answer": 42}',
        '{"name": ["time"], "parameters": {}}',
        '{"name": "time", "parameters": {"at": NaN}}',
        'As JSON: {"name": "time", "parameters": {}}',
        "[" * 10_000,
        "{" * 10_000,
    ],
)
def test_what_is_no_call_stays_as_it_is(text: str) -> None:
    assert read_calls(text, TOOLS) == (text, [])


def test_without_tools_all_is_text_at_once() -> None:
    reader = CallReader([])
    assert reader.add(f" {tagged('time', {})} ") == [f" {tagged('time', {})} "]
    assert reader.finish() == []


def test_text_is_given_as_soon_as_no_call_can_begin_in_it() -> None:
    reader = CallReader([{"type": "function"}, *TOOLS])
    assert [reader.add(piece) for piece in ("I ", "see <", "b> <tool", "_c")] == [["I"], [" see"], [" <b>"], []]
    assert reader.finish() == [" <tool_c"]
