"""`client.uploads`: a file in parts, gone on with after a cut."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import openai
from asking import Place, answer, refused, saw
from records import CONVERSATIONS

HALF = len(CONVERSATIONS) // 2
MD5 = hashlib.md5(CONVERSATIONS).hexdigest()


async def try_uploads(place: Place) -> None:
    """Parts are sent, found again, put together, given up."""
    uploads = place.client.uploads
    upload = await announced(place)
    first = await answer(uploads.parts.create(upload.id, data=CONVERSATIONS[:HALF]))
    assert first.upload_id == upload.id
    saw("uploads.create", id=upload.id, status=upload.status)
    saw("uploads.parts.create", id=first.id)

    # Whoever was cut asks which parts have arrived; the client has no call of its own for that.
    arrived = await answer(place.client.get(f"/uploads/{upload.id}/parts", cast_to=object))
    assert [(part["id"], part["bytes"]) for part in arrived["data"]] == [(first.id, HALF)]
    second = await answer(uploads.parts.create(upload.id, data=CONVERSATIONS[HALF:]))
    saw("uploads, gone on with", arrived=[first.id], sent=second.id)

    wrong = await refused(
        lambda: uploads.complete(upload.id, part_ids=[first.id, second.id], md5="0" * 32), openai.BadRequestError
    )
    done = await answer(uploads.complete(upload.id, part_ids=[first.id, second.id], md5=MD5))
    assert done.status == "completed"
    assert done.file is not None
    content = await answer(place.client.files.content(done.file.id))
    assert content.read() == CONVERSATIONS
    saw("uploads.complete", refused=wrong.message, status=done.status, file=done.file.id)
    await answer(place.client.files.delete(done.file.id))

    given_up = await answer(uploads.cancel((await announced(place)).id))
    assert given_up.status == "cancelled"
    saw("uploads.cancel", id=given_up.id, status=given_up.status)
    await chunked(place)


async def announced(place: Place) -> Any:
    """An upload that waits for its parts."""
    return await answer(
        place.client.uploads.create(
            filename="numbers.jsonl", purpose="fine-tune", bytes=len(CONVERSATIONS), mime_type="application/jsonl"
        )
    )


async def chunked(place: Place) -> None:
    """The client cuts a file into parts by itself."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "numbers.jsonl"
        path.write_bytes(CONVERSATIONS)
        done = await answer(
            place.client.uploads.upload_file_chunked(
                file=path, mime_type="application/jsonl", purpose="fine-tune", part_size=HALF, md5=MD5
            )
        )
    assert done.file.bytes == len(CONVERSATIONS)
    saw("uploads.upload_file_chunked", file=done.file.id)
    await answer(place.client.files.delete(done.file.id))
