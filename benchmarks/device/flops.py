"""Model FLOPs: what a decoder's training needs by its formula, and what a device could do at its peak."""

from __future__ import annotations

from typing import Any

# Dense bfloat16 with float32 sums, FLOPs a second, by what is in the device's name; from the makers' data sheets.
PEAKS = {
    "B200": 2250e12,
    "H200": 989.4e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989.4e12,
    "GH200": 989.4e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}


def peak_of(name: str) -> float | None:
    """FLOPs a second of the device with this name at its peak, in bfloat16; None where it is not known."""
    known = [each for each in PEAKS if each in name]
    return PEAKS[max(known, key=len)] if known else None


def flops_per_token(network: Any, *, context_length: int) -> float:
    """Of a decoder's forward and backward pass: 6 N + 12 layers * width * context (Chowdhery et al. 2022, appendix B).

    N: weights that are multiplied with, the head among them, embeddings and vectors not. The second term is attention
    to a whole row, as the published figures count it; a causal one needs half of it.
    """
    config = network.config
    matrices = {id(weight): weight for name, weight in network.named_parameters() if weight.ndim > 1}
    head, embedding = network.get_output_embeddings().weight, network.get_input_embeddings().weight
    looked_up = {id(each) for name, each in network.named_parameters() if "wpe" in name}
    if head is not embedding:
        looked_up.add(id(embedding))
    multiplied = sum(weight.numel() for key, weight in matrices.items() if key not in looked_up)
    return 6.0 * multiplied + 12.0 * config.num_hidden_layers * config.hidden_size * context_length
