from __future__ import annotations

from weightworks.events import sse_data


def test_messages_end_at_blank_lines_and_comments_are_passed_over() -> None:
    lines = [
        "retry: 1000",
        "",
        ": still here",
        "",
        "id: 1-1",
        "data: one",
        "data:two",
        "",
        "data: [DONE]",
        "",
        "data: cut",
    ]
    assert list(sse_data(iter(lines))) == ["one\ntwo", "[DONE]"]
