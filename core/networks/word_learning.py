"""How word vectors learn: the losses of word2vec, and one step down the gradient of each in small matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch.nn.functional import embedding_bag, pad, softplus

from core.data.huffman import HuffmanTree
from core.data.word_windows import Bags, Block, WordWindows
from core.networks.word_vectors import Rows, WordVectors

MOST_MOVEMENT = 4.0  # of a row in one step: the learning rate times the gradients expected to be summed for it


class Bounds(NamedTuple):
    """What a row's summed update is multiplied by, at most 1, so that frequent words stay stable.

    [rows + 1], 1 for the last and for all rows beyond: so short a table stays in the processor's cache.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor


@dataclass(frozen=True)
class Objective:
    """What the updates need to know beside the vectors.

    In NCE a row of the outputs ends with the word's bias, which meets a last number of 1 in h. In hierarchical softmax
    a row stands for an inner node of the tree, and a word is predicted by the turns on its path.
    """

    architecture: Literal["skip_gram", "cbow"]
    window: int
    negative: int = 0  # noise words that weigh against each true one
    subwords: Rows | None = None  # of the vocabulary
    log_noise: torch.Tensor | None = None  # [words] log(negative * noise's probability), which NCE subtracts
    tree: HuffmanTree | None = None
    bounds: Bounds | None = None  # only losses do without


