"""A generator against a critic in one resumable loop, with a moving average of the generator.

Goodfellow et al. 2014 (arXiv 1406.2661), non-saturating.

Both learn from the same pictures in the same step, so that each picture is drawn once. The critic's gradient at real
pictures is kept small (R1: Mescheder et al. 2018, arXiv 1801.04406), lazily as in StyleGAN2 (Karras et al. 2020, arXiv
1912.04958, section 3.1), and changes hide from it how small the data set is (``emoedit.training.augment_gan``).
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from emoedit.io.output import write_atomic
from emoedit.training.augment_gan import CriticAugment, adapted, augment_for_critic
from emoedit.training.loop import DivergedError, TrainerConfig, rate
from emoedit.types import MissingExtraError

Batch = Mapping[str, Tensor]
LOG_EVERY = 20


@dataclass(frozen=True)
class AdversarialConfig:
    """Settings of the critic and of its schedule.

    Args:
        learning_rate: learning rate of its Adam, at its highest.
        start: step at which the critic starts to learn and its loss is added; before it the task is trained alone.
        ramp: steps from ``start`` over which the weight of its loss rises to 1.
        calm: factor of the task's learning rates from ``start`` on; rates that suit the task alone are too high with a
            critic.
        gamma: weight of R1; about ``0.0002 R^2 / N`` for N pictures of side R (Karras et al. 2020, arXiv 2006.06676).
        lazy: steps between two of its evaluations.
        target: how sure the critic may be of real pictures before they are changed more often (-1 to 1; 0.6 in that
            paper).
        speed: pictures in which the probability of a change may go from 0 to 1.
        augment: how far pictures are changed.
    """

    learning_rate: float = 2.5e-3
    start: int = 0
    ramp: int = 1
    calm: float = 1.0
    gamma: float = 0.3
    lazy: int = 16
    target: float = 0.6
    speed: float = 400_000
    augment: CriticAugment = field(default_factory=CriticAugment)


class GeneratorTask(nn.Module, ABC):
    """A generator, and the losses that it minimises besides the critic's."""

    @abstractmethod
    def real(self, batch: Batch) -> Tensor:
        """Real pictures of a batch as they would be drawn, ``[N, C, R, R]`` in about [-1, 1]."""

    @abstractmethod
    def forward(self, batch: Batch, *, alone: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Drawn pictures, float32 ``[N, C, R, R]``, and scalars.

        ``loss`` is added to the critic's; others are logged.

        Args:
            batch: batch of the task.
            alone: whether the task is trained without the critic.
        """

    @abstractmethod
    def groups(self, config: TrainerConfig) -> list[dict[str, Any]]:
        """Adam's parameter groups, each with its highest ``lr``.

        Args:
            config: config of the trainer.
        """


def _optimizer(groups: list[dict[str, Any]], config: TrainerConfig) -> torch.optim.Adam:
    for group in groups:
        group["highest"] = group["lr"]
    return torch.optim.Adam(groups, betas=config.betas, eps=1e-8, fused=True)


def _step(
    optimizer: torch.optim.Adam, parameters: list[nn.Parameter], gradients: Any, factor: float, clip: float
) -> float:
    """Clip, step, and the norm before clipping; nothing is stepped where that is not finite."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    norm = float(nn.utils.clip_grad_norm_(parameters, clip))
    if math.isfinite(norm):
        for group in optimizer.param_groups:
            group["lr"] = group["highest"] * factor
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def gradient_penalty(critic: nn.Module, real: Tensor) -> Tensor:
    """R1: half the squared length of the critic's gradient at real pictures, mean over them.

    Args:
        critic: the network.
        real: ``[N, C, R, R]``.
    """
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
    return 0.5 * gradient.float().square().sum((1, 2, 3)).mean()


def train_adversarial(
    task: GeneratorTask,
    critic: nn.Module,
    batches: Callable[[int, int], Batch],
    folder: str | Path,
    config: TrainerConfig,
    how: AdversarialConfig = AdversarialConfig(),  # noqa: B008 - frozen
    *,
    preview: Callable[[nn.Module], Tensor] | None = None,
) -> nn.Module:
    """Train, or go on where the folder's last checkpoint stopped. One process, on CUDA where there is one.

    Args:
        task: the module that is trained.
        critic: pictures ``[N, C, R, R]`` -> logits ``[N]``; with ``precision="bf16"`` it is given bfloat16.
        batches: (step, 0) -> batch on the CPU.
        folder: working folder: ``state.pt`` (whose ``seconds`` say what the training took, over all runs) and
            TensorBoard files.
        config: settings of the task, with ``betas``, ``clip`` (for the gradient of each network) and ``ema``. Only the
            task's averaged weights are kept.
        how: settings.
        preview: averaged task -> picture ``[3 or 1, H, W]`` in [0, 1] to log.

    Returns:
        The task with averaged weights, on the CPU, in eval mode.

    Raises:
        DivergedError: a loss or a gradient became NaN or infinite; ``state.pt`` holds the last good state.
        MissingExtraError: a package of the extra ``train`` is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm
    except ImportError as error:
        raise MissingExtraError(error.name or "tensorboard", "train") from error
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(task, critic, folder / "state.pt", config, how)
    first = run.step
    with (
        SummaryWriter(str(folder), purge_step=first) as log,
        tqdm(total=config.steps, initial=first, unit="step", smoothing=0.02) as bar,
    ):
        for step in range(first, config.steps):
            values = run.one_step(step, batches)
            bar.update()
            if step % LOG_EVERY == 0:
                for name, value in {**values, "probability": run.probability}.items():
                    log.add_scalar(f"train/{name}", value, step)
                bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
            if (step + 1) % config.save_every == 0:
                run.save(step + 1)
            if preview is not None and (step + 1) % config.preview_every == 0:
                run.average.eval()
                with torch.no_grad():
                    log.add_image("preview", preview(run.average.module), step + 1)
        if first < config.steps and config.steps % config.save_every:
            run.save(config.steps)
    return run.average.module.cpu().eval()


class _Run:
    """A generator and a critic with their optimisers, the moving average, and the file that all is resumed from.

    Args:
        task: the generator's module.
        critic: as ``train_adversarial`` says.
        state_file: where the state is, if there is one, and goes.
        config: config of the task.
        how: settings of the critic.
    """

    def __init__(
        self, task: GeneratorTask, critic: nn.Module, state_file: Path, config: TrainerConfig, how: AdversarialConfig
    ) -> None:
        self.config, self.how, self.state_file = config, how, state_file
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        self.task, self.critic = task.to(self.device).train(), critic.to(self.device).train()
        self.average = AveragedModel(task, use_buffers=False).to(self.device)
        self._generator_optimizer = _optimizer(task.groups(config), config)
        self._critic_optimizer = _optimizer([{"params": list(critic.parameters()), "lr": how.learning_rate}], config)
        self._parts: dict[str, Any] = {
            "task": self.task,
            "critic": self.critic,
            "average": self.average,
            "optimizer": self._generator_optimizer,
            "critic_optimizer": self._critic_optimizer,
        }
        self.step, self.probability = 0, 0.0  # of the first step to come; that a picture is changed for the critic
        self._spent, self._start = 0.0, time.monotonic()
        if state_file.is_file():
            state = torch.load(state_file, map_location="cpu", weights_only=True)
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
            self.step, self.probability, self._spent = state["step"], state["probability"], state["seconds"]
        if config.compile:
            task.compile()
        self._generator_parameters = [p for group in self._generator_optimizer.param_groups for p in group["params"]]
        self._critic_parameters = list(critic.parameters())

    def save(self, step: int) -> None:
        """Write the state after so many steps.

        Raises:
            OutputError: it cannot be written; the state before it stays.
        """
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts.items()}
        seconds = self._spent + time.monotonic() - self._start
        state |= {"step": step, "probability": self.probability, "seconds": seconds}
        part = self.state_file.with_suffix(".part")
        write_atomic(self.state_file, lambda file: torch.save(state, file), overwrite=True, temporary=part)

    def one_step(self, step: int, batches: Callable[[int, int], Batch]) -> dict[str, float]:
        """One step of both players and of the moving average; losses and lengths of gradients.

        Raises:
            DivergedError: one of them is no longer a number.
        """
        config, how = self.config, self.how
        # What is drawn at random is a function of the step: a resumed run draws what an uninterrupted one would.
        torch.manual_seed(config.seed * 1_000_003 + step * 1009)
        batch = {name: value.to(self.device) for name, value in batches(step, 0).items()}
        factor, alone = rate(step, config), step < how.start
        drawn, own = self.task(batch, alone=alone)
        total, losses, norms = own["loss"], dict(own), {}
        if not alone:
            fooling, learned, judged = self._discriminator_step(step, drawn, self.task.real(batch))
            total = total + min(1.0, (step - how.start + 1) / how.ramp) * fooling
            losses |= judged
        improved = torch.autograd.grad(total, self._generator_parameters, allow_unused=True)
        if not alone:
            norms["critic_gradient"] = _step(
                self._critic_optimizer, self._critic_parameters, learned, factor, config.clip
            )
        norms["gradient"] = _step(
            self._generator_optimizer,
            self._generator_parameters,
            improved,
            factor * (1.0 if alone else how.calm),
            config.clip,
        )
        values = {name: float(value.detach()) for name, value in losses.items()} | norms
        if broken := [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]:
            raise DivergedError(
                f"{', '.join(broken)} at step {step}; the last good state is {self.state_file}: resume from it with "
                "lower learning rates, a larger gamma or precision=no"
            )
        self.average.multi_avg_fn = get_ema_multi_avg_fn(min(config.ema, (1 + step) / (10 + step)))
        self.average.update_parameters(self.task)
        return values

    def _seen(self, x: Tensor) -> Tensor:
        """Pictures as the critic is given them."""
        return augment_for_critic(x, self.probability, self.how.augment).to(self._dtype)

    def _discriminator_step(
        self, step: int, drawn: Tensor, real: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], dict[str, Tensor]]:
        """The generator's loss before the critic, the critic's gradient of its own loss, and what is logged."""
        how = self.how
        of_drawn, of_real = self.critic(self._seen(drawn)), self.critic(self._seen(real))
        judging = F.softplus(of_drawn).mean() + F.softplus(-of_real).mean()
        fooling = F.softplus(-of_drawn).mean()
        losses = {"critic": judging, "fooling": fooling, "real": of_real.mean(), "drawn": of_drawn.mean()}
        if step % how.lazy == 0:
            losses["r1"] = gradient_penalty(self.critic, self._seen(real))
            judging = judging + how.lazy * how.gamma * losses["r1"]
        # Each player's gradient of its own loss alone, at the same pictures.
        learned = torch.autograd.grad(judging, self._critic_parameters, retain_graph=True)
        self.probability = adapted(self.probability, of_real, target=how.target, speed=how.speed)
        return fooling, learned, losses
