"""A student learns which class a teacher names, how likely it thinks the others, and what its head makes that of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from core.data.profile import Kind
from core.errors import InvalidData
from core.lessons.losses import answer_loss, feature_loss
from core.lessons.teaching import TeachingSpec
from core.networks.answers import Answers, answer, answer_all, vectors
from core.networks.architectures import check_kind
from core.networks.building import build_classifier
from core.networks.classifier import Classifier
from core.networks.inheriting import inherit_embeddings
from core.networks.opening import open_base, open_classifier
from core.networks.shortening import TeachersLayers, shortened
from core.spec import JobReference
from core.training.augmentation import augment
from core.training.batches import Batches
from core.training.classification import UNKNOWN, Prepared, evaluate, prepare, sample_rows, write_confusion_matrix
from core.training.devices import autocast
from core.training.labelled import ImageSize, Labelled, read_training_data
from core.training.lesson import valid_metrics
from core.training.run import Run


class Examples(NamedTuple):
    """Examples as the student and as the teacher take them, true classes if known, and answers if given once."""

    students: Any
    teachers: Any
    labels: torch.Tensor  # [n] int64
    remembered: Answers | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether the true classes are known."""
        return bool((self.labels != UNKNOWN).all())

    def answered(self, teacher: Classifier, *, with_features: bool) -> Examples:
        """The same with the teacher's answers to all of them."""
        return self._replace(remembered=answer_all(teacher, self.teachers, with_features=with_features))

    def answers(self, teacher: Classifier, drawn: Any, rows: torch.Tensor, *, with_features: bool) -> Answers:
        """What the teacher says of a batch: of the pixels and numbers drawn for the student, of texts in its tokens."""
        if self.remembered is not None:
            return self.remembered.rows(rows)
        batch = drawn if isinstance(drawn, torch.Tensor) else self.teachers[rows]
        return answer(teacher, batch, with_features=with_features)


class Taught(NamedTuple):
    """What a step learns from."""

    x: Any  # as the student takes it
    logits: torch.Tensor  # [rows, classes] the teacher's
    features: torch.Tensor  # [rows, width] the teacher's, or [rows, 0]
    labels: torch.Tensor  # [rows] int64, or UNKNOWN


