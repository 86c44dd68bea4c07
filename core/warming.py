"""Imports all that training needs ahead of time, in a process that forks trainers and touches no device."""

from __future__ import annotations

import contextlib
import gc
import importlib
import tempfile
from pathlib import Path

from core.catalog import methods, read_spec
from core.errors import WeightworksError
from core.training.artifacts import write_curves
from core.training.history import History

# What training imports at its first use, or lazily, beyond what the methods themselves import.
HEAVY = (
    "torch._dynamo",  # by the first step of any optimizer
    "matplotlib.backends.backend_agg",
    "safetensors.torch",
    "tokenizers",
    "peft",
    "onnx",
    "ml_dtypes",
    "encodings.cp437",  # by zipfile
    "core.data.inspection",
    "core.execution",
)
LAZY = {
    "transformers": (
        "AutoModel",
        "AutoTokenizer",
        "AutoModelForImageClassification",
        "AutoModelForSequenceClassification",
        "BertForMaskedLM",
        "BertForSequenceClassification",
        "PreTrainedTokenizerFast",
        "ViTForImageClassification",
    )
}


def warm_up(*others: str) -> None:
    """Import ahead of time. No thread of torch's and no device may be started here: neither survives a fork."""
    _read_every_example()
    for name in (*HEAVY, *others):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name, attributes in LAZY.items():
        module = importlib.import_module(name)
        for attribute in attributes:
            with contextlib.suppress(ImportError, AttributeError):
                getattr(module, attribute)
    _draw_a_picture()
    gc.collect()
    gc.freeze()  # so that the collector does not touch, and thereby copy, pages shared with the trainers


def _read_every_example() -> None:
    """Import every method, and have pydantic build what it validates specs with."""
    for method in methods().values():
        named = {
            **dict.fromkeys(["dataset", *method.example.files], "file-example"),
            **dict.fromkeys(method.example.needs, "model-example"),
        }
        with contextlib.suppress(WeightworksError):
            read_spec({**named, **method.example.spec})


def _draw_a_picture() -> None:
    """Have matplotlib find its fonts."""
    history = History()
    history.add(1, {"loss": 1.0})
    history.add(2, {"loss": 0.5})
    with tempfile.TemporaryDirectory() as folder:
        write_curves(history, Path(folder) / "curves.png")
