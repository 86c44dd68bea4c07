"""`client.files`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asking import Place, answer, everything, saw
from records import CONVERSATIONS

HOUR = 3600


async def uploaded(place: Place, name: str, content: bytes) -> str:
    """The id of a file to learn from."""
    file = await answer(place.client.files.create(file=(name, content), purpose="fine-tune"))
    return str(file.id)


async def uploaded_base(client: Any, path: Path) -> str:
    """The id of a model to start from: to the client, whose types know no such purpose, it is one of the user's."""
    file = await answer(client.files.create(file=path, purpose="base-model"))
    assert file.purpose == "user_data"
    assert file.id in [one.id for one in await everything(client.files.list())]
    assert [one.id for one in await everything(client.files.list(purpose="base-model"))] == [file.id]
    return str(file.id)


async def try_files(place: Place) -> None:
    """Files are made, found, read and deleted."""
    files = place.client.files
    made = [
        await answer(
            files.create(
                file=(f"numbers-{count}.jsonl", CONVERSATIONS),
                purpose="fine-tune",
                expires_after={"anchor": "created_at", "seconds": HOUR},
            )
        )
        for count in range(3)
    ]
    assert all(file.expires_at == file.created_at + HOUR and file.bytes == len(CONVERSATIONS) for file in made)
    saw("files.create", id=made[0].id, status=made[0].status, bytes=made[0].bytes)

    found = await everything(files.list(purpose="fine-tune", limit=2))
    assert [file.id for file in found] == [file.id for file in reversed(made)]
    assert await everything(files.list(purpose="batch")) == []
    oldest = await everything(files.list(order="asc", limit=2))
    assert [file.id for file in oldest] == [file.id for file in made]
    saw("files.list", ids=[file.id for file in found])

    same = await answer(files.retrieve(made[0].id))
    assert same == made[0]
    saw("files.retrieve", id=same.id, filename=same.filename)
    assert (await answer(files.wait_for_processing(same.id))).status == "processed"
    saw("files.wait_for_processing", id=same.id)

    content = await answer(files.content(same.id))
    assert content.read() == CONVERSATIONS
    saw("files.content", bytes=len(CONVERSATIONS))
    async_or_not = files.with_streaming_response.content(same.id)
    if hasattr(async_or_not, "__aenter__"):
        async with async_or_not as streamed:
            assert await streamed.read() == CONVERSATIONS
    else:
        with async_or_not as streamed:
            assert streamed.read() == CONVERSATIONS
    saw("files.content, streamed", bytes=len(CONVERSATIONS))

    for file in made:
        gone = await answer(files.delete(file.id))
        assert (gone.id, gone.deleted, gone.object) == (file.id, True, "file")
    saw("files.delete", id=gone.id)
