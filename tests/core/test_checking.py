"""What a check counts is what the tokenizer itself makes of each line; what there is no time for is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers

from core.catalog import read_spec
from core.checking import check, open_base
from core.data import examples
from core.errors import InvalidData
from core.networks.pretrained import Reading
from tests.tiny_llama import write_tiny_llama, zipped

COUNT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def reading(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Reading:
    scratch = tmp_path_factory.mktemp("bases")
    (scratch / "archive").write_bytes(zipped(folder))
    (scratch / "unpacked").mkdir()
    place = {"folder": str(scratch / "kept"), "archive": str(scratch / "archive"), "scratch": str(scratch / "unpacked")}
    open_base(place, max_unpacked_bytes=2**30)
    (scratch / "archive").unlink()  # it is not needed a second time, nor are there weights in what was kept
    assert not list((scratch / "kept").glob("*.safetensors"))
    return open_base(place, max_unpacked_bytes=2**30).reading


def spec_of(task: str, **changes: Any) -> Any:
    return read_spec({"method": "fine_tuning", "task": task, "base": "file-b", "dataset": "file-d", **changes})


def test_conversations_are_counted_as_the_template_writes_them(reading: Reading, folder: Path, tmp_path: Path) -> None:
    examples.write_conversations(tmp_path / "data", count=COUNT)
    found = check(spec_of("chat"), {"dataset": tmp_path / "data"}, reading, examples=COUNT, seconds=60)
    plain = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = learned = 0
    for line in (tmp_path / "data").read_text().splitlines():
        asked, answer = (message["content"] for message in json.loads(line)["messages"])
        written = "<|im_start|>{}\n{}<|im_end|>"
        whole = written.format("user", asked) + "\n" + written.format("assistant", answer) + "\n"
        tokens += len(plain(whole)["input_ids"])
        learned += len(plain(answer + "<|im_end|>")["input_ids"])
    assert [found.examples, found.tokens, found.learned_tokens] == [COUNT, tokens, learned]


def test_a_pair_has_the_tokens_of_both_answers(reading: Reading, tmp_path: Path) -> None:
    line = json.dumps({"prompt": "ab", "chosen": "cde", "rejected": "f"})
    (tmp_path / "data").write_text(line + "\n")
    found = check(spec_of("preference"), {"dataset": tmp_path / "data"}, reading, examples=1, seconds=60)
    frame = len("user\n\nassistant\n\n") + 4 + len("ab")
    assert [found.tokens, found.learned_tokens] == [2 * frame + 3 + 1, 4 + 2]


def test_pairs_of_twice_the_same_answer_are_told(tmp_path: Path) -> None:
    pairs = [{"prompt": f"{number}", "chosen": "a", "rejected": "ab"[number % 2]} for number in range(4)]
    (tmp_path / "data").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (warning,) = check(spec_of("preference"), {"dataset": tmp_path / "data"}, None, examples=4, seconds=60).warnings
    assert warning.startswith("2 of 4 pairs of the data set hold the same answer twice, of which nothing is learned")
    assert "line 1, line 3" in warning


def test_without_a_base_nothing_is_counted_but_examples(tmp_path: Path) -> None:
    examples.write_conversations(tmp_path / "data", count=COUNT)
    spec = spec_of("chat", duplicates="keep")
    found = check(spec, {"dataset": tmp_path / "data"}, None, examples=COUNT, seconds=60)
    assert [found.examples, found.tokens, found.learned_tokens] == [COUNT, None, None]


def test_what_there_is_no_time_for_is_told(reading: Reading, tmp_path: Path) -> None:
    examples.write_conversations(tmp_path / "data", count=COUNT)
    found = check(spec_of("chat"), {"dataset": tmp_path / "data"}, reading, examples=COUNT, seconds=0)
    assert found.examples == COUNT
    assert "the first 0 examples of dataset were read" in found.warnings[0]


def test_prompts_are_checked_with_their_grader(reading: Reading, tmp_path: Path) -> None:
    prompts = [{"messages": [{"role": "user", "content": "ab"}], **more} for more in ({"answer": "c"}, {"other": "d"})]
    (tmp_path / "data").write_text(json.dumps(prompts[0]) + "\n")
    grader = {"type": "string_check", "name": "a", "operation": "eq", "input": "{{ sample.output_text }}"}
    spec = spec_of("reinforcement", grader={**grader, "reference": "{{ item.answer }}"}, max_completion_tokens=8)
    found = check(spec, {"dataset": tmp_path / "data"}, reading, examples=1, seconds=60)
    assert [found.examples, found.tokens, found.learned_tokens] == [1, len("user\n\nassistant\n") + 3 + len("ab"), 0]
    (tmp_path / "data").write_text("\n".join(map(json.dumps, prompts)))
    with pytest.raises(InvalidData) as told:
        check(spec, {"dataset": tmp_path / "data"}, reading, examples=2, seconds=60)
    assert [problem.where for problem in told.value.problems] == ["line 2"]
    assert told.value.param == "dataset"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.json", '{"model_type": "llama", "hidden_size": "a"}', "config.json cannot be used"),
        ("tokenizer_config.json", "[1]", "the tokenizer cannot be opened"),
        ("tokenizer.json", '{"version"', "the tokenizer cannot be opened"),
    ],
)
def test_a_base_that_is_broken_is_told_of(name: str, content: str, told: str, folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / name).write_text(content)
    (tmp_path / "archive").write_bytes(zipped(broken))
    place = {"folder": str(tmp_path / "kept"), "archive": str(tmp_path / "archive"), "scratch": str(tmp_path)}
    with pytest.raises(InvalidData, match=told):
        open_base(place, max_unpacked_bytes=2**30)
