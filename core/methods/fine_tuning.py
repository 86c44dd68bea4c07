"""Transfer learning: a pretrained model learns a new task, wholly, by its head, layer by layer, or by adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, StringConstraints, model_validator
from torch import nn

from core.data.examples import write_images
from core.methods import classification
from core.networks.adapting import (
    add_adapters,
    depth_groups,
    freeze_encoder,
    keep_statistics,
    merged,
    save_adapters,
)
from core.registry import Example, method
from core.spec import Frozen, fill, refuse
from core.tasks import KINDS, check_task, open_task
from core.tasks.task import CHECKPOINTED, RELATIVE, WRITING, Counted, Task, TuningSpec
from core.training.batches import Batch, Batches
from core.training.learning import Learning
from core.training.run import Run
from core.training.step_metrics import STEP_METRICS, StepMetrics

LEARNING_RATES = {"full": 1e-4, "gradual": 1e-4, "frozen_encoder": 3e-3, "lora": 1e-3}
# Of models that write, which are larger, and whose head is not new; a preference moves them further a step.
RATES_OF_WRITING = {"full": 2e-5, "gradual": 2e-5, "lora": 2e-4}
RATES_OF_TASK = {
    "language_model": RATES_OF_WRITING,
    "chat": RATES_OF_WRITING,
    "preference": {"full": 1e-6, "gradual": 1e-6, "lora": 2e-5},
    "reinforcement": {"full": 1e-6, "gradual": 1e-6, "lora": 2e-5},
}
BATCH_OF_WRITING = 8


class LoRA(Frozen):
    """Low-rank adapters."""

    rank: int = Field(8, ge=1, le=1024, description="Rank of the matrices that are added to a layer's weights.")
    alpha: int = Field(16, ge=1, le=10_000, description="Scale of what is added: alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Fraction of an adapter's inputs dropped in training.")
    dora: bool = Field(False, description="Learn a weight's size apart from its direction (DoRA).")
    target_modules: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] | None = Field(
        None, min_length=1, max_length=100, description="Last names of the layers to adapt; none: all linear layers."
    )


class FineTuningSpec(TuningSpec):
    """Transfer learning: a pretrained model learns a new task; all of it, its head, layer by layer, or adapters."""

    method: Literal["fine_tuning"] = Field("fine_tuning", description="The training method.")
    lora: LoRA | None = Field(None, description="Settings of the adapters, for strategy lora.")
    batch_size: int = Field(32, ge=1, le=1_000_000, description="Examples a gradient step learns from.")
    learning_rate: float = Field(
        1e-4,
        gt=0,
        le=100,
        description="Size of a gradient step, at its peak; left out, it follows from strategy and task.",
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises.")
    weight_decay: float = Field(0.01, ge=0, le=10, description="Decoupled weight decay (AdamW).")
    gradient_clip: float | None = Field(1.0, gt=0, description="Largest norm of the gradient; none: not clipped.")

    @model_validator(mode="before")
    @classmethod
    def _settings_of_a_strategy(cls, data: Any) -> Any:
        data = fill(data, "lora", {}, when=lambda given: given.get("strategy") == "lora")
        data = fill(data, "learning_rate", usual_rate(data), when=lambda given: usual_rate(given) is not None)
        return fill(data, "batch_size", BATCH_OF_WRITING, when=lambda given: str(given.get("task")) in RATES_OF_TASK)

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.strategy != "lora":
            refuse(self, "lora", because=f"the strategy is {self.strategy}")
        elif self.lora is None:
            raise ValueError("strategy lora needs lora")
        if self.strategy == "lora" and self.pooling is not None:
            raise ValueError(
                "pooling adds a layer to the base, which adapters would not fit: take full or frozen_encoder"
            )
        if self.strategy == "frozen_encoder" and self.task in WRITING:
            raise ValueError(
                f"frozen_encoder would learn nothing: {self.task} keeps the base's head; take lora or full"
            )
        if self.task in RELATIVE and self.lora is not None and self.lora.dropout:
            raise ValueError(f"lora.dropout would have no effect: {self.task} is learned without dropout")
        if self.reinitialize and self.strategy != "full":
            raise ValueError(f"reinitialize needs strategy full: {self.strategy} would keep random weights as they are")
        return self


def usual_rate(given: Any) -> float | None:
    """The learning rate of a spec that gives none, None where its strategy is no strategy."""
    if not isinstance(given, Mapping):
        return None
    rates = RATES_OF_TASK.get(str(given.get("task", "")), LEARNING_RATES)
    return rates.get(str(given.get("strategy", "full")))


@method(
    reads=KINDS,
    paper="Yosinski et al. 2014, How transferable are features in deep neural networks?; Devlin et al. 2019; gradual "
    "unfreezing: Howard & Ruder 2018; adapters: Hu et al. 2022, LoRA; Liu et al. 2024, DoRA; preferences: Rafailov et "
    "al. 2023, DPO; reinforcement: Shao et al. 2024, GRPO; Yu et al. 2025, DAPO",
    opens_with="transformers (AutoModelForSequenceClassification, AutoModelForImageClassification, "
    "AutoModelForAudioClassification, AutoModelForSemanticSegmentation, AutoModelForObjectDetection, "
    "AutoModelForTokenClassification, AutoModelForCTC, AutoModelForSpeechSeq2Seq, "
    "AutoModelForSeq2SeqLM, AutoModelForCausalLM, AutoTokenizer, AutoFeatureExtractor); "
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
    check=check_task,
)
def train(spec: FineTuningSpec, run: Run) -> Mapping[str, float]:
    """Descend the task's loss from the base's weights, in the parts of the network that the strategy lets learn."""
    task = open_task(spec, run)
    choose_what_learns(task, spec)
    network = task.network.to(run.device)
    counts = count_parameters(network)
    layers = depth_groups(network, head=task.head)
    batches = Batches.of(task.examples, spec)
    learning = Learning(network, spec, run, total=len(batches) * spec.updates)
    told = StepMetrics()
    forget = task.take_accuracy if isinstance(task, Counted) else None
    if isinstance(task, Counted):
        run.track(step_metrics=told)

    for batch in run.steps(batches):
        set_training_mode(network, task, spec)
        if spec.strategy == "gradual":
            unfreeze(layers, epoch=batch.epoch)
        examples = task.batch(batch.rows, generator=run.generator)
        for _ in range(spec.updates):
            loss = learning.descend(examples, task.loss_of, over=task.over(examples), forget=forget)
            run.log(loss=loss)
        note_step(told, task, examples, loss=loss, run=run)
        if spec.is_validated and is_evaluated(batch, spec):
            learning.validate(task.evaluate)
        if batch.is_epoch_end and spec.task in CHECKPOINTED:
            run.end_epoch(left=batches.epochs - 1 - batch.epoch)

    learning.finish()
    if spec.strategy == "lora":
        save_adapters(network, run.artifacts / "adapter")
        task.network = merged(network)
    return {**task.write_results(), **counts, **write_steps(told, task, run)}


def note_step(told: StepMetrics, task: Task, examples: Any, *, loss: torch.Tensor, run: Run) -> None:
    """Note a step of a task of tokens, within it, and log how often it was right."""
    if isinstance(task, Counted):
        accuracy = task.take_accuracy()
        told.note(run.step + 1, loss=loss, accuracy=accuracy, tokens=task.tokens_in(examples))
        run.log(**{task.accuracy: accuracy})


def write_steps(told: StepMetrics, task: Task, run: Run) -> dict[str, float]:
    """Leave every step's metrics among the artifacts; answers how many tokens a task of tokens has learned from."""
    if not isinstance(task, Counted):
        return {}
    series = run.history.series
    valid = {"valid_loss": "valid_loss", "valid_mean_token_accuracy": f"valid_{task.accuracy}"}
    told.write(run.artifacts / STEP_METRICS, {name: series.get(ours, []) for name, ours in valid.items()})
    return {"trained_tokens": float(told.tokens)}


