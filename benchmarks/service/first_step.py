"""What a user would run by hand: a plain PyTorch script that reads a table and makes the first step of an autoencoder.

python first_step.py TABLE.npy TOLD    # writes into TOLD when the first step was done, in Unix seconds, and its loss
"""

import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn


def main(table: str, told: str) -> None:
    """Read, build, step."""
    x = torch.from_numpy(np.load(table))
    x = (x - x.mean(0)) / x.std(0)
    sizes = [x.shape[1], 512, 256, 16]
    network = nn.Sequential(*layers(sizes), *layers(sizes[::-1]))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    rows = x[torch.randperm(len(x))[:256]]
    loss = (network(rows) - rows).square().mean()
    loss.backward()
    optimizer.step()
    Path(told).write_text(f"{time.time()} {loss.item()}")


def layers(sizes: list[int]) -> list[nn.Module]:
    """Linear layers with what is between them."""
    return [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())][:-1]


if __name__ == "__main__":
    main(*sys.argv[1:])
