"""Vectors of texts, pooled as the model's folder says."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from core.errors import InvalidData, InvalidRequest
from core.networks.saving import save_network
from core.networks.word_vectors import VOCABULARY, WordVectors
from core.serving import embedding
from core.serving.embedding import embed
from core.serving.opening import Encoder, Opened, open_model
from core.serving.pooling import read_pooling
from tests.language_models import write_encoder

TEXTS = ["the white whale swims", "ice"]


def vectors(model: Opened, inputs: Sequence[Any], *, dimensions: int | None = None) -> torch.Tensor:
    messages = [message for step in embed(model, inputs, dimensions=dimensions) for message in step]
    found = [base64.b64decode(one["base64"]) for one in messages if one["type"] == "vector"]
    return torch.from_numpy(np.stack([np.frombuffer(numbers, "<f4") for numbers in found]).copy())


def write_modules(folder: Path, mode: str, *, normalize: bool, older: bool) -> None:
    """The files that sentence-transformers puts beside a model, of an older or the newer form."""
    kind = "sentence_transformers.models."
    modules = [{"type": f"{kind}Transformer", "path": ""}, {"type": f"{kind}Pooling", "path": "1_Pooling"}]
    modules += [{"type": f"{kind}Normalize", "path": "2_Normalize"}] if normalize else []
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    names = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "lasttoken": "lasttoken"}
    switches = {f"pooling_mode_{name}": key == mode for key, name in names.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(switches if older else {"pooling_mode": mode}))


POOLED = {
    "mean": lambda states: states.mean(0),
    "cls": lambda states: states[0],
    "max": lambda states: states.amax(0),
    "lasttoken": lambda states: states[-1],
}


@pytest.mark.parametrize("mode", POOLED)
@pytest.mark.parametrize("older", [True, False])
def test_a_sentence_encoder_pools_as_it_says(mode: str, older: bool, tmp_path: Path) -> None:
    write_encoder(tmp_path)
    write_modules(tmp_path, mode, normalize=older, older=older)
    model = open_model(tmp_path, device="cpu")
    network = transformers.AutoModel.from_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text, vector in zip(TEXTS, vectors(model, TEXTS), strict=True):
        with torch.no_grad():
            wanted = POOLED[mode](network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0])
        torch.testing.assert_close(vector, wanted / wanted.norm() if older else wanted, rtol=1e-4, atol=1e-5)


def test_modules_that_are_not_known_are_refused(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense", "path": "2"}]))
    with pytest.raises(InvalidData, match="Dense"):
        read_pooling(tmp_path)


def test_long_texts_are_read_by_fewer_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_encoder(tmp_path)
    model = open_model(tmp_path, device="cpu")
    texts = ["the whale", "the white whale swims near the house"] * 2
    whole = vectors(model, texts)
    assert len(list(embed(model, texts, dimensions=None))) == 2
    monkeypatch.setattr(embedding, "TOKENS_AT_ONCE", 4)
    assert len(list(embed(model, texts, dimensions=None))) == 5
    torch.testing.assert_close(vectors(model, texts), whole)


def test_the_folders_limit_on_texts_holds(tmp_path: Path) -> None:
    write_encoder(tmp_path)
    write_modules(tmp_path, "mean", normalize=True, older=True)
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 4}))
    model = open_model(tmp_path, device="cpu")
    assert isinstance(model, Encoder)
    with pytest.raises(InvalidRequest, match="input 1") as caught:
        vectors(model, ["a", TEXTS[0]])
    assert caught.value.code == "context_length_exceeded"


def test_word_vectors_are_averaged(tmp_path: Path) -> None:
    network = WordVectors.for_words(["whale", "ice", "cat"], 8)
    save_network(network, tmp_path)
    (tmp_path / VOCABULARY).write_text(json.dumps({"words": list(network.words)}))
    model = open_model(tmp_path, device="cpu")
    found = vectors(model, ["Whale and ice", [2]])
    mean = (network.vector("whale") + network.vector("ice")) / 2
    torch.testing.assert_close(found[0], mean / mean.norm())
    torch.testing.assert_close(found[1], network.vector("cat") / network.vector("cat").norm())
    short = vectors(model, ["cat"], dimensions=3)[0]
    torch.testing.assert_close(short, network.vector("cat")[:3] / network.vector("cat")[:3].norm())
    for inputs, dimensions in ((["nothing known"], None), ([[3]], None), (["cat"], 9)):
        with pytest.raises(InvalidRequest):
            vectors(model, inputs, dimensions=dimensions)
