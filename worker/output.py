"""A trainer's own output as log lines: decoded, cut to a bounded length, and thinned to a bounded rate."""

from __future__ import annotations

import re
import time

LINE_CHARACTERS = 4000
LINES_PER_SECOND = 200
BURST_LINES = 2000
LINE_END = re.compile(rb"\r\n|\n|\r")  # a bare \r too: that is how progress bars overwrite themselves


class OutputLines:
    """Turns chunks of bytes into lines. What is left out is told, in a line of its own."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_cut = False
        self._allowance = float(BURST_LINES)
        self._counted_at = time.monotonic()
        self._left_out = 0

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that the chunk completes."""
        *complete, self._rest = LINE_END.split(self._rest + chunk)
        lines = [self._decode(line) for line in complete]
        if len(self._rest) > LINE_CHARACTERS:
            lines.append(self._decode(self._rest))
            self._rest, self._is_cut = b"", True
        return self._thin([line for line in lines if line is not None and line.strip()])

    def end(self) -> list[str]:
        """What is left once there is no more to come."""
        rest, self._rest = self._decode(self._rest), b""
        lines = [rest] if rest and rest.strip() else []
        return [*lines, *self._tell_left_out()]

    def _decode(self, line: bytes) -> str | None:
        """The line, cut; None for what remains of a line whose beginning was cut already."""
        if self._is_cut:
            self._is_cut = False
            return None
        text = line.decode("utf-8", errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
        return text if len(text) <= LINE_CHARACTERS else f"{text[:LINE_CHARACTERS]} ... (cut: the line is longer)"

    def _thin(self, lines: list[str]) -> list[str]:
        now = time.monotonic()
        self._allowance = min(BURST_LINES, self._allowance + (now - self._counted_at) * LINES_PER_SECOND)
        self._counted_at = now
        allowed = lines[: int(self._allowance)]
        self._allowance -= len(allowed)
        told = self._tell_left_out() if allowed else []
        self._left_out += len(lines) - len(allowed)
        return [*told, *allowed]

    def _tell_left_out(self) -> list[str]:
        count, self._left_out = self._left_out, 0
        return [f"... {count:,} lines left out: more than {LINES_PER_SECOND} a second"] if count else []
