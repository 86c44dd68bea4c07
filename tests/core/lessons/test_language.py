"""Language models teach the next tokens they expect, and the texts they write, to shorter ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from contract import Recorder
from tokenizers import Tokenizer, models, pre_tokenizers

from core.catalog import read_spec
from core.data.examples import write_text
from core.errors import InvalidSpec
from core.execution import train
from core.lessons.losses import soft_cross_entropy, taught_tokens, token_loss
from core.networks import language_modeling
from core.networks.language_modeling import linear_loss
from core.training.run import Run

DISTIL: dict[str, Any] = {
    "method": "distillation",
    "teacher": "model-t",
    "student": {"architecture": "teachers_layers", "layers": 1},
    "batch_size": 8,
    "max_length": 32,
    "validation_fraction": 0.25,
    "learning_rate": 3e-3,
}


def trained(folder: Path, spec: dict[str, Any], **inputs: Path) -> tuple[dict[str, float], Path, Recorder]:
    torch.set_num_threads(1)
    run = Run(read_spec({**DISTIL, "dataset": "file-d", **spec}), inputs, folder, Recorder())
    train(run, lineage={})
    return json.loads((run.artifacts / "metrics.json").read_text()), run.artifacts, run.reporter


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "data.txt"
    write_text(path, documents=80)
    return path


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    """A language model that has learned the texts a little."""
    folder = tmp_path_factory.mktemp(request.param)
    words = sorted({word for line in texts.read_text().replace(".", " .").splitlines() for word in line.split()})
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<end>", "<unk>", *words])}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", unk_token="<unk>", pad_token="<end>", model_max_length=32
    )
    sizes = {"vocab_size": len(tokenizer), "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}
    torch.manual_seed(0)
    if request.param == "gpt2":
        network: Any = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, n_positions=32, **sizes)
        )
    else:
        layout = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        network = transformers.LlamaForCausalLM(transformers.LlamaConfig(max_position_embeddings=32, **layout, **sizes))
    tokens = tokenizer(texts.read_text().splitlines()[:60], padding=True, return_tensors="pt")
    labels = tokens["input_ids"].masked_fill(tokens["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(40):
        network(input_ids=tokens["input_ids"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_shorter_model_learns_what_its_teacher_expects(tmp_path: Path, texts: Path, teacher: Path) -> None:
    inputs = {"dataset": texts, "teacher": teacher}
    start, _, _ = trained(tmp_path / "start", {"steps": 1, "learning_rate": 1e-9}, **inputs)
    metrics, folder, recorder = trained(tmp_path / "run", {"epochs": 12}, **inputs)
    assert metrics["valid_loss"] < 0.7 * start["valid_loss"]
    assert metrics["valid_agreement"] > start["valid_agreement"]
    assert metrics["valid_perplexity"] < start["valid_perplexity"]
    network = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert network.config.num_hidden_layers == 1
    assert "student: " in recorder.samples[-1].path.read_text()


def test_a_student_learns_to_write_what_its_teacher_writes(tmp_path: Path, texts: Path, teacher: Path) -> None:
    spec = {"objective": "sequences", "prompt_tokens": 4, "max_length": 20, "epochs": 25, "learning_rate": 1e-2}
    metrics, folder, _ = trained(tmp_path / "run", spec, dataset=texts, teacher=teacher)
    assert metrics["valid_agreement"] > 0.6
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer(" ".join(texts.read_text().split()[:4]), return_tensors="pt")
    written = [
        transformers.AutoModelForCausalLM.from_pretrained(place).generate(**prompt, max_new_tokens=8, do_sample=False)[
            0
        ]
        for place in (teacher, folder)
    ]
    assert float((written[0][4:] == written[1][4:]).float().mean()) > 0.6


def test_the_tokens_loss_is_the_answers_loss_of_each_token() -> None:
    logits, teacher, targets = torch.randn(6, 9), torch.randn(6, 9), torch.arange(6)
    found = token_loss(logits, teacher, targets, temperature=2.0, alpha=0.7)
    hard = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(found, 0.7 * soft_cross_entropy(logits, teacher, temperature=2.0).sum() + 0.3 * hard)


@pytest.mark.parametrize(("alpha", "temperature"), [(0.7, 2.0), (1.0, 2.0), (1.0, 1.0), (0.5, 1.0)])
def test_the_loss_in_blocks_and_its_gradient_are_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, alpha: float, temperature: float
) -> None:
    monkeypatch.setattr(language_modeling, "BLOCK_LOGITS", 7 * 11)
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(30, 5), torch.randn(11, 5), torch.randint(11, (30,))
    teacher = 3 * torch.randn(30, 11)
    mine, plain = ([each.clone().requires_grad_() for each in (hidden, weight)] for _ in range(2))
    judge = taught_tokens(lambda rows: teacher[rows], targets, temperature=temperature, alpha=alpha)
    found = linear_loss(mine[0], mine[1], judge)
    expected = token_loss(plain[0] @ plain[1].T, teacher, targets, temperature=temperature, alpha=alpha)
    (found / 30).backward()
    (expected / 30).backward()
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(mine, plain, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "attention"}, "teaches logits or sequences"),
        ({"student": {"architecture": "mlp"}}, "teachers_layers or a model, not mlp"),
    ],
)
def test_refuses_what_a_language_model_cannot_teach(
    settings: dict[str, Any], message: str, tmp_path: Path, texts: Path, teacher: Path
) -> None:
    with pytest.raises(InvalidSpec, match=message):
        trained(tmp_path, {"steps": 1, **settings}, dataset=texts, teacher=teacher)
