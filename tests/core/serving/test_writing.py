"""What is given of an answer's text while it is written."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from core.serving.writing import UNFINISHED, Writer

TEXT = "Grüße, 世界! 🐳 and more"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Each byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made)  # type: ignore[no-untyped-call]


def pieces(tokenizer: Any, text: str, **options: Any) -> list[str]:
    """What the writer gives for each token of the text until it stops, and at last."""
    writer = Writer(tokenizer, **options)
    given = []
    for token in tokenizer(text)["input_ids"]:
        given.append(writer.add(token))
        if writer.is_stopped:
            break
    return [*given, writer.finish()]


def test_characters_are_given_whole(tokenizer: Any) -> None:
    given = pieces(tokenizer, TEXT)
    assert "".join(given) == TEXT
    assert not any(UNFINISHED in piece for piece in given)
    assert "🐳" in given


def test_bytes_that_are_no_character_are_told_as_such_at_the_end(tokenizer: Any) -> None:
    tokens = tokenizer("a🐳")["input_ids"]
    writer = Writer(tokenizer)
    assert [writer.add(token) for token in tokens[:3]] == ["a", "", ""]
    assert writer.finish() == UNFINISHED


@pytest.mark.parametrize("stop", ["世界", "🐳 and", "ü", "e, 世", ", ", "\nnever", "more!"])
def test_nothing_of_a_stop_string_is_given(tokenizer: Any, stop: str) -> None:
    before = TEXT.partition(stop)[0]
    given = pieces(tokenizer, TEXT, stop=["never", stop])
    assert "".join(given) == before
    for end in range(1, len(given)):
        assert before.startswith("".join(given[:end]))


def test_the_first_of_several_stop_strings_ends_the_text(tokenizer: Any) -> None:
    assert "".join(pieces(tokenizer, "one two three", stop=["three", "wo t"])) == "one t"


def test_what_only_began_like_a_stop_string_is_given(tokenizer: Any) -> None:
    given = pieces(tokenizer, "a</b", stop=["</s>"])
    assert given == ["a", "", "", "</b", ""]
    assert "".join(pieces(tokenizer, "a</", stop=["</s>"])) == "a</"


def test_a_text_that_is_gone_on_with_is_not_given_again(tokenizer: Any) -> None:
    assert "".join(pieces(tokenizer, " on", context=tokenizer("and so")["input_ids"])) == " on"
