"""A tiny random language model with its tokenizer, as people upload one."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

MOST_TOKENS = 128


def write_llama(folder: Path) -> None:
    """Write the folder of a Llama of some 50,000 weights, that knows bytes, and ends its turns with </s>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([], trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", model_max_length=MOST_TOKENS
    )
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=MOST_TOKENS, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


@cache
def llama_zip() -> bytes:
    """The same as a zip."""
    content = io.BytesIO()
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(content, "w") as archive:
        write_llama(Path(name))
        for path in sorted(Path(name).iterdir()):
            archive.write(path, f"llama/{path.name}")
    return content.getvalue()


def conversations(count: int = 12) -> bytes:
    """Data for the task chat."""
    lines = [
        [{"role": "user", "content": f"say {number}"}, {"role": "assistant", "content": f"it is {number}."}]
        for number in range(count)
    ]
    return "".join(json.dumps({"messages": messages}) + "\n" for messages in lines).encode()
