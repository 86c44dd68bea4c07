"""Distillation: a student learns what a teacher answers, and if told to what the teacher's last layer holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional

from core.data.examples import write_images
from core.data.profile import Kind, Profile
from core.errors import InvalidData, InvalidSpec
from core.methods import classification
from core.networks.answers import Answers, answer, answer_all, vectors
from core.networks.architectures import Architecture, check_kind
from core.networks.building import build_classifier
from core.networks.classifier import Classifier
from core.networks.opening import open_base, open_classifier
from core.registry import Example, method
from core.spec import JobReference, ModelReference, fill, model_field, refuse
from core.training.augmentation import augment
from core.training.batches import Batches
from core.training.classification import UNKNOWN, Prepared, evaluate, prepare, sample_rows, write_confusion_matrix
from core.training.devices import autocast
from core.training.labelled import (
    KINDS,
    Batch,
    ImageSize,
    Labelled,
    LabelledSpec,
    check_labelled,
    read_training_data,
)
from core.training.optimization import EarlyStopping, adamw, gradient_scaler, schedule, update
from core.training.parts import parts
from core.training.run import Run


class DistillationSpec(LabelledSpec):
    """Distillation: a student of any architecture learns a teacher's answers, with or without true classes."""

    method: Literal["distillation"] = Field("distillation", description="The training method.")
    teacher: ModelReference = model_field(description="The classifier whose knowledge is handed on.")
    student: Architecture | ModelReference = model_field(
        description="The student's architecture, or a model that is to learn more."
    )
    objective: Literal["logits", "hidden_states"] = Field(
        "logits", description="What the student matches: the answers, or also the features that the head makes them of."
    )
    temperature: float = Field(4.0, gt=0, le=1000, description="Softness of the answers that are matched.")
    alpha: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Weight of the teacher's answers against the true classes; none: 0.9, or 1 without.",
    )
    hidden_weight: float | None = Field(
        None, gt=0, le=10_000, description="Weight of the squared distance between features, for hidden_states."
    )
    epochs: int | None = Field(20, ge=1, le=100_000, description="Passes over the data set.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises.")

    @model_validator(mode="before")
    @classmethod
    def _settings_of_an_objective(cls, data: Any) -> Any:
        return fill(data, "hidden_weight", 1.0, when=lambda given: given.get("objective") == "hidden_states")

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.objective == "logits":
            refuse(self, "hidden_weight", because="the objective is logits")
        elif self.hidden_weight is None:
            raise ValueError("objective hidden_states needs hidden_weight")
        return self


