"""A model's folder is opened as what its configuration says, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from core.errors import InvalidData
from core.networks.pretrained import open_config, open_pretrained

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = transformers.BertConfig(**SIZES, num_labels=3)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("change", [{"hidden_size": 32}, {"vocab_size": 60}, {"max_position_embeddings": 64}])
def test_weights_of_other_shapes_than_the_configuration_says_are_refused(folder: Path, change: dict[str, Any]) -> None:
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **change}))
    with pytest.raises(InvalidData, match=r"do not fit the config\.json") as caught:
        open_pretrained(folder, "AutoModel", param="base")
    assert caught.value.param == "base"


def test_a_head_of_other_classes_is_new_and_a_body_of_another_size_is_refused(folder: Path) -> None:
    config = open_config(folder, param="base")
    config.num_labels = 5
    opened = open_pretrained(folder, "AutoModelForSequenceClassification", param="base", config=config)
    assert opened.new_parameters == {"classifier.weight", "classifier.bias"}
    config.hidden_size = 32
    with pytest.raises(InvalidData, match="do not fit"):
        open_pretrained(folder, "AutoModelForSequenceClassification", param="base", config=config)
