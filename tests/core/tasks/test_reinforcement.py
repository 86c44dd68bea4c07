"""Reinforcement: it learns a known reward, its formulas against slow ones, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from contract import Recorder, RequestAfter, run_example, weights_of
from safetensors.torch import load_file

from core.catalog import read_spec
from core.data.packing import IGNORED
from core.data.profile import inspect
from core.errors import InvalidData, InvalidSpec
from core.networks.generation import complete
from core.registry import Example
from core.tasks import check_task, reinforcement
from core.training.parts import parts
from core.training.policy_gradient import group_advantages, kl_to_base, policy_losses
from core.training.run import Run
from tests.core.tasks.conftest import write_gpt2

SAYS_D = {
    "type": "string_check",
    "name": "d",
    "input": "{{ sample.output_text }}",
    "reference": "d",
    "operation": "like",
}
COMMON = {
    "method": "fine_tuning",
    "task": "reinforcement",
    "base": "model-1",
    "grader": SAYS_D,
    "max_length": 64,
    "batch_size": 4,
    "max_completion_tokens": 4,
}
IGNORE_PEFT = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def write_prompts(path: Path, *, count: int = 16, **more: Any) -> None:
    lines = []
    for index in range(count):
        asked = f"{('say', 'tell', 'name')[index % 3]} {'abcdefgh'[index % 8]}" + " please" * (index % 4)
        lines.append(json.dumps({"messages": [{"role": "user", "content": asked}], **more}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "data"
    write_prompts(path, reference_answer="d")
    return path


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """Learned positions, and dropout."""
    return write_gpt2(tmp_path_factory.mktemp("gpt2"), tokenizer, positions=128)


def opened(folder: Path, prompts: Path, base: Path, **settings: Any) -> tuple[Any, Recorder]:
    recorder = Recorder()
    spec: Any = read_spec({**COMMON, "dataset": "file-1", **settings})
    run = Run(spec=spec, inputs={"dataset": prompts, "base": base}, folder=folder / "run", reporter=recorder)
    return reinforcement.open_task(spec, run), recorder


@IGNORE_PEFT
@pytest.mark.parametrize(("strategy", "temperature"), [("full", 1.0), ("lora", 0.1)])
def test_learns_what_is_rewarded(strategy: str, temperature: float, prompts: Path, llama: Path, tmp_path: Path) -> None:
    """By LoRA at a low temperature: the base is random, and its frozen head tells its tokens hardly apart."""
    spec = {**COMMON, "strategy": strategy, "temperature": temperature, "learning_rate": 1e-2, "schedule": "constant"}
    spec |= {"steps": 20, "validation_fraction": 0.25, "evaluate_every": 10}
    recorder, inputs = Recorder(), {"dataset": prompts, "base": llama}
    outcome = run_example(Example(spec, lambda path: None), tmp_path, inputs=inputs, recorder=recorder)
    assert outcome is not None
    seen = [(step, values) for step, values in recorder.metrics_seen if "valid_reward" in values]
    assert [step for step, _ in seen] == [0, 10, 20]
    assert seen[0][1]["valid_reward"] == 0
    assert outcome.metrics["valid_reward"] == 1
    logged = [values for _, values in recorder.metrics_seen if "reward" in values]
    assert logged[-1]["reward"] > 2 * logged[0]["reward"]
    assert logged[0]["kl"] == 0
    assert logged[-1]["kl"] > 0
    assert {"reward_std", "without_signal", "completion_length", "truncated", "not_graded", "loss"} <= set(logged[0])
    first, last = recorder.samples[0].path.read_text(), recorder.samples[-1].path.read_text()
    assert first.count("[reward] 0") == last.count("[reward] 1") == 3
    assert (recorder.samples[0].caption, recorder.samples[-1].caption) == ("before training", "after training")


@IGNORE_PEFT
@pytest.mark.parametrize(("strategy", "updates"), [("full", 1), ("lora", 2)])
def test_same_seed_same_weights_and_resumed_it_ends_the_same(
    strategy: str, updates: int, prompts: Path, gpt2: Path, tmp_path: Path
) -> None:
    spec = {**COMMON, "strategy": strategy, "steps": 4, "learning_rate": 1e-2, "updates": updates, "group_size": 3}
    example, inputs = Example(spec, lambda path: None), {"dataset": prompts, "base": gpt2}
    run_example(example, tmp_path / "whole", inputs=inputs)
    recorder, control = Recorder(), RequestAfter("interrupt", steps=2)
    assert run_example(example, tmp_path / "1", inputs=inputs, recorder=recorder, control=control) is None
    assert run_example(example, tmp_path / "2", inputs=inputs, resume=recorder.checkpoints[-1].path) is not None
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "2")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    before = load_file(gpt2 / "model.safetensors")
    assert any(not torch.equal(tensor, whole[f"model.safetensors:{name}"]) for name, tensor in before.items())
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "2" / "artifacts") is not None


@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_completions_of_many_prompts_are_those_of_each(base: str, request: pytest.FixtureRequest) -> None:
    network = transformers.AutoModelForCausalLM.from_pretrained(request.getfixturevalue(base)).eval()
    asked = [[5, 9, 30], [7, 8, 40, 41, 90, 17, 23], [11]]
    settings: dict[str, Any] = {"max_new_tokens": 6, "pad_token": 0}
    free = [slow_greedy(network, each, 6) for each in asked]
    ends = [free[0][2]]
    cut = [each[: each.index(ends[0]) + 1] if ends[0] in each else each for each in free]
    assert complete(network, asked, ends=[], **settings) == free
    assert complete(network, asked, ends=ends, **settings) == cut
    twice = complete(network, asked, count=2, ends=ends, **settings)
    assert twice == [each for each in cut for _ in range(2)]


def slow_greedy(network: Any, tokens: list[int], count: int) -> list[int]:
    found = list(tokens)
    for _ in range(count):
        with torch.no_grad():
            found.append(int(network(torch.tensor([found])).logits[0, -1].argmax()))
    return found[len(tokens) :]


def test_completions_are_drawn_from_the_whole_distribution(llama: Path) -> None:
    network = transformers.AutoModelForCausalLM.from_pretrained(llama).eval()
    network.generation_config.top_k = 1  # a base's habits of writing are not the policy's
    with torch.no_grad():
        expected = (network(torch.tensor([[5, 9, 30]])).logits[0, -1] / 0.7).softmax(0)
    torch.manual_seed(0)
    drawn = complete(network, [[5, 9, 30]], count=20_000, max_new_tokens=1, ends=[], pad_token=0, temperature=0.7)
    found = torch.bincount(torch.tensor(drawn)[:, 0], minlength=len(expected)) / len(drawn)
    assert 0.5 * float((found - expected).abs().sum()) < 0.07  # total variation, of some 400 tokens


def test_advantages_and_losses_are_the_papers() -> None:
    rewards = [[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]]
    found = group_advantages(torch.tensor(rewards))
    for group, advantages in zip(rewards, found.tolist(), strict=True):
        mean = sum(group) / 4
        deviation = math.sqrt(sum((reward - mean) ** 2 for reward in group) / 3)
        assert advantages == pytest.approx([(reward - mean) / (deviation + 1e-4) for reward in group])
    new, old, reference = [-1.0, -2.0, -0.5, -3.0], [-1.5, -1.0, -0.5, -3.1], [-1.2, -2.5, -0.1, -3.0]
    gains = [1.0, -1.0, 0.5, -2.0]
    tensors = [torch.tensor(values) for values in (new, old, gains)]
    kl = kl_to_base(tensors[0], torch.tensor(reference))
    losses = policy_losses(*tensors, kl=kl, beta=0.3)
    for place, loss in enumerate(losses.tolist()):
        ratio = math.exp(new[place] - old[place])
        clipped = min(max(ratio, 0.8), 1.28)
        apart = reference[place] - new[place]
        divergence = math.exp(apart) - apart - 1
        assert loss == pytest.approx(-min(ratio * gains[place], clipped * gains[place]) + 0.3 * divergence, rel=1e-5)


@IGNORE_PEFT
@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_a_batch_holds_what_the_formulas_ask_for(strategy: str, prompts: Path, gpt2: Path, tmp_path: Path) -> None:
    """Against one token at a time; `old` and `reference` are the policy's and the base's, and dropout has no part."""
    task, _ = opened(tmp_path, prompts, gpt2, strategy=strategy, temperature=0.8, updates=2, group_size=3, samples=0)
    if strategy == "lora":
        from core.networks.adapting import add_adapters

        settings = {"rank": 2, "alpha": 4, "dropout": 0.0, "target_modules": None, "dora": False}
        task.network = add_adapters(task.network, head=(), new_parameters=frozenset(), **settings)
    torch.manual_seed(3)
    with torch.no_grad():  # the policy has moved
        for parameter in task.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    batch = task.batch(torch.tensor([0, 3]), generator=torch.Generator())
    base = transformers.AutoModelForCausalLM.from_pretrained(gpt2).eval()
    assert len(batch.advantages) == 6
    total = 0.0
    for row in range(6):
        tokens, targets = batch.packed.tokens[row].tolist(), batch.packed.targets[row].tolist()
        for place, target in enumerate(targets):
            if target == IGNORED:
                assert batch.old[row, place] == batch.reference[row, place] == 0
                continue
            new, reference = (slow_log_probability(each, tokens, place, target) for each in (task.network, base))
            assert float(batch.old[row, place]) == pytest.approx(new, rel=1e-4, abs=1e-5)
            assert float(batch.reference[row, place]) == pytest.approx(reference, rel=1e-4, abs=1e-5)
            apart = reference - new
            total += -float(batch.advantages[row]) + 0.04 * (math.exp(apart) - apart - 1)
    whole = task.loss_of(batch)
    assert float(whole.detach()) == pytest.approx(total, rel=1e-3, abs=1e-4)
    assert sum(float(task.loss_of(part).detach()) for part in parts(batch, 4)) == pytest.approx(
        total, rel=1e-3, abs=1e-4
    )
    assert task.over(batch) == sum(target != IGNORED for target in batch.packed.targets.flatten().tolist())


def slow_log_probability(network: Any, tokens: list[int], place: int, target: int) -> float:
    with torch.no_grad():
        logits = network(torch.tensor([tokens[: place + 1]])).logits[0, -1] / 0.8
    return float(logits.log_softmax(0)[target])


def test_the_gradient_is_that_of_log_probabilities_times_advantages(prompts: Path, llama: Path, tmp_path: Path) -> None:
    task, _ = opened(tmp_path, prompts, llama, beta=0, group_size=4, samples=0)
    batch = task.batch(torch.arange(4), generator=torch.Generator())
    assert batch.old is None
    assert batch.reference is None
    advantages = torch.randn(16)
    task.loss_of(batch._replace(advantages=advantages)).backward()
    weight = task.network.model.layers[0].mlp.up_proj.weight
    found = weight.grad.clone()
    task.network.zero_grad()
    rows, places = (batch.packed.targets != IGNORED).nonzero(as_tuple=True)
    logits = task.network(input_ids=batch.packed.tokens, position_ids=batch.packed.positions).logits
    chosen = logits.log_softmax(-1)[rows, places, batch.packed.targets[rows, places]]
    (-chosen * advantages[rows]).sum().backward()
    torch.testing.assert_close(found, weight.grad, rtol=1e-4, atol=1e-6)


def test_when_memory_runs_out_fewer_prompts_are_completed_at_once(
    prompts: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, recorder = opened(tmp_path, prompts, llama, samples=0)
    expected = [each.tokens for each in task.completions(task.training[:5])]
    whole = task.network.forward

    def small(input_ids: torch.Tensor, **rest: Any) -> Any:
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(input_ids=input_ids, **rest)

    monkeypatch.setattr(task.network, "forward", small)
    assert [each.tokens for each in task.completions(task.training[:5])] == expected
    assert recorder.messages[-1] == "Memory ran out: 2 prompts are completed at once"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grader": None}, "reinforcement needs a grader"),
        ({"grader": {"type": "python", "name": "a", "source": "1"}}, "runs no code"),
        ({"task": "chat"}, "grader would have no effect"),
        ({"task": "chat", "grader": None, "temperature": 0.5}, "temperature would have no effect"),
        ({"reinitialize": True}, "relative to base"),
        ({"strategy": "frozen_encoder"}, "frozen_encoder would learn nothing"),
        ({"strategy": "lora", "lora": {"dropout": 0.1}}, "lora.dropout would have no effect"),
        (
            {"task": "preference", "grader": None, "strategy": "lora", "lora": {"dropout": 0.1}},
            "lora.dropout would have",
        ),
        ({"compile": True}, "translate the network anew"),
        ({"evaluate_every": 2}, "needs validation"),
        ({"packing": False}, "packing would have no effect"),
        ({"sample_tokens": 3}, "sample_tokens would have no effect"),
        ({"evaluate_every": 2, "validation_fraction": 0.5, "early_stopping": 1}, "counts epochs"),
        ({"group_size": 1}, "group_size"),
    ],
)
def test_refuses_settings(settings: dict[str, Any], message: str) -> None:
    spec = {**COMMON, "dataset": "file-1", **settings}
    if spec["task"] != "reinforcement":
        spec = {name: value for name, value in spec.items() if name != "max_completion_tokens"}
    with pytest.raises(InvalidSpec, match=message):
        read_spec(spec)


def test_beta_is_the_tasks_own() -> None:
    def beta(**settings: Any) -> float:
        spec: Any = read_spec({**COMMON, "dataset": "file-1", **settings})
        return float(spec.beta)

    assert [beta(), beta(beta=0), beta(strategy="lora")] == [0.04, 0, 0.04]
    preference = {"method": "fine_tuning", "task": "preference", "base": "model-1", "dataset": "file-1"}
    assert read_spec(preference).model_dump()["beta"] == 0.1
    with pytest.raises(InvalidSpec, match="above 0"):
        read_spec({**preference, "beta": 0})


def test_a_grader_that_names_what_no_line_has_is_refused_before_a_job(prompts: Path) -> None:
    spec: Any = read_spec({**COMMON, "dataset": "file-1", "grader": {**SAYS_D, "reference": "{{ item.other }}"}})
    with pytest.raises(
        InvalidSpec, match=r"names 'item.other', and lines of the data set have: reference_answer"
    ) as told:
        check_task(spec, inspect(prompts))
    assert told.value.param == "grader"
    check_task(read_spec({**COMMON, "dataset": "file-1"}), inspect(prompts))  # type: ignore[arg-type]


def test_lines_that_cannot_be_graded_are_told(llama: Path, tmp_path: Path) -> None:
    asked = {"role": "user", "content": "a"}
    lines = [
        {"messages": [asked], "answer": "b"},
        {"messages": [asked, {"role": "assistant", "content": "b"}], "answer": "b"},
        {"messages": [asked], "other": "b"},
        {"messages": []},
    ]
    (tmp_path / "data").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with pytest.raises(InvalidData) as told:
        opened(tmp_path, tmp_path / "data", llama, grader={**SAYS_D, "reference": "{{ item.answer }}"})
    found = {problem.where: problem.what for problem in told.value.problems}
    assert list(found) == ["line 2", "line 3", "line 4"]
    assert "the last message is the assistant's" in found["line 2"]
    assert "'item.answer', which is not there; there is: other" in found["line 3"]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"max_length": None, "max_completion_tokens": 256}, InvalidSpec, "leaves no room for a prompt"),
        ({"max_length": 8, "too_long": "cut"}, InvalidData, "no prompt is left within 4 tokens"),
        ({"max_length": 8}, InvalidData, r"tokens, and 4 fit \(max_length, less max_completion_tokens\)"),
    ],
)
def test_refuses_what_does_not_fit(
    settings: dict[str, Any], error: type[Exception], message: str, prompts: Path, llama: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        opened(tmp_path, prompts, llama, **settings)


def test_prompts_that_are_too_long_are_left_out_and_counted(prompts: Path, llama: Path, tmp_path: Path) -> None:
    task, recorder = opened(tmp_path, prompts, llama, max_length=32, too_long="cut")
    assert 0 < task.examples < 16
    assert any(f"{16 - task.examples} of 16 prompts are longer than 28 tokens" in text for text in recorder.messages)
