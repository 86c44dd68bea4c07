"""The client: one object for one server, with a resource for each noun of the API."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from weightworks.api_keys import ApiKeys
from weightworks.connection import find_connection
from weightworks.files import Files
from weightworks.jobs import Jobs
from weightworks.methods import Methods
from weightworks.models import Models
from weightworks.pipelines import Pipelines
from weightworks.projects import Projects
from weightworks.transport import Transport
from weightworks.trials import Trials
from weightworks.workers import Workers


class Client:
    """A server's files, methods, jobs, models, trials of them, pipelines, keys, projects and workers.

    Which server: the arguments, or WEIGHTWORKS_BASE_URL and WEIGHTWORKS_API_KEY, or the one that `weightworks up` runs
    on this machine (in `home`, WEIGHTWORKS_HOME, or ~/.weightworks). Raises NotConnected if none is known.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        home: str | Path | None = None,
        *,
        max_retries: int = 4,
    ) -> None:
        self.connection = find_connection(base_url, api_key, home)
        self._transport = Transport(self.connection, max_retries=max_retries)
        self.files = Files(self._transport)
        self.methods = Methods(self._transport)
        self.jobs = Jobs(self._transport)
        self.models = Models(self._transport)
        self.trials = Trials(self._transport)
        self.pipelines = Pipelines(self._transport)
        self.api_keys = ApiKeys(self._transport)
        self.projects = Projects(self._transport)
        self.workers = Workers(self._transport)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
