"""Learn a word for an emotion from a folder of pictures of it.

    python experiments/fit_tokens.py token=smirk like=happy pictures=pictures/smirk
    python experiments/fit_tokens.py token=smirk like=happy pictures=pictures/smirk \\
        model=stable-diffusion-v1-5/stable-diffusion-v1-5 trainer.steps=3000 trainer.learning_rate=5e-4

The same command goes on where it stopped. On several processes: ``accelerate launch experiments/fit_tokens.py ...``.
``trainer.accumulate=4`` collects gradients, ``trainer.precision=bf16`` or ``fp16`` saves memory.
"""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from emoedit.editors import Editor, choose_device
from emoedit.io import checkpoints
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.steering.tokens import EMBEDDINGS
from emoedit.training.recipes import minutes, trainer_config
from emoedit.training.tokens import TEMPLATES, TokenConfig, learn_token, read_faces
from emoedit.types import CheckpointError, EmoEditError
from lib.running import run


def load_model(name: str) -> StableDiffusionBackbone:
    """The Stable Diffusion of an editor, or one in diffusers' layout.

    Raises:
        CheckpointError: another kind of model.
    """
    folder = checkpoints.locate(name)
    if not (folder / checkpoints.EDITOR).is_file():
        return StableDiffusionBackbone.load(folder)
    backbone = Editor.from_pretrained(folder).backbone
    if not isinstance(backbone, StableDiffusionBackbone):
        raise CheckpointError(f"{name} is a {type(backbone).__name__}, which knows no text: give a Stable Diffusion")
    return backbone


def fit(config: DictConfig) -> Path:
    """Learn the token; the file that holds it."""
    backbone = load_model(config.model).to(choose_device(config.device))
    about = TokenConfig(
        config.token,
        config.like,
        vectors=config.vectors,
        templates=TEMPLATES if config.templates is None else tuple(config.templates),
        batch_size=config.batch_size,
    )
    learn_token(
        backbone,
        read_faces(config.pictures, backbone),
        about,
        config.output,
        trainer_config(config.trainer),
        validation=None if config.validation is None else read_faces(config.validation, backbone),
    )
    path = Path(config.output) / EMBEDDINGS
    print(f"{about.word}: {path}, {config.trainer.steps} steps, {minutes(Path(config.output)):.1f} minutes", flush=True)
    return path


@hydra.main(version_base="1.3", config_path="../configs", config_name="fit_tokens")
def main(config: DictConfig) -> None:
    try:
        fit(config)
    except EmoEditError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    run(main)
