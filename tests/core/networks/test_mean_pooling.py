"""A BERT classifier that judges by the mean of its tokens is a BERT like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from core.errors import InvalidSpec
from core.networks.mean_pooling import SLOPE, pool_by_mean


def bert() -> transformers.BertForSequenceClassification:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def test_its_pooler_says_the_mean_of_all_tokens_but_padding(tmp_path: Path) -> None:
    network = bert().eval()
    tokens = torch.tensor([[2, 10, 20, 30, 3, 0, 0], [2, 40, 50, 60, 70, 80, 3]])
    mask = (tokens != 0).long()
    with torch.no_grad():
        hidden = network.bert(tokens, attention_mask=mask).last_hidden_state
    means = torch.stack([hidden[0, :5].mean(0), hidden[1].mean(0)])
    pool_by_mean(network)
    network.save_pretrained(tmp_path)
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert opened.config.num_hidden_layers == 3
    with torch.no_grad():
        pooled = opened.bert(tokens, attention_mask=mask).pooler_output
    wanted = torch.nn.functional.layer_norm(means, (32,))
    found = torch.atanh(pooled) / SLOPE
    assert torch.nn.functional.cosine_similarity(found, wanted).min() > 0.99


def test_training_leaves_it_a_mean() -> None:
    network = bert()
    pool_by_mean(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(3):
        network(torch.tensor([[2, 10, 20, 3]]), labels=torch.tensor([1])).loss.backward()
        optimizer.step()
    looking = network.bert.encoder.layer[2].attention.self
    assert not looking.query.weight.any()
    assert not looking.key.weight.any()


def test_refuses_other_networks() -> None:
    config = transformers.DistilBertConfig(vocab_size=10, dim=8, n_layers=1, n_heads=2, hidden_dim=8)
    with pytest.raises(InvalidSpec, match="pooling is for BERT"):
        pool_by_mean(transformers.DistilBertForSequenceClassification(config))
