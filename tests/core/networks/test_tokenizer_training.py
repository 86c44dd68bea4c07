"""Tokenizers are the same in every process, cut words as their kinds do, and open in transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from core.networks.tokenizer_training import train_decoder_tokenizer, train_encoder_tokenizer
from core.networks.unigram import train_unigram

CODE = """
import hashlib, random, sys
from core.networks.tokenizer_training import train_decoder_tokenizer, train_encoder_tokenizer

draw = random.Random(0)
words = ["".join(draw.choices("abcdefghijklmnopqrstuvw\u00e4\u00f6\u00fc", k=draw.randint(2, 9))) for _ in range(800)]
texts = [" ".join(draw.choice(words[: draw.randint(10, 800)]) for _ in range(20)) + "." for _ in range(400)]
for kind in ("wordpiece", "bpe", "unigram"):
    found = train_encoder_tokenizer(texts, kind=kind, size=600, lowercase=True, max_length=32)
    print(kind, len(found), hashlib.sha256(found.backend_tokenizer.to_str().encode()).hexdigest())
found = train_decoder_tokenizer(texts, size=600, max_length=32)
print(len(found), hashlib.sha256(found.backend_tokenizer.to_str().encode()).hexdigest())
"""
TEXTS = [f"The {colour} whale swims near {place}." for colour in ("white", "grey") for place in ("land", "ice", "us")]


def test_two_processes_learn_the_same_tokenizers() -> None:
    said = {
        subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(said) == 1
    assert said.pop().count(" 600 ") == 3


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_encoder_tokenizers_open_and_mask_a_word_with_its_space(kind: str, tmp_path: Path) -> None:
    tokenizer = train_encoder_tokenizer(TEXTS * 20, kind=kind, size=400, lowercase=True, max_length=16)  # type: ignore[arg-type]
    tokenizer.save_pretrained(tmp_path)
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = opened("The grey whale swims near ice.")["input_ids"]
    assert ids == tokenizer("The grey whale swims near ice.")["input_ids"]
    assert [ids[0], ids[-1]] == [opened.cls_token_id, opened.sep_token_id]
    with_mask = opened("The [MASK] whale swims near ice.")["input_ids"]
    assert opened.mask_token_id in with_mask
    assert [token for token in with_mask if token != opened.mask_token_id] == [
        token for token in ids if token not in opened("grey", add_special_tokens=False)["input_ids"]
    ]


def test_a_decoder_tokenizer_gives_back_every_text(tmp_path: Path) -> None:
    tokenizer = train_decoder_tokenizer(TEXTS, size=300, max_length=16)
    tokenizer.save_pretrained(tmp_path)
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (*TEXTS, "  Ünseen\n\ttext: 日本語 🐋 , isn't it?"):
        assert opened.decode(opened(text)["input_ids"]) == text


def test_a_unigram_vocabulary_is_as_good_as_the_one_of_tokenizers() -> None:
    import random

    draw = random.Random(1)
    stems = ["swim", "walk", "talk", "jump", "sing", "read", "paint", "climb", "wander", "whisper"]
    ends = ["", "s", "ed", "ing", "er", "ers", "able", "less", "lessly"]
    counts = {f"▁{stem}{end}": draw.randint(1, 50) for stem in stems for end in ends}
    found = train_unigram(counts, size=60, alphabet=100)
    assert len(found) == 60
    pieces = [piece for piece, _ in found]
    assert {f"▁{stem}" for stem in stems} & set(pieces)
    theirs = Tokenizer(models.Unigram())
    theirs.pre_tokenizer = pre_tokenizers.Metaspace()
    texts = [word.removeprefix("▁") for word, count in counts.items() for _ in range(count)]
    theirs.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=60, show_progress=False))
    ours = Tokenizer(models.Unigram([("<unk>", 0.0), *found], unk_id=0))
    ours.pre_tokenizer = pre_tokenizers.Metaspace()
    sizes = [sum(len(tokenizer.encode(text).ids) for text in texts) for tokenizer in (ours, theirs)]
    assert sizes[0] <= 1.02 * sizes[1]
