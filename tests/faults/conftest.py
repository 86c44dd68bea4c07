"""The stacks that the matrix breaks, one for each kind of database, and what each fault did to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.invariants import Violation
from tests.faults.stack import Stack
from tests.faults.trials import Fault, run_faults


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A whole service on this database."""
    stack = Stack(tmp_path_factory.mktemp(request.param), request.param)
    try:
        stack.start()
        yield stack
    finally:
        stack.close()


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, stack: Stack) -> dict[str, list[Violation]]:
    """What every fault that was chosen violated; most of them run at once, since most of their time they wait."""
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    chosen = {fault.id: fault for one in params if isinstance(fault := one.get("fault"), Fault)}
    return run_faults(chosen.values(), stack)
