"""The text of an answer as its tokens come: never half a character, and never the beginning of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNFINISHED = "\ufffd"  # what a tokenizer writes for bytes that are no whole character


class Writer:
    """Takes tokens and gives what is certain of their text; `context`: tokens before them, whose text is not given."""

    def __init__(self, tokenizer: Any, *, stop: Sequence[str] = (), context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = [one for one in stop if one]
        self._tokens = list(context)
        self._begin, self._read = 0, len(self._tokens)  # the tokens between them were given, and are decoded again
        self._held = ""
        self.is_stopped = False

    def add(self, token: int) -> str:
        """What can be given now; `is_stopped` once a stop string has come, before which the text ends."""
        self._tokens.append(token)
        return self._given(self._decoded(is_last=False), is_last=False)

    def finish(self) -> str:
        """What was held back."""
        return "" if self.is_stopped else self._given(self._decoded(is_last=True), is_last=True)

    def _decoded(self, *, is_last: bool) -> str:
        before, whole = self._decode(self._tokens[self._begin : self._read]), self._decode(self._tokens[self._begin :])
        if len(whole) <= len(before) or (whole.endswith(UNFINISHED) and not is_last):
            return ""
        self._begin, self._read = self._read, len(self._tokens)
        return whole[len(before) :]

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _given(self, text: str, *, is_last: bool) -> str:
        text, self._held = self._held + text, ""
        places = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if places:
            self.is_stopped = True
            return text[: min(places)]
        if is_last:
            return text
        held = max((overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text may begin the stop string."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)
