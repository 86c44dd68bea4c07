"""What a new student takes over from its teacher: word embeddings, in as many dimensions as it has."""

from __future__ import annotations

from typing import Any

import torch

from core.errors import InvalidSpec


@torch.no_grad()
def inherit_embeddings(student: Any, teacher: Any) -> None:
    """Begin with the teacher's word embeddings, both transformers models of the same tokens.

    A narrower student keeps their principal directions; a wider one, and one of other tokens, begins as it is.
    """
    own, wanted = student.get_input_embeddings().weight, teacher.get_input_embeddings().weight
    if len(own) == len(wanted) and own.shape[1] <= wanted.shape[1]:
        reduced = wanted @ reduction(wanted, size=own.shape[1]).to(wanted.device)
        own.copy_(reduced * (own.std() / reduced.std()))


def reduction(embeddings: torch.Tensor, *, size: int) -> torch.Tensor:
    """A matrix [width, size] that keeps most of the embeddings [n, width]: their principal directions, or the identity.

    Directions are of the embeddings as they are, not centred, so that cosines keep their meaning. Raises InvalidSpec
    for a student that is wider than its teacher.
    """
    width = embeddings.shape[1]
    if size > width:
        raise InvalidSpec(
            f"the student is wider ({size}) than its teacher's embeddings: give a hidden_size of {width} or less",
            param="student",
        )
    if size == width:
        return torch.eye(width)
    _, vectors = torch.linalg.eigh((embeddings.T @ embeddings).double())
    first: torch.Tensor = vectors[:, -size:].flip(1).float()
    return first
