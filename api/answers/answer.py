"""What all answers have in common, and the one that something is gone."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """An answer: what is declared, all of it, and nothing else."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class Deleted(Answer):
    """Something is gone."""

    id: str
    object: str
    deleted: Literal[True] = True
