"""`python -m core`: training without a server."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from core import load_model
from core.__main__ import Terminal, _cancel_on_interrupt, main
from core.catalog import methods
from core.data.examples import write_table
from core.training.run import Control


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"method": "pca", "n_components": 2}))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    write_table(path)
    return path


def test_lists_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    for method in methods().values():
        assert f"{method.name} " in listed
        assert method.summary in listed


def test_trains_and_says_where_the_weights_are(
    spec: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(spec), "--data", str(table), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert f"The weights are in {tmp_path / 'out' / 'artifacts'}" in said.out
    assert "explained_variance_ratio" in said.out
    assert "step 1 of 1" in said.err
    assert load_model(tmp_path / "out" / "artifacts") is not None


def test_what_is_wrong_is_told_in_a_line_and_trains_nothing(
    spec: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    for arguments, told in (
        ([str(spec), *out], "dataset: this field is missing"),
        ([str(tmp_path / "no.json"), "--data", str(table), *out], "no.json cannot be read"),
        ([str(spec), "--data", str(tmp_path / "no.csv"), *out], "dataset: there is no "),
        ([str(spec), "--data", str(table), "--model", "folder", *out], "'folder' must be FIELD=FOLDER"),
        ([str(spec), "--data", str(table), "--data", f"other={table}", *out], "other: there is no such field"),
    ):
        assert main(["train", *arguments]) == 2
        assert told in capsys.readouterr().err
    table.write_text("a,b\n1,2\n3\n")
    assert main(["train", str(spec), "--data", str(table), *out]) == 2
    assert "line 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_first_interrupt_keeps_what_was_learned_and_the_second_ends() -> None:
    before, control = signal.getsignal(signal.SIGINT), Control()
    try:
        _cancel_on_interrupt(control, Terminal())
        signal.raise_signal(signal.SIGINT)
        assert control.request == "cancel"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
