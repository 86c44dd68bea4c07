"""What files are for, as whoever asks can read it.

The openai client of Python knows eight purposes. Asked to validate strictly it refuses an answer with any other, and so
a whole list of files with one base model among them. To it alone, ours are `user_data`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request

CLIENT = "x-stainless-lang"  # what its requests are marked with
KNOWN = {
    "assistants",
    "assistants_output",
    "batch",
    "batch_output",
    "fine-tune",
    "fine-tune-results",
    "vision",
    "user_data",
}

PurposeFor = Callable[[str], str]


def purpose_for(request: Request) -> PurposeFor:
    """What a purpose is called in the answer to this request."""
    if request.headers.get(CLIENT) != "python":
        return str
    return lambda purpose: purpose if purpose in KNOWN else "user_data"


Purposes = Annotated[PurposeFor, Depends(purpose_for)]
