"""Opens a transformers folder: its network as any Auto class has it, and its tokenizer. Nothing in it is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from core.errors import InvalidData
from core.memory import is_out_of_memory
from core.networks.gguf import forget_quantization, from_folder, gguf_of
from core.networks.masked_autoencoder import encoder_config

MAX_TOKENS = 512
TOKENIZERS = ("tokenizer.json", "vocab.txt", "spiece.model", "vocab.json")


class Pretrained(NamedTuple):
    """A network, and the names of its parameters that the folder had no weights for."""

    network: nn.Module
    new_parameters: frozenset[str]


class Reading(NamedTuple):
    """How a model reads texts."""

    tokenizer: Any
    max_length: int  # in tokens


def open_config(folder: Path, *, param: str) -> Any:
    """The folder's configuration, of a masked autoencoder its encoder's; raises InvalidData, of field `param`."""
    try:
        config = from_folder(transformers.AutoConfig, folder, **gguf_of(folder))
    except (ValueError, KeyError, OSError, TypeError, StrictDataclassError) as error:
        raise InvalidData(f"config.json cannot be used: {error!s:.300}", param=param) from None
    return encoder_config(config) if isinstance(config, transformers.ViTMAEConfig) else config


def open_pretrained(folder: Path, auto_class: str, *, param: str, config: Any = None) -> Pretrained:
    """The network in float32, in evaluation mode, as `transformers.<auto_class>` opens it; raises InvalidData.

    `config`: in place of the folder's own; heads of another number of classes are new parameters. Weights that have
    other shapes than the configuration says are refused, rather than replaced by random ones; so are pickled ones. The
    quantised ones of a GGUF file are read as what they stand for.
    """
    try:
        network, info = from_folder(
            getattr(transformers, auto_class),
            folder,
            config=config or open_config(folder, param=param),
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            use_safetensors=True,
            **gguf_of(folder),
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        if is_out_of_memory(error):
            raise
        raise InvalidData(f"the weights cannot be read as safetensors: {error!s:.300}", param=param) from None
    forget_quantization(network)
    for name, stored, wanted in info["mismatched_keys"]:
        if config is None or tuple(stored)[1:] != tuple(wanted)[1:]:
            raise InvalidData(
                f"the weights do not fit the config.json: {name} is {list(stored)}, and should be {list(wanted)}",
                param=param,
            )
    resized = {entry[0] for entry in info["mismatched_keys"]}
    return Pretrained(network.eval(), frozenset({*info["missing_keys"], *resized}))


def fresh(config: Any, auto_class: str) -> nn.Module:
    """A network of this configuration with random weights in float32, in evaluation mode."""
    network: nn.Module = getattr(transformers, auto_class).from_config(config, dtype=torch.float32)
    return network.eval()


def open_tokenizer(folder: Path, network: nn.Module, *, param: str, at_most: int = MAX_TOKENS) -> Reading:
    """The folder's tokenizer, and how many tokens of a text both take, `at_most` so many; raises InvalidData.

    It always has a padding token.
    """
    config: Any = network.config
    reading = open_reading(folder, config, param=param, at_most=at_most, positions=_positions(network))
    if config.pad_token_id is None:
        config.pad_token_id = reading.tokenizer.pad_token_id
    return reading


def open_reading(folder: Path, config: Any, *, param: str, at_most: int, positions: int = 0) -> Reading:
    """As `open_tokenizer`, by a network's configuration alone; `positions`: those it has embeddings for, 0: by rule."""
    gguf = {} if any((folder / name).exists() for name in TOKENIZERS) else gguf_of(folder)
    if not gguf and not any((folder / name).exists() for name in TOKENIZERS):
        raise InvalidData(
            "the model folder has no tokenizer: put tokenizer.json and tokenizer_config.json beside config.json",
            param=param,
        )
    try:
        tokenizer = from_folder(transformers.AutoTokenizer, folder, **gguf)
    except (ValueError, KeyError, OSError, ImportError, TypeError, AttributeError) as error:
        raise InvalidData(f"the tokenizer cannot be opened: {error!s:.300}", param=param) from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    limits = [positions, getattr(config, "max_position_embeddings", 0), tokenizer.model_max_length, at_most]
    return Reading(tokenizer, min(limit for limit in limits if limit > 0))


def _positions(network: nn.Module) -> int:
    """How many tokens the position embeddings reach, 0 where there are none; RoBERTa's begin after the padding's."""
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return 0
