"""Masked autoencoders of images: a vision transformer that sees a few patches, and a small one that says the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import transformers
from pydantic import Field, model_validator
from torch import nn

from core.errors import InvalidSpec
from core.networks.architectures import Size, ViT
from core.networks.classifier import Scaling, write_preprocessor

GREY = 0.5  # of pictures of what was hidden


class MaskedViT(ViT):
    """A vision transformer, and the small decoder with which it learns; the decoder is not needed afterwards."""

    decoder_layers: int = Field(2, ge=1, le=64, description="Transformer layers of the decoder.")
    decoder_size: Size = Field(64, description="Width of a token's vector in the decoder; it has as many heads.")

    @model_validator(mode="after")
    def _positions_have_a_sine_and_a_cosine_each_way(self) -> Self:
        for name, size in {"hidden_size": self.hidden_size, "decoder_size": self.decoder_size}.items():
            if size % 4 or size % self.heads:
                raise ValueError(f"{name} {size} is not a multiple of 4 and of the {self.heads} heads")
        return self


def check_patches(transformer: MaskedViT, shape: Sequence[int], *, mask_ratio: float) -> None:
    """Raise InvalidSpec where images of this shape, (channels, height, width), cannot be cut and hidden."""
    patch = transformer.patch_size
    if shape[1] != shape[2] or shape[1] % patch:
        raise InvalidSpec(
            f"patches of {patch} pixels do not tile images of {shape[1]}x{shape[2]} as a square: set image_size to a "
            f"multiple of {patch}, or another transformer.patch_size",
            param="image_size",
        )
    count = (shape[1] // patch) ** 2
    if int(count * (1 - mask_ratio)) in (0, count):
        raise InvalidSpec(
            f"a mask_ratio of {mask_ratio} leaves none of {count} patches to see, or none to guess: take smaller "
            "patches, or another mask_ratio",
            param="mask_ratio",
        )


class MaskedAutoencoder(nn.Module):
    """A `transformers.ViTMAEForPreTraining` that takes pixels in [0, 1] and standardises them (He et al. 2022).

    `shape`: (channels, side, side) of the images; see `check_patches`. `scaling`: mean and deviation of the channels.
    """

    mean: torch.Tensor  # [channels, 1, 1]
    std: torch.Tensor

    def __init__(self, shape: Sequence[int], *, transformer: MaskedViT, mask_ratio: float, scaling: Scaling) -> None:
        super().__init__()
        self.shape, self.scaling = tuple(shape), scaling
        self.patch_count = (shape[1] // transformer.patch_size) ** 2
        self.mae: Any = transformers.ViTMAEForPreTraining(_config(shape, transformer, mask_ratio))
        initialise(self.mae, side=shape[1] // transformer.patch_size)
        for name in ("mean", "std"):
            numbers = torch.tensor(getattr(scaling, name))[:, None, None]
            self.register_buffer(name, numbers, persistent=False)

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All patches as the decoder says them [rows, patches, numbers], and which were hidden [rows, patches], 0 or 1.

        Hidden from the encoder are those of the highest `noise` [rows, patches].
        """
        found = self.mae(pixel_values=(x - self.mean) / self.std, noise=noise)
        return found.logits, found.mask

    def patches(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1] as standardised patches [rows, patches, numbers], row by row."""
        patches: torch.Tensor = self.mae.patchify((x - self.mean) / self.std)
        return patches

    def as_examples(self, patches: torch.Tensor) -> torch.Tensor:
        """The images that standardised patches make, with pixels in [0, 1]."""
        images: torch.Tensor = self.mae.unpatchify(patches) * self.std + self.mean
        return images.clamp(0, 1)

    def seen(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """What the encoder sees of `x` by this noise, the hidden patches in grey."""
        kept = int(self.patch_count * (1 - self.mae.config.mask_ratio))
        is_seen = noise.argsort(1).argsort(1) < kept
        return self.as_examples(
            torch.where(is_seen[:, :, None], self.patches(x), self.patches(torch.full_like(x, GREY)))
        )

    def save(self, folder: Path) -> None:
        """Write the whole as transformers has it, and the encoder by itself, a plain ViTModel, into `encoder/`."""
        encoder: Any = transformers.ViTModel(encoder_config(self.mae.config), add_pooling_layer=False)
        encoder.load_state_dict(self.mae.vit.state_dict())
        for model, place in ((self.mae, folder), (encoder, folder / "encoder")):
            model.save_pretrained(place)
            write_preprocessor(place / "preprocessor_config.json", self.scaling, self.shape)


def _config(shape: Sequence[int], transformer: MaskedViT, mask_ratio: float) -> Any:
    return transformers.ViTMAEConfig(
        image_size=shape[1],
        num_channels=shape[0],
        patch_size=transformer.patch_size,
        num_hidden_layers=transformer.layers,
        hidden_size=transformer.hidden_size,
        intermediate_size=4 * transformer.hidden_size,
        num_attention_heads=transformer.heads,
        hidden_dropout_prob=transformer.dropout,
        attention_probs_dropout_prob=transformer.dropout,
        decoder_num_hidden_layers=transformer.decoder_layers,
        decoder_hidden_size=transformer.decoder_size,
        decoder_intermediate_size=4 * transformer.decoder_size,
        decoder_num_attention_heads=transformer.heads,
        mask_ratio=mask_ratio,
    )


@torch.no_grad()
def initialise(mae: Any, *, side: int) -> None:
    """Start as He et al. do: weights after Glorot & Bengio 2010, fixed positions of sines and cosines.

    transformers 5.23 leaves the positions of a new model at zero, with which it learns nothing. `side`: patches a row.
    """
    for layer in mae.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight.flatten(1))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for token in (mae.vit.embeddings.cls_token, mae.decoder.mask_token):
        nn.init.normal_(token, std=0.02)
    for positions in (mae.vit.embeddings.position_embeddings, mae.decoder.decoder_pos_embed):
        positions.copy_(sine_positions(side, width=positions.shape[2]))


def sine_positions(side: int, *, width: int) -> torch.Tensor:
    """Places of `side` x `side` patches, row by row, as sines and cosines: [1 + side**2, width], zeros for the class.

    The first half tells the column, the second the row, each by sines and then by cosines.
    """
    frequencies = 10_000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side)[:, None] * frequencies  # [side, width / 4]
    along = torch.cat([angles.sin(), angles.cos()], 1)  # [side, width / 2]
    columns, rows = along.repeat(side, 1), along.repeat_interleave(side, 0)
    return torch.cat([torch.zeros(1, width), torch.cat([columns, rows], 1).float()])


def encoder_config(config: Any) -> Any:
    """The ViTConfig of a ViTMAEConfig's encoder, which has the same weights by the same names."""
    shared = transformers.ViTConfig().to_dict().keys() - {"model_type", "architectures", "transformers_version"}
    return transformers.ViTConfig(**{name: value for name, value in config.to_dict().items() if name in shared})
