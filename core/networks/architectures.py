"""The architectures that a spec may ask for, and how they become networks that fit the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import transformers
from pydantic import Field, model_validator
from torch import nn

from core.data.profile import Kind
from core.errors import InvalidSpec
from core.networks.convnet import ConvolutionalNetwork
from core.networks.multilayer_perceptron import MultilayerPerceptron
from core.spec import Frozen

Size = Annotated[int, Field(ge=1, le=16_384)]
Sizes = Annotated[list[Size], Field(min_length=1, max_length=16)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


class MLP(Frozen):
    """Dense layers, for tables and small images."""

    architecture: Literal["mlp"] = Field("mlp", description="Dense layers with ReLU.")
    hidden_sizes: Sizes = Field([256, 256], description="Widths of the hidden layers.")
    dropout: Dropout = Field(0.0, description="Fraction of hidden units dropped in training.")
    input_dropout: Dropout = Field(0.0, description="Fraction of inputs dropped in training.")


class ConvNet(Frozen):
    """Plain convolutions, for small images and for recordings."""

    architecture: Literal["convnet"] = Field(
        "convnet", description="Convolutions of width 3, each followed by pooling."
    )
    channels: Annotated[list[Size], Field(min_length=1, max_length=8)] = Field(
        [32, 64, 128], description="Channels of the convolutions, each of which halves the image, or the frames."
    )
    dropout: Dropout = Field(0.0, description="Fraction of the last features dropped in training.")


class ResNet(Frozen):
    """A residual network (He et al. 2016), in the form of transformers."""

    architecture: Literal["resnet"] = Field("resnet", description="Residual network of transformers.")
    depths: Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=1, max_length=8)] = Field(
        [2, 2, 2], description="Blocks in each stage; every stage but the first halves the image."
    )
    hidden_sizes: Sizes = Field([64, 128, 256], description="Channels of each stage.")
    block: Literal["basic", "bottleneck"] = Field("basic", description="Kind of the blocks.")

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        if len(self.depths) != len(self.hidden_sizes):
            raise ValueError(f"depths names {len(self.depths)} stages, hidden_sizes {len(self.hidden_sizes)}")
        return self


class Transformer(Frozen):
    """What the sizes of both transformers have in common."""

    layers: int = Field(4, ge=1, le=128, description="Transformer layers.")
    hidden_size: Size = Field(128, description="Width of a token's vector.")
    heads: int = Field(4, ge=1, le=256, description="Attention heads in a layer; they share the hidden size.")
    dropout: Dropout = Field(0.1, description="Fraction of activations dropped in training.")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} cannot be shared by {self.heads} heads")
        return self


class ViT(Transformer):
    """A vision transformer (Dosovitskiy et al. 2021), in the form of transformers."""

    architecture: Literal["vit"] = Field("vit", description="Vision transformer of transformers.")
    patch_size: int = Field(4, ge=1, le=64, description="Pixels a side of the patches that become tokens.")
    dropout: Dropout = Field(0.0, description="Fraction of activations dropped in training.")


class BERT(Transformer):
    """A text encoder (Devlin et al. 2019), in the form of transformers, with a WordPiece vocabulary of the data."""

    architecture: Literal["bert"] = Field("bert", description="BERT of transformers.")
    vocabulary: int = Field(8000, ge=100, le=250_000, description="Word pieces learned from the data set, at most.")
    max_length: int = Field(256, ge=8, le=8192, description="Tokens of a text that are read; the rest is cut off.")


Architecture = Annotated[MLP | ConvNet | ResNet | ViT | BERT, Field(discriminator="architecture")]


DEFAULTS: Mapping[Kind, MLP | ConvNet | BERT] = {
    Kind.TABLE: MLP(),
    Kind.IMAGES: ConvNet(),
    Kind.TEXT: BERT(),
    Kind.AUDIO: ConvNet(dropout=0.3),
}
READS = {
    "mlp": (Kind.TABLE, Kind.IMAGES, Kind.AUDIO),
    "convnet": (Kind.IMAGES, Kind.AUDIO),
    "bert": (Kind.TEXT,),
}


def check_kind(architecture: MLP | ConvNet | ResNet | ViT | BERT, kind: Kind, *, param: str) -> None:
    """Raise InvalidSpec where the architecture does not read this kind of data."""
    readable = READS.get(architecture.architecture, (Kind.IMAGES,))
    if kind not in readable:
        raise InvalidSpec(
            f"architecture {architecture.architecture} is for {' or '.join(readable)}, and the data set holds {kind}: "
            f"take {DEFAULTS[kind].architecture}, say",
            param=param,
        )


def check_image_shape(architecture: MLP | ConvNet | ResNet | ViT | BERT, shape: Sequence[int]) -> None:
    """Raise InvalidSpec where images of this shape, (channels, height, width), are too small for the architecture.

    Recordings, (features, frames), are as long as their frames.
    """
    side = min(shape[1:])
    if len(shape) == 2:
        _check_frames(architecture, side)
        return
    if isinstance(architecture, ConvNet) and side < 2 ** len(architecture.channels):
        cure = f"give fewer channels, or image_size {2 ** len(architecture.channels)} or more"
        raise InvalidSpec(
            f"a convnet of {len(architecture.channels)} convolutions has no use for {side} pixels: {cure}"
        )
    if isinstance(architecture, ResNet) and side <= 2 ** (len(architecture.depths) + 1):
        least = 2 ** (len(architecture.depths) + 1) + 1
        cure = f"give fewer stages, or image_size {least} or more, or architecture convnet"
        raise InvalidSpec(f"a resnet of {len(architecture.depths)} stages has no use for {side} pixels: {cure}")
    if isinstance(architecture, ViT) and any(length % architecture.patch_size for length in shape[1:]):
        raise InvalidSpec(
            f"patches of {architecture.patch_size} pixels do not divide images of {shape[1]}x{shape[2]}: "
            "give another patch_size, or an image_size that is a multiple of it"
        )


def _check_frames(architecture: MLP | ConvNet | ResNet | ViT | BERT, frames: int) -> None:
    if isinstance(architecture, ConvNet) and frames < 2 ** len(architecture.channels):
        raise InvalidSpec(
            f"a convnet of {len(architecture.channels)} convolutions has no use for {frames} frames: "
            "give fewer channels"
        )


def build(
    architecture: MLP | ConvNet | ResNet | ViT | BERT,
    *,
    class_names: Sequence[str],
    shape: Sequence[int] = (),
    vocabulary: int = 0,
    pad_token: int = 0,
) -> nn.Module:
    """A new classifier of these classes.

    `shape`: (features,) of a table, (features, frames) of recordings, (channels, height, width) of images;
    `vocabulary`: tokens, of text.
    Raises InvalidSpec where architecture and images do not fit.
    """
    if len(shape) > 1:
        check_image_shape(architecture, shape)
    labels: Labels = {
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: i for i, name in enumerate(class_names)},
    }
    match architecture:
        case MLP():
            return MultilayerPerceptron(
                shape,
                len(class_names),
                hidden_sizes=architecture.hidden_sizes,
                dropout=architecture.dropout,
                input_dropout=architecture.input_dropout,
            )
        case ConvNet():
            return ConvolutionalNetwork(
                shape, len(class_names), channels=architecture.channels, dropout=architecture.dropout
            )
        case ResNet():
            return _resnet(architecture, shape, labels)
        case ViT():
            return _vit(architecture, shape, labels)
        case BERT():
            return _bert(architecture, labels, vocabulary=vocabulary, pad_token=pad_token)


def build_encoder(architecture: ResNet | ViT, *, shape: Sequence[int]) -> nn.Module:
    """A new encoder without a head for images of `shape` (channels, height, width); raises InvalidSpec as `build` does.

    A ViT's pooler is left at the identity: `pooler_output` is the tangens hyperbolicus of its class token.
    """
    check_image_shape(architecture, shape)
    if isinstance(architecture, ResNet):
        encoder: nn.Module = transformers.ResNetModel(_resnet_config(architecture, shape))
        return encoder
    vit: Any = transformers.ViTModel(_vit_config(architecture, shape))
    nn.init.eye_(vit.pooler.dense.weight)
    nn.init.zeros_(vit.pooler.dense.bias)
    vit.pooler.requires_grad_(False)
    module: nn.Module = vit
    return module


Labels = dict[str, Any]


def _resnet(architecture: ResNet, shape: Sequence[int], labels: Labels) -> nn.Module:
    module: nn.Module = transformers.ResNetForImageClassification(_resnet_config(architecture, shape, **labels))
    return module


def _resnet_config(architecture: ResNet, shape: Sequence[int], **labels: Any) -> Any:
    return transformers.ResNetConfig(
        num_channels=shape[0],
        embedding_size=architecture.hidden_sizes[0],
        hidden_sizes=architecture.hidden_sizes,
        depths=architecture.depths,
        layer_type=architecture.block,
        **labels,
    )


def _vit(architecture: ViT, shape: Sequence[int], labels: Labels) -> nn.Module:
    module: nn.Module = transformers.ViTForImageClassification(_vit_config(architecture, shape, **labels))
    return module


def _vit_config(architecture: ViT, shape: Sequence[int], **labels: Any) -> Any:
    return transformers.ViTConfig(
        image_size=(shape[1], shape[2]) if shape[1] != shape[2] else shape[1],
        patch_size=architecture.patch_size,
        num_channels=shape[0],
        **_transformer(architecture),
        **labels,
    )


def _bert(architecture: BERT, labels: Labels, *, vocabulary: int, pad_token: int) -> nn.Module:
    config = bert_config(architecture, vocabulary=vocabulary, pad_token=pad_token, **labels)
    module: nn.Module = transformers.BertForSequenceClassification(config)
    return module


def bert_config(architecture: BERT, *, vocabulary: int, pad_token: int, **others: Any) -> Any:
    """The configuration of transformers for a BERT of so many tokens."""
    return transformers.BertConfig(
        vocab_size=vocabulary,
        max_position_embeddings=architecture.max_length,
        pad_token_id=pad_token,
        **_transformer(architecture),
        **others,
    )


def _transformer(architecture: Transformer) -> dict[str, Any]:
    return {
        "num_hidden_layers": architecture.layers,
        "hidden_size": architecture.hidden_size,
        "num_attention_heads": architecture.heads,
        "intermediate_size": 4 * architecture.hidden_size,
        "hidden_dropout_prob": architecture.dropout,
        "attention_probs_dropout_prob": architecture.dropout,
    }
