"""The language models that a spec may ask for: made from scratch, or opened to learn more."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, Self

import transformers
from pydantic import Field, model_validator
from torch import nn

from core.networks.architectures import Dropout, Size, Transformer

MULTIPLE = 32  # of which the widths of gated layers are


class BERT(Transformer):
    """A bidirectional encoder with learned positions (Devlin et al. 2019)."""

    architecture: Literal["bert"] = Field("bert", description="BERT of transformers.")
    hidden_size: Size = Field(256, description="Width of a token's vector.")


class ModernBERT(Transformer):
    """A bidirectional encoder with rotary positions, gated layers and local attention (Warner et al. 2024)."""

    architecture: Literal["modernbert"] = Field("modernbert", description="ModernBERT of transformers.")
    hidden_size: Size = Field(256, description="Width of a token's vector.")
    dropout: Dropout = Field(0.0, description="Fraction of activations dropped in training.")
    local_attention: int = Field(
        128, ge=2, le=65_536, multiple_of=2, description="Tokens that local layers look at, half of them on each side."
    )
    global_every: int = Field(3, ge=1, le=128, description="Every so manieth layer looks at the whole text.")


class GPT2(Transformer):
    """A decoder with learned positions (Radford et al. 2019)."""

    architecture: Literal["gpt2"] = Field("gpt2", description="GPT-2 of transformers.")
    hidden_size: Size = Field(256, description="Width of a token's vector.")


class Llama(Transformer):
    """A decoder with rotary positions and gated layers (Touvron et al. 2023)."""

    architecture: Literal["llama"] = Field("llama", description="Llama of transformers.")
    hidden_size: Size = Field(256, description="Width of a token's vector.")
    key_value_heads: int | None = Field(
        None, ge=1, le=256, description="Heads of keys and values, shared by those of queries; none: as many."
    )
    dropout: Dropout = Field(0.0, description="Fraction of attention dropped in training.")

    @model_validator(mode="after")
    def _heads_are_shared_evenly(self) -> Self:
        if self.key_value_heads is not None and self.heads % self.key_value_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.key_value_heads} heads of keys and values")
        return self


EncoderArchitecture = Annotated[BERT | ModernBERT, Field(discriminator="architecture")]
DecoderArchitecture = Annotated[GPT2 | Llama, Field(discriminator="architecture")]


class LanguageModel(NamedTuple):
    """A network of transformers, and what makes its tokens."""

    network: nn.Module
    tokenizer: Any


def build_encoder(architecture: BERT | ModernBERT, tokenizer: Any, *, context_length: int) -> nn.Module:
    """A new masked language model for this tokenizer.

    Attention itself is not dropped: it would take the slow way through attention, and pretraining does as well without.
    """
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": architecture.hidden_size,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "max_position_embeddings": context_length,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if isinstance(architecture, BERT):
        early = transformers.BertConfig(
            **sizes,
            intermediate_size=4 * architecture.hidden_size,
            hidden_dropout_prob=architecture.dropout,
            attention_probs_dropout_prob=0.0,
        )
        bert: nn.Module = transformers.BertForMaskedLM(early)
        return bert
    config = transformers.ModernBertConfig(
        **sizes,
        intermediate_size=_gated_width(architecture.hidden_size),
        local_attention=architecture.local_attention,
        layer_types=[
            "sliding_attention" if layer % architecture.global_every else "full_attention"
            for layer in range(architecture.layers)
        ],
        embedding_dropout=architecture.dropout,
        mlp_dropout=architecture.dropout,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    modern: nn.Module = transformers.ModernBertForMaskedLM(config)
    return modern


def build_decoder(architecture: GPT2 | Llama, tokenizer: Any, *, context_length: int) -> nn.Module:
    """A new causal language model for this tokenizer, whose output weights are its input embeddings."""
    tokens = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    if isinstance(architecture, GPT2):
        small = transformers.GPT2Config(
            **tokens,
            n_positions=context_length,
            n_embd=architecture.hidden_size,
            n_layer=architecture.layers,
            n_head=architecture.heads,
            embd_pdrop=architecture.dropout,
            resid_pdrop=architecture.dropout,
            attn_pdrop=0.0,
        )
        gpt2: nn.Module = transformers.GPT2LMHeadModel(small)
        return gpt2
    config = transformers.LlamaConfig(
        **tokens,
        max_position_embeddings=context_length,
        hidden_size=architecture.hidden_size,
        intermediate_size=_gated_width(architecture.hidden_size),
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.key_value_heads or architecture.heads,
        rms_norm_eps=1e-5,
        attention_dropout=architecture.dropout,
    )
    llama: nn.Module = transformers.LlamaForCausalLM(config)
    return llama


def _gated_width(hidden_size: int) -> int:
    """Of a gated layer that has as many weights as a plain one of four times the width (Shazeer 2020)."""
    return -(-8 * hidden_size // (3 * MULTIPLE)) * MULTIPLE
