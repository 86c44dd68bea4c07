"""Projects: what they may use, and what they use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from weightworks.pages import all_pages
from weightworks.records import read
from weightworks.transport import Transport


@dataclass(frozen=True)
class Project:
    """A project. `quotas` are its own (None: the server's default, 0: no limit), `limits` what holds for it."""

    id: str
    name: str = ""
    created_at: int = 0
    quotas: dict[str, int | None] = field(default_factory=dict)
    limits: dict[str, int | None] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict, repr=False)


class Projects:
    """`/v1/projects`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Project]:
        """The key's own project; all of them for an admin of the project `default`."""
        return (read(Project, data) for data in all_pages(self._transport, "/v1/projects"))

    def get(self, project_id: str) -> Project:
        """A project, its quotas, and what it uses of them."""
        return read(Project, self._transport.get(f"/v1/projects/{project_id}"))

    def set_quotas(self, project_id: str, **quotas: int | None) -> Project:
        """Change some of its quotas; needs an admin key of the project `default`."""
        return read(Project, self._transport.patch(f"/v1/projects/{project_id}", quotas))
