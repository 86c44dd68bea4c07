"""Training without a server or a queue: `python -m core methods`, and `python -m core train SPEC.json ...`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the worker has it (worker/trainers.py), before torch is imported

from core.catalog import method_named, methods, read_spec
from core.data.profile import inspect
from core.errors import InvalidData, InvalidRequest, InvalidSpec, WeightworksError
from core.execution import Outcome, train
from core.spec import MethodSpec, files_of, models_of
from core.training.checkpoint import CheckpointFile
from core.training.run import Control, Level, Run
from core.training.samples import Sample

FILE, MODEL = "file-local", "model-local"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; answers the exit status: 2 for what the user can mend, its message on the error stream."""
    asked = _parser().parse_args(arguments)
    try:
        status: int = asked.run(asked)
    except WeightworksError as error:
        for line in [str(problem) for problem in error.problems] if isinstance(error, InvalidData) else [error.message]:
            _say_error(f"{error.param}: {line}" if error.param and error.param not in line else line)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m core", description="Train without a server.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("methods", help="list the training methods")
    listing.set_defaults(run=_list_methods)
    training = commands.add_parser("train", help="train as a spec says")
    training.add_argument("spec", type=Path, metavar="SPEC.json", help="the spec, as POST /v1/jobs takes it")
    training.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="[FIELD=]FILE",
        help="the data set; with FIELD=, another file that the spec names, such as validation",
    )
    training.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FIELD=FOLDER",
        help="a model that the spec starts from, such as teacher or base",
    )
    training.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the weights go")
    training.set_defaults(run=_train)
    return parser


def _list_methods(asked: argparse.Namespace) -> int:
    for method in methods().values():
        _say(f"{method.name:20} {method.summary}")
    return 0


def _train(asked: argparse.Namespace) -> int:
    files, models = _named(asked.data, default="dataset"), _named(asked.model, default=None)
    paths = {**files, **models}
    spec = read_spec({**_read_json(asked.spec), **dict.fromkeys(files, FILE), **dict.fromkeys(models, MODEL)})
    _check_inputs(spec, paths)
    control, terminal = Control(), Terminal()
    _cancel_on_interrupt(control, terminal)
    run = Run(spec=spec, inputs=paths, folder=asked.out, reporter=terminal, control=control)
    outcome = train(run, lineage={field: str(path) for field, path in paths.items()})
    terminal.close()
    _tell(outcome, run.artifacts)
    return 0


def _read_json(path: Path) -> dict[str, Any]:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidSpec(f"{path} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise InvalidSpec(f"{path} must hold an object")
    return given


def _named(values: Sequence[str], *, default: str | None) -> dict[str, Path]:
    """`FIELD=PATH` arguments by field."""
    found = {}
    for value in values:
        field, equals, path = value.partition("=")
        if not (equals and field.isidentifier()):
            if default is None:
                raise InvalidRequest(f"'{value}' must be FIELD=FOLDER, such as teacher=runs/teacher/artifacts")
            field, path = default, value
        found[field] = Path(path)
    return found


def _check_inputs(spec: MethodSpec, paths: Mapping[str, Path]) -> None:
    """Refuse what is missing, and what the data set alone shows to be impossible, before anything is trained."""
    for field in (*files_of(spec), *models_of(spec)):
        option = "--data" if field in files_of(spec) else "--model"
        if field not in paths:
            raise InvalidRequest(f"the spec names it: give {option} {field}=PATH", param=field)
        if not paths[field].exists():
            raise InvalidRequest(f"there is no {paths[field]}", param=field)
    method = method_named(spec.method)
    profile = inspect(paths["dataset"])
    if profile.kind not in method.reads:
        kinds = ", ".join(method.reads)
        raise InvalidData(f"{method.name} learns from {kinds}, and this is {profile.kind}", param="dataset")
    if method.check is not None:
        method.check(spec, profile)


def _cancel_on_interrupt(control: Control, terminal: Terminal) -> None:
    """Ctrl-C keeps what was learned so far; a second one ends at once."""

    def cancel(number: int, frame: Any) -> None:
        terminal.message("Stopping after this step; once more to stop at once.", "info")
        control.request = "cancel"
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, cancel)


def _tell(outcome: Outcome, folder: Path) -> None:
    for name, value in outcome.metrics.items():
        _say(f"{name:32} {value:.6g}")
    _say(f"{'Cancelled; what was learned is' if outcome.is_cancelled else 'The weights are'} in {folder}")


class Terminal:
    """A reporter that writes one line over and over on a terminal, and a line each time where there is none."""

    def __init__(self) -> None:
        self._place = ""
        self._latest: dict[str, float] = {}
        self._is_terminal = sys.stderr.isatty()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers measured at a step."""
        self._latest.update(values)
        self._show()

    def message(self, text: str, level: Level) -> None:
        """A sentence for whoever watches."""
        self.close()
        _say_error(text)

    def progress(self, step: int, total: int | None) -> None:
        """How far the run is."""
        self._place = f"{step:,} of {total:,}" if total else f"{step:,}"
        self._show()

    def checkpoint(self, file: CheckpointFile) -> None:
        """A checkpoint was written."""

    def shown(self, sample: Sample) -> None:
        """Print a text, or where a picture lies."""
        self.message(sample.path.read_text() if sample.media_type == "text/plain" else str(sample.path), "info")

    def close(self) -> None:
        """Leave the line that is written over."""
        if self._is_terminal:
            sys.stderr.write("\r\033[K")

    def _show(self) -> None:
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in self._latest.items())
        start, end = ("\r\033[K", "") if self._is_terminal else ("", "\n")
        sys.stderr.write(f"{start}step {self._place}  {numbers}"[: 400 if end else 118] + end)
        sys.stderr.flush()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _say_error(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
