"""WordPiece vocabularies learned from texts, the same ones every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MAX_ALPHABET = 1000


def train_word_pieces(texts: Iterable[str], *, size: int, max_length: int, lowercase: bool = True) -> Any:
    """A BERT tokenizer with at most `size` pieces, for `transformers` (Schuster & Nakajima 2012).

    `texts` are gone through twice.

    The `tokenizers` trainer numbers the pieces inside words in the order of a hash map, and breaks ties by these
    numbers, so that two trainings differ; pieces that are given to it beforehand keep their order.
    """
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    counts = Counter(char for text in texts for char in normalizer.normalize_str(text) if not char.isspace())
    limit = min(MAX_ALPHABET, (size - len(SPECIAL_TOKENS)) // 3)
    alphabet = sorted(sorted(counts, key=lambda char: (-counts[char], char))[:limit])
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL_TOKENS, *alphabet, *(f"##{char}" for char in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.BertTokenizer(vocab=tokenizer.get_vocab(), do_lower_case=lowercase, model_max_length=max_length)
