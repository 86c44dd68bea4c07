"""Files, as the API answers them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.answers.answer import Answer
from api.purposes import PurposeFor
from core.jobs.models.files import File


class FileObject(Answer):
    """An uploaded file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: str | None = None
    sha256: str
    kind: str | None = Field(
        description="table, images, segmented_images, boxed_images, text, tagged_tokens, text_pairs, audio, "
        "transcribed_speech, conversations, preferences; null: a model."
    )
    profile: dict[str, Any] | None = Field(description="What was found inside.")


def file_object(file: File, purposes: PurposeFor) -> FileObject:
    """A file; `purposes`: what its purpose is called."""
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=file.created_at,
        expires_at=file.expires_at,
        filename=file.filename,
        purpose=purposes(file.purpose),
        sha256=file.sha256,
        kind=None if file.profile is None else file.profile.get("kind"),
        profile=file.profile,
    )