@dataclass
class ClassesLesson:
    """A classifier teaches another one."""

    spec: TeachingSpec
    run: Run
    teacher: Classifier
    student: Classifier
    projection: nn.Module  # from the student's features to the teacher's; it learns with the student and is thrown away
    training: Examples
    held_out: Examples | None
    alpha: float

    def __post_init__(self) -> None:
        self.network: nn.Module = nn.ModuleDict({"student": self.student.network, "projection": self.projection})

    @property
    def examples(self) -> int:
        """How many there are to learn from."""
        return len(self.training.labels)

    @property
    def has_features(self) -> bool:
        """Whether the heads' features are compared too."""
        return self.spec.hidden_weight is not None

    def batch(self, rows: torch.Tensor, *, generator: torch.Generator) -> Taught:
        """Examples, and what the teacher says of them."""
        drawn = augment(self.training.students[rows], self.spec, generator=generator)
        with autocast(self.spec.precision, self.run.device):
            answers = self.training.answers(self.teacher, drawn, rows, with_features=self.has_features)
        return Taught(drawn, answers.logits, answers.features, self.training.labels[rows])

    def loss_of(self, part: Taught) -> torch.Tensor:
        """The answers' loss, and that of the features where they are compared, summed."""
        with autocast(self.spec.precision, self.run.device):
            logits, features = self.student.logits_and_features(part.x)
            projected = self.projection(vectors(features))
        losses = self._answer_losses(logits.float(), part.logits, part.labels)
        if self.spec.hidden_weight is not None:
            losses = losses + self.spec.hidden_weight * feature_loss(projected.float(), part.features)
        return losses.sum()

    def over(self, batch: Taught) -> float:
        """Every example has a loss."""
        return float(len(batch.labels))

    def evaluate(self) -> Mapping[str, float] | None:
        """The answers' loss, how often both name the same class, and how often each names the true one."""
        if self.held_out is None or self.held_out.remembered is None:
            return None
        return self._judge(self.held_out, self.held_out.remembered.logits)

    def write_results(self) -> Mapping[str, float]:
        """The student, its confusion matrix, and the last metrics: on a sample of the training data, and held out."""
        self.student.network.eval()
        self.student.save(self.run.artifacts)
        rows = sample_rows(self.examples)
        wanted = answer_all(self.teacher, self.training.teachers, rows=rows).logits
        metrics = {f"train_{name}": value for name, value in self._judge(self.training, wanted, rows).items()}
        metrics |= valid_metrics(self)
        if self.held_out is not None and self.held_out.is_labelled:
            found = evaluate(self.student, Prepared(self.held_out.students, self.held_out.labels))
            path = self.run.artifacts / "confusion_matrix.png"
            write_confusion_matrix(found.confusion, self.student.class_names, path)
        return metrics | sizes(self.student.network, self.teacher.network)

    def _judge(self, examples: Examples, wanted: torch.Tensor, rows: torch.Tensor | None = None) -> dict[str, float]:
        """`wanted`: the teacher's logits of all examples, or of `rows`."""
        logits = answer_all(self.student, examples.students, rows=rows).logits
        labels = examples.labels if rows is None else examples.labels[rows]
        losses = self._answer_losses(logits, wanted, labels)
        found = {"loss": float(losses.mean()), "agreement": _fraction(logits.argmax(1) == wanted.argmax(1))}
        if examples.is_labelled:
            found["accuracy"] = _fraction(logits.argmax(1) == labels)
            found["teacher_accuracy"] = _fraction(wanted.argmax(1) == labels)
        return found

    def _answer_losses(self, logits: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        temperature = self.spec.temperature or 1.0
        return answer_loss(logits, teacher, labels, temperature=temperature, alpha=self.alpha)


def open_lesson(spec: TeachingSpec, run: Run) -> ClassesLesson:
    """The data as both read it, and the teacher's answers where they are given once."""
    teacher = open_classifier(run.inputs["teacher"], param="teacher").on(run.device)
    training, validation = _read_data(spec, teacher, run)
    student = _open_student(spec, teacher, training, run).on(run.device)
    taught = _examples(teacher, student, training, run)
    held_out = None if validation is None else _examples(teacher, student, validation, run)
    with_features = spec.hidden_weight is not None
    if should_answer_once(spec, Batches.of(len(training), spec)):
        taught = taught.answered(teacher, with_features=with_features)
    return ClassesLesson(
        spec=spec,
        run=run,
        teacher=teacher,
        student=student,
        projection=_new_projection(spec, teacher, student, taught).to(run.device),
        training=taught,
        held_out=held_out and held_out.answered(teacher, with_features=with_features),
        alpha=spec.alpha or (1.0 if training.labels is None else 0.9),
    )


def _read_data(spec: TeachingSpec, teacher: Classifier, run: Run) -> tuple[Labelled, Labelled | None]:
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


def _open_student(spec: TeachingSpec, teacher: Classifier, training: Labelled, run: Run) -> Classifier:
    """A new student that reads what the teacher reads (its tokens too), or the model that the spec names."""
    if isinstance(spec.student, str | JobReference):
        found = open_base(run.inputs["student"], training.kind, class_names=teacher.class_names, param="student")
        if isinstance(training.examples, torch.Tensor) and training.kind is Kind.TABLE:
            found.classifier.check_columns(training.examples.shape[1], training.columns)
        return found.classifier
    if isinstance(spec.student, TeachersLayers):
        return teacher.with_network(shortened(teacher.network, spec.student))
    check_kind(spec.student, training.kind, param="student")
    student = build_classifier(
        spec.student,
        training.examples,
        kind=training.kind,
        class_names=teacher.class_names,
        columns=training.columns,
        tokenizer=teacher.tokenizer,
    )
    if teacher.tokenizer is not None:
        inherit_embeddings(student.network, teacher.network)
    return student


def _examples(teacher: Classifier, student: Classifier, data: Labelled, run: Run) -> Examples:
    """The data as both take it."""
    prepared = prepare(student, data, run)
    return Examples(prepared.examples, teacher.prepare(data.examples), prepared.labels)


def should_answer_once(spec: TeachingSpec, batches: Batches) -> bool:
    """Whether the teacher answers once for all epochs: it sees the same examples again, and all of them."""
    is_same = not spec.jitter and not spec.horizontal_flip
    return is_same and batches.total >= batches.per_epoch


def _new_projection(spec: TeachingSpec, teacher: Classifier, student: Classifier, examples: Examples) -> nn.Module:
    if spec.hidden_weight is None:
        return nn.Identity()
    first = torch.arange(1)
    own = answer(student, examples.students[first], with_features=True).features
    teachers = answer(teacher, examples.teachers[first], with_features=True).features
    return nn.Linear(own.shape[1], teachers.shape[1])


def sizes(student: nn.Module, teacher: nn.Module) -> dict[str, float]:
    """How many numbers each has."""
    networks = {"parameters": student, "teacher_parameters": teacher}
    return {name: float(sum(each.numel() for each in network.parameters())) for name, network in networks.items()}


def _fraction(is_so: torch.Tensor) -> float:
    return float(is_so.float().mean())
