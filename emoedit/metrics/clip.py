"""CLIP metrics of an edit (Radford et al. 2021): its direction, its similarity to a text, its aesthetic score.

All three are coarse: a CLIP embedding describes the whole picture and hardly the expression. Read them beside an
expression recogniser, never instead of one.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emoedit.io import checkpoints
from emoedit.io.weights import read_torch
from emoedit.metrics.base import check_pictures
from emoedit.models.luminance import in_luminance
from emoedit.types import CheckpointError, DataError

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerBase

VIT_L_14 = "openai/clip-vit-large-patch14"  # what the aesthetic predictors were made for
NO_CHANGE = 1e-5  # of unit vectors: of nothing, float32 and another batch size make 2e-7 (ViT-L/14 on a CPU)


class Clip(nn.Module):
    """A frozen CLIP: pictures and texts as unit vectors of one space.

    Made once by ``from_pretrained`` and shared by the metrics below.

    Args:
        model: transformers' CLIPModel.
        tokenizer: its tokenizer.
        mean: ``[3]`` of its training pictures, in [0, 1], red first; ``[1]`` of a CLIP that sees luminance.
        std: as ``mean``.

    Attributes:
        width: D of the embeddings.
        size: side of the pictures it sees, in pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: CLIPModel, tokenizer: PreTrainedTokenizerBase, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.model = model.float().requires_grad_(False)
        self.tokenizer = tokenizer
        self.width = int(model.config.projection_dim)
        self.size = int(model.config.vision_config.image_size)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.eval()

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str] = VIT_L_14) -> Self:
        """A CLIP from a folder in transformers' layout, or by its name on the hub (``owner/name``).

        What was downloaded before is used without asking the hub.

        Args:
            name_or_folder: folder in transformers' layout, or ``owner/name``.

        Raises:
            CheckpointError: it is not here and the hub does not give it, or its files are damaged, missing or of
                another kind of model.
        """
        name = os.fspath(name_or_folder)
        folder = Path(name).expanduser()
        if not folder.is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
            raise CheckpointError(f"no CLIP {name!r}: it is no folder, and no owner/name of the hub")
        model, report, tokenizer, processor = _from_folder(folder) if folder.is_dir() else _from_hub(name)
        _check_whole(name, model, report, tokenizer)
        mean, std = processor.image_mean, processor.image_std
        channels = model.config.vision_config.num_channels
        if not all(isinstance(each, Sequence) and len(each) == channels for each in (mean, std)) or not min(std) > 0:
            raise CheckpointError(
                f"{name}: image_mean {mean} and image_std {std}; expected {channels} numbers each, std > 0"
            )
        return cls(model, tokenizer, mean, std)

    def pixels(self, pictures: Tensor) -> Tensor:
        """Pictures as the model sees them.

        The shorter side is resized to ``size`` (bicubic, antialiased) and the middle of the longer one is taken;
        luminance is repeated (or taken, for a CLIP that sees no more); mean and deviation are those of the training
        pictures.

        transformers' CLIPImageProcessor rounds to 8 bits after each step of resizing and this does not: the two differ
        by at most one 8-bit level, .015 in these units, and by a quarter of one on average.

        Args:
            pictures: ``[N, C, H, W]`` in [-1, 1], C 1 or 3.

        Returns:
            ``[N, 3 or 1, size, size]`` float32.

        Raises:
            ImageError: what is given is no such batch.
        """
        check_pictures(pictures)
        height, width = pictures.shape[-2:]
        short = min(height, width)
        x = pictures.float()
        if len(self.mean) == 1:
            x = in_luminance(x)
        # Along x first, and without the overshoot of bicubic at edges before going along y, as Pillow does it.
        for size in ((height, self.size * width // short), (self.size * height // short, self.size * width // short)):
            x = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
        top, left = (round((side - self.size) / 2) for side in x.shape[-2:])
        x = x[..., top : top + self.size, left : left + self.size]
        return (x.expand(-1, len(self.mean), -1, -1) / 2 + 0.5 - self.mean) / self.std

    def image_embeddings(self, pictures: Tensor) -> Tensor:
        """Pictures ``[N, C, H, W]`` in [-1, 1] -> ``[N, D]`` float32 unit vectors.

        Raises:
            ImageError: what is given is no such batch.
        """
        seen = self.model.vision_model(pixel_values=self.pixels(pictures)).pooler_output
        return F.normalize(self.model.visual_projection(seen), dim=1)

    @torch.no_grad()
    def text_embeddings(self, texts: Sequence[str]) -> Tensor:
        """N texts -> ``[N, D]`` float32 unit vectors.

        Raises:
            DataError: no texts, not a list of strings, or one that is too long: CLIP reads 77 tokens, about 50 words,
                and what is cut off is not measured.
        """
        if isinstance(texts, str) or not len(texts) or not all(isinstance(text, str) for text in texts):
            raise DataError(f"texts are a list of at least one string, found {texts!r:.80}")
        different = list(dict.fromkeys(texts))  # an emotion's text comes with each of its pictures
        tokens = self.tokenizer(different, padding=True, return_tensors="pt")
        most = self.model.config.text_config.max_position_embeddings
        lengths = tokens.attention_mask.sum(1)
        if int(lengths.max()) > most:
            longest = different[int(lengths.argmax())]
            raise DataError(f"{longest[:60]!r}… has {int(lengths.max())} tokens, this CLIP reads {most}; shorten it")
        tokens = tokens.to(self.mean.device)
        read = self.model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        found = F.normalize(self.model.text_projection(read), dim=1)
        return found[torch.tensor([different.index(text) for text in texts], device=found.device)]


def directional_similarity(
    image_before: Tensor, image_after: Tensor, text_before: Tensor, text_after: Tensor
) -> Tensor:
    """Cosine of the change of the pictures and the change of the texts.

    StyleGAN-NADA (Gal et al. 2022): the directional loss without its ``1 -``. Higher is better.

    This is the raw cosine, and it stays far from 1: Asyrp's table says .921, and an independent reproduction found that
    such numbers are 1 minus a cosine, .045 in its own case. Don't compare with a published S_dir before you know which
    of the two it is.

    Args:
        image_before: ``[N, D]`` embeddings.
        image_after: as ``image_before``.
        text_before: as ``image_before``.
        text_after: as ``image_before``.

    Returns:
        ``[N]`` float32 in [-1, 1]. Where the picture or the text did not change (a difference shorter than
        ``NO_CHANGE``) it is 0.

    Raises:
        DataError: shapes that differ.
    """
    _check_embeddings(image_before, image_after, text_before, text_after)
    image, text = image_after - image_before, text_after - text_before
    still = (image.norm(dim=1) < NO_CHANGE) | (text.norm(dim=1) < NO_CHANGE)
    return torch.where(still, 0.0, F.cosine_similarity(image, text, dim=1)).clamp(-1, 1).float()


class AestheticPredictor(nn.Module):
    """LAION's aesthetic predictors: the mean rating people would give a picture, from its CLIP embedding.

    Both are affine maps: ``sa_0_4_vit_l_14_linear.pth`` is one layer (github.com/LAION-AI/aesthetic-predictor),
    ``sac+logos+ava1-l14-linearMSE.pth`` five without activations in between
    (github.com/christophschuhmann/improved-aesthetic-predictor). The dropout between the five, which only training
    needs, is left out.

    Args:
        layers: ``[N, D]`` -> ``[N, 1]``.
        width: D, 768 for the CLIP ViT-L/14 of both public files.
    """

    def __init__(self, layers: nn.Module, width: int) -> None:
        super().__init__()
        self.layers = layers.eval().requires_grad_(False)
        self.width = width

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read either layout from a ``.pth`` (tensors only; nothing in it is executed) or ``.safetensors`` file.

        Args:
            path: path of the file.

        Raises:
            CheckpointError: missing, damaged, or of another layout; the message says what was found and expected.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise CheckpointError(
                f"{path}: there is no such file; the predictors are sa_0_4_vit_l_14_linear.pth of "
                "github.com/LAION-AI/aesthetic-predictor and sac+logos+ava1-l14-linearMSE.pth of "
                "github.com/christophschuhmann/improved-aesthetic-predictor"
            )
        state = checkpoints.read_weights(path) if path.suffix.lower() == ".safetensors" else read_torch(path)
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            raise CheckpointError(f"{path} holds a {type(state).__name__}, expected names -> tensors (a state dict)")
        first = next((key for key in ("weight", "layers.0.weight") if key in state), None)
        if first is None or state[first].ndim != 2:
            found = ", ".join(f"{key} {tuple(value.shape)}" for key, value in list(state.items())[:4])
            raise CheckpointError(
                f"{path} is no aesthetic predictor: found {found or 'nothing'}, expected weight (1, 768) and bias "
                "(1,), or layers.0.weight (1024, 768) and layers 2, 4, 6 and 7"
            )
        width = state[first].shape[1]
        layers: nn.Module
        if first == "weight":
            layers, prefix = nn.Linear(width, 1), ""
        else:
            linear = (nn.Linear(*sides) for sides in pairwise((width, 1024, 128, 64, 16, 1)))
            # Named by their places in the original, where dropout stands at 1, 3 and 5.
            layers, prefix = nn.Sequential(OrderedDict(zip("02467", linear, strict=True))), "layers."
        checkpoints.check_state({prefix + key: value for key, value in layers.state_dict().items()}, state, path)
        layers.load_state_dict({key.removeprefix(prefix): value for key, value in state.items()})
        return cls(layers, width)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Ratings ``[N]`` float32 of CLIP image embeddings ``[N, D]``, which are brought to unit length.

        The scale is 0 to 10; nothing enforces it. LAION's collections of pleasing pictures begin at 4.5, 5, 6 and 6.5.

        Args:
            embeddings: ``[N, D]``.

        Raises:
            CheckpointError: the embeddings are those of another CLIP.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.width:
            raise CheckpointError(
                f"this predictor rates embeddings [N, {self.width}], found {tuple(embeddings.shape)}; "
                f"{_which_clip(self.width)}"
            )
        return self.layers(F.normalize(embeddings.float(), dim=1))[:, 0]


def _which_clip(width: int) -> str:
    return f"it needs {VIT_L_14}" if width == 768 else "it needs the CLIP that it was trained on"


def _check_embeddings(*embeddings: Tensor) -> None:
    shapes = [tuple(each.shape) for each in embeddings]
    if len(shapes[0]) != 2 or len(set(shapes)) != 1:
        raise DataError(f"embeddings are [N, D] all alike, found {', '.join(map(str, shapes))}")


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:200]}"


