"""Lets a BERT classifier judge a text by the mean of its tokens' vectors, as sentence encoders are trained to be read.

A BERT classifier reads the first token alone, which a sentence encoder never learned to gather a text in. One more
layer puts the mean there: its queries and keys are zero, so that every token is looked at alike, its values are what
they are, and all else in it does nothing. What comes of it is an ordinary BERT, with a layer more, that opens anywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from core.errors import InvalidSpec

GAIN = 20.0  # how much more the mean weighs than the first token, which the layer's residual adds
SLOPE = 0.3  # the pooler's: its tanh leaves vectors of unit variance nearly as they are


@torch.no_grad()
def pool_by_mean(network: Any) -> None:
    """Add the layer to a BertForSequenceClassification, in place; raises InvalidSpec for other networks.

    Queries and keys of zero have no gradient: they stay, whatever is learned.
    """
    if type(network).__name__ != "BertForSequenceClassification":
        raise InvalidSpec(
            f"pooling is for BERT, and the base becomes a {type(network).__name__}: leave it out", param="pooling"
        )
    layers, config, pooler = network.bert.encoder.layer, network.config, network.bert.pooler
    layer = type(layers[0])(config, layer_idx=len(layers))
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            module.weight.zero_()
            module.bias.zero_()
    identity = torch.eye(config.hidden_size)
    layer.attention.self.value.weight.copy_(identity)
    layer.attention.output.dense.weight.copy_(GAIN * identity)
    pooler.dense.weight.copy_(SLOPE * identity)
    pooler.dense.bias.zero_()
    layers.append(layer.to(pooler.dense.weight.device))
    config.num_hidden_layers = len(layers)
