"""Tokenizers of language models, learned from documents, the same ones every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from core.networks.unigram import train_unigram
from core.networks.word_pieces import MAX_ALPHABET, SPECIAL_TOKENS, train_word_pieces

TokenizerKind = Literal["wordpiece", "bpe", "unigram"]
END_OF_TEXT = "<|endoftext|>"
MASK = AddedToken("[MASK]", lstrip=True, special=True)  # stands for a word and the space before it


def train_encoder_tokenizer(
    texts: Iterable[str], *, kind: TokenizerKind, size: int, lowercase: bool, max_length: int
) -> Any:
    """A tokenizer for encoders, with `[CLS]`, `[SEP]` and `[MASK]`, of at most `size` tokens, for `transformers`.

    `texts` are gone through more than once. Word pieces as BERT's (Schuster & Nakajima 2012), byte pairs as GPT-2's
    (Sennrich et al. 2016), or a unigram model (Kudo 2018).
    """
    if kind == "wordpiece":
        return train_word_pieces(texts, size=size, max_length=max_length, lowercase=lowercase)
    train = _byte_pairs if kind == "bpe" else _unigram
    tokenizer = train(texts, size=size, lowercase=lowercase)
    begin, end = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", begin), ("[SEP]", end)]
    )
    return transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="[PAD]",  # noqa: S106 - no password
        unk_token="[UNK]",  # noqa: S106 - no password
        cls_token="[CLS]",  # noqa: S106 - no password
        sep_token="[SEP]",  # noqa: S106 - no password
        mask_token=MASK,
    )


def train_decoder_tokenizer(texts: Iterable[str], *, size: int, max_length: int) -> Any:
    """A byte-level tokenizer as GPT-2's (Radford et al. 2019), of at most `size` tokens, for `transformers`.

    It gives back every text exactly. One token begins and ends texts, and fills rows.
    """
    tokenizer = _trained_on_bytes(texts, size=size, special_tokens=[END_OF_TEXT], normalizer=None, prefix_space=False)
    return transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def _byte_pairs(texts: Iterable[str], *, size: int, lowercase: bool) -> Tokenizer:
    special = [token if token != MASK.content else MASK for token in SPECIAL_TOKENS]
    normalizer = normalizers.Lowercase() if lowercase else None
    return _trained_on_bytes(texts, size=size, special_tokens=special, normalizer=normalizer, prefix_space=True)


def _trained_on_bytes(
    texts: Iterable[str], *, size: int, special_tokens: list[Any], normalizer: Any, prefix_space: bool
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special_tokens,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _unigram(texts: Iterable[str], *, size: int, lowercase: bool) -> Tokenizer:
    steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])]
    normalizer = normalizers.Sequence([*steps, normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()])
    words_of = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in words_of.pre_tokenize_str(normalizer.normalize_str(text)))
    room = size - len(SPECIAL_TOKENS)
    found = train_unigram(counts, size=room, alphabet=min(MAX_ALPHABET, room // 3))
    special = [(token, 0.0) for token in SPECIAL_TOKENS]
    tokenizer = Tokenizer(models.Unigram([*special, *found], unk_id=SPECIAL_TOKENS.index("[UNK]")))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = words_of
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer
