"""What fine_tuning can teach a pretrained network: one file a family of tasks, opened by `open_task`."""

from __future__ import annotations

from collections.abc import Mapping

from core.data.profile import Kind, Profile
from core.errors import InvalidSpec
from core.tasks import (
    chat,
    classification,
    language_model,
    object_detection,
    preference,
    reinforcement,
    semantic_segmentation,
    sequence_to_sequence,
    speech_recognition,
    token_classification,
)
from core.tasks.task import Task, TaskType, TuningSpec
from core.training.run import Run

TASKS: Mapping[str, TaskType] = {
    "image_classification": classification.IMAGES,
    "text_classification": classification.TEXTS,
    "table_classification": classification.TABLES,
    "audio_classification": classification.SOUNDS,
    "semantic_segmentation": semantic_segmentation.TASK,
    "token_classification": token_classification.TASK,
    "sequence_to_sequence": sequence_to_sequence.TASK,
    "language_model": language_model.TASK,
    "chat": chat.TASK,
    "preference": preference.TASK,
    "reinforcement": reinforcement.TASK,
    "object_detection": object_detection.TASK,
    "speech_recognition": speech_recognition.TASK,
}
# What the fine-tuning API calls them.
METHOD_OF_TASK = {"chat": " (supervised)", "preference": " (dpo)"}
KINDS: tuple[Kind, ...] = tuple(dict.fromkeys(kind for task in TASKS.values() for kind in task.reads))


def check_task(spec: TuningSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible for the spec's task."""
    check_kind(spec, profile.kind)
    TASKS[spec.task].check(spec, profile)


def check_kind(spec: TuningSpec, kind: Kind) -> None:
    """Raise InvalidSpec where the task does not learn from data of this kind, naming those that do."""
    reads = TASKS[spec.task].reads
    if kind not in reads:
        fitting = [f"{name}{METHOD_OF_TASK.get(name, '')}" for name, task in TASKS.items() if kind in task.reads]
        cure = f": did you mean {' or '.join(fitting)}?" if fitting else ""
        needed = " or ".join(reads)
        raise InvalidSpec(f"task {spec.task} needs {needed}, and the data set holds {kind}{cure}", param="task")


def open_task(spec: TuningSpec, run: Run) -> Task:
    """The base with a head for the task, and the data, ready to learn; raises InvalidData and InvalidSpec."""
    return TASKS[spec.task].open(spec, run)
