"""Holds answers against the API's own schema at /openapi.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import httpx
from jsonschema import Draft202012Validator


class Schema:
    """The schema as the server hands it out, and the calls that were checked against it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.seen: set[tuple[str, str, int]] = set()
        self._validators: dict[str, Draft202012Validator] = {}

    @cached_property
    def operations(self) -> list[tuple[str, str]]:
        """Every call: its method and its path with placeholders."""
        return [(method.upper(), path) for path, calls in self.document["paths"].items() for method in calls]

    @cached_property
    def _patterns(self) -> list[tuple[str, str, re.Pattern[str]]]:
        found = []
        for method, path in self.operations:
            pattern = re.sub(r"\{(path|model_id)\}", ".+", re.escape(path).replace(r"\{", "{").replace(r"\}", "}"))
            found.append((method, path, re.compile(re.sub(r"\{\w+\}", "[^/]+", pattern))))
        return sorted(found, key=lambda one: ("{" in one[1], one[1]))

    def operation(self, method: str, path: str) -> tuple[str, str] | None:
        """The call that a request makes; HEAD answers as GET does."""
        wanted = "GET" if method == "HEAD" else method
        return next(((m, t) for m, t, pattern in self._patterns if m == wanted and pattern.fullmatch(path)), None)

    def check(self, response: httpx.Response) -> None:
        """An httpx hook: whatever is answered must be declared, and be what was declared."""
        request = response.request
        assert re.fullmatch(r"req-\w+", response.headers["x-request-id"])
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in response.headers
        if not request.url.path.startswith("/v1/"):
            return
        called = self.operation(request.method, request.url.path)
        if called is None:
            assert response.status_code in (400, 404, 405)
            declared = self.document["paths"]["/v1/jobs"]["get"]["responses"]["default"]
        else:
            self.seen.add((*called, response.status_code))
            responses = self.document["paths"][called[1]][called[0].lower()]["responses"]
            if response.is_error:
                assert response.status_code >= 400
            declared = responses.get(str(response.status_code), responses["default"])
            assert response.is_error or str(response.status_code) in responses, (called, response.status_code)
        if "content" not in declared or request.method == "HEAD":
            return
        media_type = response.headers["content-type"].partition(";")[0]
        binary = "application/octet-stream" in declared["content"]
        assert binary or media_type in declared["content"], (called, media_type)
        if media_type == "application/json" and "application/json" in declared["content"]:
            response.read()
            self._validator(declared["content"][media_type]["schema"]).validate(response.json())

    def _validator(self, schema: Mapping[str, Any]) -> Draft202012Validator:
        key = str(schema)
        if key not in self._validators:
            whole = {**schema, "components": self.document["components"]}
            self._validators[key] = Draft202012Validator(whole)
        return self._validators[key]
