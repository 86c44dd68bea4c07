"""Causal language modelling learns a small language as well as counting does, and writes it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from contract import Recorder, trained

from core.catalog import read_spec
from core.data.examples import write_text
from core.errors import InvalidData, InvalidSpec
from tests.fresh import FreshProcesses

SPEC: dict[str, Any] = {
    "method": "causal_language_model",
    "architecture": {"architecture": "gpt2", "layers": 2, "hidden_size": 64, "heads": 2, "dropout": 0.0},
    "vocabulary": 320,
    "context_length": 48,
    "epochs": 10,
    "learning_rate": 5e-3,
    "batch_size": 16,
    "validation_fraction": 0.1,
    "sample_length": 30,
    "prompts": ["the dog"],
}
IN_TRANSFORMERS = """
import sys, transformers
network = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
asked = tokenizer("the engine lifts", return_tensors="pt")
print(type(network).__name__, tokenizer.decode(network.generate(**asked, max_new_tokens=8, do_sample=False)[0]))
"""


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("language") / "data"
    write_text(path)
    return path


@pytest.fixture(scope="module")
def decoder(language: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], Path, Recorder]:
    return trained(tmp_path_factory.mktemp("decoder"), SPEC, dataset=language)


def entropy_of_the_language() -> float:
    """Nats a document of the small language carries: its topic, then three subjects, verbs and objects of five each."""
    return math.log(2) + 9 * math.log(5)


def test_learns_a_small_language_almost_as_well_as_it_can_be(decoder, language: Path) -> None:
    metrics = decoder[0]
    documents = language.read_text().splitlines()
    tokens = metrics["tokens"] / (0.9 * len(documents)) - 1  # a document, but for its first, which nothing predicts
    best = entropy_of_the_language() / tokens
    assert best <= metrics["valid_loss"] < 1.3 * best
    assert metrics["valid_perplexity"] == pytest.approx(math.exp(metrics["valid_loss"]))
    assert metrics["padding"] < 0.02


def test_writes_what_it_learned(decoder) -> None:
    recorder = decoder[2]
    assert len(recorder.samples) >= SPEC["epochs"]
    first, last = (recorder.samples[place].path.read_text() for place in (0, -1))
    assert last.startswith("the dog")
    assert first != last
    assert last.split()[2] in {"eats", "sleeps", "runs", "hides", "plays"}


def test_opens_in_transformers_and_generates(decoder, fresh: FreshProcesses) -> None:
    said = fresh.run(IN_TRANSFORMERS, decoder[1])
    assert said.startswith("GPT2LMHeadModel the engine lifts")
    assert any(word in said for word in ("wheel", "beam", "belt", "steel", "shaft"))


def test_goes_on_from_a_base(decoder, language: Path, tmp_path: Path) -> None:
    spec = {"method": "causal_language_model", "steps": 2, "validation_fraction": 0.1, "sample_length": 0}
    metrics, folder, recorder = trained(tmp_path, spec, dataset=language, base=decoder[1])
    assert metrics["valid_loss"] < 1.05 * decoder[0]["valid_loss"]
    assert (folder / "tokenizer.json").read_bytes() == (decoder[1] / "tokenizer.json").read_bytes()
    assert not recorder.samples


def test_trains_a_llama_with_shared_keys_and_tied_embeddings(language: Path, tmp_path: Path) -> None:
    architecture = {"architecture": "llama", "layers": 1, "hidden_size": 32, "heads": 4, "key_value_heads": 2}
    metrics, folder, _ = trained(tmp_path, {**SPEC, "architecture": architecture, "epochs": 4}, dataset=language)
    config = json.loads((folder / "config.json").read_text())
    assert config["num_key_value_heads"] == 2
    assert config["tie_word_embeddings"]
    assert metrics["valid_loss"] < 3


def test_says_when_the_text_is_little_and_short(decoder) -> None:
    messages = "\n".join(decoder[2].messages)
    assert "tokens are few" in messages


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"base": "model-1"}, "architecture would have no effect"),
        ({"architecture": {"architecture": "bert"}}, "architecture"),
        ({"architecture": {"architecture": "llama", "heads": 4, "key_value_heads": 3}}, "cannot share 3 heads"),
        ({"sample_length": 0}, "prompts would have no effect"),
        ({"top_p": 0}, "top_p"),
    ],
)
def test_refusals_name_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec, match=field):
        read_spec({"dataset": "file-1", **SPEC, **changes})


def test_refuses_a_base_that_cannot_keep_documents_apart(language: Path, decoder, tmp_path: Path) -> None:
    import shutil

    import transformers

    base = tmp_path / "bloom"
    transformers.BloomForCausalLM(
        transformers.BloomConfig(vocab_size=320, hidden_size=16, n_layer=1, n_head=2)
    ).save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(decoder[1] / name, base / name)
    with pytest.raises(InvalidData, match="lets packed documents see each other") as refused:
        trained(tmp_path, {"method": "causal_language_model"}, dataset=language, base=base)
    assert refused.value.param == "base"


def test_refuses_a_tokenizer_of_another_network(language: Path, decoder, tmp_path: Path) -> None:
    import shutil

    import transformers

    base = tmp_path / "small"
    config = transformers.GPT2Config(vocab_size=300, n_positions=32, n_embd=16, n_layer=1, n_head=1)
    transformers.GPT2LMHeadModel(config).save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(decoder[1] / name, base / name)
    with pytest.raises(InvalidData, match="tokens beyond the 300 that its network knows") as refused:
        trained(tmp_path, {"method": "causal_language_model"}, dataset=language, base=base)
    assert refused.value.param == "base"
