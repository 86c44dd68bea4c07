"""The text tasks' losses and metrics, each against a slow and obvious formula."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from contract import Recorder, run_example

from core.catalog import read_spec
from core.data import examples
from core.data import packing as rows_of_tokens
from core.data.packing import IGNORED
from core.errors import InvalidData
from core.networks.chat_template import render
from core.registry import Example
from core.tasks import chat, language_model, preference
from core.training.parts import parts
from core.training.run import Run
from core.training.tagging_scores import entities, entity_scores, marks_entities
from core.training.translation_scores import bleu, chrf
from tests.core.tasks.conftest import write_gpt2


def opened(task: str, folder: Path, base: Path, **settings: Any) -> tuple[Any, Recorder]:
    recorder = Recorder()
    spec = read_spec(
        {"method": "fine_tuning", "task": task, "dataset": "file-1", "base": "model-1", "samples": 0, **settings}
        if task != "preference"
        else {"method": "fine_tuning", "task": task, "dataset": "file-1", "base": "model-1", **settings}
    )
    inputs = {"dataset": folder / "data", "base": base}
    run = Run(spec=spec, inputs=inputs, folder=folder / "run", reporter=recorder)
    opener: Any = {"chat": chat, "language_model": language_model, "preference": preference}[task]
    return opener.open_task(spec, run), recorder


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """Few positions, learned ones, and dropout."""
    return write_gpt2(tmp_path_factory.mktemp("gpt2"), tokenizer, positions=48)


def slow_losses(base: Path, tokens: list[int], learned: list[bool]) -> list[float]:
    """Minus the log-probability of each learned token, one at a time."""
    network = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    found = []
    for place in range(1, len(tokens)):
        if learned[place]:
            with torch.no_grad():
                logits = network(torch.tensor([tokens[:place]])).logits[0, -1]
            found.append(-float(logits.log_softmax(0)[tokens[place]]))
    return found


def test_chat_learns_the_mean_over_all_tokens_of_answers_packed_or_not(tmp_path: Path, llama: Path) -> None:
    examples.write_conversations(tmp_path / "data", count=4)
    found = []
    for packing in (True, False):
        task, _ = opened("chat", tmp_path, llama, packing=packing)
        batch = task.batch(torch.arange(task.examples), generator=torch.Generator())
        found.append(float(task.loss_of(batch).detach()) / task.over(batch))
        assert (task.examples < 4) == packing
    tokenizer = task.model.tokenizer
    lines = [json.loads(line) for line in (tmp_path / "data").read_text().splitlines()]
    slow = [loss for line in lines for loss in slow_losses(llama, *render(tokenizer, line["messages"])[0])]
    assert found == pytest.approx([sum(slow) / len(slow)] * 2, rel=1e-4)


CHATML = "<|im_start|>{role}\n{content}<|im_end|>\n"


def test_loss_and_accuracy_of_a_conversation_are_those_of_plain_transformers(tmp_path: Path, llama: Path) -> None:
    turns = [("system", "be brief."), ("user", "the dog?"), ("assistant", "it eats."), ("user", "a cat?")]
    messages = [{"role": role, "content": content} for role, content in [*turns, ("assistant", "a small cat sleeps.")]]
    messages[2]["weight"] = 0  # type: ignore[assignment]
    (tmp_path / "data").write_text(json.dumps({"messages": messages}) + "\n")
    task, _ = opened("chat", tmp_path, llama)
    batch = task.batch(torch.tensor([0]), generator=torch.Generator())
    loss = float(task.loss_of(batch).detach()) / task.over(batch)
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    asked = "".join(CHATML.format(**message) for message in messages[:-1]) + "<|im_start|>assistant\n"
    prompt, answer = (tokenizer(text)["input_ids"] for text in (asked, messages[-1]["content"] + "<|im_end|>"))
    tokens = torch.tensor([prompt + answer])
    labels = tokens.clone()
    labels[:, : len(prompt)] = -100
    network = transformers.AutoModelForCausalLM.from_pretrained(llama).eval()
    with torch.no_grad():
        found = network(input_ids=tokens, labels=labels)
    assert loss == pytest.approx(float(found.loss), rel=1e-5)
    right = found.logits[0, len(prompt) - 1 : -1].argmax(1) == tokens[0, len(prompt) :]
    assert float(task.take_accuracy()) == pytest.approx(float(right.float().mean()))
    assert task.tokens_in(batch) == tokens.numel() + 1  # the newline behind the last turn is read, and not learned


def test_accuracies_of_a_step_are_those_of_the_likeliest_tokens(tmp_path: Path, llama: Path) -> None:
    examples.write_text(tmp_path / "data", documents=20)
    task, _ = opened("language_model", tmp_path, llama, max_length=32)
    batch = task.batch(torch.arange(task.examples), generator=torch.Generator())
    is_target = batch.targets != IGNORED
    with torch.no_grad():
        logits = task.network(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False).logits[is_target]
    truth = float((logits.argmax(1) == batch.targets[is_target]).float().mean())
    for head in (task.vocabulary_head, None):  # in blocks, and all at once
        task.vocabulary_head = head
        for part in parts(batch, 3):
            task.loss_of(part)
        assert float(task.take_accuracy()) == pytest.approx(truth)
    assert task.tokens_in(batch) == len(task.training.tokens)


def test_what_was_tried_again_counts_once(tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out behind the first half of a batch, whose tokens were counted."""
    (tmp_path / "data").write_text("".join(f"{'=' * size * size} {'the dog eats ' * size}\n" for size in range(3, 13)))
    spec = {"method": "fine_tuning", "task": "language_model", "base": "model-1", "max_length": 32, "accumulate": 2}
    example = Example({**spec, "batch_size": 6, "steps": 1, "samples": 0}, lambda path: None)
    inputs, whole, sizes = {"dataset": tmp_path / "data", "base": llama}, language_model.next_token_loss, []

    def scarce(network: Any, batch: Any, **rest: Any) -> torch.Tensor:
        sizes.append(len(batch.tokens))
        if len(sizes) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(network, batch, **rest)

    def accuracy(name: str) -> float:
        assert run_example(example, tmp_path / name, inputs=inputs) is not None
        row = (tmp_path / name / "artifacts" / "step_metrics.csv").read_text().splitlines()[1]
        return float(row.split(",")[2])

    expected = accuracy("plenty")
    assert 0 < expected < 1
    monkeypatch.setattr(language_model, "next_token_loss", scarce)
    assert accuracy("scarce") == pytest.approx(expected)
    assert sizes == [3, 3, 2, 2, 1, 1]


