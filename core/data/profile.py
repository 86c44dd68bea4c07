"""What a data set holds, recognised from its content; light to import, because the API does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from core.data.natural_order import natural


class Kind(StrEnum):
    """What a data set is made of."""

    TABLE = "table"
    IMAGES = "images"
    TEXT = "text"
    AUDIO = "audio"
    CONVERSATIONS = "conversations"
    PREFERENCES = "preferences"
    SEGMENTED = "segmented_images"
    TOKENS = "tagged_tokens"
    PAIRS = "text_pairs"
    BOXED = "boxed_images"
    SPEECH = "transcribed_speech"


@dataclass(frozen=True)
class Profile:
    """What `inspect` found: enough to check a spec against, and to estimate a run."""

    kind: Kind
    format: str
    examples: int
    columns: tuple[str, ...] = ()  # tables: all of them, the label's too; text sets: their fields
    classes: Mapping[str, int] | None = None  # examples of each class, in the order of the classes' numbers
    # one example's: (features,), (channels, height, width) where all are alike, or (features, longest) of frames
    shape: tuple[int, ...] | None = None
    words: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The profile as JSON."""
        value = asdict(self) | {"kind": self.kind.value, "columns": list(self.columns)}
        value["classes"] = None if self.classes is None else dict(self.classes)
        value["shape"] = None if self.shape is None else list(self.shape)
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Profile:
        """The profile that `as_dict` wrote; the classes are put in order again, which a database may have changed."""
        shape, classes = value["shape"], value["classes"]
        return cls(
            **{
                **value,
                "kind": Kind(value["kind"]),
                "columns": tuple(value["columns"]),
                "classes": None if classes is None else {name: classes[name] for name in sorted(classes, key=natural)},
                "shape": None if shape is None else tuple(shape),
            }
        )


def inspect(path: Path, *, max_unpacked_bytes: int = 64 * 2**30, max_members: int = 1_000_000) -> Profile:
    """Recognise and check the whole file, in flat memory.

    Raises InvalidData with the first hundred problems by line, row or member, and TooLarge for what unpacks beyond
    the limits.
    """
    # the readers need NumPy, Arrow and Pillow; whoever only names a Kind does not
    from core.data.compression import Limits
    from core.data.inspection import profile_of
    from core.data.opening import open_source

    limits = Limits(unpacked_bytes=max_unpacked_bytes, members=max_members)
    return profile_of(open_source(path, limits=limits), limits)
