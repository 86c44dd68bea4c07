"""How word vectors learn: the losses of word2vec, and one step down the gradient of each in small matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch.nn.functional import pad, softplus

from core.data.huffman import HuffmanTree
from core.data.word_windows import Block, WordWindows, sum_windows, windows
from core.networks.word_vectors import Rows, WordVectors

MOST_MOVEMENT = 4.0  # of a row in one step: the learning rate times the gradients expected to be summed for it


class Bounds(NamedTuple):
    """What a row's summed update is multiplied by, so that frequent words stay stable; None where all are 1."""

    inputs: torch.Tensor | None  # [rows]
    outputs: torch.Tensor | None


NO_BOUNDS = Bounds(None, None)


@dataclass(frozen=True)
class Objective:
    """What the updates need to know beside the vectors.

    In NCE a row of the outputs ends with the word's bias, which meets a last number of 1 in h. In hierarchical softmax
    a row stands for an inner node of the tree, and a word is predicted by the turns on its path.
    """

    architecture: Literal["skip_gram", "cbow"]
    window: int
    negative: int = 0  # noise words that weigh against each true one
    bounds: Bounds = NO_BOUNDS
    subwords: Rows | None = None  # of the vocabulary
    log_noise: torch.Tensor | None = None  # [words] log(negative * noise's probability), which NCE subtracts
    tree: HuffmanTree | None = None


