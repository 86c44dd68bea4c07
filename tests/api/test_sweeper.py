"""A sweeper believes no clock but its own: what looks lost must have looked so for a whole lease."""

from __future__ import annotations

from dataclasses import replace

from api.sweeper import Looks
from core.jobs.sweeping import Suspect

LOST, LIVING = Suspect("job-1", 1, 100.0), Suspect("job-2", 1, 100.0)


def test_a_lease_is_lost_once_it_was_seen_unchanged_for_its_length() -> None:
    looks = Looks(lease_seconds=6.0)
    assert looks.confirm([LOST], at=0.0) == []
    assert looks.confirm([LOST], at=5.0) == []
    assert looks.confirm([LOST], at=7.0) == [LOST]


def test_who_renewed_in_between_is_seen_anew() -> None:
    looks = Looks(lease_seconds=6.0)
    looks.confirm([LOST, LIVING], at=0.0)
    renewed = replace(LIVING, lease_expires_at=101.0)
    assert looks.confirm([LOST, renewed], at=7.0) == [LOST]
    assert looks.confirm([], at=8.0) == []
    assert looks.confirm([renewed], at=20.0) == []
    assert looks.confirm([replace(renewed, fence=2)], at=30.0) == []


def test_time_in_which_nobody_could_renew_counts_for_nobody() -> None:
    looks = Looks(lease_seconds=6.0)
    looks.confirm([LOST], at=0.0)
    assert looks.confirm([LOST], at=4.0) == []
    looks.skip()
    assert looks.confirm([LOST], at=60.0) == []
    assert looks.confirm([LOST], at=61.0) == []
    assert looks.confirm([LOST], at=63.0) == [LOST]
