"""Fine-tuning starts from every kind of base, changes only what its strategy says, and its artifacts open anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from contract import Recorder, RequestAfter, method_named, prepare, run_example, trained, weights_of
from safetensors.torch import load_file

from core import load_model
from core.catalog import read_spec
from core.data.examples import write_images, write_labelled_text, write_table
from core.data.profile import inspect
from core.errors import InvalidData, InvalidSpec
from core.methods import classification
from core.networks.word_pieces import train_word_pieces
from core.registry import Example

TEXT = {"method": "fine_tuning", "base": "model-base", "task": "text_classification", "batch_size": 16}
IMAGES = {"method": "fine_tuning", "base": "model-base", "task": "image_classification", "batch_size": 32}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "data.jsonl"
    write_labelled_text(path, documents=80)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "data.zip"
    write_images(path, count=64)
    return path


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    """A folder as people upload it: an encoder without a head, random, with its tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    words = [json.loads(line)["text"] for line in texts.read_text().splitlines()]
    tokenizer = train_word_pieces(words, size=150, max_length=32)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of other classes, of larger images in colour."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=20, patch_size=5, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        id2label={0: "x", 1: "y", 2: "z"}, label2id={"x": 0, "y": 1, "z": 2},
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    scaling = {"size": {"height": 20, "width": 20}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(scaling))
    return folder


def test_all_weights_learn_from_an_encoder_without_a_head(tmp_path: Path, texts: Path, bert: Path) -> None:
    spec = {**TEXT, "epochs": 20, "learning_rate": 3e-3, "validation_fraction": 0.25}
    metrics, folder, _ = trained(tmp_path, spec, dataset=texts, base=bert)
    assert metrics["valid_accuracy"] > 0.95
    assert metrics["trained_parameters"] == metrics["parameters"]
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    asked = tokenizer("the crane lifts a beam.", return_tensors="pt")
    with torch.no_grad():
        logits = network(**asked).logits
        torch.testing.assert_close(load_model(folder)(**asked).logits, logits)
    assert network.config.id2label[int(logits.argmax())] == "machines"
    assert (folder / "confusion_matrix.png").exists()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
def test_adapters_alone_change_and_open_in_peft(tmp_path: Path, texts: Path, bert: Path) -> None:
    spec = {**TEXT, "strategy": "lora", "lora": {"rank": 4}, "epochs": 20, "learning_rate": 1e-2}
    metrics, folder, _ = trained(tmp_path, spec, dataset=texts, base=bert)
    assert metrics["train_accuracy"] > 0.9
    assert metrics["trained_parameters"] < metrics["parameters"] / 2
    before, after = load_file(bert / "model.safetensors"), load_file(folder / "model.safetensors")
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[f"bert.{name}"])}
    assert changed
    assert all(name.endswith("weight") and "embeddings" not in name and "LayerNorm" not in name for name in changed)
    query = "encoder.layer.0.attention.self.query.weight"
    assert torch.linalg.matrix_rank(after[f"bert.{query}"] - before[query], rtol=1e-3) <= 4
    asked = {"input_ids": torch.tensor([[2, 20, 30, 3]])}
    base = transformers.AutoModelForSequenceClassification.from_pretrained(bert)
    adapted = peft.PeftModel.from_pretrained(base, folder / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted(**asked).logits, load_model(folder)(**asked).logits, atol=1e-5, rtol=1e-4)
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] is None


def test_a_frozen_encoder_stays_bit_for_bit(tmp_path: Path, images: Path, vit: Path) -> None:
    spec = {**IMAGES, "strategy": "frozen_encoder", "epochs": 3, "jitter": 1, "learning_rate": 3e-2}
    _, folder, _ = trained(tmp_path, spec, dataset=images, base=vit)
    before, after = load_file(vit / "model.safetensors"), load_file(folder / "model.safetensors")
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert after["classifier.weight"].shape == (2, 32)