def loss_sum(network: WordVectors, block: Block, objective: Objective) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss summed over the block's predictions, and their number (or weight).

    -log sigmoid(output of the true word . h), and -log sigmoid(-output . h) for `negative` noise words (Mikolov et al.
    2013), where h is the word's input vector (skip-gram), or the mean of its neighbours' (CBOW). NCE subtracts
    log(negative * noise's probability) from each score (Gutmann & Hyvarinen 2010; Mnih & Teh 2012).
    """
    if objective.tree is not None:
        return tree_loss_sum(network, block, objective, objective.tree)
    groups, _, size = block.weights.shape
    counts = block.weights.sum(1)  # [groups, size]
    if objective.architecture == "skip_gram":
        h = with_one(read_words(network, block.centres, objective).view(groups, size, -1), objective)
        nearby = windows(output_rows(network, block.nearby, objective), size=size, window=objective.window)
        true = (softplus(-nearby @ h.mT) * block.weights).sum()
    else:
        counts = counts.clamp(max=1)  # none for a word without neighbours
        h = with_one(mean_of_neighbours(network, block, objective), objective)
        true = (softplus(-(h * output_rows(network, block.centres, objective).view_as(h)).sum(-1)) * counts).sum()
    noise = output_rows(network, block.noise.view(-1), objective).view(groups, -1, h.shape[-1])
    against = softplus(noise @ h.mT).mean(1)
    return true + objective.negative * (against * counts).sum(), counts.sum()


def tree_loss_sum(
    network: WordVectors, block: Block, objective: Objective, tree: HuffmanTree
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of hierarchical softmax: -log sigmoid(sign * node . h) for each node on the true word's path.

    Morin & Bengio 2005; Mikolov et al. 2013.
    """
    groups, _, size = block.weights.shape
    counts = block.weights.sum(1)
    if objective.architecture == "skip_gram":
        wide = {"size": size * tree.depth, "window": objective.window * tree.depth}
        h = read_words(network, block.centres, objective).view(groups, size, -1)
        is_inner = windows(tree.signs[block.nearby].abs().view(-1, 1), **wide)
        weights = block.weights.repeat_interleave(tree.depth, 1) * is_inner
        nodes = windows(path_rows(network, block.nearby, tree), **wide)
        return (softplus(-nodes @ h.mT) * weights).sum(), counts.sum()
    counts = counts.clamp(max=1)
    h = mean_of_neighbours(network, block, objective).view(-1, network.inputs.shape[1], 1)
    nodes = path_rows(network, block.centres, tree).view(len(h), tree.depth, -1)
    weights = tree.signs[block.centres].abs() * counts.view(-1, 1)
    return (softplus(-nodes @ h).squeeze(2) * weights).sum(), counts.sum()


def update_skip_gram(network: WordVectors, block: Block, objective: Objective, rate: float) -> None:
    """One step down the gradient of `loss_sum`: each word predicts the words near it."""
    groups, _, size = block.weights.shape
    length = len(block.nearby)
    predicted = torch.cat((block.nearby, block.noise.view(-1)))
    h = with_one(read_words(network, block.centres, objective).view(groups, size, -1), objective)
    rows = output_rows(network, predicted, objective)  # [length + groups * negatives, width]
    steps = torch.empty_like(rows)
    noise, noise_steps = (part[length:].view(groups, -1, h.shape[2]) for part in (rows, steps))
    nearby = windows(rows[:length], size=size, window=objective.window)
    errors = torch.bmm(nearby, h.mT).neg_().sigmoid_().mul_(block.weights).mul_(rate)
    h_steps = torch.bmm(errors.mT, nearby)
    sum_windows(torch.bmm(errors, h), window=objective.window, out=steps[:length])
    learn_from_noise(noise, h, block.weights.sum(1), objective, rate, noise_steps=noise_steps, h_steps=h_steps)
    add_to_words(network, block.centres, h_steps, objective)
    add_rows(network.outputs, predicted, steps, objective.bounds.outputs)


def update_cbow(network: WordVectors, block: Block, objective: Objective, rate: float) -> None:
    """One step down the gradient of `loss_sum`: the mean of the near words predicts the word.

    As in word2vec, each near word takes the whole step of the mean instead of its share.
    """
    groups, length = len(block.weights), len(block.centres)
    predicted = torch.cat((block.centres, block.noise.view(-1)))
    h = with_one(mean_of_neighbours(network, block, objective), objective)
    rows = output_rows(network, predicted, objective)  # [length + groups * negatives, width]
    steps = torch.empty_like(rows)
    true, noise = (part.view(groups, -1, h.shape[2]) for part in rows.tensor_split([length]))
    true_steps, noise_steps = (part.view(groups, -1, h.shape[2]) for part in steps.tensor_split([length]))
    counts = block.weights.sum(1).clamp_(max=1)  # none for a word without neighbours
    errors = (h * true).sum(2).neg_().sigmoid_().mul_(counts).mul_(rate).unsqueeze_(2)
    h_steps = errors * true
    torch.mul(errors, h, out=true_steps)
    learn_from_noise(noise, h, counts, objective, rate, noise_steps=noise_steps, h_steps=h_steps)
    add_to_neighbours(network, block, h_steps, objective)
    add_rows(network.outputs, predicted, steps, objective.bounds.outputs)


def learn_from_noise(
    noise: torch.Tensor,
    h: torch.Tensor,
    counts: torch.Tensor,
    objective: Objective,
    rate: float,
    *,
    noise_steps: torch.Tensor,
    h_steps: torch.Tensor,
) -> None:
    """Move noise words and `h` apart: writes the noise words' steps, and adds to those of `h`.

    `noise` [groups, negatives, n], `h` [groups, size, n], `counts` [groups, size] the predictions from each `h`.
    """
    weights = counts.mul(-rate * objective.negative / noise.shape[1]).unsqueeze_(1)
    errors = torch.bmm(noise, h.mT).sigmoid_().mul_(weights)
    torch.bmm(errors, h, out=noise_steps)
    h_steps.baddbmm_(errors.mT, noise)


def update_skip_gram_tree(
    network: WordVectors, block: Block, objective: Objective, tree: HuffmanTree, rate: float
) -> None:
    """One step down the gradient of `tree_loss_sum`: each word predicts the turns on the paths to the words near it."""
    groups, _, size = block.weights.shape
    depth = tree.depth
    window = objective.window * depth  # a word's place is taken by its path
    h = read_words(network, block.centres, objective).view(groups, size, -1)
    rows = path_rows(network, block.nearby, tree)
    nodes = windows(rows, size=size * depth, window=window)
    weights = block.weights.repeat_interleave(depth, 1)
    errors = torch.bmm(nodes, h.mT).neg_().sigmoid_().mul_(weights).mul_(rate)
    h_steps = torch.bmm(errors.mT, nodes)
    steps = torch.empty_like(rows)
    sum_windows(torch.bmm(errors, h), window=window, out=steps)
    add_to_words(network, block.centres, h_steps, objective)
    add_to_paths(network, block.nearby, steps, tree, objective.bounds.outputs)


def update_cbow_tree(network: WordVectors, block: Block, objective: Objective, tree: HuffmanTree, rate: float) -> None:
    """One step down the gradient of `tree_loss_sum`: the mean of the near words predicts the turns to the word."""
    h = mean_of_neighbours(network, block, objective)
    nodes = path_rows(network, block.centres, tree).view(h.shape[0] * h.shape[1], tree.depth, -1)
    counts = block.weights.sum(1).clamp_(max=1).view(-1, 1, 1)
    flat = h.view(len(nodes), 1, -1)
    errors = torch.bmm(flat, nodes.mT).neg_().sigmoid_().mul_(counts).mul_(rate)  # [words, 1, depth]
    add_to_neighbours(network, block, torch.bmm(errors, nodes).view_as(h), objective)
    add_to_paths(network, block.centres, torch.bmm(errors.mT, flat), tree, objective.bounds.outputs)


def update(network: WordVectors, block: Block, objective: Objective, rate: float) -> None:
    """One step down the gradient of `loss_sum`, `rate` times as long."""
    is_skip_gram = objective.architecture == "skip_gram"
    if objective.tree is not None:
        step = update_skip_gram_tree if is_skip_gram else update_cbow_tree
        step(network, block, objective, objective.tree, rate)
    else:
        (update_skip_gram if is_skip_gram else update_cbow)(network, block, objective, rate)


def read_words(network: WordVectors, words: torch.Tensor, objective: Objective) -> torch.Tensor:
    """The vectors of words, [n, vector_size]."""
    if objective.subwords is None:
        return network.inputs.index_select(0, words)
    different, places = words.unique(return_inverse=True)
    return network.mean(objective.subwords.select(different)).index_select(0, places)


def add_to_words(network: WordVectors, words: torch.Tensor, steps: torch.Tensor, objective: Objective) -> None:
    """Add to each word's vector its step [..., vector_size or one more]; each n-gram takes the whole step."""
    size = network.inputs.shape[1]
    steps = steps.view(len(words), -1)[:, :size]
    if objective.subwords is not None:
        different, places = words.unique(return_inverse=True)
        chosen = objective.subwords.select(different)
        sums = steps.new_zeros(len(different), size).index_add_(0, places, steps)
        words, steps = chosen.rows, sums.repeat_interleave(chosen.counts, 0)
    add_rows(network.inputs, words, steps, objective.bounds.inputs)


def mean_of_neighbours(network: WordVectors, block: Block, objective: Objective) -> torch.Tensor:
    """CBOW's h, [groups, size, vector_size]; zero for a word without neighbours."""
    rows = read_words(network, block.nearby, objective)
    nearby = windows(rows, size=block.weights.shape[2], window=objective.window)
    return torch.bmm(block.weights.mT, nearby) / block.weights.sum(1).clamp(min=1).unsqueeze(2)


def add_to_neighbours(network: WordVectors, block: Block, h_steps: torch.Tensor, objective: Objective) -> None:
    """Add the step of each mean [groups, size, vector_size or one more] to every neighbour in it."""
    size = network.inputs.shape[1]
    steps = h_steps.new_empty(len(block.nearby), size)
    sum_windows(torch.bmm(block.weights, h_steps[..., :size]), window=objective.window, out=steps)
    add_to_words(network, block.nearby, steps, objective)


def output_rows(network: WordVectors, words: torch.Tensor, objective: Objective) -> torch.Tensor:
    """The outputs of words, [n, vector_size]; in NCE with one more number, the bias less the noise's logarithm."""
    rows = network.outputs.index_select(0, words)
    if objective.log_noise is not None:
        rows[:, -1] -= objective.log_noise[words]
    return rows


def with_one(h: torch.Tensor, objective: Objective) -> torch.Tensor:
    """In NCE, with a last number of 1, which meets the bias."""
    return h if objective.log_noise is None else pad(h, (0, 1), value=1.0)


def path_rows(network: WordVectors, words: torch.Tensor, tree: HuffmanTree) -> torch.Tensor:
    """The outputs of the nodes on each word's path times their signs, [n * depth, vector_size]; 0 beyond the root."""
    return network.outputs.index_select(0, tree.nodes[words].view(-1)) * tree.signs[words].view(-1, 1)


def add_to_paths(
    network: WordVectors, words: torch.Tensor, steps: torch.Tensor, tree: HuffmanTree, bounds: torch.Tensor | None
) -> None:
    """Add to the nodes on each word's path the steps [n * depth, vector_size] of what `path_rows` gave."""
    signs = tree.signs[words].view(-1, 1)
    add_rows(network.outputs, tree.nodes[words].view(-1), steps.view(len(signs), -1).mul_(signs), bounds)


def add_rows(table: torch.Tensor, rows: torch.Tensor, steps: torch.Tensor, bounds: torch.Tensor | None) -> None:
    """Add each step to its row; index_add_ sums in the order of the steps, whatever the number of threads."""
    steps = steps.view(len(rows), -1)
    if bounds is not None:
        steps = steps * bounds.index_select(0, rows)[:, None]
    table.index_add_(0, rows, steps)


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
    factors = [(most / gradients).clamp(max=1) for gradients in (inputs, outputs)]
    return Bounds(*(None if bool((factor == 1).all()) else factor.float().to(blocks.device) for factor in factors))
