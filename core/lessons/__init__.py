"""What a teacher can hand on to a student: one file a kind of knowledge, opened by `open_lesson`."""

from __future__ import annotations

from core.errors import InvalidSpec
from core.lessons import classes, encoders, language
from core.lessons.teaching import TeachingSpec
from core.networks.loading import read_config
from core.training.lesson import Lesson
from core.training.run import Run


def open_lesson(spec: TeachingSpec, run: Run) -> Lesson:
    """Teacher, student and data, ready to learn; raises InvalidData and InvalidSpec.

    What the teacher is decides: of a language model the student learns the next tokens, of a classifier the classes,
    and of any text encoder how it represents texts.
    """
    architectures = str(read_config(run.inputs["teacher"]).get("architectures", ""))
    if "ForCausalLM" in architectures or "LMHeadModel" in architectures:
        return language.open_lesson(spec, run)
    if spec.objective == "sequences":
        raise InvalidSpec(
            f"objective sequences needs a teacher that writes text, and this one is {architectures or 'none'}: name a "
            "causal language model",
            param="objective",
        )
    if spec.objective in ("logits", "hidden_states") and not _is_encoder(architectures):
        return classes.open_lesson(spec, run)
    return encoders.open_lesson(spec, run)


def _is_encoder(architectures: str) -> bool:
    """Whether these are a transformers model's that names no classes."""
    return bool(architectures) and "Classification" not in architectures and architectures not in ("None", "[]")