def test_features_computed_once_train_the_same_head(tmp_path: Path, images: Path, vit: Path, monkeypatch: Any) -> None:
    from core.tasks import classification as task

    spec = {**IMAGES, "strategy": "frozen_encoder", "epochs": 3}
    _, once, _ = trained(tmp_path / "once", spec, dataset=images, base=vit)
    monkeypatch.setattr(task, "has_fixed_features", lambda *_: False)
    _, each, _ = trained(tmp_path / "each", spec, dataset=images, base=vit)
    for name, tensor in load_file(once / "model.safetensors").items():
        torch.testing.assert_close(tensor, load_file(each / "model.safetensors")[name], atol=1e-4, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("strategy", ["lora", "frozen_encoder"])
def test_resumed_it_ends_where_the_uninterrupted_run_ends(
    tmp_path: Path, texts: Path, bert: Path, strategy: str
) -> None:
    example = Example({**TEXT, "strategy": strategy, "steps": 5}, lambda path: None)
    inputs = {"dataset": texts, "base": bert}
    run_example(example, tmp_path / "whole", inputs=inputs)
    recorder, control = Recorder(), RequestAfter("interrupt", steps=2)
    assert run_example(example, tmp_path / "1", inputs=inputs, recorder=recorder, control=control) is None
    kept = load_file(recorder.checkpoints[-1].path)
    assert not [name for name in kept if "embeddings" in name]
    run_example(example, tmp_path / "2", inputs=inputs, resume=recorder.checkpoints[-1].path)
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "2")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_a_tokenizer_without_a_limit_stays_within_the_positions(tmp_path: Path, texts: Path, bert: Path) -> None:
    base = tmp_path / "base"
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert, model_max_length=10**30)
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8, pad_token_id=0, num_labels=2, problem_type="regression",
    )  # fmt: skip
    transformers.RobertaForSequenceClassification(config).save_pretrained(base)
    tokenizer.save_pretrained(base)
    _, folder, recorder = trained(tmp_path / "run", {**TEXT, "steps": 1}, dataset=texts, base=base)
    assert any("longer than 7 tokens" in text for text in recorder.messages)
    assert json.loads((folder / "config.json").read_text())["problem_type"] == "single_label_classification"


def test_a_pooler_that_the_base_lacks_learns_with_the_head(tmp_path: Path, texts: Path, bert: Path) -> None:
    base = tmp_path / "base"
    transformers.BertModel.from_pretrained(bert, add_pooling_layer=False).save_pretrained(base)
    transformers.AutoTokenizer.from_pretrained(bert).save_pretrained(base)
    spec = {**TEXT, "strategy": "frozen_encoder", "steps": 3}
    metrics, _, _ = trained(tmp_path / "run", spec, dataset=texts, base=base)
    assert metrics["trained_parameters"] == 32 * 32 + 32 + 2 * 32 + 2


@pytest.mark.parametrize("strategy", ["full", "frozen_encoder"])
def test_a_base_made_here_gets_a_head_for_new_classes(tmp_path: Path, strategy: str) -> None:
    write_table(tmp_path / "first")
    spec: dict[str, Any] = {"method": "classification", "epochs": 3}
    _, base, _ = trained(tmp_path / "base", spec, dataset=tmp_path / "first")
    renamed = (tmp_path / "first").read_text().replace(",a\n", ",b\n").replace(",c\n", ",d\n")
    (tmp_path / "second").write_text(renamed)
    spec = {
        "method": "fine_tuning",
        "task": "table_classification",
        "base": "model-1",
        "strategy": strategy,
        "epochs": 8,
    }
    metrics, folder, _ = trained(
        tmp_path / "run", {**spec, "learning_rate": 1e-2}, dataset=tmp_path / "second", base=base
    )
    assert metrics["train_accuracy"] > 0.85
    assert list(json.loads((folder / "config.json").read_text())["id2label"].values()) == ["b", "d"]
    before, after = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    kept = [name for name in before if name.startswith("encoder") and torch.equal(before[name], after[name])]
    assert bool(kept) == (strategy == "frozen_encoder")


