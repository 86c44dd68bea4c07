"""The run counts, logs, checkpoints, stops, and goes on exactly where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract import Recorder, RequestAfter

from core.errors import CheckpointDamaged
from core.spec import TrainingSpec
from core.training import run as run_module
from core.training.batches import Batches
from core.training.checkpoint import read_checkpoint, write_checkpoint
from core.training.optimization import EarlyStopping, adamw, schedule, update
from core.training.run import Control, Interrupted, Run


def spec_of(**settings) -> TrainingSpec:
    return TrainingSpec(method="test", dataset="file-1", **settings)


def make_run(folder: Path, *, control: Control | None = None, resume: Path | None = None, **settings) -> Run:
    state = read_checkpoint(resume) if resume else None
    return Run(spec_of(**settings), {}, folder, Recorder(), control=control or Control(), resume=state)


def learn(run: Run) -> torch.nn.Module:
    """A regression whose every step draws from each source of randomness."""
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    optimizer = adamw(network.parameters(), run.spec)
    batches = Batches.of(20, run.spec)
    learning_rate = schedule(optimizer, run.spec, total=len(batches))
    run.track(network=network, optimizer=optimizer, schedule=learning_rate)
    x = torch.arange(60.0).view(20, 3) / 60
    for batch in run.steps(batches):
        noise = torch.randn(len(batch.rows), 1, generator=run.generator)
        loss = (network(x[batch.rows]) - noise).square().mean()
        loss.backward()
        update(optimizer, learning_rate, run.spec)
        run.log(loss=loss)
    return network


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("at", [1, 3, 5, 9])
def test_resumed_it_ends_where_an_undisturbed_run_ends(tmp_path: Path, at: int) -> None:
    settings = {"batch_size": 8, "epochs": 4, "warmup": 0.2, "weight_decay": 0.1}
    whole = learn(make_run(tmp_path / "whole", **settings))
    control = RequestAfter("interrupt", steps=at)
    run = make_run(tmp_path / "cut", control=control, **settings)
    with pytest.raises(Interrupted):
        learn(run)
    checkpoint = run.reporter.checkpoints[-1]
    assert checkpoint.step == at
    torch.manual_seed(99)
    assert same(learn(make_run(tmp_path / "rest", resume=checkpoint.path, **settings)), whole)


def test_a_cancelled_run_leaves_its_loop_with_a_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path, control=RequestAfter("cancel", steps=2), batch_size=8, epochs=4)
    learn(run)
    assert (run.step, run.is_cancelled) == (2, True)
    assert run.reporter.checkpoints[-1].step == 2


def test_checkpoints_come_as_asked_and_the_newest_two_stay(tmp_path: Path) -> None:
    run = make_run(tmp_path, batch_size=8, epochs=4, checkpoint_every=3)
    learn(run)
    assert [file.step for file in run.reporter.checkpoints] == [3, 6, 9]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-000000006.safetensors",
        "step-000000009.safetensors",
    ]


def test_checkpoints_that_take_long_come_rarer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(run_module.time, "monotonic", lambda: now[0])

    def write_slowly(state, path, *, step):
        now[0] += 10
        return write_checkpoint(state, path, step=step)

    monkeypatch.setattr(run_module, "write_checkpoint", write_slowly)
    run = make_run(tmp_path)
    run.track(network=torch.nn.Linear(1, 1))
    for _ in run.steps(range(400)):
        now[0] += 1
    steps = [file.step for file in run.reporter.checkpoints]  # type: ignore[attr-defined]
    assert steps == [30, 230]  # 10 seconds are a twentieth of the 200 behind them


def test_logged_numbers_are_means_over_what_was_not_yet_sent(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for value in run.steps([torch.tensor(1.0), torch.tensor(2.0), torch.tensor(6.0)]):
        run.log(loss=value)
    assert run.reporter.metrics_seen[0] == (1, {"loss": 1.0})
    assert run.reporter.metrics_seen[-1] == (3, {"loss": 4.0})


def test_two_loops_count_on_and_resume_in_the_second(tmp_path: Path) -> None:
    def count(run: Run) -> list[int]:
        seen = list(run.steps(range(3), total=7))
        return seen + [10 + item for item in run.steps(range(4), total=7)]

    control = RequestAfter("interrupt", steps=5)
    run = make_run(tmp_path, control=control)
    run.track(network=torch.nn.Linear(1, 1))
    with pytest.raises(Interrupted):
        count(run)
    assert count(make_run(tmp_path / "rest", resume=run.reporter.checkpoints[-1].path)) == [12, 13]


@pytest.mark.parametrize("damage", [lambda content: content[:-5], lambda content: b"", lambda content: b"junk" * 99])
def test_a_damaged_checkpoint_is_told(tmp_path: Path, damage) -> None:
    file = write_checkpoint({"step": 1, "w": torch.ones(3)}, tmp_path / "c.safetensors", step=1)
    assert torch.equal(read_checkpoint(file.path, sha256=file.sha256)["w"], torch.ones(3))
    file.path.write_bytes(damage(file.path.read_bytes()))
    with pytest.raises(CheckpointDamaged):
        read_checkpoint(file.path, sha256=file.sha256)
    with pytest.raises(CheckpointDamaged):
        read_checkpoint(file.path)


def test_a_checkpoint_keeps_every_type_and_shared_weights(tmp_path: Path) -> None:
    tied = torch.arange(4.0)
    state = {"a": tied, "b": tied.view(2, 2).t(), 3: ["x", (1, 2.5, None, True)], "inf": float("inf"), "e": {}}
    file = write_checkpoint(state, tmp_path / "c.safetensors", step=0)
    back = read_checkpoint(file.path)
    assert torch.equal(back["a"], tied)
    assert torch.equal(back["b"], state["b"])
    assert (back[3], back["inf"], back["e"]) == (["x", (1, 2.5, None, True)], float("inf"), {})


def test_every_epoch_sees_every_example_once_in_another_order() -> None:
    batches = Batches(10, batch_size=4, seed=1, epochs=2)
    epochs = [torch.cat([batch.rows for batch in batches[place : place + 3]]) for place in (0, 3)]
    assert all(sorted(rows.tolist()) == list(range(10)) for rows in epochs)
    assert not torch.equal(*epochs)
    assert [batch.is_epoch_end for batch in batches] == [False, False, True] * 2
    assert torch.equal(Batches(10, batch_size=4, seed=1, epochs=2)[4].rows, batches[4].rows)


def test_the_learning_rate_rises_and_falls() -> None:
    spec = spec_of(learning_rate=1.0, warmup=0.2, schedule="linear")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = schedule(optimizer, spec, total=10)
    seen = []
    for _ in range(10):
        seen.append(round(rates.get_last_lr()[0], 4))
        optimizer.step()
        rates.step()
    assert seen == [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]


def test_early_stopping_keeps_the_best_weights() -> None:
    network = torch.nn.Linear(1, 1)
    stopper = EarlyStopping(network, patience=2)
    verdicts = []
    for loss in (3.0, 1.0, 2.0, 1.5):
        torch.nn.init.constant_(network.weight, loss)
        verdicts.append(stopper.should_stop(loss))
    stopper.restore_best()
    assert verdicts == [False, False, False, True]
    assert network.weight.item() == 1.0