def test_a_language_model_learns_each_token_of_a_document_and_its_end(tmp_path: Path, llama: Path) -> None:
    examples.write_text(tmp_path / "data", documents=3)
    task, _ = opened("language_model", tmp_path, llama, max_length=128)
    batch = task.batch(torch.arange(task.examples), generator=torch.Generator())
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    slow = []
    for line in (tmp_path / "data").read_text().splitlines():
        tokens = [*tokenizer(line)["input_ids"], tokenizer.eos_token_id]
        slow += slow_losses(llama, tokens, [True] * len(tokens))
    assert task.over(batch) == len(slow)
    assert float(task.loss_of(batch).detach()) == pytest.approx(sum(slow), rel=1e-3)


def test_long_conversations_are_refused_or_cut_and_silent_ones_refused(tmp_path: Path, llama: Path) -> None:
    long = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "the dog eats " * 60}]}
    asked = {"messages": [{"role": "user", "content": "the dog " * 60}, {"role": "assistant", "content": "b"}]}
    silent = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}
    (tmp_path / "data").write_text("\n".join(map(json.dumps, [long, asked, long, silent])) + "\n")
    with pytest.raises(InvalidData, match=r"line 1: it has .* tokens, and 64 fit.*line 2: .*line 3: .*1 more"):
        opened("chat", tmp_path, llama, max_length=64)
    with pytest.raises(InvalidData, match="line 4: every message of role assistant has weight 0"):
        opened("chat", tmp_path, llama, max_length=64, too_long="cut")
    (tmp_path / "data").write_text("\n".join(map(json.dumps, [long, asked, long])) + "\n")
    task, recorder = opened("chat", tmp_path, llama, max_length=64, too_long="cut")
    assert task.training.lengths.tolist() == [64, 64]
    assert any("3 of 3 conversations are longer than 64 tokens" in text for text in recorder.messages)
    assert any("of 1 conversations no answer to learn is left" in text for text in recorder.messages)


@pytest.mark.parametrize("task", ["chat", "language_model"])
def test_samples_end_where_the_bases_positions_do(task: str, tmp_path: Path, gpt2: Path) -> None:
    talk = [{"role": "user", "content": "the dog " * 5}, {"role": "assistant", "content": "a"}]
    (tmp_path / "data").write_text(json.dumps({"messages": talk}) if task == "chat" else "the dog eats\n" * 4)
    _, recorder = opened(task, tmp_path, gpt2, samples=1, sample_tokens=100)
    assert recorder.samples[0].caption == "before training"


