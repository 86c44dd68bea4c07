"""Requests as they should be made: with the key, tried again where that is safe, errors as exceptions."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from weightworks.connection import Connection
from weightworks.errors import NotConnected, RequestRefused, refused

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 8.0
LONGEST_RETRY_AFTER = 120.0
CONNECT_SECONDS, READ_SECONDS = 5.0, 60.0

Build = Callable[[httpx.Client], httpx.Request]


class Transport:
    """One server, one key. Safe to use from several threads."""

    def __init__(self, connection: Connection, *, max_retries: int = 4) -> None:
        self.base_url = connection.base_url
        self.max_retries = max_retries
        headers = {"Authorization": f"Bearer {connection.api_key}"} if connection.api_key else {}
        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        self.http = httpx.Client(base_url=self.base_url, headers=headers, timeout=timeout, follow_redirects=True)

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The JSON at a path; parameters that are None are left out."""
        return self._json(lambda http: http.build_request("GET", path, params=given(params)))

    def post(self, path: str, body: Any = None, *, idempotency_key: str | None = None) -> Any:
        """Post JSON. A repeat carries the same Idempotency-Key, so that it finds what the first one made."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return self._json(lambda http: http.build_request("POST", path, json=body, headers=headers))

    def patch(self, path: str, body: Any) -> Any:
        """Change what is at a path."""
        return self._json(lambda http: http.build_request("PATCH", path, json=body))

    def delete(self, path: str) -> Any:
        """Delete what is at a path."""
        return self._json(lambda http: http.build_request("DELETE", path))

    def send(self, build: Build) -> Any:
        """Make the request that `build` makes, which is called again for each try; answers its JSON."""
        return self._json(build)

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        timeout: float = READ_SECONDS,
        max_retries: int | None = None,
    ) -> Iterator[httpx.Response]:
        """An open answer, to a body that is posted if there is one, read as it comes; only opening it is tried again.

        `timeout`: how many seconds may pass without a byte.
        """
        method = "GET" if body is None else "POST"
        waits = httpx.Timeout(timeout, connect=CONNECT_SECONDS)
        response = self._open(
            lambda http: http.build_request(method, path, headers=headers, json=body, timeout=waits), max_retries
        )
        try:
            yield response
        finally:
            response.close()

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def _json(self, build: Build) -> Any:
        response = self._open(build, None, is_read=True)
        return response.json() if response.content else None

    def _open(self, build: Build, max_retries: int | None, *, is_read: bool = False) -> httpx.Response:
        last = self.max_retries if max_retries is None else max_retries
        for tried in range(last + 1):
            try:
                response = self.http.send(build(self.http), stream=True)
                if response.is_error or is_read:
                    response.read()
                    response.close()
            except httpx.TransportError as error:
                if tried == last:
                    raise self._not_connected(error) from error
                time.sleep(pause(tried))
                continue
            if not response.is_error:
                return response
            if tried == last or not should_retry(response):
                raise as_error(response)
            time.sleep(retry_after(response) or pause(tried))
        raise AssertionError  # the last try has returned or raised

    def _not_connected(self, error: httpx.TransportError) -> NotConnected:
        reason = str(error) or type(error).__name__
        return NotConnected(f"no answer from {self.base_url} ({reason}); is `weightworks up` running?")


def given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters that are not None."""
    return {name: value for name, value in (params or {}).items() if value is not None}


def pause(tried: int) -> float:
    """How long to wait before the next try; not the same for all clients."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**tried) * random.uniform(0.75, 1.25)


def should_retry(response: httpx.Response) -> bool:
    """Whether the same request may have a better answer soon; the server's own word on it comes first."""
    told = response.headers.get("x-should-retry")
    if told is not None:
        return bool(told == "true")
    return response.status_code in (408, 429) or response.status_code >= 500


def retry_after(response: httpx.Response) -> float | None:
    """How long the server asks us to wait, in seconds."""
    try:
        return min(LONGEST_RETRY_AFTER, max(0.0, float(response.headers["retry-after"])))
    except (KeyError, ValueError):
        return None


def as_error(response: httpx.Response) -> RequestRefused:
    """The exception for an answer that has been read."""
    try:
        body = response.json()
    except ValueError:
        body = None
    return refused(response.status_code, body, request_id=response.headers.get("x-request-id"))