def loss_sum(network: WordVectors, block: Block, objective: Objective) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss summed over the block's predictions, and their number (or weight).

    -log sigmoid(output of the true word . h), and -log sigmoid(-output . h) for `negative` noise words (Mikolov et al.
    2013), where h is the word's input vector (skip-gram), or the mean of its neighbours' (CBOW). NCE subtracts
    log(negative * noise's probability) from each score (Gutmann & Hyvarinen 2010; Mnih & Teh 2012).
    """
    if objective.tree is not None:
        return tree_loss_sum(network, block, objective, objective.tree)
    counts = block.counts
    if objective.architecture == "skip_gram":
        h = with_one(read_words(network, block.centres, objective), objective)
        true = (softplus(-output_rows(network, block.nearby, objective) @ h.mT) * block.weights).sum()
    else:
        counts = counts.clamp(max=1)  # none for a word without neighbours
        h = with_one(mean_of_neighbours(network, block, objective), objective)
        true = (softplus(-(h * output_rows(network, block.centres, objective)).sum(-1)) * counts).sum()
    against = softplus(output_rows(network, block.noise, objective) @ h.mT).mean(1)
    return true + objective.negative * (against * counts).sum(), counts.sum()


def tree_loss_sum(
    network: WordVectors, block: Block, objective: Objective, tree: HuffmanTree
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of hierarchical softmax: -log sigmoid(sign * node . h) for each node on the true word's path.

    Morin & Bengio 2005; Mikolov et al. 2013, whose code predicts each word's path from the words near it.
    """
    counts = block.counts
    nodes = path_rows(network, block.centres, tree)  # [groups, size * depth, vector_size]
    is_inner = tree.signs[block.centres].abs()  # [groups, size, depth]
    if objective.architecture == "skip_gram":
        h = read_words(network, block.nearby, objective)
        weights = (block.weights.mT[..., None] * is_inner[:, :, None]).transpose(2, 3).flatten(1, 2)
        return (softplus(-nodes @ h.mT) * weights).sum(), counts.sum()
    counts = counts.clamp(max=1)
    h = mean_of_neighbours(network, block, objective)
    losses = softplus(-nodes.view(*is_inner.shape, -1) @ h[..., None]).squeeze(-1)
    return (losses * is_inner * counts[..., None]).sum(), counts.sum()


def update(network: WordVectors, block: Block, objective: Objective, rate: float) -> None:
    """One step down the gradient of `loss_sum`, `rate` times as long, within the objective's bounds."""
    is_skip_gram = objective.architecture == "skip_gram"
    if objective.tree is not None:
        step = update_skip_gram_tree if is_skip_gram else update_cbow_tree
        step(network, block, objective, objective.tree, rate)
    else:
        (update_skip_gram if is_skip_gram else update_cbow)(network, block, objective, rate)


def update_skip_gram(network: WordVectors, block: Block, objective: Objective, rate: float) -> None:
    """Each word predicts the words near it: near ones are to score high, noise words low."""
    h = with_one(read_words(network, block.centres, objective), objective)
    rows = output_rows(network, block.predicted, objective)
    errors = score_errors(rows, h, block)
    add_to_words(network, block.centres, errors.mT, rows, objective, rate)
    add_to_outputs(network, block.predicted, errors, h, objective, rate)


def update_cbow(network: WordVectors, block: Block, objective: Objective, rate: float) -> None:
    """The mean of the near words predicts the word: that is to score high, noise words low.

    As in word2vec, each near word takes the whole step of the mean instead of its share. A word without neighbours has
    a mean of 0, so that it moves nothing. Only the noise is shared, so that the true words need no matrix product.
    """
    if objective.bounds is None:
        raise ValueError("an objective without bounds cannot be learned from")
    h = with_one(mean_of_neighbours(network, block, objective), objective)
    groups, size, width = h.shape
    rows = output_rows(network, block.predicted, objective)
    steps = torch.empty_like(rows)  # of the outputs; until they are known it holds products, as fresh memory is slow
    true, noise = rows[: groups * size].view_as(h), rows[groups * size :].view(groups, -1, width)
    true_steps, noise_steps = steps[: groups * size].view_as(h), steps[groups * size :].view_as(noise)
    pulls = torch.mul(true, h, out=true_steps).sum(2).neg_().sigmoid_()  # 1 - sigmoid(x) is sigmoid(-x)
    pushes = torch.bmm(noise, h.mT).sigmoid_().mul_(-objective.negative / noise.shape[1])  # [groups, negatives, size]
    if objective.log_noise is not None:  # without neighbours there is still a bias
        is_predicted = block.counts.clamp(max=1)
        pulls.mul_(is_predicted)
        pushes.mul_(is_predicted[:, None])
    factors = factors_of(block.predicted, objective.bounds.outputs * rate)
    own, drawn = factors[: groups * size].view_as(pulls), factors[groups * size :].view(groups, -1, 1)
    torch.mul(h, (pulls * own)[..., None], out=true_steps)
    torch.bmm(pushes * drawn, h, out=noise_steps)
    network.outputs.index_add_(0, block.predicted, steps)
    del h, steps, true_steps, noise_steps
    add_to_neighbours(network, block, true.mul_(pulls[..., None]).baddbmm_(pushes.mT, noise), objective, rate)


def score_errors(rows: torch.Tensor, h: torch.Tensor, block: Block) -> torch.Tensor:
    """What each score lacks to the truth, by its weight, [groups, true words + negatives, size].

    `rows` [groups, true words + negatives, n] of the words predicted, `h` [groups, size, n].
    """
    scores = torch.bmm(rows, h.mT)
    scores[:, : block.nearby.shape[1]].neg_()  # 1 - sigmoid(x) of true words is sigmoid(-x)
    return scores.sigmoid_().mul_(block.pulls)


def update_skip_gram_tree(
    network: WordVectors, block: Block, objective: Objective, tree: HuffmanTree, rate: float
) -> None:
    """Each word's path is predicted from the words near it."""
    h = read_words(network, block.nearby, objective)
    nodes = path_rows(network, block.centres, tree)
    weights = block.weights.mT.repeat_interleave(tree.depth, 1)  # [groups, size * depth, places]
    errors = torch.bmm(nodes, h.mT).neg_().sigmoid_().mul_(weights)
    add_to_words(network, block.nearby, errors.mT, nodes, objective, rate)
    add_to_outputs(network, *turns(tree, block.centres, errors), h, objective, rate)


def update_cbow_tree(network: WordVectors, block: Block, objective: Objective, tree: HuffmanTree, rate: float) -> None:
    """The mean of the near words predicts the word's path; a word without neighbours moves nothing."""
    words = block.centres.view(-1, 1)
    h = mean_of_neighbours(network, block, objective).view(len(words), 1, -1)
    nodes = path_rows(network, words, tree)
    errors = torch.bmm(nodes, h.mT).neg_().sigmoid_()  # [words, depth, 1]
    add_to_neighbours(network, block, torch.bmm(errors.mT, nodes), objective, rate)
    add_to_outputs(network, *turns(tree, words, errors), h, objective, rate)


def read_words(network: WordVectors, words: torch.Tensor, objective: Objective) -> torch.Tensor:
    """The vectors of words [groups, n], [groups, n, vector_size]."""
    if objective.subwords is None:
        return take(network.inputs, words)
    different, places = words.unique(return_inverse=True)
    return take(network.mean(objective.subwords.select(different)), places)


def add_to_words(
    network: WordVectors,
    words: torch.Tensor,
    errors: torch.Tensor,
    rows: torch.Tensor,
    objective: Objective,
    rate: float,
) -> None:
    """Add errors @ rows to the vectors of words [groups, n]; with subwords each n-gram takes the whole step."""
    if objective.bounds is None:
        raise ValueError("an objective without bounds cannot be learned from")
    rows = rows[..., : network.inputs.shape[1]]
    if objective.subwords is None:
        add_products(network.inputs, words, errors, rows, objective.bounds.inputs, rate)
        return
    different, places = words.unique(return_inverse=True)
    chosen = objective.subwords.select(different)
    sums = rows.new_zeros(len(different), rows.shape[2])
    add_products(sums, places, errors, rows, sums.new_ones(1), rate)
    add_to_rows(network, chosen, sums, objective.bounds)


def add_to_neighbours(
    network: WordVectors, block: Block, steps: torch.Tensor, objective: Objective, rate: float
) -> None:
    """Add each centre's step [..., n] to the vectors of all words in its window."""
    if objective.bounds is None:
        raise ValueError("an objective without bounds cannot be learned from")
    words = block.nearby.view(-1)
    sums = bag_sums(steps.flatten(0, 1), block.near_to)[:, : network.inputs.shape[1]]
    if objective.subwords is None:
        sums.mul_(factors_of(words, objective.bounds.inputs * rate)[:, None])
        network.inputs.index_add_(0, words, sums)
        return
    different, places = words.unique(return_inverse=True)
    by_word = sums.new_zeros(len(different), sums.shape[1]).index_add_(0, places, sums, alpha=rate)
    add_to_rows(network, objective.subwords.select(different), by_word, objective.bounds)


def add_to_rows(network: WordVectors, rows: Rows, steps: torch.Tensor, bounds: Bounds) -> None:
    """Add each word's step to all its rows of the inputs."""
    spread = steps.repeat_interleave(rows.counts, 0).mul_(factors_of(rows.rows, bounds.inputs)[:, None])
    network.inputs.index_add_(0, rows.rows, spread)


def add_to_outputs(
    network: WordVectors,
    rows: torch.Tensor,
    errors: torch.Tensor,
    h: torch.Tensor,
    objective: Objective,
    rate: float,
) -> None:
    """Add errors @ h to the outputs' rows [groups, n]."""
    if objective.bounds is None:
        raise ValueError("an objective without bounds cannot be learned from")
    add_products(network.outputs, rows, errors, h, objective.bounds.outputs, rate)


def mean_of_neighbours(network: WordVectors, block: Block, objective: Objective) -> torch.Tensor:
    """CBOW's h, [groups, size, vector_size]; zero for a word without neighbours."""
    if objective.subwords is None:
        sums = bag_sums(network.inputs, block.near)
    else:
        different, places = block.near.members.unique(return_inverse=True)
        vectors = network.mean(objective.subwords.select(different))
        sums = bag_sums(vectors, block.near._replace(members=places.int()))
    return sums.view(*block.counts.shape, -1).mul_(block.counts.clamp(min=1).reciprocal_()[..., None])


def bag_sums(table: torch.Tensor, bags: Bags) -> torch.Tensor:
    """The sum of the rows of a table in each bag, [bags, width]."""
    return embedding_bag(bags.members, table, bags.starts, mode="sum")


def output_rows(network: WordVectors, words: torch.Tensor, objective: Objective) -> torch.Tensor:
    """The outputs of words [...], [..., vector_size]; in NCE with the bias less the noise's logarithm."""
    rows = take(network.outputs, words)
    if objective.log_noise is not None:
        rows[..., -1] -= objective.log_noise[words]
    return rows


def with_one(h: torch.Tensor, objective: Objective) -> torch.Tensor:
    """In NCE, with a last number of 1, which meets the bias."""
    return h if objective.log_noise is None else pad(h, (0, 1), value=1.0)


def path_rows(network: WordVectors, words: torch.Tensor, tree: HuffmanTree) -> torch.Tensor:
    """The outputs of the nodes on each word's path times their signs, [groups, n * depth, vector_size]; 0 beyond."""
    return take(network.outputs, tree.nodes[words].flatten(1)) * tree.signs[words].flatten(1)[..., None]


def turns(tree: HuffmanTree, words: torch.Tensor, errors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nodes on each word's path [groups, n * depth], and their errors from those of what `path_rows` gave."""
    return tree.nodes[words].flatten(1), errors * tree.signs[words].flatten(1)[..., None]


def take(table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The rows [...] of a table, [..., width]."""
    return table.index_select(0, rows.reshape(-1)).view(*rows.shape, -1)


def factors_of(rows: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """What the steps of these rows [n] are multiplied by; for those beyond the end of the bounds it is their last."""
    return bounds.index_select(0, rows.clamp(max=len(bounds) - 1))


def add_products(
    table: torch.Tensor,
    rows: torch.Tensor,
    errors: torch.Tensor,
    vectors: torch.Tensor,
    bounds: torch.Tensor,
    rate: float,
) -> None:
    """Add errors [groups, n, m] @ vectors [groups, m, width], times rate and bound, to each of the rows [groups, n].

    index_add_ sums in the order of the rows, whatever the number of threads.
    """
    flat = rows.reshape(-1)
    errors = errors * factors_of(flat, bounds * rate).view(*rows.shape, 1)
    table.index_add_(0, flat, torch.bmm(errors, vectors).flatten(0, 1))


def bound_updates(blocks: WordWindows, network: WordVectors, objective: Objective, *, learning_rate: float) -> Bounds:
    """Limit what one step may move a row: min(1, limit / expected).

    Within a step all gradients are taken at the same place, so that the sum of very many overshoots, and may diverge.
    """
    shares = blocks.word_shares
    neighbours = objective.window + 1  # on average, with random radii
    times = (
        neighbours if objective.architecture == "skip_gram" else 1
    )  # that a word is predicted, and noise drawn for it
    if objective.tree is None:
        outputs = (shares + blocks.noise_shares * objective.negative) * times
        inputs = shares * neighbours * (1 + objective.negative)
    else:
        on_paths = shares[:, None] * objective.tree.signs.abs().to(shares)
        outputs = shares.new_zeros(len(network.outputs)).index_add_(
            0, objective.tree.nodes.view(-1).to(shares.device), on_paths.view(-1) * times
        )
        inputs = shares * neighbours * on_paths.sum()
    if objective.subwords is not None:
        rows, counts, _ = (part.to(shares.device) for part in objective.subwords)
        inputs = shares.new_zeros(len(network.inputs)).index_add_(0, rows, inputs.repeat_interleave(counts))
    most = MOST_MOVEMENT / (learning_rate * blocks.centres)
    return Bounds(*(_shortened((most / gradients).clamp(max=1)).to(blocks.device) for gradients in (inputs, outputs)))


def _shortened(factors: torch.Tensor) -> torch.Tensor:
    """Without the ones at the end, but for the first of them."""
    is_bound = (factors < 1).nonzero()
    length = int(is_bound[-1]) + 1 if len(is_bound) else 0
    return torch.cat((factors[:length].float(), torch.ones(1)))