def _parts(source: str, *, here: bool) -> tuple[Any, ...]:
    """Model, report of how it was loaded, tokenizer and processor; with ``here``, without asking the hub."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    options = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # they are reported by _check_whole
    return (
        *CLIPModel.from_pretrained(source, local_files_only=here, **options),
        CLIPTokenizer.from_pretrained(source, local_files_only=here),
        CLIPImageProcessor.from_pretrained(source, local_files_only=here),
    )


def _from_folder(folder: Path) -> tuple[Any, ...]:
    """As ``_parts``.

    Raises:
        CheckpointError: damaged, larger than its weights, or of another kind.
    """
    from transformers import CLIPConfig, CLIPModel

    kind = checkpoints.read_json(folder / checkpoints.CONFIG).get("model_type")
    if kind != "clip":
        raise CheckpointError(f"{folder / checkpoints.CONFIG}: model_type is {kind!r}, expected 'clip'")
    try:
        with torch.device("meta"):
            skeleton = CLIPModel(CLIPConfig.from_pretrained(str(folder), local_files_only=True))
        checkpoints.check_size(skeleton, folder)
        return _parts(str(folder), here=True)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged folder can fail in any way
        raise CheckpointError(
            f"{folder} cannot be read as a CLIP of transformers (config.json, model.safetensors, "
            f"preprocessor_config.json and a tokenizer): {_first_line(error)}"
        ) from error


def _from_hub(name: str) -> tuple[Any, ...]:
    """As ``_parts``, of what was downloaded before or else of a repository on the hub.

    Raises:
        CheckpointError: neither.
    """
    try:
        try:
            return _parts(name, here=True)
        except OSError:  # not here, or not all of it
            return _parts(name, here=False)
    except Exception as error:
        raise CheckpointError(
            f"no folder {name!r} is here, and the hub did not give it ({_first_line(error)}); where there is a "
            f"network, run: hf download {name}; then give its name, or the folder that this prints"
        ) from error


def _check_whole(name: str, model: CLIPModel, report: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a model with weights or words that its files did not hold.

    Raises:
        CheckpointError: it is not whole.
    """
    # transformers fills what a file lacks with random numbers, and a tokenizer without files has no vocabulary.
    lacks = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    lacks += [key for key, value in model.named_parameters() if not bool(value.isfinite().all())]
    if lacks:
        raise CheckpointError(
            f"{name} is no whole CLIP: {len(lacks)} of its weights are missing, of another shape or not finite "
            f"({', '.join(lacks[:4])}{', …' if len(lacks) > 4 else ''})"
        )
    words = model.config.text_config.vocab_size
    if len(tokenizer) != words:
        raise CheckpointError(
            f"{name}: the tokenizer has {len(tokenizer)} tokens and the model {words}; are its files "
            "(vocab.json and merges.txt, or tokenizer.json) those of this model?"
        )
