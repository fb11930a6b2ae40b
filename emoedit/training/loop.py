"""The training loop: accelerate, resumable at any moment, with a moving average of the weights.

A task is an ``nn.Module`` whose ``forward(batch)`` (a tensor, or a dict of tensors) returns ``{"loss": scalar, other
names: scalars to log}``.
The learning rate warms up, stays, and falls to zero over the last ``decay`` of the steps, so that a run can be
prolonged or cut short by resuming it with another number of steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from emoedit.io.output import write_atomic
from emoedit.types import EmoEditError, MissingExtraError

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class TrainerConfig:
    """How long and how fast.

    Args:
        steps: optimiser steps in all.
        learning_rate: learning rate of AdamW, at its highest.
        rate_factors: part of a parameter's name -> factor of its learning rate, above or below 1. The first part that
            fits counts; where none fits, the factor is 1.
        warmup: steps until it is reached.
        decay: share of the steps over which it falls to zero at the end.
        ema: decay of the moving average of the weights (it starts faster: (1 + n) / (10 + n)).
        accumulate: batches whose gradients make one step: a batch larger than the memory.
        precision: ``"no"``, ``"bf16"`` or ``"fp16"``.
        compile: fuse with ``torch.compile``: a minute and a half at the start, then 1.5 times faster on a CPU.
        save_every: steps between checkpoints.
        preview_every: steps between pictures in TensorBoard.
    """

    steps: int = 4000
    learning_rate: float = 4e-4
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 200
    decay: float = 0.35
    ema: float = 0.998
    clip: float = 1.0
    accumulate: int = 1
    precision: str = "bf16"
    compile: bool = False
    save_every: int = 200
    preview_every: int = 200
    seed: int = 0


class Shared:
    """Frozen modules that a task uses without owning them.

    They are not trained, not averaged, not saved, and stay on the device where they are.
    """

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The part of that name."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class DivergedError(EmoEditError, ArithmeticError):
    """The loss is no longer a number; the last good state stays on disk."""


def rate(step: int, config: TrainerConfig) -> float:
    """Learning-rate factor of a step, 0 to 1.

    Args:
        step: number of the training step.
        config: config of the trainer.
    """
    up = min(1.0, (step + 1) / max(1, config.warmup))
    left = (config.steps - step) / max(1.0, config.decay * config.steps)
    return up * min(1.0, max(0.0, left))


def parameter_groups(task: nn.Module, config: TrainerConfig) -> list[dict[str, Any]]:
    """What is trained, by the ``factor`` of its learning rate, the plain ones first.

    Args:
        task: the module that is trained.
        config: config of the trainer.
    """
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in task.named_parameters():
        factor = next((f for part, f in config.rate_factors.items() if part in name), 1.0)
        groups.setdefault(factor, []).append(parameter)
    return [{"params": found, "factor": factor} for factor, found in groups.items() if found]


T = TypeVar("T", bound=nn.Module)


def train(
    task: T,
    batches: Callable[[int, int], Any],
    folder: str | Path,
    config: TrainerConfig,
    *,
    preview: Callable[[T], Tensor] | None = None,
) -> T:
    """Train, or go on where the folder's last checkpoint stopped.

    Args:
        task: the module that is trained.
        batches: (step, process) -> batch on the CPU; step counts batches (``accumulate`` a step of the optimiser).
        folder: working folder: ``state.pt`` (whose ``seconds`` say what the training took, over all runs) and
            TensorBoard files.
        config: how it is made.
        preview: averaged task -> picture ``[3 or 1, H, W]`` in [0, 1] to log.

    Returns:
        The task with averaged weights, on the CPU, in eval mode.

    Raises:
        DivergedError: the loss became NaN or infinite.
        OutputError: a state cannot be written; the one before it stays.
        MissingExtraError: a package of the extra ``train`` is not installed.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm
    except ImportError as error:
        raise MissingExtraError(error.name or "accelerate", "train") from error
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Accelerate refuses another precision than that of the process's first training; one process may train two models.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=config.precision, cpu=not torch.cuda.is_available())
    run = _Run(task, accelerator, folder / "state.pt", config)
    first, main = run.step, accelerator.is_main_process
    log = SummaryWriter(str(folder), purge_step=first) if main else None
    with tqdm(total=config.steps, initial=first, unit="step", disable=not main, smoothing=0.02) as bar:
        for step in range(first, config.steps):
            losses = run.one_step(step, batches)
            bar.update()
            if log is not None and step % 20 == 0:
                for name, value in losses.items():
                    log.add_scalar(f"train/{name}", value, step)
                bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()}, refresh=False)
            if (step + 1) % config.save_every == 0:
                run.save(step + 1)
            if log is not None and preview is not None and (step + 1) % config.preview_every == 0:
                with torch.no_grad():
                    log.add_image("preview", preview(run.averaged), step + 1)
    if first < config.steps and config.steps % config.save_every:
        run.save(config.steps)
    if log is not None:
        log.close()
    return run.averaged.cpu().eval()


