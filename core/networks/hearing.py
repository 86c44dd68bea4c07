"""How a model hears recordings: waves through the feature extractor of transformers, or frames."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from torch import nn

from core.data.recordings import Hearing, Wave
from core.errors import InvalidData
from core.networks.loading import read_config
from core.networks.saving import is_network_config

LEAST_SECONDS = 0.25  # shorter recordings go on with silence: convolutions and masks need a few frames


class Ears(NamedTuple):
    """What a model hears: waves at `rate`, or, where that is None, so many `frames` of a certain make."""

    rate: int | None = None
    hearing: Hearing | None = None
    frames: int | None = None
    features: int | None = None


def ears_of(folder: Path, *, param: str) -> Ears:
    """What the model in `folder` hears; raises InvalidData where it hears nothing."""
    config = read_config(folder)
    if not is_network_config(config):
        return Ears(rate=open_extractor(folder, param=param).sampling_rate)
    shape = config["arguments"].get("shape", ())
    if len(shape) != 2:
        raise InvalidData(f"the model ({config['model_type']}) hears no recordings: name one that does", param=param)
    hearing = config.get("hearing")
    return Ears(None, None if hearing is None else Hearing(**hearing), frames=shape[1], features=shape[0])


def open_extractor(folder: Path, *, param: str) -> Any:
    """The feature extractor beside a transformers model of sounds; raises InvalidData."""
    if not (folder / "preprocessor_config.json").exists():
        raise InvalidData(
            "the model folder has no preprocessor_config.json, which tells the rate of its recordings: put it beside "
            "config.json (a model of texts does not have one: name a base for recordings)",
            param=param,
        )
    try:
        found = transformers.AutoFeatureExtractor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, trust_remote_code=False, local_files_only=True
        )
    except (ValueError, KeyError, OSError, ImportError, TypeError) as error:
        raise InvalidData(f"preprocessor_config.json cannot be used: {error!s:.300}", param=param) from None
    if not isinstance(found, transformers.SequenceFeatureExtractor):
        raise InvalidData("preprocessor_config.json is not that of a model of recordings", param=param)
    return found


class WaveInputs:
    """Waves in a row; indexed by rows, they give what a transformers model takes, padded to the longest."""

    def __init__(self, waves: Sequence[Wave], extractor: Any, network: nn.Module) -> None:
        self.waves = waves
        self.extractor = extractor
        self.accepted = frozenset(inspect.signature(network.forward).parameters)
        self.options = {"padding": True} if isinstance(extractor, transformers.Wav2Vec2FeatureExtractor) else {}

    def __len__(self) -> int:
        return len(self.waves)

    def __getitem__(self, rows: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`input_values` or `input_features`, and `attention_mask` where the model wants one."""
        least = int(LEAST_SECONDS * self.extractor.sampling_rate)
        waves = [np.pad(wave, (0, max(0, least - len(wave)))) for wave in (self.waves[row] for row in rows.tolist())]
        found = self.extractor(waves, sampling_rate=self.extractor.sampling_rate, return_tensors="pt", **self.options)
        return {name: tensor for name, tensor in found.items() if name in self.accepted}
