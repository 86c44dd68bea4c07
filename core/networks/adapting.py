"""Which parts of a pretrained network learn: all, the head alone, layer after layer, or low-rank adapters."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from core.errors import InvalidSpec
from core.networks.classifier import Batch, Classifier

ROWS_AT_ONCE = 256


def freeze_encoder(network: nn.Module, *, head: Sequence[str], new_parameters: Collection[str]) -> bool:
    """Let only the `head` modules learn, and the `new_parameters` that the base had no weights for.

    Answers whether these are the head's alone, so that the encoder's answers never change.
    """
    is_head_alone = True
    for name, parameter in network.named_parameters():
        is_heads = is_inside(name, head)
        parameter.requires_grad_(is_heads or name in new_parameters)
        is_head_alone &= is_heads or name not in new_parameters
    return is_head_alone


def is_inside(name: str, modules: Collection[str]) -> bool:
    """Whether a parameter or module of this name is one of these modules, or lies in one."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


class HeadOnly:
    """The head of a classifier, fed with features that its frozen encoder made once."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.network = classifier.head
        self.class_names = classifier.class_names

    def prepare(self, examples: Any) -> torch.Tensor:
        """Features of all `examples`, which are indexed by rows: [n, ...], kept on the CPU."""
        self.classifier.network.eval()
        with torch.no_grad():
            blocks = torch.arange(len(examples)).split(ROWS_AT_ONCE)
            return torch.cat([self.classifier.logits_and_features(examples[rows])[1].cpu() for rows in blocks])

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits [rows, classes] of features."""
        assert isinstance(batch, torch.Tensor)  # noqa: S101 - made by prepare
        logits: torch.Tensor = self.network(batch.to(next(self.network.parameters()).device))
        return logits

    def save(self, folder: Path) -> None:
        """Write the whole classifier."""
        self.classifier.save(folder)


def has_fixed_features(classifier: Classifier, examples: Any) -> bool:
    """Whether the head takes one vector an example; some take all tokens of a text, as many as the batch has."""
    classifier.network.eval()
    with torch.no_grad():
        features = classifier.logits_and_features(examples[torch.arange(1)])[1]
    return features.dim() == 2 or classifier.tokenizer is None


def add_adapters(
    network: nn.Module,
    *,
    head: Sequence[str],
    new_parameters: Collection[str],
    rank: int,
    alpha: int,
    dropout: float,
    target_modules: Sequence[str] | None,
    dora: bool,
) -> nn.Module:
    """The network with LoRA adapters (Hu et al. 2022) that learn, beside its head and its `new_parameters`.

    Adapted are the linear layers of the encoder, or those of them whose last names are in `target_modules`. `dora`:
    they learn direction and size of a weight apart (Liu et al. 2024).
    """
    if not isinstance(getattr(network, "config", None), transformers.PretrainedConfig):
        raise InvalidSpec(
            "lora adapts transformers models, and the base is one of our small networks: take full or frozen_encoder",
            param="strategy",
        )
    owners = {name.rpartition(".")[0] for name in new_parameters}
    learned = [*head, *sorted(name for name in owners if not is_inside(name, head))]
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | transformers.Conv1D)]
    adapted = [name for name in linear if not is_inside(name, [*learned, *_vocabulary_heads(network)])]
    if not adapted:
        raise InvalidSpec(
            "lora adapts linear layers, and the base has none beside its head: take full or frozen_encoder",
            param="strategy",
        )
    chosen = [name for name in adapted if target_modules is None or name.split(".")[-1] in target_modules]
    if not chosen:
        names = ", ".join(sorted({name.split(".")[-1] for name in adapted}))
        raise InvalidSpec(f"the base has no such linear layers; it has: {names}", param="lora")
    import peft  # half of the API's start, if it were above, and for few jobs

    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=chosen,
        modules_to_save=learned or None,
        use_dora=dora,
        fan_in_fan_out=isinstance(network.get_submodule(chosen[0]), transformers.Conv1D),
    )
    found: nn.Module = peft.get_peft_model(network, config)
    return found


def _vocabulary_heads(network: Any) -> list[str]:
    """What makes logits of all tokens: often the table of embeddings, and too large for adapters of low rank to pay."""
    head = network.get_output_embeddings()
    return [name for name, module in network.named_modules() if module is head]


def merged(network: Any) -> nn.Module:
    """The adapters worked into the weights; a plain transformers model again."""
    found: nn.Module = network.merge_and_unload()
    return found


def save_adapters(network: Any, folder: Path) -> None:
    """Write what peft opens on the base, without where the base lay in training."""
    network.save_pretrained(folder, save_embedding_layers=False)
    path = folder / "adapter_config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), "base_model_name_or_path": None}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)


def depth_groups(network: nn.Module, *, head: Sequence[str]) -> list[list[nn.Parameter]]:
    """All parameters from the input to the output, in groups: what lies before the layers, each layer, the rest.

    The layers are the longest list of modules in the network. The head, and what lies behind the layers, come last.
    """
    lists = {name: len(module) for name, module in network.named_modules() if isinstance(module, nn.ModuleList)}
    stack = max(lists, key=lambda name: lists[name], default=None)
    groups: list[list[nn.Parameter]] = [[] for _ in range(lists[stack] + 2 if stack is not None else 2)]
    place = 0
    for name, parameter in network.named_parameters():
        if stack is not None and is_inside(name, [stack]):
            place = int(name.removeprefix(stack).lstrip(".").partition(".")[0]) + 1
            groups[place].append(parameter)
        else:
            groups[0 if place == 0 and not is_inside(name, head) else -1].append(parameter)
    return [group for group in groups if group]


def keep_statistics(network: nn.Module) -> None:
    """Put batch normalisation into evaluation mode: what is frozen must not drift."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