def test_an_answer_ends_where_the_base_says_so(tmp_path: Path, llama: Path) -> None:
    examples.write_conversations(tmp_path / "data", count=2)
    shutil.copytree(llama, tmp_path / "base")
    transformers.GenerationConfig(eos_token_id=[1, 7]).save_pretrained(tmp_path / "base")  # type: ignore[no-untyped-call]
    task, _ = opened("chat", tmp_path, tmp_path / "base")
    assert task.ends == [1, task.model.tokenizer.convert_tokens_to_ids("<|im_end|>"), 7]


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(tmp_path: Path, llama: Path) -> None:
    examples.write_conversations(tmp_path / "data", count=2)
    shutil.copytree(llama, tmp_path / "base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    size = len(tokenizer)
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(InvalidData, match=rf"the token {size} \('<|new|>'\), and the base .* 0 to {size - 1}:") as told:
        opened("chat", tmp_path, tmp_path / "base")
    assert told.value.param == "base"


def test_long_rows_are_evaluated_fewer_at_once(tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found is the same."""
    examples.write_conversations(tmp_path / "data", count=8)
    found, sizes, whole = [], [], language_model.next_token_loss

    def counting(network: Any, batch: Any, **rest: Any) -> torch.Tensor:
        sizes.append(batch.tokens.shape)
        return whole(network, batch, **rest)

    monkeypatch.setattr(language_model, "next_token_loss", counting)
    for tokens in (2**12, 64):
        monkeypatch.setattr(rows_of_tokens, "TOKENS_AT_ONCE", tokens)
        task, _ = opened("chat", tmp_path, llama, validation_fraction=0.5, packing=False)
        found.append(task.evaluate())
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert max(rows for rows, _ in sizes) == 4
    assert sizes[-1][0] < 4


def test_pairs_too_long_are_refused_or_left_out(tmp_path: Path, llama: Path) -> None:
    pairs = [{"prompt": "a", "chosen": "b", "rejected": "c " * size} for size in (1, 60)]
    (tmp_path / "data").write_text("\n".join(map(json.dumps, pairs)) + "\n")
    with pytest.raises(InvalidData, match=r"line 2: it has .* tokens, and 32 fit"):
        opened("preference", tmp_path, llama, max_length=32)
    task, recorder = opened("preference", tmp_path, llama, max_length=32, too_long="cut")
    assert task.examples == 1
    assert any("1 of 2 pairs are longer than 32 tokens and are left out" in text for text in recorder.messages)


def test_preference_loss_is_the_papers(tmp_path: Path, llama: Path) -> None:
    chosen, rejected, reference = (
        torch.tensor([-3.0, -5.0]),
        torch.tensor([-4.0, -2.0]),
        torch.tensor([[-3.5, -4.5]] * 2),
    )
    found = preference.preference_losses(chosen, rejected, reference, beta=0.5, smoothing=0.1).tolist()
    for loss, better, worse in zip(found, chosen.tolist(), rejected.tolist(), strict=True):
        margin = 0.5 * ((better + 3.5) - (worse + 4.5))
        right, wrong = 1 / (1 + math.exp(-margin)), 1 / (1 + math.exp(margin))
        assert loss == pytest.approx(-0.9 * math.log(right) - 0.1 * math.log(wrong), rel=1e-5)


def test_the_base_is_the_reference(tmp_path: Path, llama: Path) -> None:
    examples.write_preferences(tmp_path / "data", count=6)
    task, recorder = opened("preference", tmp_path, llama, validation_fraction=0.5)
    first = recorder.metrics_seen[0][1]
    assert first["valid_loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert first["valid_reward_margin"] == 0
    batch = task.batch(torch.tensor([0]), generator=torch.Generator())
    for side, reference in zip((batch.chosen, batch.rejected), batch.reference[0], strict=True):
        is_learned = [False, *(side.targets[0, :-1] != IGNORED).tolist()]
        slow = slow_losses(llama, side.tokens[0].tolist(), is_learned)
        assert float(reference) == pytest.approx(-sum(slow), rel=1e-4)


def test_before_anything_is_learned_no_pair_is_better_than_at_the_base(tmp_path: Path, gpt2: Path) -> None:
    """GPT-2's dropout has no part in it."""
    examples.write_preferences(tmp_path / "data", count=6)
    spec = {"method": "fine_tuning", "task": "preference", "base": "model-1", "steps": 1}
    recorder, inputs = Recorder(), {"dataset": tmp_path / "data", "base": gpt2}
    run_example(Example(spec, lambda path: None), tmp_path / "run", inputs=inputs, recorder=recorder)
    logged = next(values for _, values in recorder.metrics_seen if "loss" in values)
    assert logged["loss"] == pytest.approx(math.log(2), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
def test_adapters_leave_the_reference_where_it_was(tmp_path: Path, llama: Path) -> None:
    examples.write_preferences(tmp_path / "data", count=12)
    spec = {"method": "fine_tuning", "task": "preference", "base": "model-1", "strategy": "lora", "learning_rate": 1e-2}
    example = Example({**spec, "steps": 6, "validation_fraction": 0.5}, lambda path: None)
    outcome = run_example(example, tmp_path / "run", inputs={"dataset": tmp_path / "data", "base": llama})
    assert outcome is not None
    assert outcome.metrics["valid_loss"] < math.log(2)
    assert outcome.metrics["valid_reward_margin"] > 0


def slow_entities(tags: list[str]) -> set[tuple[str, int, int]]:
    """Every stretch of tags that is one entity, tried one by one; of BIO alone."""
    found = set()
    for start in range(len(tags)):
        for end in range(start + 1, len(tags) + 1):
            kind = tags[start][2:]
            begins = tags[start] == f"B-{kind}" or (
                tags[start] == f"I-{kind}" and (start == 0 or tags[start - 1][2:] != kind)
            )
            goes_on = all(tag == f"I-{kind}" for tag in tags[start + 1 : end])
            ends = end == len(tags) or tags[end] != f"I-{kind}"
            if tags[start] != "O" and begins and goes_on and ends:
                found.add((kind, start, end))
    return found


def test_entities_are_those_of_a_slow_search() -> None:
    generator = torch.Generator().manual_seed(0)
    names = ["O", "B-X", "I-X", "B-Y", "I-Y"]
    sentences = [[names[number] for number in torch.randint(5, (8,), generator=generator).tolist()] for _ in range(300)]
    for tags in sentences:
        assert set(entities(tags)) == slow_entities(tags)
    truth, predicted = sentences[:150], sentences[150:]
    right = sum(len(slow_entities(one) & slow_entities(other)) for one, other in zip(truth, predicted, strict=True))
    wanted, named = (sum(len(slow_entities(tags)) for tags in side) for side in (truth, predicted))
    scores = entity_scores(truth, predicted)
    assert scores == pytest.approx((right / named, right / wanted, 2 * right / (named + wanted)))


def test_entities_with_marked_ends() -> None:
    assert entities(["S-X", "B-Y", "E-Y", "U-X", "O", "B-X", "L-X", "I-X"]) == [
        ("X", 0, 1), ("Y", 1, 3), ("X", 3, 4), ("X", 5, 7), ("X", 7, 8),
    ]  # fmt: skip
    assert marks_entities(["O", "B-PER"])
    assert not marks_entities(["NOUN", "O"])
    assert not marks_entities(["O"])


def slow_chrf(written: list[str], wanted: list[str]) -> float:
    scores = []
    for order in range(1, 7):
        right = given = asked = 0
        for text, reference in zip(written, wanted, strict=True):
            here, there = text.replace(" ", ""), reference.replace(" ", "")
            left = [there[place : place + order] for place in range(len(there) - order + 1)]
            asked += len(left)
            for place in range(len(here) - order + 1):
                given += 1
                if here[place : place + order] in left:
                    left.remove(here[place : place + order])
                    right += 1
        if given and asked:
            precision, recall = right / given, right / asked
            scores.append(5 * precision * recall / (4 * precision + recall) if right else 0.0)
    return 100 * sum(scores) / len(scores)


def test_chrf_is_that_of_a_slow_count() -> None:
    written, wanted = ["the cat sat on", "a dog"], ["the cat sits on it", "the dog runs"]
    assert chrf(written, wanted) == pytest.approx(slow_chrf(written, wanted))
    assert chrf(wanted, wanted) == pytest.approx(100)
    assert chrf([""], ["a"]) == 0


def test_bleu_is_that_of_the_formula() -> None:
    written, wanted = ["the cat sat on the mat ."], ["the cat is on the mat ."]
    precisions = [6 / 7, 4 / 6, 2 / 5, 1 / 4 * 0.5 * 2]  # "the cat sat on" and its like: only "on the mat ." matches
    assert bleu(written, wanted) == pytest.approx(100 * math.prod(precisions) ** 0.25)
    assert bleu(["the mat"], ["on the mat it was"]) == pytest.approx(100 * math.exp(1 - 5 / 2))
    assert bleu(wanted, wanted) == pytest.approx(100)
    assert bleu(["cat"], ["dog"]) == pytest.approx(50)  # half a match of one
