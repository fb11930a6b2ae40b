"""The two prompt studies of facial expressions in generated pictures, "Shame" and "Jealousy": entropy, noise, prompt
CLIP score and aesthetic score a picture.

    python experiments/reproduce_prompt_study.py                                 # edits a photograph
    python experiments/reproduce_prompt_study.py editor=asyrp
    python experiments/reproduce_prompt_study.py generator=stable-diffusion-v1-5/stable-diffusion-v1-5 \
        clip=openai/clip-vit-large-patch14 aesthetic=sa_0_4_vit_l_14_linear.pth  # generates, with all columns

What is edited is a mixture of the emotions that a prompt's expression and nuances name. A score whose network is not
given is an empty column that says why.

Expected: the studies print entropies of 6.0 to 6.9 bits, noise of 45 to 92 by a measure they don't define, prompt CLIP
scores of .20 to .31, and aesthetic scores of .4 to .8 on a scale of their own. An edited photograph keeps the
photograph's entropy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from emoedit.evaluation.compare import head_of
from emoedit.io import checkpoints
from emoedit.metrics.quality import grey_entropy, noise_sigma
from emoedit.models.identify import INDEX
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.text_to_image import TextToImage
from emoedit.photo import PhotoEdit, PhotoEditor
from emoedit.types import CheckpointError, DataError, Edit, EmoEditError, UnknownNameError
from lib.prompts import FORM, Prompt, read_emotions, read_prompts
from lib.readings import NOT_MEASURED, read_picture
from lib.reproductions import MissingEditorError, Page, open_editor, portrait, table
from lib.running import run

STUDIES = Path(__file__).with_name("prompt_studies.csv")
MEASURES = {"entropy": "entropy", "noise": "noise", "prompt_clip_score": "prompt CLIP", "aesthetic": "aesthetic"}


def as_tensor(image: Image.Image) -> Tensor:
    """``[1, 3, H, W]`` in [-1, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 127.5 - 1


class PictureMetrics:
    """Metrics of a picture; those that cannot be computed carry a reason.

    Args:
        clip: folder or name of a CLIP.  aesthetic: file of a predictor.

    Raises:
        CheckpointError: one that is given and cannot be used; the message names the file.
    """

    def __init__(self, clip: str | None, aesthetic: str | None) -> None:
        from emoedit.metrics.clip import AestheticPredictor, Clip

        self.why: dict[str, str] = {}
        self.clip = Clip.from_pretrained(clip) if clip else None
        self.predictor = AestheticPredictor.from_file(aesthetic) if aesthetic else None
        if self.clip is None:
            self.why["prompt_clip_score"] = "no CLIP was given (`clip=openai/clip-vit-large-patch14`)"
        if self.predictor is None:
            self.why["aesthetic"] = "no predictor was given (`aesthetic=sa_0_4_vit_l_14_linear.pth`)"
        elif self.clip is None:
            self.why["aesthetic"] = "the predictor rates embeddings of a CLIP, and none was given"
        elif self.clip.width != self.predictor.width:
            raise CheckpointError(
                f"{aesthetic} rates embeddings of {self.predictor.width} numbers, {clip} gives {self.clip.width}"
            )

    @torch.no_grad()
    def __call__(self, image: Image.Image, prompt: Prompt) -> dict[str, float | None]:
        """The numbers of :data:`MEASURES`, None for what is not measured."""
        x = as_tensor(image)
        found: dict[str, float | None] = dict.fromkeys(MEASURES)
        found |= {"entropy": float(grey_entropy(x)), "noise": float(noise_sigma(x))}
        if self.clip is not None:
            seen = self.clip.image_embeddings(x)
            if self.predictor is not None:
                found["aesthetic"] = float(self.predictor(seen))
            try:
                found["prompt_clip_score"] = float(seen[0] @ self.clip.text_embeddings([prompt.text])[0])
            except DataError as error:  # a prompt of more words than CLIP reads
                self.why["prompt_clip_score"] = str(error)
        return found


def edited(prompts: Sequence[Prompt], config: Mapping[str, Any]) -> Iterator[tuple[str, str, Image.Image | None]]:
    """For each prompt what was edited, what of it was not read, and the head of the edited photograph; or why there is
    none.

    Raises:
        MissingEditorError: the editor is not here.
    """
    name = config["editor"]
    photos = PhotoEditor(open_editor(config["models"].get(name, name), device=config["device"]))
    opened = photos.open(portrait() if config["photo"] is None else config["photo"], seed=config["seed"])
    for prompt in prompts:
        try:
            reading = read_emotions(prompt)
        except UnknownNameError as error:
            yield f"nothing: {error}", ", ".join((prompt.expression, *prompt.nuances)), None
            continue
        unread = ", ".join(reading.unread)
        (made,) = photos.attempt(opened, [Edit(reading.algebra, config["strength"])], seed=config["seed"])
        if isinstance(made, PhotoEdit):
            yield reading.algebra, unread, head_of(made.image, made.face)
        else:
            yield f"{reading.algebra}: {made}", unread, None


def generated(prompts: Sequence[Prompt], config: Mapping[str, Any]) -> Iterator[tuple[str, str, Image.Image | None]]:
    """The same for pictures drawn from the prompts.

    Raises:
        MissingEditorError: no such model.
    """
    from emoedit.training.text_to_image import draw

    backbone = generator_of(config)
    if isinstance(backbone, TextToImage):
        yield from _by_pipeline(backbone, prompts, config)
        return
    generator = torch.Generator().manual_seed(config["seed"])
    for prompt in prompts:
        try:
            (x,) = draw(backbone, [prompt.text], generator, guidance=config["guidance"], steps=config["steps"])
        except EmoEditError as error:  # a prompt of more words than the text encoder reads
            yield f"nothing: {error}", "", None
            continue
        levels = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
        yield "drawn", "", image


def _by_pipeline(
    model: TextToImage, prompts: Sequence[Prompt], config: Mapping[str, Any]
) -> Iterator[tuple[str, str, Image.Image | None]]:
    """Pictures of a pipeline of diffusers."""
    how = {"seed": config["seed"], "steps": config["steps"], "guidance": config["guidance"]}
    for prompt in prompts:
        try:
            image = model.draw(prompt.text, **how)
        except EmoEditError as error:
            yield f"nothing: {error}", "", None
            continue
        yield "drawn", "", image


def generator_of(config: Mapping[str, Any]) -> StableDiffusionBackbone | TextToImage:
    """A text-to-image model: an editor's, any text-to-image pipeline of diffusers in a folder, or ``owner/name``.

    Raises:
        MissingEditorError: no such model.
        DataError: an editor whose model reads no text.
    """
    name = config["generator"]
    described = config["models"].get(name, name)
    local = isinstance(described, str) and Path(described).expanduser()
    pipeline = local and (local / INDEX).is_file() or isinstance(described, str) and described.count("/") == 1
    if pipeline and not (local / checkpoints.EDITOR).is_file():
        try:
            return TextToImage.load(described, device=config["device"])
        except (CheckpointError, UnknownNameError) as error:
            raise MissingEditorError(f"not here: {error}") from error
    backbone = open_editor(described, device=config["device"]).backbone
    if not isinstance(backbone, StableDiffusionBackbone):
        raise DataError(f"generator={name}: {type(backbone).__name__} draws nothing from a text")
    return backbone


def section(config: Mapping[str, Any], page: Page) -> str:
    """The section's Markdown."""
    prompts = read_prompts(config["prompts"] or STUDIES)
    metrics = PictureMetrics(config["clip"], config["aesthetic"])
    drawn = config["generator"] is not None
    parts = [
        '## Two prompt studies: "Shame" and "Jealousy"\n\nBy `experiments/reproduce_prompt_study.py`, from '
        f"{len(prompts)} prompts of the form `{FORM}`. "
        + (
            f"Each picture was drawn by `{config['generator']}`."
            if drawn
            else f"Each picture is the photograph, edited by `{config['editor']}` at strength {config['strength']:g} "
            "with a mixture of the emotions that the prompt's expression and nuances name, and cut to the head; camera "
            "and scene are those of the photograph."
        )
    ]
    results: list[tuple[Prompt, dict[str, float | None]]] = []
    cells, lines, seen = [], [], []
    try:
        for number, (prompt, row) in enumerate(
            zip(prompts, (generated if drawn else edited)(prompts, config), strict=True), 1
        ):
            made, unread, image = row
            found = dict.fromkeys(MEASURES) if image is None else metrics(image, prompt)
            results.append((prompt, found))
            told = [prompt.about.get(key) or None for key in MEASURES]
            nuances = ", ".join(prompt.nuances)
            lines.append([number, f"{prompt.expression}: {nuances}", made, unread or None, *found.values(), *told])
            if image is not None:
                cells.append((f"{number} {prompt.expression}", image))
                what = read_picture(image, prompt.style, metrics.clip)
                seen.append([number, prompt.camera or None, prompt.style or None, *astuple(what)])
    except MissingEditorError as error:
        return "\n\n".join([*parts, f"The model is {error}."])
    scores = list(MEASURES.values())
    header = ["no.", "prompt", "edit", "not read", *scores, *(f"{name}, published" for name in scores)]
    notes = [f"*{MEASURES[key]}* is empty: {why}." for key, why in metrics.why.items()]
    parts += [
        "Entropy is of 256 grey levels, in bits; noise Immerkær's estimate, in grey levels; prompt CLIP the raw "
        "cosine; aesthetic LAION's rating, from 0 to 10. The studies name neither their measure of noise nor the scale "
        "of their aesthetic score, so that only entropy and prompt CLIP compare. " + " ".join(notes),
        *([page.grid("pictures", cells, columns=7, cell=130)] if cells and (drawn or config["photo"] is None) else []),
        "Means:",
        table(["study", "pictures", *scores, *(f"{name}, published" for name in scores)], means(results)),
        "Every picture:",
        table(header, lines),
        "What the studies read by eye, measured: faces found; shot, by the share of the picture's height that the "
        "face takes; camera, by how far down the nose's tip lies between the eyes and its base; shape, how far the "
        "face's landmarks lie from those of neutral photographs, in deviations of these; style, the cosine in the CLIP "
        "of the picture and the prompt's words for style. The definitions are in `experiments/lib/readings.py`. "
        + NOT_MEASURED
        + (" *style* is empty: no CLIP was given." if metrics.clip is None else ""),
        table(["no.", "camera, asked", "style, asked", "faces", "shot", "camera", "shape", "style"], seen),
    ]
    return "\n\n".join(parts)


def means(results: Sequence[tuple[Prompt, Mapping[str, float | None]]]) -> list[list[Any]]:
    """A line an expression."""
    lines = []
    for name in dict.fromkeys(prompt.expression for prompt, _ in results):
        group = [(prompt, found) for prompt, found in results if prompt.expression == name]
        line: list[Any] = [name, len(group)]
        for key in MEASURES:
            values = [found[key] for _, found in group if found[key] is not None]
            line.append(float(np.mean(values)) if values else None)
        for key in MEASURES:
            told = [float(prompt.about[key]) for prompt, _ in group if is_number(prompt.about.get(key))]
            line.append(float(np.mean(told)) if told else None)
        lines.append(line)
    return lines


def is_number(text: str | None) -> bool:
    """Whether a cell of a csv holds a finite number."""
    try:
        return text is not None and bool(np.isfinite(float(text)))
    except ValueError:
        return False


@hydra.main(version_base="1.3", config_path="../configs", config_name="reproduce_prompt_study")
def main(config: DictConfig) -> None:
    plain = OmegaConf.to_container(config, resolve=True)
    page = Page(Path(plain["page"]), Path(plain["images"]), "prompt-study")
    page.write(section(plain, page))


if __name__ == "__main__":
    run(main)
