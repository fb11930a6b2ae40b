"""The noise schedule of a diffusion model, from diffusers' ``scheduler_config.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from emoedit.types import CheckpointError

BETAS = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas")
WHAT = {"epsilon": "'epsilon' (the noise)", "v_prediction": "'v_prediction'"}


def known_noise(scheduler: Mapping[str, Any], where: Path | str, predictions: Sequence[str]) -> dict[str, Any]:
    """The entries that say which noise a model was trained with.

    Args:
        scheduler: its configuration, as diffusers writes it.
        where: for messages.
        predictions: what the model may predict (keys of ``WHAT``).

    Raises:
        CheckpointError: it predicts something else, or its betas are rescaled to no signal at all.
    """
    predicts = scheduler.get("prediction_type", "epsilon")
    if predicts not in predictions or scheduler.get("rescale_betas_zero_snr"):
        raise CheckpointError(
            f"{where}: a model that predicts {predicts!r}"
            f"{' of betas rescaled to no signal at all' if scheduler.get('rescale_betas_zero_snr') else ''}; expected "
            f"{' or '.join(WHAT[name] for name in predictions)}"
        )
    return {name: scheduler[name] for name in BETAS if scheduler.get(name) is not None}


def read_betas(scheduler: Mapping[str, Any]) -> Tensor:
    """The betas ``[T]`` of entries that say so.

    Raises:
        CheckpointError: not a schedule of noise.
    """
    from diffusers import DDIMScheduler

    try:
        betas = DDIMScheduler(**scheduler).betas
    # diffusers raises the last one for an unknown name of a schedule.
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"not a schedule of noise: {error}") from error
    if not bool(((betas > 0) & (betas < 1)).all()):
        raise CheckpointError(f"betas lie between 0 and 1; found {betas.min():.4g} to {betas.max():.4g}")
    return betas
