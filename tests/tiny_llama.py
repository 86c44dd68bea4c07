"""A Llama of a few thousand random weights whose tokenizer knows every byte, as people upload it."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from functools import cache
from pathlib import Path

CONTEXT = 128


def write_tiny_llama(folder: Path, *, context: int = CONTEXT, chat_template: str | None = None) -> Path:
    """A Hugging Face folder."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<pad>", "</s>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: place for place, token in enumerate([*tokens, *alphabet])}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(tokens)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokens) + len(alphabet), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=context, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
    wrapped.chat_template = chat_template
    wrapped.save_pretrained(folder)
    return folder


def zipped(folder: Path) -> bytes:
    """The folder as a base model is uploaded."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return buffer.getvalue()


@cache
def llama_zip() -> bytes:
    """The same, zipped."""
    with tempfile.TemporaryDirectory() as folder:
        return zipped(write_tiny_llama(Path(folder)))


def conversations(count: int = 12) -> bytes:
    """Data for the task chat."""
    lines = [
        [{"role": "user", "content": f"say {number}"}, {"role": "assistant", "content": f"it is {number}."}]
        for number in range(count)
    ]
    return "".join(json.dumps({"messages": messages}) + "\n" for messages in lines).encode()
