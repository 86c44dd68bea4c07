"""What a user would run by hand: a plain PyTorch script that reads a table and makes the first step of an autoencoder.

python first_step.py TABLE.npy TOLD    # writes into TOLD when the first step was done, in Unix seconds
"""

import sys
import time

import numpy as np
import torch
from torch import nn

table, told = sys.argv[1:]
x = torch.from_numpy(np.load(table))
x = (x - x.mean(0)) / x.std(0)
sizes = [x.shape[1], 512, 256, 16]
encoder = [part for pair in zip(sizes, sizes[1:]) for part in (nn.Linear(*pair), nn.ReLU())][:-1]  # noqa: B905, RUF007
sizes.reverse()
decoder = [part for pair in zip(sizes, sizes[1:]) for part in (nn.Linear(*pair), nn.ReLU())][:-1]  # noqa: B905, RUF007
network = nn.Sequential(*encoder, *decoder)
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
rows = x[torch.randperm(len(x))[:256]]
loss = (network(rows) - rows).square().mean()
loss.backward()
optimizer.step()
with open(told, "w") as file:
    file.write(f"{time.time()} {loss.item()}")
