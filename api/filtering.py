"""Lists of jobs by their metadata: `metadata[key]=value`, as often as there are pairs."""

from __future__ import annotations

from typing import Any

from fastapi import Request

METADATA_PARAMETER: dict[str, Any] = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "style": "deepObject",
            "explode": True,
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
            "description": "Only jobs with these pairs: metadata[key]=value.",
        }
    ]
}


def wanted_metadata(request: Request) -> dict[str, str]:
    """The pairs that the jobs are to have."""
    return {
        name[len("metadata[") : -1]: value
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
