"""A batch of texts in groups of like lengths: every row once, less padding, the same answers and gradients."""

from __future__ import annotations

import torch
import transformers

from core.data.profile import Kind
from core.networks.classifier import Classifier
from core.networks.token_ids import TokenIds, by_length, shortest

LENGTHS = torch.tensor([90, 3, 4, 88, 5, 3, 91, 4, 5, 3, 4, 5, 89, 2, 3, 4, 30, 31, 29, 28])


def test_groups_hold_every_row_once_and_little_padding() -> None:
    groups = by_length(LENGTHS)
    assert torch.cat(groups).sort().values.tolist() == list(range(len(LENGTHS)))
    places = sum(len(rows) * int(LENGTHS[rows].max()) for rows in groups)
    assert len(groups) == 3
    assert places < 1.1 * int(LENGTHS.sum())


def test_texts_of_one_length_are_one_group() -> None:
    assert [rows.tolist() for rows in by_length(torch.full((5,), 64))] == [[0, 1, 2, 3, 4]]


def test_a_group_loses_only_padding() -> None:
    ids = TokenIds(torch.arange(1, 10, dtype=torch.int32), [2, 4, 3], pad_token=0, truncated=0)
    cut = shortest(ids[torch.tensor([0, 1, 2])], torch.tensor([0, 2]))
    assert cut["input_ids"].tolist() == [[1, 2, 0], [7, 8, 9]]
    assert cut["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_a_classifier_answers_in_groups_what_it_answers_to_all() -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=3
    )
    network = transformers.BertForSequenceClassification(config).eval()
    classifier = Classifier(network, Kind.TEXT, ("a", "b", "c"))
    tokens = torch.randint(1, 50, (int(LENGTHS.sum()),), dtype=torch.int32)
    batch = TokenIds(tokens, LENGTHS.tolist(), pad_token=0, truncated=0)[torch.arange(len(LENGTHS))]
    gradients = []
    for logits in (classifier.logits(batch), network(**batch).logits):
        network.zero_grad()
        logits.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
        torch.testing.assert_close(logits, classifier.logits(batch), rtol=1e-4, atol=1e-5)
    for ours, whole in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-4)
