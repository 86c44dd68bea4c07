"""How a map's radius falls, from how many rows its epochs learn, and where the radius stops."""

from __future__ import annotations

import pytest
import torch

from core.training.map_schedule import WATCHED_RADIUS, Radius, falling, plan


@pytest.mark.parametrize("schedule", ["exponential", "linear", "cosine"])
def test_radii_fall_from_first_to_last(schedule: str) -> None:
    radii = falling(8.0, 0.5, epochs=9, schedule=schedule)  # type: ignore[arg-type]
    assert radii[0] == pytest.approx(8)
    assert radii[-1] == pytest.approx(0.5)
    assert radii == sorted(radii, reverse=True)


def test_epochs_learn_from_more_rows_as_the_radius_falls() -> None:
    parts = plan([8.0, 4.0, 1.0, 1.0], examples=9_000, units=256, most_rows=1000, is_sampled=True)
    epochs: list[list[slice]] = [[]]
    for part in parts:
        assert part.rows.stop - part.rows.start <= 1000
        epochs[-1].append(part.rows)
        if part.is_epoch_end:
            epochs.append([])
    counts = [sum(rows.stop - rows.start for rows in epoch) for epoch in epochs[:-1]]
    assert counts == [1024, 1024, 2048, 9000]
    assert epochs[1][0].start == 1024  # goes on where the first epoch ended
    whole = plan([8.0, 1.0], examples=9_000, units=256, most_rows=10_000, is_sampled=False)
    assert [part.rows for part in whole] == [slice(0, 9000)] * 2


def test_the_radius_settles_between_what_tears_and_what_holds() -> None:
    """On a map that tears below a radius of 0.77."""
    radius, units = Radius(0.05), torch.zeros(4, 2)
    for scheduled in falling(4.0, 0.4, epochs=30, schedule="exponential"):
        now = radius.now or 4.0
        torn = {"topographic_error": 0.06 if now < 0.77 else 0.04, "quantization_error": now}
        radius.follow(scheduled, torn, units + now)
    assert radius.now == pytest.approx(0.77, rel=0.02)
    best = radius.better_units({"topographic_error": 0.06, "quantization_error": 0.5})
    assert best is not None
    assert float(best[0, 0]) == pytest.approx(0.77, rel=0.02)
    assert radius.better_units({"topographic_error": 0.04, "quantization_error": 0.5}) is None
    again = Radius(0.05)
    again.load_state_dict(radius.state_dict())
    assert again.now == radius.now


def test_a_map_that_tears_at_once_gets_a_wider_radius() -> None:
    radius, torn = Radius(0.05), {"topographic_error": 0.5, "quantization_error": 1.0}
    assert radius.follow(1.0, torn, torch.zeros(1)) == 1.0
    assert radius.follow(0.8, torn, torch.zeros(1)) > 1.0
    assert radius.better_units(torn) is None
    for _ in range(20):
        radius.follow(0.5, torn, torch.zeros(1))
    assert radius.now == WATCHED_RADIUS  # a wider one would draw the whole map together
