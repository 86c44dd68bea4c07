"""Checkpoints as models: a base and what fine_tuning had learned at a step, put together as a Hugging Face folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from core.catalog import read_spec
from core.data.model_archive import unpack_model_archive
from core.errors import CheckpointDamaged, InvalidData
from core.methods.fine_tuning import FineTuningSpec
from core.networks.adapting import add_adapters, merged
from core.networks.chat_template import give_template
from core.networks.pretrained import open_pretrained, open_tokenizer
from core.tasks.language_model import CAUSAL
from core.tasks.task import CHECKPOINTED
from core.training.checkpoint import read_checkpoint


def unpack_input(place: Mapping[str, Any], *, max_unpacked_bytes: int) -> Path:
    """The path of an input that `core.placement` has placed: an archive is unpacked, a checkpoint becomes a model.

    Raises InvalidData or CheckpointDamaged.
    """
    path = Path(place["path"])
    if "archive" in place:
        unpack_model_archive(Path(place["archive"]), path, max_unpacked_bytes=max_unpacked_bytes)
    elif "checkpoint" in place:
        base = unpack_input(place["base"], max_unpacked_bytes=max_unpacked_bytes)
        write_checkpoint_model(Path(place["checkpoint"]), path, base=base, sha256=place["sha256"])
    return path


def write_checkpoint_model(checkpoint: Path, folder: Path, *, base: Path, sha256: str | None = None) -> None:
    """Write the model that a checkpoint of fine_tuning holds, with its tokenizer, as transformers opens them.

    `base`: the folder of the model that its job started from. Adapters are merged into it; where the job keeps an
    average of its weights, that is the model. `folder` is whole or absent afterwards, and left alone where it is
    there. Raises InvalidData for a checkpoint of something else, and CheckpointDamaged.
    """
    if folder.exists():
        return
    state = read_checkpoint(checkpoint, sha256=sha256)
    spec = read_spec(state["spec"])
    if not isinstance(spec, FineTuningSpec) or spec.task not in CHECKPOINTED:
        raise InvalidData(f"a checkpoint can be a model where the task is {', '.join(CHECKPOINTED)}", param="base")
    network = open_pretrained(base, CAUSAL, param="base").network
    tokenizer = open_tokenizer(base, network, param="base").tokenizer
    if spec.task != "language_model":
        give_template(tokenizer)
    learned = state["objects"]["learning"]
    network = _with_weights(network, spec, learned.get("average") or learned["network"])
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    network.save_pretrained(partial)  # type: ignore[operator]
    tokenizer.save_pretrained(partial)
    partial.replace(folder)


def _with_weights(network: nn.Module, spec: FineTuningSpec, weights: Mapping[str, Any]) -> nn.Module:
    """The network with what the checkpoint had learned; raises CheckpointDamaged for what does not fit the base."""
    if spec.lora is not None:
        network = add_adapters(network, head=(), new_parameters=(), **dict(spec.lora))
    try:
        unexpected = network.load_state_dict(weights, strict=False).unexpected_keys
    except RuntimeError as error:
        raise CheckpointDamaged(f"the checkpoint does not fit its base: {error!s:.300}") from None
    if unexpected:
        raise CheckpointDamaged(f"the checkpoint does not fit its base, which has no {unexpected[0]}")
    return merged(network) if spec.lora is not None else network
