"""Each fault of the table, once on each database: every invariant holds."""

from __future__ import annotations

import pytest

from tests.faults.invariants import Violation
from tests.faults.matrix import all_faults
from tests.faults.stack import Stack
from tests.faults.trials import Fault


@pytest.mark.timeout(1800)  # the first of them waits until all have run
@pytest.mark.parametrize("fault", all_faults(), ids=lambda fault: fault.id)
def test_survives(fault: Fault, stack: Stack, found: dict[str, list[Violation]]) -> None:
    if stack.kind not in fault.databases:
        pytest.skip(f"a fault of {' and '.join(fault.databases)}")
    violations = found[fault.id]
    if reason := stack.skipped.get(fault.id):
        pytest.skip(reason)
    assert not violations, "\n".join([*map(str, violations), *stack.stories[fault.id], stack.logs()])