def check(spec: DistillationSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    check_labelled(spec, profile, needs_labels=False)
    if not isinstance(spec.student, str | JobReference):
        check_kind(spec.student, profile.kind, param="student")
    _check_alpha(spec, is_labelled=profile.classes is not None or spec.label is not None)


def _check_alpha(spec: DistillationSpec, *, is_labelled: bool) -> None:
    if spec.alpha is not None and spec.alpha < 1 and not is_labelled:
        raise InvalidSpec(
            f"alpha {spec.alpha} gives weight to true classes, and the data set has none: set alpha to 1", param="alpha"
        )


def soft_cross_entropy(logits: torch.Tensor, teacher: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Divergence of the student's softened answers from the teacher's, times temperature squared, [rows].

    The factor keeps the size of the gradient whatever the temperature (Hinton, Vinyals & Dean 2015, section 2).
    """
    student = functional.log_softmax(logits / temperature, dim=1)
    wanted = functional.log_softmax(teacher / temperature, dim=1)
    return functional.kl_div(student, wanted, log_target=True, reduction="none").sum(1) * temperature**2


def answer_loss(
    logits: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, *, temperature: float, alpha: float
) -> torch.Tensor:
    """The teacher's answers and the true classes, weighed by `alpha` against 1 - alpha, [rows]."""
    loss = alpha * soft_cross_entropy(logits, teacher, temperature=temperature)
    return loss if alpha == 1 else loss + (1 - alpha) * functional.cross_entropy(logits, labels, reduction="none")


def feature_loss(features: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference between [rows, width] features, already projected, and the teacher's, [rows]."""
    return (features - teacher).square().mean(1)


@method(
    reads=KINDS,
    paper="Hinton, Vinyals & Dean 2015, Distilling the knowledge in a neural network; features: Romero et al. 2015, "
    "FitNets",
    opens_with="safetensors; resnet, vit and bert students: transformers (AutoModelForImageClassification, "
    "AutoModelForSequenceClassification, AutoTokenizer)",
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
    """Descend the distance between the student's answers and the teacher's, batch by batch."""
    teacher = open_classifier(run.inputs["teacher"], param="teacher").on(run.device)
    training, validation = read_data(spec, teacher, run)
    student = open_student(spec, teacher, training, run).on(run.device)
    alpha = spec.alpha or (1.0 if training.labels is None else 0.9)
    lesson, exam = new_lesson(teacher, student, training, run), None
    if validation is not None:
        exam = new_lesson(teacher, student, validation, run).answered(teacher, spec)
    projection = new_projection(spec, teacher, student, lesson).to(run.device)
    batches = Batches.of(len(training), spec)
    if should_answer_once(spec, batches):
        lesson = lesson.answered(teacher, spec)
    optimizer = adamw([*student.network.parameters(), *projection.parameters()], spec)
    learning_rate = schedule(optimizer, spec, total=len(batches))
    scaler = gradient_scaler(spec, run.device)
    stopping = EarlyStopping(student.network, patience=spec.early_stopping)
    run.track(network=student.network, projection=projection, stopping=stopping)
    run.track(optimizer=optimizer, learning_rate=learning_rate, scaler=scaler)

    for batch in run.steps(batches):
        student.network.train()
        drawn = augment(lesson.examples[batch.rows], spec, generator=run.generator)
        with autocast(spec.precision, run.device):
            taught = lesson.answers(teacher, drawn, batch.rows, spec)
        loss = torch.zeros((), device=run.device)
        cut = [parts(each, spec.accumulate) for each in (*taught, lesson.labels[batch.rows])]
        for x, *wanted in zip(parts(drawn, spec.accumulate), *cut, strict=True):
            with autocast(spec.precision, run.device):
                logits, features = student.logits_and_features(x)
                projected = projection(vectors(features))
            teachers_logits, teachers_features, truth = (tensor.to(run.device) for tensor in wanted)
            losses = answer_loss(logits.float(), teachers_logits, truth, temperature=spec.temperature, alpha=alpha)
            if spec.hidden_weight is not None:
                losses = losses + spec.hidden_weight * feature_loss(projected.float(), teachers_features)
            part_loss = losses.sum() / len(batch.rows)
            scaler.scale(part_loss).backward()
            loss += part_loss.detach()
        update(optimizer, learning_rate, spec, scaler=scaler)
        run.log(loss=loss)
        if batch.is_epoch_end and exam is not None:
            found = judge(student, exam, exam.wanted, spec, alpha=alpha)
            run.report(**{f"valid_{name}": value for name, value in found.items()})
            if stopping.should_stop(found["loss"]):
                run.stop_early(f"{spec.early_stopping} epochs without a better validation loss")

    stopping.restore_best()
    student.network.eval()
    student.save(run.artifacts)
    metrics = judge_all(student, teacher, lesson, exam, spec, alpha=alpha)
    if exam is not None and exam.is_labelled:
        confusion = evaluate(student, Prepared(exam.examples, exam.labels)).confusion
        write_confusion_matrix(confusion, student.class_names, run.artifacts / "confusion_matrix.png")
    return metrics


def read_data(spec: DistillationSpec, teacher: Classifier, run: Run) -> tuple[Labelled, Labelled | None]:
    """The examples as the teacher reads them, with labels in the order of its classes, if there are any."""
    images = ImageSize()
    if teacher.kind is Kind.IMAGES and teacher.shape is not None:
        channels, height, width = teacher.shape
        images = ImageSize((height, width), channels if channels in (1, 3) else None)
    needs_labels = spec.alpha is not None and spec.alpha < 1
    training, validation = read_training_data(
        spec, run, images=images, class_names=teacher.class_names, needs_labels=needs_labels
    )
    if training.kind is not teacher.kind:
        raise InvalidData(
            f"the teacher reads {teacher.kind}, and the data set holds {training.kind}: name a teacher of that kind",
            param="teacher",
        )
    if training.kind is Kind.TABLE and isinstance(training.examples, torch.Tensor):
        teacher.check_columns(training.examples.shape[1], training.columns)
    return training, validation


def open_student(spec: DistillationSpec, teacher: Classifier, training: Labelled, run: Run) -> Classifier:
    """A new student that reads what the teacher reads (its tokens too), or the model that the spec names."""
    if isinstance(spec.student, str | JobReference):
        found = open_base(run.inputs["student"], training.kind, class_names=teacher.class_names, param="student")
        if isinstance(training.examples, torch.Tensor) and training.kind is Kind.TABLE:
            found.classifier.check_columns(training.examples.shape[1], training.columns)
        return found.classifier
    check_kind(spec.student, training.kind, param="student")
    return build_classifier(
        spec.student,
        training.examples,
        kind=training.kind,
        class_names=teacher.class_names,
        columns=training.columns,
        tokenizer=teacher.tokenizer,
    )


class Lesson(NamedTuple):
    """Examples as the student and as the teacher take them, true classes if known, and answers if given once."""

    examples: Any
    teachers_examples: Any
    labels: torch.Tensor  # [n] int64
    remembered: Answers | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether the true classes are known."""
        return bool((self.labels != UNKNOWN).all())

    @property
    def wanted(self) -> torch.Tensor:
        """The teacher's logits of all examples, once they are answered."""
        assert self.remembered is not None  # noqa: S101 - an exam is always answered
        return self.remembered.logits

    def answered(self, teacher: Classifier, spec: DistillationSpec) -> Lesson:
        """The same with the teacher's answers to all examples."""
        answers = answer_all(teacher, self.teachers_examples, with_features=spec.hidden_weight is not None)
        return self._replace(remembered=answers)

    def answers(self, teacher: Classifier, drawn: Batch, rows: torch.Tensor, spec: DistillationSpec) -> Answers:
        """What the teacher says of a batch: of the pixels and numbers drawn for the student, of texts in its tokens."""
        if self.remembered is not None:
            return self.remembered.rows(rows)
        batch = drawn if isinstance(drawn, torch.Tensor) else self.teachers_examples[rows]
        return answer(teacher, batch, with_features=spec.hidden_weight is not None)


def new_lesson(teacher: Classifier, student: Classifier, data: Labelled, run: Run) -> Lesson:
    """The data as both take it."""
    prepared = prepare(student, data, run)
    return Lesson(prepared.examples, teacher.prepare(data.examples), prepared.labels)


def should_answer_once(spec: DistillationSpec, batches: Batches) -> bool:
    """Whether the teacher answers once for all epochs: it sees the same examples again, and all of them."""
    is_same = not spec.jitter and not spec.horizontal_flip
    return is_same and batches.total >= batches.per_epoch


def new_projection(spec: DistillationSpec, teacher: Classifier, student: Classifier, lesson: Lesson) -> nn.Module:
    """From the student's features to the teacher's; it learns with the student and is thrown away."""
    if spec.hidden_weight is None:
        return nn.Identity()
    first = torch.arange(1)
    own = answer(student, lesson.examples[first], with_features=True).features
    teachers = answer(teacher, lesson.teachers_examples[first], with_features=True).features
    return nn.Linear(own.shape[1], teachers.shape[1])


def judge(
    student: Classifier,
    lesson: Lesson,
    wanted: torch.Tensor,
    spec: DistillationSpec,
    *,
    alpha: float,
    rows: torch.Tensor | None = None,
) -> dict[str, float]:
    """The answers' loss, how often student and teacher name the same class, and how often each names the true one.

    `wanted`: the teacher's logits of all examples, or of `rows`.
    """
    logits = answer_all(student, lesson.examples, rows=rows).logits
    labels = lesson.labels if rows is None else lesson.labels[rows]
    losses = answer_loss(logits, wanted, labels, temperature=spec.temperature, alpha=alpha)
    found = {"loss": float(losses.mean()), "agreement": _fraction(logits.argmax(1) == wanted.argmax(1))}
    if lesson.is_labelled:
        found["accuracy"] = _fraction(logits.argmax(1) == labels)
        found["teacher_accuracy"] = _fraction(wanted.argmax(1) == labels)
    return found


def _fraction(is_so: torch.Tensor) -> float:
    return float(is_so.float().mean())


def judge_all(
    student: Classifier,
    teacher: Classifier,
    lesson: Lesson,
    exam: Lesson | None,
    spec: DistillationSpec,
    *,
    alpha: float,
) -> dict[str, float]:
    """The last metrics: on a sample of the training data, on what was held out, and the sizes of both networks."""
    rows = sample_rows(len(lesson.labels))
    wanted = answer_all(teacher, lesson.teachers_examples, rows=rows).logits
    found = judge(student, lesson, wanted, spec, alpha=alpha, rows=rows)
    metrics = {f"train_{name}": value for name, value in found.items()}
    if exam is not None:
        found = judge(student, exam, exam.wanted, spec, alpha=alpha)
        metrics |= {f"valid_{name}": value for name, value in found.items()}
    sizes = {"parameters": student, "teacher_parameters": teacher}
    return metrics | {name: float(sum(p.numel() for p in each.network.parameters())) for name, each in sizes.items()}
