"""Editors of the models that others published, from their files, for what the embedded ones are held against.

Nothing is downloaded here except by name from the Hugging Face hub; files are given by path, and one that is missing is
named by the error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from emoedit.editors import Editor
from emoedit.io.checkpoints import DDPM
from emoedit.types import EditError

Paths = Mapping[str, str | os.PathLike[str]]
STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def asyrp(shifts: Paths, *, backbone: str = DDPM, name: str = "asyrp", **settings: Any) -> Editor:
    """Asyrp as published (Kwon et al. 2023): a DDPM of CelebA-HQ and its f_t.

    Args:
        shifts: emotion -> ``smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth`` and the like.
        backbone: a folder, a ``.ckpt``, or ``owner/name`` on the hub.
        settings: of :class:`emoedit.models.ddpm.config.DDPMConfig` (``steps``, ``t_edit``, ``t_boost``).

    Raises:
        CheckpointError: a file is missing, damaged, or of another kind.
    """
    from emoedit.models.ddpm.backbone import DDPMBackbone
    from emoedit.steering.hspace import HSpace

    steering = HSpace.from_asyrp(shifts)  # first: it costs nothing to find that these are missing
    return Editor(DDPMBackbone.load(backbone, **settings), [steering], name=name)


def textual_inversion(tokens: Paths, *, backbone: str = STABLE_DIFFUSION, name: str = "ti", **settings: Any) -> Editor:
    """Words learned by textual inversion (Gal et al. 2022, arXiv 2208.01618) on Stable Diffusion.

    Args:
        tokens: emotion -> ``learned_embeds.safetensors`` or a folder of it.
        backbone: a folder of diffusers, or ``owner/name`` on the hub.
        settings: of :class:`emoedit.models.stable_diffusion.config.StableDiffusionConfig`.

    Raises:
        CheckpointError: a file is missing, damaged, or of another kind.
    """
    from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
    from emoedit.steering.tokens import EmotionTokens

    steering = EmotionTokens.from_files(tokens)
    return Editor(StableDiffusionBackbone.load(backbone, **settings), [steering], name=name)


def stylegan(
    backbone: str,
    boundaries: Paths,
    *,
    gains: Mapping[str, float],
    layers: Sequence[int] | None = None,
    name: str = "stylegan",
    **settings: Any,
) -> Editor:
    """StyleGAN2 of FFHQ with InterFaceGAN's boundaries (Shen et al. 2020, arXiv 1907.10786).

    Args:
        backbone: NVIDIA's ``.pkl`` or rosinality's ``.pt``.
        boundaries: emotion -> ``stylegan2_ffhq_smile_w_boundary.npy`` and the like.
        gains: emotion -> how far strength 1 goes.
        layers: from the first to before the second; default: all.
        settings: of :class:`emoedit.models.stylegan2.backbone.StyleGAN2Config`.

    Raises:
        CheckpointError: a file is missing, damaged, or of another kind.
        EditError: no such layers; an emotion without a gain.
    """
    from emoedit.models.stylegan2.backbone import StyleGAN2Backbone
    from emoedit.steering.wspace import WDirections, from_boundaries, read_boundary

    if missing := [emotion for emotion in boundaries if emotion not in gains]:
        raise EditError(f"no gain for {', '.join(missing)}: a boundary has no length of its own")
    model = StyleGAN2Backbone.load(backbone, **settings)
    count, width = model.latent_shape
    normals = {emotion: read_boundary(path, width=width) for emotion, path in boundaries.items()}
    where = None if layers is None else (layers[0], layers[1])
    return Editor(model, [WDirections.spread(from_boundaries(normals, gains), count, where)], name=name)


def face_flex(backbone: str, vectors: Paths, *, name: str = "vae") -> Editor:
    """The VAE and attribute vectors of github.com/leon-schi/face-flex.

    Args:
        backbone: its ``weights.pth``.
        vectors: emotion -> ``Smiling.pkl`` and the like.

    Raises:
        CheckpointError: a file is missing, damaged, or of another kind.
    """
    from emoedit.models.faceflex.backbone import FaceFlexVAE
    from emoedit.steering.faceflex import directions_from_faceflex

    return Editor(FaceFlexVAE.from_file(backbone), [directions_from_faceflex(vectors)], name=name)
