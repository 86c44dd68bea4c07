"""Distillation: a student learns what a teacher knows: its answers, its hidden states, its embeddings, its texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from core.data.examples import write_images
from core.data.profile import Kind, Profile
from core.errors import InvalidSpec
from core.lessons import open_lesson
from core.lessons.teaching import TeachingSpec
from core.methods import classification
from core.networks.architectures import check_kind
from core.networks.shortening import TeachersLayers
from core.registry import Example, method
from core.spec import JobReference
from core.training.batches import Batches
from core.training.labelled import KINDS, check_labelled
from core.training.learning import Learning
from core.training.run import Run

TEXT_OBJECTIVES = ("attention", "embeddings", "sequences")


class DistillationSpec(TeachingSpec):
    """Distillation: a student learns what a teacher answers, represents or writes, with or without true classes."""

    method: Literal["distillation"] = Field("distillation", description="The training method.")
    epochs: int | None = Field(20, ge=1, le=100_000, description="Passes over the data set.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises.")


def check(spec: DistillationSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    check_labelled(spec, profile, needs_labels=False)
    if profile.kind is not Kind.TEXT and spec.objective in TEXT_OBJECTIVES:
        raise InvalidSpec(
            f"objective {spec.objective} is for texts, and the data set holds {profile.kind}: take logits",
            param="objective",
        )
    if profile.kind is not Kind.TEXT and spec.max_length is not None:
        raise InvalidSpec(f"max_length is for texts, and the data set holds {profile.kind}", param="max_length")
    if not isinstance(spec.student, str | JobReference | TeachersLayers):
        check_kind(spec.student, profile.kind, param="student")
    _check_alpha(spec, profile)


def _check_alpha(spec: DistillationSpec, profile: Profile) -> None:
    is_labelled = profile.classes is not None or spec.label is not None
    # texts have next tokens, which are classes to a language model
    if spec.alpha is not None and spec.alpha < 1 and not is_labelled and profile.kind is not Kind.TEXT:
        raise InvalidSpec(
            f"alpha {spec.alpha} gives weight to true classes, and the data set has none: set alpha to 1", param="alpha"
        )


@method(
    reads=KINDS,
    paper="Hinton, Vinyals & Dean 2015, Distilling the knowledge in a neural network; features: Romero et al. 2015, "
    "FitNets; layers: Sanh et al. 2019, DistilBERT; hidden states: Jiao et al. 2020, TinyBERT; attention: Wang et al. "
    "2021, MiniLMv2; embeddings: Reimers & Gurevych 2020; sequences: Kim & Rush 2016",
    opens_with="safetensors; resnet, vit and bert students: transformers (AutoModelForImageClassification, "
    "AutoModelForSequenceClassification, AutoModel, AutoModelForCausalLM, AutoTokenizer)",
    example=Example(
        spec={
            "method": "distillation",
            "student": {"architecture": "mlp", "hidden_sizes": [16]},
            "objective": "hidden_states",
            "epochs": 6,
            "batch_size": 32,
            "learning_rate": 1e-2,
            "jitter": 1,
            "validation_fraction": 0.2,
        },
        write_dataset=write_images,
        needs={"teacher": classification.EXAMPLE},
    ),
    check=check,
)
def train(spec: DistillationSpec, run: Run) -> Mapping[str, float]:
    """Descend the distance between what the student and what the teacher makes of the same examples."""
    lesson = open_lesson(spec, run)
    batches = Batches.of(lesson.examples, spec)
    learning = Learning(lesson.network, spec, run, total=len(batches))

    for batch in run.steps(batches):
        lesson.network.train()
        taught = lesson.batch(batch.rows, generator=run.generator)
        run.log(loss=learning.descend(taught, lesson.loss_of, over=lesson.over(taught)))
        if batch.is_epoch_end and spec.is_validated:
            learning.validate(lesson.evaluate)

    learning.finish()
    return lesson.write_results()
