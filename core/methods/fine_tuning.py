"""Transfer learning: a pretrained model learns the classes of new examples, wholly, by its head, or by adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, StringConstraints, model_validator

from core.data.examples import write_images
from core.data.profile import Kind, Profile
from core.errors import InvalidSpec
from core.methods import classification
from core.networks.adapting import (
    HeadOnly,
    add_adapters,
    freeze_encoder,
    has_fixed_features,
    keep_statistics,
    merged,
    save_adapters,
)
from core.networks.building import standardize
from core.networks.classifier import Classifier
from core.networks.opening import image_shape, open_base, reinitialized
from core.registry import Example, method
from core.spec import Frozen, ModelReference, fill, model_field, refuse
from core.training.augmentation import augment
from core.training.batches import Batches
from core.training.classification import (
    Prepared,
    Trainable,
    class_weights,
    cross_entropy,
    prepare,
    prepare_validation,
    validate,
    write_results,
)
from core.training.devices import autocast
from core.training.labelled import KINDS, ImageSize, Labelled, LabelledSpec, check_labelled, parts, read_training_data
from core.training.optimization import EarlyStopping, adamw, gradient_scaler, schedule, update
from core.training.run import Run

TASKS = {
    "image_classification": Kind.IMAGES,
    "text_classification": Kind.TEXT,
    "table_classification": Kind.TABLE,
}
LEARNING_RATES = {"full": 1e-4, "frozen_encoder": 3e-3, "lora": 1e-3}


class LoRA(Frozen):
    """Low-rank adapters."""

    rank: int = Field(8, ge=1, le=1024, description="Rank of the matrices that are added to a layer's weights.")
    alpha: int = Field(16, ge=1, le=10_000, description="Scale of what is added: alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Fraction of an adapter's inputs dropped in training.")
    target_modules: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] | None = Field(
        None, min_length=1, max_length=100, description="Last names of the layers to adapt; none: all linear layers."
    )


class FineTuningSpec(LabelledSpec):
    """Transfer learning: a pretrained model learns new classes; all of it, its head, or LoRA adapters."""

    method: Literal["fine_tuning"] = Field("fine_tuning", description="The training method.")
    task: Literal["image_classification", "text_classification", "table_classification"] = Field(
        description="What is to be learned."
    )
    base: ModelReference = model_field(
        description="The pretrained model: made here, or an uploaded Hugging Face folder with safetensors."
    )
    strategy: Literal["full", "frozen_encoder", "lora"] = Field(
        "full", description="Whether all weights learn, only the head, or low-rank adapters and the head."
    )
    lora: LoRA | None = Field(None, description="Settings of the adapters, for strategy lora.")
    reinitialize: bool = Field(
        False, description="Forget the base's weights and keep its architecture and tokenizer: the baseline."
    )
    max_length: int | None = Field(
        None, ge=4, le=32_768, description="Tokens of a text that are read; none: as many as the base takes, up to 512."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Part of each target that is spread over all classes.")
    class_weights: Literal["balanced"] | None = Field(
        None, description="Whether rare classes count as much as frequent ones (balanced)."
    )
    batch_size: int = Field(32, ge=1, le=1_000_000, description="Examples a gradient step learns from.")
    learning_rate: float = Field(
        1e-4, gt=0, le=100, description="Size of a gradient step, at its peak; frozen_encoder: 0.003, lora: 0.001."
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises.")
    weight_decay: float = Field(0.01, ge=0, le=10, description="Decoupled weight decay (AdamW).")
    gradient_clip: float | None = Field(1.0, gt=0, description="Largest norm of the gradient; none: not clipped.")

    @model_validator(mode="before")
    @classmethod
    def _settings_of_a_strategy(cls, data: Any) -> Any:
        data = fill(data, "lora", {}, when=lambda given: given.get("strategy") == "lora")
        for strategy, rate in LEARNING_RATES.items():
            data = fill(data, "learning_rate", rate, when=lambda given, s=strategy: given.get("strategy", "full") == s)
        return data

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.strategy != "lora":
            refuse(self, "lora", because=f"the strategy is {self.strategy}")
        elif self.lora is None:
            raise ValueError("strategy lora needs lora")
        if self.reinitialize and self.strategy != "full":
            raise ValueError(f"reinitialize needs strategy full: {self.strategy} would keep random weights as they are")
        if self.task != "text_classification":
            refuse(self, "max_length", "text", because=f"the task is {self.task}")
        return self


def check(spec: FineTuningSpec, profile: Profile) -> None:
    """Refuse what a profile alone shows to be impossible."""
    _check_task(spec, profile.kind)
    check_labelled(spec, profile)


def _check_task(spec: FineTuningSpec, kind: Kind) -> None:
    if kind is not TASKS[spec.task]:
        fitting = next((task for task, each in TASKS.items() if each is kind), None)
        cure = f": did you mean {fitting}?" if fitting else ""
        raise InvalidSpec(
            f"task {spec.task} needs {TASKS[spec.task]}, and the data set holds {kind}{cure}", param="task"
        )


@method(
    reads=KINDS,
    paper="Yosinski et al. 2014, How transferable are features in deep neural networks?; Devlin et al. 2019; adapters: "
    "Hu et al. 2022, LoRA",
    opens_with="transformers (AutoModelForSequenceClassification, AutoModelForImageClassification, AutoTokenizer); "
    "adapters in adapter/: peft; bases of our own: safetensors",
    example=Example(
        spec={
            "method": "fine_tuning",
            "task": "image_classification",
            "epochs": 4,
            "batch_size": 32,
            "jitter": 1,
            "validation_fraction": 0.2,
        },
        write_dataset=write_images,
        needs={"base": classification.EXAMPLE},
    ),
    check=check,
)
def train(spec: FineTuningSpec, run: Run) -> Mapping[str, float]:
    """Descend the cross-entropy from the base's weights, in the parts of the network that the strategy lets learn."""
    training, validation = read_training_data(spec, run, images=image_size(spec, run))
    _check_task(spec, training.kind)
    learner = open_learner(spec, training, run)
    classifier: Classifier | HeadOnly = learner.classifier
    prepared, held_out = prepare(classifier, training, run), prepare_validation(classifier, validation, run)
    if should_precompute(spec, learner, prepared):
        classifier = HeadOnly(learner.classifier)
        prepared, held_out = of_features(classifier, prepared), held_out and of_features(classifier, held_out)
    weights = class_weights(spec.class_weights, training).to(run.device)
    batches = Batches.of(len(training), spec)
    trainable = Trainable(classifier.network)
    optimizer = adamw(trainable.parameters(), spec)
    learning_rate = schedule(optimizer, spec, total=len(batches))
    scaler = gradient_scaler(spec, run.device)
    stopping = EarlyStopping(trainable, patience=spec.early_stopping)
    run.track(network=trainable, optimizer=optimizer, learning_rate=learning_rate, scaler=scaler, stopping=stopping)

    for batch in run.steps(batches):
        set_training_mode(classifier, spec)
        drawn = augment(prepared.examples[batch.rows], spec, generator=run.generator)
        labels = prepared.labels[batch.rows].to(run.device)
        loss = torch.zeros((), device=run.device)
        for x, truth in zip(parts(drawn, spec.accumulate), parts(labels, spec.accumulate), strict=True):
            with autocast(spec.precision, run.device):
                logits = classifier.logits(x)
            losses = cross_entropy(logits.float(), truth, smoothing=spec.label_smoothing, weights=weights)
            part_loss = losses.sum() / len(batch.rows)
            scaler.scale(part_loss).backward()
            loss += part_loss.detach()
        update(optimizer, learning_rate, spec, scaler=scaler)
        run.log(loss=loss)
        if batch.is_epoch_end and held_out is not None:
            validate(classifier, held_out, run, stopping)

    stopping.restore_best()
    if spec.strategy == "lora" and isinstance(classifier, Classifier):
        save_adapters(classifier, run.artifacts / "adapter")
        classifier = merged(classifier)
    return write_results(classifier, run, training=prepared, validation=held_out) | learner.counts


