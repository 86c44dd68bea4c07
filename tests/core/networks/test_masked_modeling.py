"""Encoders see each packed text as they see it alone, and guess with transformers' own heads."""

from __future__ import annotations

import pytest
import torch
import transformers

from core.data.packing import IGNORED, pack_singly, pack_whole
from core.networks.masked_modeling import can_pack, masked_logits, prediction_head

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 60}
NAMES = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**SIZES),
    "roberta": lambda: transformers.RobertaConfig(**SIZES),
    "albert": lambda: transformers.AlbertConfig(embedding_size=16, **SIZES),
    "electra": lambda: transformers.ElectraConfig(embedding_size=16, **SIZES),
    "distilbert": lambda: transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, vocab_size=60),
    "modernbert": lambda: transformers.ModernBertConfig(local_attention=4, **SIZES, **NAMES),
    "mpnet": lambda: transformers.MPNetConfig(**SIZES),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_texts_have_the_logits_that_each_has_alone(name: str) -> None:
    torch.manual_seed(0)
    network = transformers.AutoModelForMaskedLM.from_config(CONFIGS[name]()).eval()
    is_packed, head = can_pack(network), prediction_head(network)
    assert is_packed == (name != "mpnet")  # whose positions say how far apart two places are, whatever their texts
    assert head
    lengths = [9, 14, 12, 5]
    tokens = torch.randint(5, 60, (sum(lengths),), dtype=torch.int32)
    rows = (
        pack_whole(tokens, lengths, row_length=24, pad_token=0)
        if is_packed
        else pack_singly(tokens, lengths, pad_token=0)
    )
    batch = rows[torch.arange(len(rows))]
    is_target = (torch.rand(batch.tokens.shape) < 0.5) & (batch.sequences >= 0)
    batch = batch._replace(targets=torch.where(is_target, batch.tokens, IGNORED))
    with torch.no_grad():
        found = masked_logits(network, batch, head=head, is_packed=is_packed)
        alone = torch.empty(*batch.tokens.shape, 60)
        for number in batch.sequences[is_target].unique():
            place = batch.sequences == number
            alone[place] = network(input_ids=batch.tokens[place][None]).logits[0]
    torch.testing.assert_close(found, alone[is_target], rtol=1e-3, atol=1e-4)
    without_head = masked_logits(network, batch, head=(), is_packed=is_packed)
    torch.testing.assert_close(found, without_head, rtol=1e-3, atol=1e-4)
