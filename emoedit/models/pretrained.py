"""The published models this package can use: what each needs, who publishes it, and how it is sampled by default.

Only files that exist are named. Nothing is loaded or downloaded here, and no deep-learning framework is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
CELEBAHQ = "google/ddpm-ema-celebahq-256"
PIX2PIX = "timbrooks/instruct-pix2pix"
ASYRP = "https://github.com/kwonminki/Asyrp_official/tree/main/checkpoint"
E4E = "https://github.com/omertov/encoder4editing"

Option = Literal["tokens", "shifts", "boundaries", "layers"]
CROP = ("crop_style", "crop_scale", "crop_down", "mean", "std")  # of every backbone, for models of one's own


@dataclass(frozen=True)
class Default:
    """The value of a setting, and where it comes from."""

    value: Any
    source: str


@dataclass(frozen=True)
class Part:
    """A published file of weights for one emotion.

    Args:
        emotion: in the vocabulary's name.
        name: name of the file, as its authors publish it.
        where: address of the folder that holds it.
    """

    emotion: str
    name: str
    where: str


@dataclass(frozen=True)
class Pretrained:
    """One line of the table.

    Args:
        name: name on the command line.
        role: description in a few words.
        backbone: its registered name.
        model: source of the weights if nothing else is said: ``owner/name`` on the hub; None: a file has to be
            given.
        form: what may be given in place of it.
        takes: which parts it may be given.
        needs: which of them it cannot do without.
        parts: files with emotions that are published for it.
        parameters: parameters of all networks, in millions.
        memory: gigabytes of weights on a GPU, with what ``precision="auto"`` holds there.
        licence: licence of the published weights.
        source: who publishes them.
        paper: where the method is described.
        resolution: side of the crop in pixels.
        crop: the alignment (``emoedit.types.CropSpec``).
        channels: channels of the crop; 3 is RGB.
        compositor: how its pictures are put into a photograph.
        settings: what may be set: names of the backbone's settings of sampling.
        extra: settings that are read when the weights are, beside ``CROP``.
        defaults: settings that differ from the backbone's own defaults, or that a paper gives.
    """

    name: str
    role: str
    backbone: str
    model: str | None
    form: str
    parameters: float
    memory: float
    licence: str
    source: str
    paper: str
    resolution: int
    settings: tuple[str, ...]
    takes: tuple[Option, ...] = ()
    needs: tuple[Option, ...] = ()
    parts: tuple[Part, ...] = ()
    crop: str = "ffhq"
    channels: int = 3
    compositor: str = "rgb"
    extra: tuple[str, ...] = ()
    defaults: Mapping[str, Default] = field(default_factory=dict)

    @property
    def allowed(self) -> tuple[str, ...]:
        """Names of all settings that may be given."""
        return (*self.settings, *self.extra, *CROP)

    @property
    def size(self) -> int:
        """Bytes of the weights in float32."""
        return round(self.parameters * 4e6)


_TEXT_SETTINGS = (
    *("prompt", "negative", "steps", "t_last", "inversion", "guidance", "masked"),
    *("t_text_min", "t_text_max", "t_edit", "t_boost", "boost", "null_iterations", "precision"),
)
_SD15: dict[str, Any] = {
    "backbone": "stable_diffusion",
    "model": STABLE_DIFFUSION,
    "form": "a folder in the layout of diffusers, OWNER/NAME on the hub, or one .safetensors or .ckpt file of 1.x",
    "parameters": 1066.2,  # U-Net 859.5, VAE 83.7, text encoder 123.1
    "memory": 2.5,
    "licence": "CreativeML OpenRAIL-M",
    "source": "https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5",
    "resolution": 512,
    "settings": _TEXT_SETTINGS,
    "extra": ("tokenizer", "resolution"),
    "defaults": {
        "steps": Default(40, "as Asyrp's S; DDIM needs no more for a path whose losses are kept"),
        "guidance": Default(3.0, "chosen on this package's small model; not measured at full size"),
        "t_text_max": Default(700, "chosen on this package's small model; not measured at full size"),
    },
}

TABLE: Mapping[str, Pretrained] = {
    entry.name: entry
    for entry in (
        Pretrained(
            name="sd15",
            role="Stable Diffusion 1.x or 2.x: prompts or learned tokens",
            paper="Rombach et al. 2022, arXiv 2112.10752; tokens: Gal et al. 2022, arXiv 2208.01618",
            takes=("tokens",),
            **_SD15,
        ),
        Pretrained(
            name="sd15-asyrp",
            role="Stable Diffusion 1.x or 2.x: text, and shifts of h",
            paper="Rombach et al. 2022, arXiv 2112.10752; shifts: Kwon et al. 2023, arXiv 2210.10960",
            takes=("tokens", "shifts"),
            **_SD15,
        ),
        Pretrained(
            name="celebahq",
            role="DDPM of CelebA-HQ with shifts of its h-space (Asyrp)",
            backbone="ddpm",
            model=CELEBAHQ,
            form="a folder in the layout of diffusers, OWNER/NAME on the hub, or a .ckpt of the original DDPM",
            parameters=113.7,
            memory=0.25,
            licence="Apache-2.0",
            source="https://huggingface.co/google/ddpm-ema-celebahq-256",
            paper="Ho et al. 2020, arXiv 2006.11239; shifts: Kwon et al. 2023, arXiv 2210.10960",
            resolution=256,
            takes=("shifts",),
            needs=("shifts",),
            parts=(  # the three emotions among its files; surprised and disgusted were never published
                Part("happy", "smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth", ASYRP),
                Part("sad", "sad_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth", ASYRP),
                Part("angry", "angry_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth", ASYRP),
            ),
            settings=("steps", "t_last", "t_edit", "t_boost", "boost", "symmetric", "exact", "precision"),
            extra=("resolution",),
            defaults={
                "steps": Default(40, "the paper's S, and ngen40 in the names of its files"),
                "t_edit": Default(513, "the paper's, for smiling, sad and angry"),
                "t_boost": Default(167, "the paper's, where LPIPS(x, x_t) is 1.2"),
            },
        ),
        Pretrained(
            name="stylegan2",
            role="StyleGAN2 of FFHQ with boundaries in W",
            backbone="stylegan2",
            model=None,
            form="NVIDIA's .pkl, rosinality's .pt, or a .pt of e4e or pSp, which holds generator and encoder",
            parameters=30.4,
            memory=0.12,
            licence="NVIDIA Source Code License: non-commercial",
            source="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/ffhq.pkl",
            paper="Karras et al. 2020, arXiv 1912.04958; boundaries: Shen et al. 2020, arXiv 1907.10786",
            resolution=1024,
            takes=("boundaries", "layers"),
            needs=("boundaries",),
            # InterFaceGAN's own are StyleGAN1's; the authors of e4e publish one of its kind for this generator's W.
            parts=(Part("happy", "smile.pt", f"{E4E}/tree/main/editings/interfacegan_directions"),),
            settings=("optimise_steps", "precision"),
            extra=("encoder",),
        ),
        Pretrained(
            name="face-flex",
            role="VAE with attribute vectors",
            backbone="faceflex",
            model=None,
            form="its weights.pth",
            parameters=85.7,
            memory=0.34,
            licence="none given",
            source="https://github.com/leon-schi/face-flex",
            paper="https://github.com/leon-schi/face-flex",
            resolution=128,
            takes=("boundaries",),
            needs=("boundaries",),
            settings=(),
        ),
        Pretrained(
            name="instruct",
            role="any image-editing pipeline of diffusers, by instruction",
            backbone="instruct",
            model=PIX2PIX,
            form="a folder in the layout of diffusers, or OWNER/NAME on the hub",
            parameters=1066.2,
            memory=2.2,
            licence="MIT",
            source="https://huggingface.co/timbrooks/instruct-pix2pix",
            paper="Brooks et al. 2023, arXiv 2211.09800",
            resolution=512,
            settings=("steps", "guidance", "image_guidance", "whole", "precision"),
            extra=("resolution",),
        ),
    )
}