def choose_what_learns(task: Task, spec: FineTuningSpec) -> None:
    """Freeze the encoder, or put adapters into it, as the strategy says."""
    if spec.strategy == "frozen_encoder":
        is_head_alone = freeze_encoder(task.network, head=task.head, new_parameters=task.new_parameters)
        task.freeze(is_head_alone=is_head_alone)
    elif spec.lora is not None:
        task.network = add_adapters(task.network, head=task.head, new_parameters=task.new_parameters, **dict(spec.lora))


def count_parameters(network: nn.Module) -> dict[str, float]:
    """How many numbers the network has, and how many of them learn."""
    parameters = list(network.parameters())
    learning = sum(each.numel() for each in parameters if each.requires_grad)
    return {"parameters": float(sum(each.numel() for each in parameters)), "trained_parameters": float(learning)}


def set_training_mode(network: nn.Module, task: Task, spec: FineTuningSpec) -> None:
    """Dropout where something learns; what is frozen stays in evaluation mode.

    There is none where the network is compared with what the base says, which is asked without: the difference is to be
    what was learned.
    """
    if spec.task in RELATIVE:
        network.eval()
    elif spec.strategy == "frozen_encoder":
        network.eval()
        for name in task.head:
            network.get_submodule(name).train()
    elif spec.strategy == "lora":
        keep_statistics(network.train())
    else:
        network.train()


def is_evaluated(batch: Batch, spec: FineTuningSpec) -> bool:
    """Whether an evaluation follows this batch: after an epoch, or after so many steps."""
    return batch.is_epoch_end if spec.evaluate_every is None else (batch.step + 1) % spec.evaluate_every == 0


def unfreeze(layers: list[list[nn.Parameter]], *, epoch: int) -> None:
    """Let the last group of layers learn in the first epoch, and one more in each that follows."""
    frozen = max(0, len(layers) - 1 - epoch)
    for depth, group in enumerate(layers):
        for parameter in group:
            parameter.requires_grad_(depth >= frozen)
