"""Masked language modelling guesses the words of a small language, and its encoders are worth something afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from contract import Recorder, trained

from core.catalog import method_named, read_spec
from core.data.examples import write_labelled_text, write_text
from core.data.profile import inspect
from core.errors import InvalidData, InvalidSpec
from tests.fresh import FreshProcesses

SPEC: dict[str, Any] = {
    "method": "masked_language_model",
    "architecture": {"architecture": "bert", "layers": 2, "hidden_size": 64, "heads": 2, "dropout": 0.0},
    "vocabulary": 300,
    "context_length": 128,
    "epochs": 20,
    "batch_size": 4,
    "learning_rate": 5e-3,
    "masking_rate": 0.3,
    "validation_fraction": 0.1,
}
IN_TRANSFORMERS = """
import sys, torch, transformers
network = transformers.AutoModelForMaskedLM.from_pretrained(sys.argv[1])
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
asked = tokenizer("the dog sleeps near the [MASK].", return_tensors="pt")
place = asked["input_ids"][0].tolist().index(tokenizer.mask_token_id)
with torch.no_grad():
    print(type(network).__name__, tokenizer.decode([int(network(**asked).logits[0, place].argmax())]))
"""


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("language") / "data"
    write_text(path)
    return path


@pytest.fixture(scope="module")
def encoder(language: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], Path, Recorder]:
    return trained(tmp_path_factory.mktemp("encoder"), SPEC, dataset=language)


def test_learns_a_small_language_and_opens_in_transformers(encoder, fresh: FreshProcesses) -> None:
    metrics, folder, recorder = encoder
    assert metrics["valid_loss"] < 1.5  # by counting tokens alone: 3.2
    assert metrics["valid_accuracy"] > 0.4  # and 0.17, by the most frequent one
    assert metrics["padding"] < 0.1  # alone in their rows, 0.8
    name, word = fresh.run(IN_TRANSFORMERS, folder).split()
    assert name == "BertForMaskedLM"
    assert word in {"grass", "tree", "river", "bread", "nest"}  # what animals are near, and no part of a machine
    losses = [values["valid_loss"] for _, values in recorder.metrics_seen if "valid_loss" in values]
    assert losses[-1] < losses[0] - 1
    assert metrics["valid_loss"] == pytest.approx(losses[-1], rel=1e-5)
    assert len(recorder.samples) == SPEC["epochs"]
    text = recorder.samples[-1].path.read_text()
    assert "[MASK]" in text
    assert "[CLS]" not in text


def test_is_a_base_of_text_classification(encoder, tmp_path: Path) -> None:
    write_labelled_text(tmp_path / "data")
    spec = {
        "method": "fine_tuning",
        "task": "text_classification",
        "validation_fraction": 0.2,
        "epochs": 4,
        "learning_rate": 1e-3,
    }
    metrics, _, _ = trained(tmp_path, spec, dataset=tmp_path / "data", base=encoder[1])
    assert metrics["valid_accuracy"] > 0.95


def test_goes_on_from_a_base_with_its_tokenizer(encoder, language: Path, tmp_path: Path) -> None:
    spec = {"method": "masked_language_model", "steps": 2, "validation_fraction": 0.1, "whole_word_masking": True}
    metrics, folder, _ = trained(tmp_path, spec, dataset=language, base=encoder[1])
    assert metrics["valid_loss"] < 1.3 * encoder[0]["valid_loss"]
    assert (folder / "tokenizer.json").read_bytes() == (encoder[1] / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("tokenizer", ["bpe", "unigram"])
def test_trains_a_modernbert_with_every_tokenizer(language: Path, tokenizer: str, tmp_path: Path) -> None:
    architecture = {
        "architecture": "modernbert",
        "layers": 2,
        "hidden_size": 32,
        "heads": 2,
        "local_attention": 8,
        "global_every": 2,
    }
    spec = {**SPEC, "architecture": architecture, "tokenizer": tokenizer, "epochs": 2, "whole_word_masking": True}
    metrics, folder, _ = trained(tmp_path, spec, dataset=language)
    assert metrics["valid_loss"] < 5.5
    assert json.loads((folder / "config.json").read_text())["layer_types"] == ["full_attention", "sliding_attention"]


def test_long_texts_are_read_to_their_end(tmp_path: Path) -> None:
    write_text(tmp_path / "lines")
    (tmp_path / "data").write_text((tmp_path / "lines").read_text().replace("\n", " "))
    spec = {**SPEC, "steps": 1, "epochs": None}
    metrics, _, recorder = trained(tmp_path / "run", spec, dataset=tmp_path / "data")
    words = len((tmp_path / "lines").read_text().split())
    assert metrics["tokens"] > 0.85 * words
    assert any("the end of each is held out" in text for text in recorder.messages)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"base": "model-1"}, "architecture would have no effect"),
        ({"tokenizer": "characters"}, "tokenizer"),
        ({"masking_rate": 0}, "masking_rate"),
        ({"architecture": {"architecture": "gpt2"}}, "architecture"),
        ({"architecture": {"architecture": "bert", "hidden_size": 30, "heads": 4}}, "cannot be shared by 4 heads"),
        ({"vocabulary": None}, "vocabulary is needed"),
    ],
)
def test_refusals_name_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec, match=field):
        read_spec({"dataset": "file-1", **SPEC, **changes})


def test_refuses_what_data_or_base_forbid(encoder, language: Path, tmp_path: Path) -> None:
    check = method_named("masked_language_model").check
    assert check is not None
    with pytest.raises(InvalidSpec, match="no column 'body'") as refused:
        check(read_spec({"dataset": "file-1", **SPEC, "text": "body"}), inspect(language))
    assert refused.value.param == "text"
    (tmp_path / "short").write_text("too little\nto learn from\n")
    with pytest.raises(InvalidData, match="too few to learn a language"):
        check(read_spec({"dataset": "file-1", **SPEC}), inspect(tmp_path / "short"))
    spec = {"method": "masked_language_model", "context_length": 256}
    with pytest.raises(InvalidSpec, match="the base takes at most 128 tokens"):
        trained(tmp_path, spec, dataset=language, base=encoder[1])
