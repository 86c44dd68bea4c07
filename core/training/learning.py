"""What every gradient step does besides its loss: parts that fit the memory, update, schedule, average, validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from core.memory import is_out_of_memory
from core.spec import TrainingSpec
from core.training.gradient_cache import cache_gradient
from core.training.optimization import EarlyStopping, adamw, gradient_scaler, schedule, update
from core.training.parts import examples_in, parts, to_device
from core.training.run import Run


class Trainable:
    """The parameters that learn, and all buffers: what a checkpoint must hold of a network that is partly frozen.

    Which ones learn is decided by what requires a gradient when it is made.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}

    def parameters(self) -> list[nn.Parameter]:
        """Those that learn."""
        return [parameter for name, parameter in self.network.named_parameters() if name not in self._frozen]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The tensors by name."""
        return {name: tensor for name, tensor in self.network.state_dict().items() if name not in self._frozen}

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Put them back; the frozen ones stay as they are."""
        self.network.load_state_dict(state_dict, strict=False)


class Learning:
    """How one network learns from a spec: it tracks itself in the run, so that a checkpoint holds all of it.

        learning = Learning(network, spec, run, total=len(batches))
        for batch in run.steps(batches):
            network.train()
            run.log(loss=learning.descend(x[batch.rows], lambda part: losses(network, part).sum()))
            if batch.is_epoch_end:
                learning.validate(lambda: evaluate(network, held_out))
        learning.finish()

    `network`: only what requires a gradient learns. `total`: the steps of the schedule. `name`: tells several apart in
    a checkpoint. `optimizer`: none: AdamW as the spec has it.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: TrainingSpec,
        run: Run,
        *,
        total: int,
        name: str = "learning",
        optimizer: Optimizer | None = None,
    ) -> None:
        self.network, self.spec, self.run = network, spec, run
        self.trainable = Trainable(network)
        self.optimizer = optimizer or adamw(self.trainable.parameters(), spec)
        self.learning_rate = schedule(self.optimizer, spec, total=total)
        self.scaler = gradient_scaler(spec, run.device)
        self.stopping = EarlyStopping(self.trainable, patience=spec.early_stopping)
        self.accumulate = spec.accumulate
        self.average: dict[str, torch.Tensor] | None = None
        if spec.ema is not None:
            self.average = {key: tensor.clone() for key, tensor in self.trainable.state_dict().items()}
        if spec.compile:
            compile_children(network)
        run.track(**{name: self})

    def descend(
        self,
        batch: Any,
        loss_of: Callable[[Any], torch.Tensor],
        *,
        over: float | torch.Tensor | None = None,
        forget: Callable[[], object] | None = None,
    ) -> torch.Tensor:
        """One step down the gradient of the batch's mean loss, which is answered, detached, 0-d.

        `loss_of(part)`: the summed loss of a part of the batch, which was moved to the device. `over`: how many losses
        the parts sum up together; none: one an example. The batch is cut into `spec.accumulate` parts, and into twice
        as many whenever the device runs out of memory; its gradient stays that of the whole. What `loss_of` noted until
        then is to be forgotten by `forget`. See `parts` for what a batch may be.
        """
        over = examples_in(batch) if over is None else over
        while (loss := self._backward(batch, lambda part: loss_of(part) / over)) is None:
            self._cut_smaller(batch)
            if forget is not None:
                forget()
        self._update()
        return loss

    def descend_together(
        self,
        batch: Any,
        represent: Callable[[Any], torch.Tensor],
        loss_of: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """One step down a loss that all examples of a batch make together, which is answered, detached, 0-d.

        `represent(part)`: what the loss is taken of, [examples of the part, ...]; `loss_of`: the loss, 0-d, of all of
        it. A batch that is cut into parts is represented twice, first without a graph (`cache_gradient`): the gradient
        is that of the whole in the memory of a part. Batch normalisation in `represent` alone sees each part by itself.
        """
        while (loss := self._backward_together(batch, represent, loss_of)) is None:
            self._cut_smaller(batch)
        self._update()
        return loss

    def validate(self, evaluate: Callable[[], Mapping[str, float] | None]) -> None:
        """Report what `evaluate` finds, in evaluation mode and by the averaged weights, as `valid_...`.

        Where the spec asks for early stopping, watches its `loss`, and ends the loop when that has been enough.
        """
        self.network.eval()
        with self.averaged():
            found = evaluate()
            if found is None:
                return
            self.run.report(**{f"valid_{name}": value for name, value in found.items()})
            if self.spec.early_stopping is not None and self.stopping.should_stop(found["loss"]):
                self.run.stop_early(f"{self.spec.early_stopping} epochs without a better validation loss")

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it, the network has its averaged weights, where the spec asks for an average."""
        if self.average is None:
            yield
            return
        own = {key: tensor.clone() for key, tensor in self.trainable.state_dict().items()}
        self.trainable.load_state_dict(self.average)
        try:
            yield
        finally:
            self.trainable.load_state_dict(own)

    def finish(self) -> None:
        """Leave the network in evaluation mode with the weights to keep: the best, the averaged, or the last."""
        if self.average is not None:
            self.trainable.load_state_dict(self.average)
        self.stopping.restore_best()
        self.network.eval()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on."""
        state: dict[str, Any] = {
            "network": self.trainable.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "learning_rate": self.learning_rate.state_dict(),
            "scaler": self.scaler.state_dict(),
            "stopping": self.stopping.state_dict(),
            "accumulate": self.accumulate,
        }
        return state if self.average is None else {**state, "average": self.average}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.trainable.load_state_dict(state_dict["network"])
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.learning_rate.load_state_dict(state_dict["learning_rate"])
        self.scaler.load_state_dict(state_dict["scaler"])
        self.stopping.load_state_dict(state_dict["stopping"])
        self.accumulate = state_dict["accumulate"]
        if self.average is not None:
            self.average = {key: tensor.to(self.run.device) for key, tensor in state_dict["average"].items()}

    def _backward(self, batch: Any, loss_of: Callable[[Any], torch.Tensor]) -> torch.Tensor | None:
        """The batch's loss, its gradient added up; None, and no gradient, where the device ran out of memory."""
        before = _random_state(self.run.device)
        loss = torch.zeros((), device=self.run.device)
        try:
            for part in parts(batch, self.accumulate):
                share = loss_of(to_device(part, self.run.device))
                self.scaler.scale(share).backward()
                loss += share.detach()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.accumulate >= examples_in(batch):
                raise
            _put_back(before, self.run.device)
            return None
        return loss

    def _backward_together(
        self,
        batch: Any,
        represent: Callable[[Any], torch.Tensor],
        loss_of: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor | None:
        if self.accumulate == 1:
            return self._backward(batch, lambda whole: loss_of(represent(whole)))
        cut, device, scale = parts(batch, self.accumulate), self.run.device, self.scaler.get_scale()
        try:
            cached = cache_gradient(self.network, cut, represent=represent, loss_of=loss_of, device=device, scale=scale)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.accumulate >= examples_in(batch):
                raise
            return None
        done = self._backward((batch, cached.gradient), lambda part: (represent(part[0]) * part[1]).sum())
        return None if done is None else cached.loss

    def _cut_smaller(self, batch: Any) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        self.accumulate *= 2
        who = "device" if self.run.device.type == "cuda" else "trainer"
        self.run.message(
            f"The {who} ran out of memory: batches are cut into {self.accumulate} parts from here on; "
            f"a step still learns from {examples_in(batch):,} examples",
            "warn",
        )

    def _update(self) -> None:
        update(self.optimizer, self.learning_rate, self.spec, scaler=self.scaler)
        self._update_average()

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is None or self.spec.ema is None:
            return
        # early on the average would be mostly the random start: its memory grows with the steps made
        kept = min(self.spec.ema, (1 + self.run.step) / (10 + self.run.step))
        for key, tensor in self.trainable.state_dict().items():
            if tensor.is_floating_point():
                self.average[key].lerp_(tensor, 1 - kept)
            else:
                self.average[key].copy_(tensor)


def compile_children(network: nn.Module) -> None:
    """Compile the modules right below the network, in place: its weights keep their names."""
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            compile_children(child)
        else:
            child.compile()


def _random_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state() if device.type == "cuda" else torch.get_rng_state()


def _put_back(state: torch.Tensor, device: torch.device) -> None:
    """Let what is tried again draw the same numbers."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state)
    else:
        torch.set_rng_state(state)
