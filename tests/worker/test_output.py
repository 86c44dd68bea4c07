"""A trainer's output as log lines."""

from __future__ import annotations

from worker.output import BURST_LINES, LINE_CHARACTERS, OutputLines


def test_lines_come_whole_however_they_are_cut_into_chunks() -> None:
    lines = OutputLines()
    found = [line for chunk in (b"on", b"e\ntw", b"o\r\n", b"\n", b"\xc3", b"\xa4\n") for line in lines.feed(chunk)]
    assert found == ["one", "two", "ä"]
    assert lines.feed(b"no end") == []
    assert lines.end() == ["no end"]


def test_a_progress_bar_that_overwrites_itself_becomes_lines() -> None:
    assert OutputLines().feed(b"10%\r20%\r30%\n") == ["10%", "20%", "30%"]


def test_what_is_not_text_is_replaced() -> None:
    assert OutputLines().feed(b"a\xff\0b\n") == ["a��b"]


def test_a_line_without_end_is_cut_and_says_so() -> None:
    lines = OutputLines()
    found = [line for _ in range(10) for line in lines.feed(b"x" * 3000)]
    assert len(found) == 1
    assert found[0].startswith("x" * LINE_CHARACTERS + " ... (cut")
    assert lines.feed(b"the rest\nnext\n") == ["next"]


def test_a_flood_is_thinned_and_says_so() -> None:
    lines = OutputLines()
    flood = b"".join(b"%d\n" % number for number in range(BURST_LINES + 5000))
    found = [line for start in range(0, len(flood), 65536) for line in lines.feed(flood[start : start + 65536])]
    kept = len(found)
    assert BURST_LINES <= kept < BURST_LINES + 1000
    left_out = BURST_LINES + 5000 - kept
    assert lines.end() == [f"... {left_out:,} lines left out: more than 200 a second"]
