"""A student with fewer of its teacher's layers, starting from their weights."""

from __future__ import annotations

import copy
from typing import Any, Literal

from pydantic import Field
from torch import nn

from core.errors import InvalidSpec
from core.spec import Frozen


class TeachersLayers(Frozen):
    """The teacher's own architecture with fewer layers, which begin with the teacher's weights (Sanh et al. 2019)."""

    architecture: Literal["teachers_layers"] = Field(
        "teachers_layers", description="The teacher with some of its layers, evenly chosen, and their weights."
    )
    layers: int | None = Field(None, ge=1, le=256, description="How many of the teacher's layers; none: half of them.")


def shortened(network: Any, wanted: TeachersLayers) -> Any:
    """A copy of a transformers model with `wanted.layers` of its layers; raises InvalidSpec where it cannot be had.

    The first and the last layer stay, and those between are evenly chosen.
    """
    config: Any = getattr(network, "config", None)
    stacks = {name: module for name, module in network.named_modules() if isinstance(module, nn.ModuleList)}
    stack = max(stacks, key=lambda name: len(stacks[name]), default=None)
    if stack is None or not hasattr(config, "num_hidden_layers") or len(stacks[stack]) != config.num_hidden_layers:
        raise InvalidSpec(
            "teachers_layers needs a teacher that is one stack of layers, a transformer: give another architecture",
            param="student",
        )
    total = len(stacks[stack])
    count = wanted.layers or -(-total // 2)
    if count >= total:
        raise InvalidSpec(f"the teacher has {total} layers: give fewer, not {count}", param="student")
    kept = chosen_layers(total, count)
    config = copy.deepcopy(config)
    config.num_hidden_layers = count
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[layer] for layer in kept]
    student = type(network)(config)
    renamed = {f"{stack}.{layer}.": f"{stack}.{place}." for place, layer in enumerate(kept)}
    weights = {}
    for name, tensor in network.state_dict().items():
        layer = next((old for old in renamed if name.startswith(old)), None)
        if layer is not None:
            weights[renamed[layer] + name.removeprefix(layer)] = tensor
        elif not name.startswith(f"{stack}."):
            weights[name] = tensor
    student.load_state_dict(weights)
    return student.to(next(network.parameters()).device)


def chosen_layers(total: int, count: int) -> list[int]:
    """Which layers a student of `count` layers takes of a teacher's `total`: first and last, if there are two."""
    if count == 1:
        return [0]
    return [round(place * (total - 1) / (count - 1)) for place in range(count)]
