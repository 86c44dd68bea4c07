"""How a method makes itself known: `@method` over its train function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from core.data.profile import Kind, Profile
from core.spec import MethodSpec
from core.training.run import Run

Train = Callable[[Any, Run], Mapping[str, float]]
Check = Callable[[Any, Profile], None]


@dataclass(frozen=True)
class Example:
    """A spec that runs as it is: its settings, the data set to write for it, and the jobs whose models it needs.

    `files`: what writes the data sets that further fields name.
    """

    spec: Mapping[str, Any]
    write_dataset: Callable[[Path], None]
    needs: Mapping[str, Example] = field(default_factory=dict)
    files: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A training method: its spec, its train function, and what it says of itself."""

    name: str
    spec: type[MethodSpec]
    train: Train
    reads: tuple[Kind, ...]
    paper: str
    opens_with: str
    example: Example
    check: Check | None = None

    @property
    def summary(self) -> str:
        """The first line of the spec's docstring."""
        return inspect.cleandoc(self.spec.__doc__ or "").splitlines()[0]


_methods: dict[str, Method] = {}


def method(
    *, reads: tuple[Kind, ...], paper: str, opens_with: str, example: Example, check: Check | None = None
) -> Callable[[Train], Train]:
    """Register a train function under the name in its spec.

    `reads`: the kinds of data set it takes. `paper`: where it comes from. `opens_with`: the libraries that read its
    artifacts. `check(spec, profile)`: raises InvalidSpec or InvalidData for what a profile alone can tell, before any
    job starts.
    """

    def register(train: Train) -> Train:
        spec = get_type_hints(train)["spec"]
        name = spec.model_fields["method"].default
        _methods[name] = Method(
            name=name,
            spec=spec,
            train=train,
            reads=reads,
            paper=paper,
            opens_with=opens_with,
            example=example,
            check=check,
        )
        return train

    return register


def registered() -> dict[str, Method]:
    """Every method registered so far, by name."""
    return dict(sorted(_methods.items()))
