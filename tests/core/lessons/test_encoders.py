"""Text encoders teach embeddings, hidden states and attention to smaller ones, which transformers opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from contract import Recorder, RequestAfter, weights_of

from core.catalog import read_spec
from core.data.examples import write_text
from core.errors import InvalidSpec
from core.execution import train
from core.lessons.encoders import last_attention, pooled
from core.lessons.losses import cosine_loss, hidden_loss, relation_loss, relations
from core.networks.inheriting import inherit_embeddings, reduction
from core.networks.shortening import TeachersLayers, chosen_layers, shortened
from core.networks.word_pieces import train_word_pieces
from core.training.checkpoint import read_checkpoint
from core.training.run import Control, Interrupted, Run

BERT = {"architecture": "bert", "layers": 1, "heads": 2, "hidden_size": 16, "max_length": 32}
DISTIL: dict[str, Any] = {"method": "distillation", "teacher": "model-t", "batch_size": 16, "validation_fraction": 0.25}


def run_of(folder: Path, spec: dict[str, Any], **options: Any) -> Run:
    torch.set_num_threads(1)
    inputs = options.pop("inputs")
    named = {name: f"file-{name}" for name in inputs if name == "dataset"}
    return Run(
        spec=read_spec({**DISTIL, **named, **spec}), inputs=inputs, folder=folder, reporter=Recorder(), **options
    )


def trained(folder: Path, spec: dict[str, Any], **inputs: Path) -> tuple[dict[str, float], Path, Recorder]:
    run = run_of(folder, spec, inputs=inputs)
    train(run, lineage={})
    return json.loads((run.artifacts / "metrics.json").read_text()), run.artifacts, run.reporter


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "data.txt"
    write_text(path, documents=80)
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    """An encoder of four layers, random, with its tokenizer."""
    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = train_word_pieces(texts.read_text().splitlines(), size=150, max_length=32)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"objective": "embeddings", "student": BERT}, 0.6),
        ({"objective": "hidden_states", "student": {**BERT, "layers": 2}}, 0.9),
        ({"objective": "attention", "student": BERT, "relation_heads": 2}, 0.6),
        ({"objective": "hidden_states", "student": {"architecture": "teachers_layers"}}, 0.9),
    ],
)
def test_a_smaller_encoder_comes_near_its_teacher(
    settings: dict[str, Any], share: float, tmp_path: Path, texts: Path, teacher: Path
) -> None:
    inputs = {"dataset": texts, "teacher": teacher}
    start, _, _ = trained(tmp_path / "start", {**settings, "steps": 1, "learning_rate": 1e-9}, **inputs)
    metrics, folder, _ = trained(tmp_path / "run", {**settings, "epochs": 20, "learning_rate": 5e-3}, **inputs)
    assert metrics["valid_loss"] < share * start["valid_loss"]
    assert metrics["parameters"] < metrics["teacher_parameters"]
    network, tokenizer = (
        transformers.AutoModel.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder),
    )
    with torch.no_grad():
        vectors = network(**tokenizer("the dog sleeps near a tree.", return_tensors="pt")).last_hidden_state
    assert torch.isfinite(vectors).all()


def test_embeddings_of_the_student_rank_texts_like_the_teachers(tmp_path: Path, texts: Path, teacher: Path) -> None:
    spec = {"objective": "embeddings", "student": BERT, "epochs": 60, "learning_rate": 5e-3}
    metrics, folder, _ = trained(tmp_path, spec, dataset=texts, teacher=teacher)
    assert metrics["valid_cosine"] == pytest.approx(1 - metrics["valid_loss"])
    sentences = texts.read_text().splitlines()[:40]
    similar = []
    for place in (teacher, folder):
        network, tokenizer = (
            transformers.AutoModel.from_pretrained(place),
            transformers.AutoTokenizer.from_pretrained(place),
        )
        tokens = tokenizer(sentences, padding=True, truncation=True, max_length=32, return_tensors="pt")
        with torch.no_grad():
            embeddings = pooled(network(**tokens).last_hidden_state, tokens["attention_mask"], pooling="mean")
        similar.append(
            torch.nn.functional.normalize(embeddings, dim=1) @ torch.nn.functional.normalize(embeddings, dim=1).T
        )
    above = torch.ones(40, 40).triu(1) > 0
    assert torch.corrcoef(torch.stack([each[above] for each in similar]))[0, 1] > 0.7


def test_interrupted_and_resumed_it_ends_the_same(tmp_path: Path, texts: Path, teacher: Path) -> None:
    spec = {"objective": "attention", "student": BERT, "epochs": 2}
    inputs = {"dataset": texts, "teacher": teacher}
    _, whole, _ = trained(tmp_path / "whole", spec, **inputs)
    first = run_of(tmp_path / "first", spec, inputs=inputs, control=RequestAfter("interrupt", steps=3))
    with pytest.raises(Interrupted):
        train(first, lineage={})
    resume = read_checkpoint(first.reporter.checkpoints[-1].path)
    train(run_of(tmp_path / "second", spec, inputs=inputs, resume=resume, control=Control()), lineage={})
    wanted, found = weights_of(whole.parent), weights_of(tmp_path / "second")
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_relations_are_scaled_dot_products_of_the_cut_vectors() -> None:
    vectors, mask = torch.randn(2, 5, 6), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    found = relations(vectors, mask, heads=3).exp()
    for head in range(3):
        part = vectors[1, :3, 2 * head : 2 * head + 2]
        expected = (part @ part.T / 2**0.5).softmax(1)
        torch.testing.assert_close(found[1, head, :3, :3], expected)
    assert (found[1, :, :, 3:] == 0).all()
    other = relations(torch.randn(2, 5, 6), mask, heads=3)
    loss = relation_loss(relations(vectors, mask, heads=3), other, mask)
    slow = sum(
        float((other[1, head, token, :3].exp() * (other[1, head, token, :3] - found[1, head, token, :3].log())).sum())
        for head in range(3)
        for token in range(3)
    )
    assert float(loss[1]) == pytest.approx(slow / 9, rel=1e-4)
    assert relation_loss(other, other, mask).abs().max() == 0


def test_gradients_of_relations_are_finite_beside_padding() -> None:
    vectors = torch.randn(2, 5, 6, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    wanted = relations(torch.randn(2, 5, 6), mask, heads=2)
    relation_loss(relations(vectors, mask, heads=2), wanted, mask).sum().backward()
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()


def test_hidden_states_and_embeddings_are_compared_without_padding() -> None:
    own, wanted, mask = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [1, 1, 1]])
    torch.testing.assert_close(hidden_loss(own, wanted, mask)[0], (own[0, :2] - wanted[0, :2]).square().mean())
    torch.testing.assert_close(pooled(own, mask, pooling="mean")[0], own[0, :2].mean(0))
    torch.testing.assert_close(pooled(own, mask, pooling="first"), own[:, 0])
    torch.testing.assert_close(cosine_loss(own[:, 0], 3 * own[:, 0]), torch.zeros(2), atol=1e-6, rtol=0)


def test_a_reduction_keeps_cosines_where_it_can() -> None:
    flat = torch.randn(50, 3) @ torch.randn(3, 8)  # in three of eight dimensions
    reduced = flat @ reduction(flat, size=3)
    torch.testing.assert_close(reduced @ reduced.T, flat @ flat.T, atol=1e-3, rtol=1e-3)
    assert torch.equal(reduction(flat, size=8), torch.eye(8))
    with pytest.raises(InvalidSpec, match="hidden_size of 8 or less"):
        reduction(flat, size=9)


def test_a_new_student_begins_with_the_teachers_word_embeddings(teacher: Path) -> None:
    network = transformers.AutoModel.from_pretrained(teacher)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    student = transformers.BertModel(transformers.BertConfig(vocab_size=network.config.vocab_size, **sizes))
    size = student.get_input_embeddings().weight.std()
    inherit_embeddings(student, network)
    own, wanted = student.get_input_embeddings().weight, network.get_input_embeddings().weight
    torch.testing.assert_close(own.std(), size)
    cosines = [torch.nn.functional.normalize(each, dim=1) for each in (own, wanted)]
    own_similar, similar = (each @ each.T for each in cosines)
    above = torch.ones_like(similar).triu(1) > 0
    assert torch.corrcoef(torch.stack([own_similar[above], similar[above]]))[0, 1] > 0.6
    other = transformers.BertModel(transformers.BertConfig(vocab_size=7, **sizes))
    before = other.get_input_embeddings().weight.clone()
    inherit_embeddings(other, network)
    assert torch.equal(before, other.get_input_embeddings().weight)


def test_layers_of_the_teacher_are_evenly_chosen_and_keep_their_weights(teacher: Path) -> None:
    assert [chosen_layers(6, 3), chosen_layers(12, 4), chosen_layers(4, 1)] == [[0, 2, 5], [0, 4, 7, 11], [0]]
    network = transformers.AutoModel.from_pretrained(teacher)
    student = shortened(network, TeachersLayers())
    assert (student.config.num_hidden_layers, len(student.encoder.layer)) == (2, 2)
    for own, taught in ((0, 0), (1, 3)):
        before, after = network.encoder.layer[taught].state_dict(), student.encoder.layer[own].state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert [name.rpartition(".")[2] for name, _ in last_attention(student)] == ["query", "key", "value"]
    with pytest.raises(InvalidSpec, match="the teacher has 4 layers: give fewer"):
        shortened(network, TeachersLayers(layers=4))
    with pytest.raises(InvalidSpec, match="one stack of layers"):
        shortened(torch.nn.Linear(2, 2), TeachersLayers())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "embeddings", "temperature": 2.0}, "the objective is embeddings"),
        ({"objective": "attention", "pooling": "mean"}, "the objective is attention"),
        ({"objective": "embeddings", "relation_heads": 2}, "the objective is embeddings"),
        ({"objective": "hidden_states", "prompt_tokens": 4}, "the objective is hidden_states"),
    ],
)
def test_refuses_settings_without_effect(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        read_spec({**DISTIL, "dataset": "file-1", "student": BERT, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "sequences"}, "needs a teacher that writes text"),
        ({"objective": "attention", "relation_heads": 3}, "cannot be cut into 3 heads"),
        ({"objective": "embeddings", "student": {**BERT, "hidden_size": 64}}, "hidden_size of 32 or less"),
        ({"objective": "embeddings", "max_length": 64}, "take 32 tokens"),
        ({"objective": "embeddings", "student": "model-s"}, "their vocabularies differ"),
    ],
)
def test_refuses_what_cannot_be_taught(
    settings: dict[str, Any], message: str, tmp_path: Path, texts: Path, teacher: Path
) -> None:
    config = transformers.BertConfig(
        vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "s")
    with pytest.raises(InvalidSpec, match=message):
        trained(
            tmp_path / "run",
            {"student": BERT, "steps": 1, **settings},
            dataset=texts,
            teacher=teacher,
            student=tmp_path / "s",
        )