def test_reinitialize_forgets_the_weights_alone(tmp_path: Path, texts: Path, bert: Path) -> None:
    spec = {**TEXT, "reinitialize": True, "steps": 1, "learning_rate": 1e-9}
    _, folder, _ = trained(tmp_path, spec, dataset=texts, base=bert)
    before, after = load_file(bert / "model.safetensors"), load_file(folder / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    assert before[name].shape == after[f"bert.{name}"].shape
    assert torch.corrcoef(torch.stack([before[name].flatten(), after[f"bert.{name}"].flatten()]))[0, 1].abs() < 0.2
    assert (folder / "tokenizer.json").read_text() == (bert / "tokenizer.json").read_text()


def test_says_how_many_texts_are_cut(tmp_path: Path, texts: Path, bert: Path) -> None:
    _, _, recorder = trained(tmp_path, {**TEXT, "steps": 1, "max_length": 6}, dataset=texts, base=bert)
    assert any("of 80 texts are longer than 6 tokens" in text for text in recorder.messages)


def test_refuses_bases_that_do_not_fit(tmp_path: Path, texts: Path, images: Path, bert: Path, vit: Path) -> None:
    with pytest.raises(InvalidData, match="cannot learn to classify text: name a base") as raised:
        trained(tmp_path / "1", {**TEXT, "steps": 1}, dataset=texts, base=vit)
    assert raised.value.param == "base"
    with pytest.raises(InvalidData, match="has no preprocessor_config"):
        trained(tmp_path / "2", {**IMAGES, "steps": 1}, dataset=images, base=bert)
    bare = tmp_path / "bare"
    transformers.BertModel.from_pretrained(bert).save_pretrained(bare)
    with pytest.raises(InvalidData, match="no tokenizer: put tokenizer"):
        trained(tmp_path / "3", {**TEXT, "steps": 1}, dataset=texts, base=bare)
    with pytest.raises(InvalidSpec, match="the base takes at most 32 tokens"):
        trained(tmp_path / "4", {**TEXT, "steps": 1, "max_length": 64}, dataset=texts, base=bert)
    spec = {**TEXT, "steps": 1, "strategy": "lora", "lora": {"target_modules": ["q_proj"]}}
    with pytest.raises(InvalidSpec, match="it has: dense, key, query, value"):
        trained(tmp_path / "5", spec, dataset=texts, base=bert)


def test_refuses_adapters_for_our_own_networks(tmp_path: Path) -> None:
    inputs = prepare(classification.EXAMPLE, tmp_path / "base")
    spec = {"method": "classification", "architecture": {"architecture": "convnet", "channels": [4]}, "steps": 1}
    _, base, _ = trained(tmp_path / "run", spec, **inputs)
    with pytest.raises(InvalidSpec, match="one of our small networks"):
        trained(tmp_path / "tuned", {**IMAGES, "strategy": "lora", "steps": 1}, **inputs, base=base)


def test_refuses_pickled_weights(tmp_path: Path, texts: Path, bert: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in bert.iterdir():
        if file.suffix != ".safetensors":
            (base / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(bert / "model.safetensors"), base / "pytorch_model.bin")
    with pytest.raises(InvalidData, match="safetensors"):
        trained(tmp_path / "run", {**TEXT, "steps": 1}, dataset=texts, base=base)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora": {}}, "the strategy is full"),
        ({"strategy": "lora", "lora": None}, "needs lora"),
        ({"strategy": "lora", "reinitialize": True}, "reinitialize needs strategy full"),
        ({"max_length": 12}, "the task is image_classification"),
    ],
)
def test_refuses_settings_without_effect(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        read_spec({**IMAGES, "dataset": "file-1", **settings})


def test_learning_rates_follow_the_strategy() -> None:
    rates = [
        read_spec({**IMAGES, "dataset": "file-1", "strategy": name}) for name in ("full", "frozen_encoder", "lora")
    ]
    assert [spec.learning_rate for spec in rates] == [1e-4, 3e-3, 1e-3]  # type: ignore[attr-defined]


def test_refuses_a_task_for_other_data(texts: Path) -> None:
    check = method_named("fine_tuning").check
    assert check is not None
    with pytest.raises(InvalidSpec, match="did you mean text_classification"):
        check(read_spec({**IMAGES, "dataset": "file-1"}), inspect(texts))
