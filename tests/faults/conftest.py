"""The stacks that the matrix breaks, one for each kind of database, and what each fault did to them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.invariants import Violation
from tests.faults.stack import Stack
from tests.faults.trials import Fault, run_faults

Found = dict[str, list[Violation]]


@pytest.fixture(scope="module")
def stacks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Stack]]:
    """A whole service on each database that was chosen."""
    with contextlib.ExitStack() as closing:
        made = {kind: Stack(tmp_path_factory.mktemp(kind), kind) for kind in _chosen(request, "stack", str)}
        for stack in made.values():
            closing.callback(stack.close)
            stack.start()
        yield made


@pytest.fixture(scope="module")
def all_found(request: pytest.FixtureRequest, stacks: dict[str, Stack]) -> dict[str, Found]:
    """What every fault that was chosen violated, on each stack.

    Most faults of a stack are made at once, and the stacks are broken side by side, since most of the time they wait.
    """
    faults = _chosen(request, "fault", Fault)
    with ThreadPoolExecutor(len(stacks)) as pool:
        return dict(zip(stacks, pool.map(lambda stack: run_faults(faults, stack), stacks.values()), strict=True))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def stack(request: pytest.FixtureRequest, stacks: dict[str, Stack]) -> Stack:
    """The service on this database."""
    return stacks[request.param]


@pytest.fixture(scope="module")
def found(stack: Stack, all_found: dict[str, Found]) -> Found:
    """What every fault violated on this stack."""
    return all_found[stack.kind]


def _chosen(request: pytest.FixtureRequest, name: str, kind: type) -> Sequence:
    """The values of a parameter that the tests of this run have."""
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    return list(dict.fromkeys(value for one in params if isinstance(value := one.get(name), kind)))
