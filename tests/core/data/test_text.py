from __future__ import annotations

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from core.data.profile import Kind, inspect
from core.data.text import read_documents, read_labelled_text
from core.errors import InvalidData

TEXTS = ["The first, with a comma.", "Die zweite: größer.", "A third one, and it is the last."]
LABELS = [1, 0, 1]


def _parquet(table):
    content = io.BytesIO()
    pq.write_table(pa.table(table), content)
    return content.getvalue()


def _jsonl(*objects):
    return "".join(json.dumps(value) + "\n" for value in objects)


PLAIN = "\n".join(TEXTS)
SETS = {
    "text": PLAIN,
    "text, CRLF": PLAIN.replace("\n", "\r\n") + "\r\n\r\n",
    "text with a byte order mark": "\ufeff" + PLAIN,
    "blocks": "\n\n".join(TEXTS),
    "gzip": gzip.compress(PLAIN.encode()),
    "zstd": zstandard.compress(PLAIN.encode()),
    "jsonl": _jsonl(*({"text": text} for text in TEXTS)),
    "csv": 'id,text\n1,"The first, with a comma."\n2,"Die zweite: größer."\n3,"A third one, and it is the last."\n',
    "parquet": _parquet({"text": TEXTS}),
    "parquet with blanks": _parquet({"text": ["", *TEXTS, " \n"]}),
}
LABELLED = {
    "jsonl": _jsonl(*({"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True))),
    "csv": "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in zip(TEXTS, LABELS, strict=True)),
    "tsv": "".join(f"{text}\t{label}\n" for text, label in [("sentence", "label"), *zip(TEXTS, LABELS, strict=True)]),
    "parquet": _parquet({"id": [7, 8, 9], "text": TEXTS, "label": LABELS}),
}


@pytest.mark.parametrize("name", SETS)
def test_every_format_gives_the_same_documents(name, write):
    path = write(SETS[name])
    assert list(read_documents(path)) == TEXTS
    profile = inspect(path)
    assert (profile.kind, profile.examples, profile.words) == (Kind.TEXT, 3, 16)


@pytest.mark.parametrize("name", LABELLED)
def test_labelled_texts(name, write):
    path = write(LABELLED[name])
    data = read_labelled_text(path)
    assert data.texts == tuple(TEXTS)
    assert data.labels.tolist() == LABELS
    assert data.class_names == ("0", "1")
    assert list(read_documents(path)) == TEXTS
    assert inspect(path).classes == {"0": 1, "1": 2}


def test_columns_by_name(write):
    path = write("headline,mood\nIt was a very good day,glad\nIt was not so very good,sad\n")
    data = read_labelled_text(path, text="headline", label="mood")
    assert data.class_names == ("glad", "sad")
    assert inspect(path).columns == ("headline", "mood")
    with pytest.raises(InvalidData, match="no labels: name the column"):
        read_labelled_text(path)
    with pytest.raises(InvalidData, match="no column 'x'; there are 'headline', 'mood'"):
        read_labelled_text(path, text="x")


def test_quoted_fields_may_span_lines_and_mistakes_after_them_keep_their_line(write, told):
    good = 'text,label\n"two\nlines, ""quoted""",a\nThe last one here,b\n'
    assert list(read_documents(write(good))) == ['two\nlines, "quoted"', "The last one here"]
    assert told(write(good + "x,y,z\n")) == ["line 5: 3 fields, the header has 2"]


def test_blocks_hold_several_lines(write):
    path = write("\n\nOne\nand more\n\n \nTwo\n")
    assert list(read_documents(path)) == ["One\nand more", "Two"]


def test_a_stray_blank_line_does_not_make_blocks(write):
    lines = [f"document {index}" for index in range(300)]
    lines.insert(150, "")
    assert inspect(write("\n".join(lines))).examples == 300


@pytest.mark.parametrize(
    "content",
    [
        "Hello, world.\nThis is a line, and it has, commas.\n",
        "Yes, he said.\nNo, she said.\nWell, they said.\n",
        "Just words\nwithout anything\n",
        "{\\bf TeX} begins with a brace\n",
        "[1] a footnote\n",
        "cat\ndog\n",
        "BMW is a car\n",
        "P5 and P6 are letters\n",
        "(c) somebody\n",
    ],
)
def test_prose_is_text(content, write):
    profile = inspect(write(content))
    assert (profile.kind, profile.format) == (Kind.TEXT, "text")
    assert profile.examples == len(content.splitlines())


def test_larger_text(write):
    lines = [f"Dokument Nummer {index} sagt größer" for index in range(100_000)]
    assert list(read_documents(write("\n".join(lines)))) == lines


WRONG = {
    "empty": ("", ["the file is empty"]),
    "blank": (" \n\n", ["the file is empty"]),
    "latin-1": ("good\nschön\ngood\n".encode("latin-1"), ["line 2: byte 4 is not UTF-8"]),
    "nul": ("good\nba\0d\n\nworse\0\n", ["line 2: holds a nul byte", "line 4: holds a nul byte"]),
    "UTF-16": ("some text".encode("utf-16"), ["UTF-16 text: save it as UTF-8"]),
    "random bytes": (bytes(range(128, 256)) * 9, ["its format is not known; send plain text"]),
    "broken JSON": ('{"text": "a"}\n{"text": \n[1]\n', ["line 2: not JSON at character", "line 3: not an object"]),
    "pretty JSON": ('{\n "text": "a"\n}\n', ["line 1: not JSON", "line 2: not JSON", "line 3: not JSON"]),
    "JSON array": ('[\n{"text": "a"},\n{"text": "b"}]', ["a JSON array: write one object a line"]),
    "deep JSON": (
        '{"text": "a"}\n{"text": ' + "[" * 100_000 + "]" * 100_000 + "}\n",
        ["line 2: JSON nested too deeply"],
    ),
    "long integer": ('{"text": "a"}\n{"text": ' + "1" * 5000 + "}\n", ["line 2: Exceeds the limit"]),
    "half a surrogate": ('{"text": "a"}\n{"text": "\\ud800"}\n', ["line 2: holds half of a surrogate pair"]),
    "nul in JSON": ('{"text": "a"}\n{"text": "\\u0000"}\n', ["line 2: holds a nul character"]),
    "not a string": (
        '{"text": "a"}\n{"text": 1}\n{"text": null}\n',
        ["line 2, column 'text': not a", "line 3, column"],
    ),
    "missing": ('{"text": "a"}\n{"txt": "b"}\n', ["line 2: 'text' is missing"]),
    "label missing": ('{"text": "a", "label": 1}\n{"text": "b"}\n', ["line 2: 'label' is missing"]),
    "label of a list": ('{"text": "a", "label": 1}\n{"text": "b", "label": [1]}\n', ["line 2, column 'label'"]),
    "only blanks": ('{"text": ""}\n{"text": " "}\n', ["there are no documents"]),
    "gzip, cut": (gzip.compress(PLAIN.encode() * 99)[:-10], ["the gzip stream is damaged or cut short"]),
    "zstd, cut": (zstandard.compress(PLAIN.encode() * 99)[:-3], ["the zstd stream is damaged or cut short"]),
    "gzip, twice": (gzip.compress(gzip.compress(b"text")), ["compressed twice"]),
    "bzip2": (b"BZh91AY&SY", ["compressed with bzip2: use gzip or zstd"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_with_its_place(name, write, told):
    content, expected = WRONG[name]
    problems = told(write(content))
    assert len(problems) == len(expected), problems
    for problem, start in zip(problems, expected, strict=True):
        assert start in problem


def test_conversations(write, told):
    good = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    profile = inspect(write(_jsonl(good, good)))
    assert (profile.kind, profile.examples, profile.format) == (Kind.CONVERSATIONS, 2, "jsonl")
    bad = [{}, {"messages": []}, {"messages": [{"role": "king", "content": ""}]}, {"messages": [{"role": "user"}]}]
    problems = told(write(_jsonl(good, *bad, {"messages": [1]})))
    assert problems[0] == "line 2: 'messages' is missing"
    assert problems[1] == "line 3: 'messages' is not a list of messages"
    assert "line 4: message 1 of 'messages' has the role 'king'" in problems[2]
    assert problems[3] == "line 5: message 1 of 'messages' has no 'content'"
    assert problems[4] == "line 6: message 1 of 'messages' is not an object"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"content": [{"type": "text", "text": None}]}, "a part of type text whose 'text' is not a text"),
        ({"content": [{"type": "refusal", "text": "No."}]}, "a part of type refusal whose 'refusal' is not a text"),
        ({"content": [{"type": "image_url", "image_url": {"url": "a"}}]}, "a part of type 'image_url': only text"),
        ({"content": ["a"]}, "a part that is not an object"),
        ({"tool_calls": 5}, "'tool_calls' of message"),
        ({"tool_calls": [True]}, "is not a list of objects"),
        ({"content": 5, "tool_calls": [{"id": "1"}]}, "the content 5: it is a text"),
    ],
)
def test_what_a_message_is_made_of(changes, expected, write, told):
    message = {"role": "assistant", "content": "a"}
    (problem,) = told(write(_jsonl({"messages": [message]}, {"messages": [message, {**message, **changes}]})))
    assert problem.startswith("line 2: ")
    assert "message 2 of 'messages'" in problem
    assert expected in problem
    pair = {"prompt": "a", "chosen": [message], "rejected": [message]}
    (problem,) = told(write(_jsonl(pair, {**pair, "rejected": [{**message, **changes}]})))
    assert "message 1 of 'rejected'" in problem


def test_tools_are_a_list(write, told):
    message = [{"role": "assistant", "content": "Hi"}]
    trl = {"prompt": "a", "chosen": "b", "rejected": "c"}
    openai = {"input": {"messages": message}, "preferred_output": message, "non_preferred_output": message}
    expected = ["line 2: 'tools' is not a list of objects"]
    assert told(write(_jsonl({"messages": message}, {"messages": message, "tools": 5}))) == expected
    assert told(write(_jsonl(trl, {**trl, "tools": ["a"]}))) == expected
    assert told(write(_jsonl(openai, {**openai, "input": {"messages": message, "tools": True}}))) == expected
    none = {"messages": message, "tools": None}
    assert inspect(write(_jsonl(none, {**none, "tools": [{"type": "function"}]}))).examples == 2


def test_deep_json_is_refused_by_line_before_anything_chokes_on_it(write, told):
    shallow, deep = ({"messages": [{"role": "user", "content": "[" * 500}], "more": _nested(n)} for n in (60, 70))
    assert told(write(_jsonl(shallow, deep))) == ["line 2: JSON nested too deeply: 64 levels are read"]


def _nested(levels):
    return [_nested(levels - 1)] if levels else []


def test_a_tool_call_needs_no_content(write):
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    assert inspect(write(_jsonl({"messages": [call]}))).kind is Kind.CONVERSATIONS


def test_preferences(write, told):
    message = [{"role": "assistant", "content": "Hi"}]
    openai = {"input": {"messages": message}, "preferred_output": message, "non_preferred_output": message}
    trl = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert inspect(write(_jsonl(openai))).kind is Kind.PREFERENCES
    assert inspect(write(_jsonl(trl, trl))).kind is Kind.PREFERENCES
    assert told(write(_jsonl(openai, {**openai, "input": {}}))) == ["line 2: 'input' has no 'messages'"]
    assert told(write(_jsonl(trl, {"prompt": "a", "chosen": "b"}))) == ["line 2: 'rejected' is missing"]


def test_the_wrong_kind_is_named(write):
    with pytest.raises(InvalidData, match=r"holds conversations \(jsonl\); this needs text"):
        list(read_documents(write('{"messages": [{"role": "user", "content": "a"}]}')))
    with pytest.raises(InvalidData, match=r"holds a table \(csv\); this needs text"):
        read_documents(write("a,b\n1,2\n"))
