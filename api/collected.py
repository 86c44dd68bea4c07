"""What a collection has removed, to be told in one line."""

from __future__ import annotations

from collections import Counter


class Collected:
    """Counts by the name of what was removed, and the bytes that are free now."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.bytes = 0

    def add(self, what: str, *, count: int = 1, size: int = 0) -> None:
        """Note that so many of these were removed."""
        self.counts[what] += count
        self.bytes += size

    def __bool__(self) -> bool:
        return self.counts.total() > 0

    def __str__(self) -> str:
        told = ", ".join(f"{count:,} {what}" for what, count in sorted(self.counts.items()) if count)
        return f"{told}; {self.bytes:,} bytes are free again"