class _Run(Generic[T]):
    """A task with its optimiser, its moving average and the file that all of it is resumed from.

    Args:
        task: the module that is trained.
        accelerator: places it, and exchanges gradients between processes.
        state_file: where the state is, if there is one, and goes.
        config: how it is made.
    """

    def __init__(self, task: T, accelerator: Accelerator, state_file: Path, config: TrainerConfig) -> None:
        self.config, self.accelerator, self.state_file = config, accelerator, state_file
        self.step, self._spent, self._start = 0, 0.0, time.monotonic()
        groups = parameter_groups(task, config)
        optimizer = torch.optim.AdamW(
            groups, config.learning_rate, config.betas, weight_decay=config.weight_decay, fused=True
        )
        self._factors = [group.pop("factor") for group in optimizer.param_groups]
        self.average = AveragedModel(task, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=False)
        if state_file.is_file():
            state = torch.load(state_file, map_location="cpu", weights_only=True)
            task.load_state_dict(state["task"])
            self.average.load_state_dict(state["average"])
            optimizer.load_state_dict(state["optimizer"])
            self.step, self._spent = state["step"], state["seconds"]
        self.average.to(self.accelerator.device)
        self.model, self.optimizer = self.accelerator.prepare(task, optimizer)
        if config.compile:
            self.model.compile()

    @property
    def averaged(self) -> T:
        """The task with averaged weights."""
        return cast("T", self.average.module)  # a copy of the task

    def one_step(self, step: int, batches: Callable[[int, int], Any]) -> dict[str, float]:
        """One step of the optimiser and of the moving average; the losses, mean over its batches.

        Raises:
            DivergedError: the loss or its gradient is no longer a number.
        """
        config = self.config
        for group, factor in zip(self.optimizer.param_groups, self._factors, strict=True):
            group["lr"] = config.learning_rate * factor * rate(step, config)
        losses: dict[str, float] = {}
        for part in range(step * config.accumulate, (step + 1) * config.accumulate):
            last = part + 1 == (step + 1) * config.accumulate  # processes exchange gradients once a step
            self._accumulate(step, part, batches, losses, last=last)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip)
        if config.precision != "fp16" and not math.isfinite(float(norm)):  # fp16's scaler leaves such steps out
            raise self._diverged("gradient", float(norm), step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        warm = step + 1 < 10 / (1 - config.ema)
        self.average.multi_avg_fn = get_ema_multi_avg_fn(
            min(config.ema, (1 + step) / (10 + step)) if warm else config.ema
        )
        self.average.update_parameters(self.accelerator.unwrap_model(self.model))
        return losses

    def _accumulate(
        self, step: int, part: int, batches: Callable[[int, int], Any], losses: dict[str, float], *, last: bool
    ) -> None:
        """The gradient of one batch, added to that of the step; its losses, added to ``losses``."""
        from accelerate.utils import send_to_device, set_seed

        accelerator, count = self.accelerator, self.config.accumulate
        # Noise is a function of the step too: a resumed run draws what an uninterrupted one would have drawn.
        set_seed(self.config.seed * 1_000_003 + part * 1009 + accelerator.process_index)
        batch = send_to_device(batches(part, accelerator.process_index), accelerator.device)
        with nullcontext() if last else accelerator.no_sync(self.model):
            found = self.model(batch)
            loss = found["loss"] / count
            for name, value in found.items():
                losses[name] = losses.get(name, 0.0) + float(value.detach()) / count
            if not math.isfinite(losses["loss"]):
                raise self._diverged("loss", losses["loss"], step)
            accelerator.backward(loss)

    def _diverged(self, what: str, value: float, step: int) -> DivergedError:
        return DivergedError(
            f"the {what} is {value} at step {step}; the last good state is {self.state_file}: resume from it with a "
            "lower learning rate or precision=no"
        )

    def save(self, step: int) -> None:
        """Write the state after so many steps; one process does.

        Raises:
            OutputError: it cannot be written; the state before it stays.
        """
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        state = {
            "task": self.accelerator.unwrap_model(self.model).state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": step,
            "seconds": self._spent + time.monotonic() - self._start,
        }
        part = self.state_file.with_suffix(".part")
        write_atomic(self.state_file, lambda file: torch.save(state, file), overwrite=True, temporary=part)
