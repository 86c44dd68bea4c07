"""How far a student's answers, features, relations and embeddings are from its teacher's."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from core.networks.language_modeling import BlockLoss


def soft_cross_entropy(logits: torch.Tensor, teacher: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Divergence of the student's softened answers from the teacher's, times temperature squared, [rows].

    The factor keeps the size of the gradient whatever the temperature (Hinton, Vinyals & Dean 2015, section 2).
    """
    student = functional.log_softmax(logits / temperature, dim=1)
    wanted = functional.log_softmax(teacher / temperature, dim=1)
    return functional.kl_div(student, wanted, log_target=True, reduction="none").sum(1) * temperature**2


def answer_loss(
    logits: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, *, temperature: float, alpha: float
) -> torch.Tensor:
    """The teacher's answers and the true classes, weighed by `alpha` against 1 - alpha, [rows]."""
    loss = alpha * soft_cross_entropy(logits, teacher, temperature=temperature)
    return loss if alpha == 1 else loss + (1 - alpha) * functional.cross_entropy(logits, labels, reduction="none")


def feature_loss(features: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference between [rows, width] features, already projected, and the teacher's, [rows]."""
    return (features - teacher).square().mean(1)


def cosine_loss(embeddings: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """One minus the cosine between [rows, width] embeddings and the teacher's, [rows]."""
    return 1 - functional.cosine_similarity(embeddings, teacher, dim=1)


def hidden_loss(hidden: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Squared difference between tokens' vectors [rows, length, width], already projected, and the teacher's, [rows].

    The mean over the width, and over the tokens that `mask` [rows, length] says are none of padding (Jiao et al. 2020,
    TinyBERT, equation 8).
    """
    squared: torch.Tensor = (hidden - teacher).square().mean(2) * mask
    return squared.sum(1) / mask.sum(1)


def relations(vectors: torch.Tensor, mask: torch.Tensor, *, heads: int) -> torch.Tensor:
    """How much each token looks at each other one, as logarithms of shares, [rows, heads, length, length].

    `vectors` [rows, length, width]: the queries, keys or values of a layer, cut anew into so many heads, so that two
    networks of different widths can be compared (Wang et al. 2021, MiniLMv2, equation 2).
    """
    rows, length, width = vectors.shape
    cut = vectors.view(rows, length, heads, width // heads).transpose(1, 2)
    scores = cut @ cut.mT / math.sqrt(width // heads)
    return scores.masked_fill(mask[:, None, None, :] == 0, float("-inf")).log_softmax(3)


def relation_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Divergence of the student's relations from the teacher's, the mean over heads and tokens, [rows].

    Both as `relations` gives them (Wang et al. 2021, MiniLMv2, equation 1).
    """
    # padding has no share in either: 0 * (-inf + inf) is none, not NaN
    difference = torch.where(mask[:, None, None, :] == 0, 0.0, teacher - student)
    divergence = (teacher.exp() * difference).sum(3).mean(1) * mask
    return divergence.sum(1) / mask.sum(1)


def token_loss(
    logits: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, *, temperature: float, alpha: float
) -> torch.Tensor:
    """`answer_loss` of next tokens, summed, 0-d: logits [tokens, vocabulary], the true tokens [tokens]."""
    return answer_loss(logits, teacher, targets, temperature=temperature, alpha=alpha).sum()


def taught_tokens(
    teacher: Callable[[slice], torch.Tensor], targets: torch.Tensor, *, temperature: float, alpha: float
) -> BlockLoss:
    """`token_loss` with its gradient, for `linear_loss`; `teacher(rows)`: the teacher's logits [rows, vocabulary]."""

    def judge(logits: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        is_soft = temperature != 1  # of a large vocabulary, each time through the logits counts
        wanted = teacher(rows).float()
        student = functional.log_softmax(logits / temperature if is_soft else logits, dim=1)
        wanted = functional.log_softmax(wanted / temperature if is_soft else wanted, dim=1)
        shares = wanted.exp()
        loss = alpha * temperature**2 * (wanted.sub_(student).mul_(shares)).sum()
        grad = student.exp_().sub_(shares)
        if alpha * temperature != 1:
            grad.mul_(alpha * temperature)
        if alpha < 1:
            true = targets[rows, None]
            plain = functional.log_softmax(logits, dim=1)
            loss -= (1 - alpha) * plain.gather(1, true).sum()
            grad.add_(plain.exp_(), alpha=1 - alpha)
            grad.scatter_add_(1, true, torch.full_like(true, alpha - 1, dtype=grad.dtype))
        return loss, grad

    return judge
