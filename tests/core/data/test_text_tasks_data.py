"""Tokens with tags, texts in pairs and conversations: how they are recognised, read, and refused by line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.data.conversations import read_conversations, read_preferences
from core.data.profile import Kind, inspect
from core.data.text import read_tagged_text, read_text_pairs
from core.errors import InvalidData

CONLLU = """\
# text = Das Haus im Wald
1\tDas\tder\tDET\tART\t_\t2\tdet\t_\t_
2\tHaus\tHaus\tNOUN\tNN\t_\t0\troot\t_\t_
3-4\tim\t_\t_\t_\t_\t_\t_\t_\t_
3\tin\tin\tADP\tAPPR\t_\t5\tcase\t_\t_
4\tdem\tder\tDET\tART\t_\t5\tdet\t_\t_
4.1\tleer\t_\t_\t_\t_\t_\t_\t_\t_
5\tWald\tWald\tNOUN\tNN\t_\t2\tnmod\t_\t_

1\tGut\tgut\tADJ\tADJD\t_\t0\troot\t_\t_

"""
CONLL = (
    "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nPeter NNP B-NP B-PER\nBlackburn NNP I-NP I-PER\n"
)


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(InvalidData) as raised:
        inspect(path)
    return [str(problem) for problem in raised.value.problems]


def test_conllu(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text(CONLLU)
    profile = inspect(path)
    assert (profile.kind, profile.format, profile.examples, profile.words) == (Kind.TOKENS, "conllu", 2, 6)
    assert profile.classes == {"ADJ": 1, "ADP": 1, "DET": 2, "NOUN": 2}
    read = read_tagged_text(path, tags="deprel")
    assert read.tokens == (["Das", "Haus", "in", "dem", "Wald"], ["Gut"])
    assert read.tags[0] == ["det", "root", "case", "det", "nmod"]
    with pytest.raises(InvalidData, match="line 2: column 'feats' is empty"):
        read_tagged_text(path, tags="feats")
    path.write_text(CONLLU.replace("\t2\tnmod\t_\t_", "\t2\tnmod\t_"))
    assert problems(path) == ["line 8: has 9 columns, not 10"]


def test_conll_with_entities(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text(CONLL)
    profile = inspect(path)
    assert (profile.kind, profile.format, profile.examples) == (Kind.TOKENS, "conll", 2)
    assert read_tagged_text(path).tags == (["B-ORG", "O"], ["B-PER", "I-PER"])
    assert read_tagged_text(path, tags="column_3").tags[0] == ["B-NP", "B-VP"]
    path.write_text(CONLL * 200 + "torn B-X\n")
    assert problems(path) == ["line 1401: has 2 columns, not 4"]


def test_lists_of_tokens_and_tags(tmp_path: Path) -> None:
    good = {"tokens": ["a", "b"], "ner_tags": [0, 1], "id": "7"}
    path = write(tmp_path / "data", good, good)
    assert inspect(path).classes == {"0": 2, "1": 2}
    pq.write_table(pa.table({"words": [["a", "b"]], "pos_tags": [["N", "V"]]}), tmp_path / "parquet")
    assert read_tagged_text(tmp_path / "parquet").tags == (["N", "V"],)
    bad = [{**good, "ner_tags": [0]}, {**good, "tokens": ["a", " "]}, {**good, "ner_tags": [0, 0.5]}, {"tokens": ["a"]}]
    assert problems(write(path, good, good, good, good, good, *bad)) == [
        "line 6: 'ner_tags' has 1 entries, 'tokens' 2",
        "line 7: entry 2 of 'tokens' is not a word: ' '",
        "line 8: entry 2 of 'ner_tags': 0.5 cannot be a label, which is a word or a whole number: a column of "
        "quantities needs another name",
        "line 9: 'ner_tags' is missing",
    ]


@pytest.mark.parametrize(
    "names", [("source", "target"), ("input", "output"), ("text", "summary"), ("en", "de"), ("Source", "Target")]
)
def test_texts_in_pairs(tmp_path: Path, names: tuple[str, str]) -> None:
    first, second = names
    rows = [{first: "a house", second: "ein Haus"}, {first: "Good", second: "Gut"}]
    path = write(tmp_path / "data", *rows)
    assert inspect(path).kind is Kind.PAIRS
    csv = tmp_path / "csv"
    csv.write_text(f"{first},{second}\n" + "a house,ein Haus\nGood,Gut\n" * 5)
    assert inspect(csv).kind is Kind.PAIRS
    assert [pair[1:] for pair in read_text_pairs(path)] == [("a house", "ein Haus"), ("Good", "Gut")]
    assert read_text_pairs(path, source=second, target=first)[1][1:] == ("Gut", "Good")
    with pytest.raises(InvalidData, match="no column 'fr'"):
        read_text_pairs(path, source=first, target="fr")
    assert problems(write(path, *rows, *rows, {first: "x", second: ""}, {first: None, second: "y"})) == [
        f"line 5, column '{second}': empty",
        f"line 6, column '{first}': empty",
    ]


def test_translations_in_objects(tmp_path: Path) -> None:
    rows = [{"translation": {"en": "house", "de": "Haus"}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet")
    for path in (write(tmp_path / "data", *rows), tmp_path / "parquet"):
        assert inspect(path).kind is Kind.PAIRS
        assert read_text_pairs(path)[0][1:] == ("house", "Haus")
        assert read_text_pairs(path, source="de", target="en")[0][1:] == ("Haus", "house")


def test_labelled_texts_stay_what_they_are(tmp_path: Path) -> None:
    rows = [{"text": "some words here", "target": name} for name in "ab"]
    assert inspect(write(tmp_path / "1", *rows)).kind is Kind.TEXT
    rows = [{"question": "some words here", "answer": "yes it is", "label": 1}]
    with pytest.raises(InvalidData):
        inspect(write(tmp_path / "2", *rows))


def test_conversations_in_one_form(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    (read,) = read_conversations(write(tmp_path / "data", {"messages": messages, "tools": [{"type": "function"}]}))
    assert read.messages[0]["content"] == "ab"
    assert read.messages[1]["content"] == "No."
    assert read.messages[2]["tool_calls"][0]["function"]["arguments"] == {"x": 1}
    assert read.tools == [{"type": "function"}]
    bad = {"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]}
    assert problems(write(tmp_path / "data", bad)) == [
        "line 1: message 1 of 'messages' has the weight 0.5: it is 0 or 1"
    ]


@pytest.mark.parametrize("levels", [100, 10**5])
def test_arguments_that_are_nested_deeply_stay_a_text(levels: int, tmp_path: Path) -> None:
    call = {"function": {"name": "f", "arguments": "[" * levels + "]" * levels}}
    message = {"role": "assistant", "tool_calls": [call]}
    (read,) = read_conversations(write(tmp_path / "data", {"messages": [message]}))
    assert read.messages[0]["tool_calls"] == [call]


def test_preferences_of_both_makes_are_alike(tmp_path: Path) -> None:
    user, good, bad = (
        {"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "g"), ("assistant", "b"))
    )
    plain = {"prompt": "q", "chosen": "g", "rejected": "b"}
    full = {"input": {"messages": [user]}, "preferred_output": [good], "non_preferred_output": [bad]}
    found = [read_preferences(write(tmp_path / "data", value))[0] for value in (plain, full)]
    assert found[0] == found[1]
    assert (found[0].prompt, found[0].chosen, found[0].rejected) == ([user], [good], [bad])
