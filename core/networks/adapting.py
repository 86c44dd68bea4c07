"""Which parts of a pretrained classifier learn: all, the head alone, or low-rank adapters."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.errors import InvalidSpec
from core.networks.classifier import Batch, Classifier

ROWS_AT_ONCE = 256


def freeze_encoder(classifier: Classifier, *, new_parameters: Collection[str]) -> bool:
    """Let only the head learn, and the `new_parameters` that the base had no weights for.

    Answers whether these are the head's alone, so that the encoder's answers never change.
    """
    head = {id(parameter) for parameter in classifier.head.parameters()}
    is_head_alone = True
    for name, parameter in classifier.network.named_parameters():
        learns = id(parameter) in head or name in new_parameters
        parameter.requires_grad_(learns)
        is_head_alone &= not learns or id(parameter) in head
    return is_head_alone


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
    classifier: Classifier,
    *,
    rank: int,
    alpha: int,
    dropout: float,
    target_modules: Sequence[str] | None,
    new_parameters: Collection[str],
) -> Classifier:
    """The classifier with LoRA adapters (Hu et al. 2022) that learn, beside its head and its `new_parameters`.

    Adapted are the linear layers of the encoder, or those of them whose last names are in `target_modules`.
    """
    if classifier.is_ours:
        raise InvalidSpec(
            "lora adapts transformers models, and the base is one of our small networks: take full or frozen_encoder",
            param="strategy",
        )
    learned = _modules_of(classifier, new_parameters)
    adapted = [
        name
        for name, module in classifier.network.named_modules()
        if isinstance(module, nn.Linear) and not any(f"{name}.".startswith(f"{whole}.") for whole in learned)
    ]
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
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=chosen, modules_to_save=learned
    )
    return classifier.with_network(peft.get_peft_model(classifier.network, config))


def _modules_of(classifier: Classifier, new_parameters: Collection[str]) -> list[str]:
    """The head, and the modules that own the new parameters."""
    head = next(name for name, module in classifier.network.named_modules() if module is classifier.head)
    owners = {name.rpartition(".")[0] for name in new_parameters}
    return [head, *sorted(name for name in owners if not f"{name}.".startswith(f"{head}."))]


def merged(classifier: Classifier) -> Classifier:
    """The adapters worked into the weights; a plain transformers model again."""
    network: Any = classifier.network
    return classifier.with_network(network.merge_and_unload())


def save_adapters(classifier: Classifier, folder: Path) -> None:
    """Write what peft opens on the base, without where the base lay in training."""
    network: Any = classifier.network
    network.save_pretrained(folder)
    path = folder / "adapter_config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), "base_model_name_or_path": None}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)


def keep_statistics(network: nn.Module) -> None:
    """Put batch normalisation into evaluation mode: what is frozen must not drift."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
