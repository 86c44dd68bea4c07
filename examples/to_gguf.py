"""Writes a Llama or GPT-2 trained by `causal_language_model` as GGUF, for llama.cpp and its like.

`python -m examples.to_gguf FOLDER FILE.gguf`: the artifacts' folder, and the file to write.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers

TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # GPT-2 keeps these the other way round


def convert(folder: Path, target: Path) -> None:
    """Weights in float32, sizes and tokenizer; llama.cpp's own tools quantise the file further."""
    network: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = network.config
    architecture = {"llama": gguf.MODEL_ARCH.LLAMA, "gpt2": gguf.MODEL_ARCH.GPT2}[config.model_type]
    writer = gguf.GGUFWriter(target, config.model_type)
    write_sizes(writer, config)
    write_tokenizer(writer, tokenizer)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, tensor in network.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        written = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(written, arranged(name, tensor, config).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    """What config.json says."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_vocab_size(config.vocab_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def write_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    """Byte-level BPE, cut into words as GPT-2's."""
    model = tokenizer.backend_tokenizer.to_str()
    merges = [" ".join(pair) for pair in json.loads(model)["model"]["merges"]]
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids)
    kinds = [gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL for number in range(len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)


def arranged(name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    """The tensor as GGUF has it: halves of rotary pairs side by side, GPT-2's matrices turned."""
    if config.model_type == "gpt2":
        return tensor.T if name.endswith(TRANSPOSED) else tensor
    heads = {"q_proj.weight": config.num_attention_heads, "k_proj.weight": config.num_key_value_heads}
    for suffix, count in heads.items():
        if name.endswith(suffix):
            parts = tensor.reshape(count, 2, tensor.shape[0] // count // 2, *tensor.shape[1:])
            return parts.swapaxes(1, 2).reshape(tensor.shape)
    return tensor


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