class Learner(NamedTuple):
    """The classifier that learns; whether only its head does; how many of its numbers there are and how many learn."""

    classifier: Classifier
    is_head_alone: bool
    counts: dict[str, float]


def image_size(spec: FineTuningSpec, run: Run) -> ImageSize:
    """How the base wants its images."""
    if TASKS[spec.task] is not Kind.IMAGES:
        return ImageSize()
    channels, height, width = image_shape(run.inputs["base"], param="base")
    return ImageSize((height, width), channels if channels in (1, 3) else None)


def open_learner(spec: FineTuningSpec, training: Labelled, run: Run) -> Learner:
    """The base with a head for the classes of the data, and the parts of it that the strategy lets learn."""
    classifier, new = open_base(run.inputs["base"], training.kind, class_names=training.class_names, param="base")
    if training.kind is Kind.TABLE and isinstance(training.examples, torch.Tensor):
        classifier.check_columns(training.examples.shape[1], training.columns)
    if spec.max_length is not None:
        classifier = replace(classifier, max_length=shortened(spec.max_length, classifier.max_length))
    if spec.reinitialize:
        classifier = reinitialized(classifier)
        if isinstance(training.examples, torch.Tensor):
            standardize(classifier.network, training.examples)
    is_head_alone = False
    if spec.strategy == "frozen_encoder":
        is_head_alone = freeze_encoder(classifier, new_parameters=new)
    elif spec.lora is not None:
        classifier = add_adapters(classifier, new_parameters=new, **dict(spec.lora))
    classifier.on(run.device)
    parameters = list(classifier.network.parameters())
    learning = sum(each.numel() for each in parameters if each.requires_grad)
    counts = {"parameters": float(sum(each.numel() for each in parameters)), "trained_parameters": float(learning)}
    return Learner(classifier, is_head_alone, counts)


def shortened(wanted: int, limit: int) -> int:
    """`wanted`, if the base can take so many tokens; raises InvalidSpec."""
    if wanted > limit:
        raise InvalidSpec(f"max_length is {wanted}, and the base takes at most {limit} tokens", param="max_length")
    return wanted


def should_precompute(spec: FineTuningSpec, learner: Learner, prepared: Prepared) -> bool:
    """Whether the frozen encoder can answer once for all epochs: it always sees the same examples."""
    if not learner.is_head_alone or spec.jitter or spec.horizontal_flip:
        return False
    return has_fixed_features(learner.classifier, prepared.examples)


def of_features(classifier: HeadOnly, data: Prepared) -> Prepared:
    """The data with the encoder's answers in place of the examples."""
    return Prepared(classifier.prepare(data.examples), data.labels)


def set_training_mode(classifier: Classifier | HeadOnly, spec: FineTuningSpec) -> None:
    """Dropout where something learns; what is frozen stays in evaluation mode."""
    if isinstance(classifier, HeadOnly) or spec.strategy == "full":
        classifier.network.train()
    elif spec.strategy == "frozen_encoder":
        classifier.network.eval()
        classifier.head.train()
    else:
        keep_statistics(classifier.network.train())
