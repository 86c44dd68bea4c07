"""Documents are held out whole and with their copies, and what would spoil the validation is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from contract import Recorder

from core.catalog import read_spec
from core.errors import InvalidData
from core.training.documents import Documents, read_split
from core.training.run import Run


def split(folder: Path, texts: list[str], validation: list[str] | None = None, **settings: Any) -> Documents:
    inputs = {"dataset": folder / "data"}
    (folder / "data").write_text("\n".join(texts) + "\n")
    if validation is not None:
        inputs["validation"] = folder / "validation"
        inputs["validation"].write_text("\n".join(validation) + "\n")
    named = {name: f"file-{name}" for name in inputs}
    spec = read_spec({"method": "causal_language_model", **named, **settings})
    return read_split(spec, Run(spec=spec, inputs=inputs, folder=folder, reporter=Recorder()))  # type: ignore[arg-type]


def messages(documents: Documents) -> str:
    return "\n".join(documents.run.reporter.messages)  # type: ignore[attr-defined]


TEXTS = [f"This is document number {number}, and it is like no other one." for number in range(100)]


def test_whole_documents_are_held_out(tmp_path: Path) -> None:
    documents = split(tmp_path, TEXTS, validation_fraction=0.1)
    held_out, training = list(documents.held_out()), list(documents.training())
    assert len(held_out) == 10
    assert sorted([*held_out, *training]) == sorted(TEXTS)
    assert list(documents.training()) == training


def test_copies_stand_on_the_same_side_and_are_told(tmp_path: Path) -> None:
    documents = split(tmp_path, TEXTS * 3, validation_fraction=0.1)
    assert not set(documents.held_out()) & set(documents.training())
    assert "200 of 300 documents are copies" in messages(documents)


def test_the_end_of_a_single_document_is_held_out(tmp_path: Path) -> None:
    documents = split(tmp_path, [" ".join(TEXTS)])
    (training,), (held_out,) = documents.training(), documents.held_out()
    assert training + held_out == " ".join(TEXTS)
    assert held_out.startswith(" ")
    assert len(held_out) == pytest.approx(0.02 * len(training), rel=0.2)


def test_leakage_from_a_validation_file_is_told(tmp_path: Path) -> None:
    documents = split(tmp_path, TEXTS, validation=[TEXTS[0], "A document of its own."])
    assert list(documents.held_out()) == [TEXTS[0], "A document of its own."]
    assert "1 of 2 validation documents also stand in the data set" in messages(documents)
    assert len(list(documents.training())) == len(TEXTS)


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="send at least 1,000") as refused:
        split(tmp_path, TEXTS[:3])
    assert refused.value.param == "dataset"
