"""Train the embedded Stable Diffusion on captioned faces, learn its emotion tokens, write ``checkpoints/ti``.

    python experiments/train_metrics.py network=guidance_labels data.root=/path/to/data stages=[train]
    python experiments/train_asyrp.py recipe=asyrp_luminance data.root=/path/to/data stages=[prepare,train]
    python experiments/train_ti.py data.root=/path/to/data
    python experiments/train_ti.py recipe=ti_colour data.root=/path/to/data output=my-ti   # from that one, in colour
    python experiments/train_ti.py data.root=/path stages=[tokens,finish] output=/tmp/ti   # a part of it

Stop it whenever you like; the same command goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from emoedit.editors import Editor
from emoedit.emotions import BASIC
from emoedit.faces.networks import EmbeddedNetwork
from emoedit.io import checkpoints
from emoedit.metrics.clip import Clip
from emoedit.models.ddpm.backbone import DDPMBackbone
from emoedit.models.stable_diffusion import files
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stable_diffusion.config import StableDiffusionConfig
from emoedit.models.stable_diffusion.text import token_ids
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.steering.tokens import EMBEDDINGS, EmotionTokens
from emoedit.training.agreed import pick_agreed
from emoedit.training.augment import Augment
from emoedit.training.autoencoder import AutoencoderTask, face_psnr
from emoedit.training.captions import CaptionedBatches, learn_tokenizer, vocabulary_texts
from emoedit.training.colouring import start_autoencoder_in_colour, start_unet_in_colour
from emoedit.training.contrastive import ContrastiveTask, new_clip, text_config, text_tower, write_clip, zero_shot
from emoedit.training.data import CropSet, MixtureBatches, available_weights
from emoedit.training.loop import train
from emoedit.training.matching import mouth_opening
from emoedit.training.prepare import prepare_config
from emoedit.training.recipes import HELD_OUT, TRAINED_ON, licence_of, load_classifier, minutes, tiles, trainer_config
from emoedit.training.text_to_image import TextToImageTask, copy_unconditional_weights, draw, held_out_losses
from emoedit.training.tokens import TEMPLATES, TokenConfig, learn_token, pick_pictures, read_emotions
from lib.running import run
from lib.starting import luminance_folder


def plain(config: DictConfig) -> Any:
    return OmegaConf.to_container(config, resolve=True)


def rounded(module: torch.nn.Module) -> torch.nn.Module:
    """Rounded here, once: what comes after sees the weights that are shipped, in half the space."""
    return module.half().float().requires_grad_(False)


def mixture(
    crops: CropSet, how: DictConfig, resolution: int, *, seed: int, split: tuple[str, ...], channels: int = 1
) -> MixtureBatches:
    return MixtureBatches(
        crops,
        available_weights(crops, how.shares, "shares"),
        batch_size=how.batch_size,
        resolution=resolution,
        split=split,
        seed=seed,
        balance=how.balance,
        balance_groups=how.get("balance_groups", 1.0),
        channels=channels,
    )


def held_out(crops: CropSet, data: str, limit: int) -> np.ndarray:
    """Positions of at most ``limit`` crops of a data set that nothing was trained on, the same on every machine."""
    chosen = np.flatnonzero((crops.column("data") == data) & np.isin(crops.column("split"), HELD_OUT))
    return np.sort(np.random.default_rng(0).permutation(chosen)[:limit])


def report(work: Path, stage: str, numbers: dict[str, str]) -> None:
    """Print a stage's numbers, and keep them for the card."""
    lines = [f"- {title}: {value}" for title, value in numbers.items()]
    work.mkdir(parents=True, exist_ok=True)
    (work / f"{stage}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines), flush=True)


def cost(folder: Path, how: DictConfig) -> str:
    pictures = how.batch_size * how.get("accumulate", 1)
    return (
        f"{how.steps:,} steps of {pictures} pictures, {minutes(folder):.0f} minutes on two CPU cores beside other work"
    )


def text_folder(config: DictConfig) -> Path:
    """Where the tokenizer, the CLIP and learned words are: of the model of luminance, if training starts from one."""
    if config.luminance is None:
        return Path(config.work)
    return luminance_folder(config.luminance, setting="luminance", command="emoedit train ti")


def load_backbone(config: DictConfig, *, trained: bool = False) -> StableDiffusionBackbone:
    """The model out of the parts that are there: those in ``work``, the rest with fresh weights."""
    work, text = Path(config.work), text_folder(config)
    how = plain(config.backbone)
    if trained:
        settings = {k: v for k, v in how.items() if k not in ("unet", "vae", "text_encoder", "scheduler")}
        return StableDiffusionBackbone.from_pretrained(work / "backbone", **settings)
    tokenizer = files.read_tokenizer(text / "tokenizer")
    parts: dict[str, Any] = {}
    how["text_encoder"] = text_config(how["text_encoder"], tokenizer)
    if (text / "clip").is_dir():
        parts["text_encoder"] = text_tower(Clip.from_pretrained(text / "clip").model)
    if (work / "vae").is_dir():
        parts["vae"] = files.new_vae(how["vae"])
        files.fill_weights(parts["vae"], checkpoints.read_weights(work / "vae" / checkpoints.WEIGHTS), work / "vae")
        parts["vae"].eval().requires_grad_(False)
    return StableDiffusionBackbone(StableDiffusionConfig(**how), tokenizer, **parts)


def prepare_stage(config: DictConfig) -> None:
    """Aligned crops of every data set, once, and those that people agree on."""
    for data in (config.data, config.agreed):
        found = prepare_config(data)
        print("kept", found["kept"], "dropped", found["dropped"])


def tokenizer_stage(config: DictConfig) -> None:
    """The vocabulary, from the words that captions are made of."""
    how, folder = plain(config.captions), Path(config.work) / "tokenizer"
    with checkpoints.new_folder(folder) as new:
        tokenizer = learn_tokenizer(vocabulary_texts(how["kinds"]), new, merges=how["merges"], length=how["length"])
    lengths = [len(tokenizer(text)["input_ids"]) for text in vocabulary_texts(how["kinds"], 1000)]
    report(
        Path(config.work),
        "tokenizer",
        {"tokens": f"{len(tokenizer)}; captions are {np.mean(lengths):.1f} of them long, {max(lengths)} at most"},
    )


def clip_stage(config: DictConfig) -> None:
    """A CLIP: two towers trained to match pictures with their captions."""
    work, crops = Path(config.work), CropSet(config.data.crops)
    how, tokenizer = config.clip.trainer, files.read_tokenizer(work / "tokenizer")
    shape = {"text": plain(config.backbone.text_encoder), "vision": plain(config.clip.vision)}
    torch.manual_seed(0)
    clip = new_clip({**shape, "projection_dim": config.clip.projection_dim}, tokenizer)
    trainer = trainer_config(how)
    drawn = mixture(crops, how, config.clip.vision.image_size, seed=trainer.seed, split=TRAINED_ON)
    batches = CaptionedBatches(
        drawn, tokenizer, plain(config.captions.kinds), empty=0.0, how=Augment(**plain(how.augment))
    )
    averaged = rounded(train(ContrastiveTask(clip), batches, work / "clip_run", trainer).clip)
    with checkpoints.new_folder(work / "clip") as new:
        write_clip(new, averaged, tokenizer)
    reader = Clip.from_pretrained(work / "clip")
    numbers = {
        "CLIP": f"{sum(p.numel() for p in reader.model.parameters()) / 1e6:.2f} M parameters; "
        + cost(work / "clip_run", how)
    }
    truth = np.array([BASIC.index(name) if name in BASIC else -1 for name in crops.column("emotion")])
    for name in config.data.sets:
        chosen = held_out(crops, name, config.held_out)
        chosen = chosen[truth[chosen] >= 0]
        there = sorted(set(truth[chosen].tolist()))
        read = zero_shot(reader, crops, chosen, BASIC)
        recall = [(read[truth[chosen] == number] == number).mean() for number in there]
        numbers[f"CLIP, zero-shot emotion of {len(chosen)} held-out faces, {name}"] = (
            f"accuracy {(read == truth[chosen]).mean():.3f}, mean of {len(there)} classes {np.mean(recall):.3f}"
        )
    report(work, "clip", numbers)


def autoencoder_stage(config: DictConfig) -> None:
    """The autoencoder, whose latent is nearly the crop."""
    work, crops, how = Path(config.work), CropSet(config.data.crops), config.autoencoder
    torch.manual_seed(0)
    backbone = load_backbone(config)
    backbone.vae = files.new_vae(plain(config.backbone.vae)).to(memory_format=torch.channels_last)
    task = AutoencoderTask(backbone, beta=how.beta, pull=how.pull, chroma=how.get("chroma"))
    if config.luminance is not None:
        luminance = StableDiffusionBackbone.from_pretrained(text_folder(config) / "backbone")
        start_autoencoder_in_colour(task.vae, luminance.vae)
    trainer = trainer_config(how)
    channels = backbone.channels
    batches = mixture(crops, how, backbone.crop.resolution, seed=trainer.seed, split=TRAINED_ON, channels=channels)
    shown = [crops.pixels(held_out(crops, name, 4)[:4], batches.resolution, channels) for name in config.data.sets]
    shown = torch.cat(shown)

    def preview(averaged: AutoencoderTask) -> torch.Tensor:
        """Held-out crops above their reconstructions."""
        z, mean, gain = backbone.normalise(shown)
        drawn = averaged.vae.decode(averaged.vae.encode(z).latent_dist.mean).sample
        return tiles(torch.stack([shown, backbone.restore(drawn, mean, gain)]))

    averaged = train(task, batches, work / "vae_run", trainer, preview=preview)
    backbone.vae = rounded(averaged.vae)
    with checkpoints.new_folder(work / "vae") as new:
        checkpoints.write_part(
            new, {"_class_name": "AutoencoderKL", **plain(config.backbone.vae)}, averaged.vae.state_dict()
        )
    numbers = {
        "autoencoder": f"{sum(p.numel() for p in averaged.vae.parameters()) / 1e6:.2f} M parameters; "
        + cost(work / "vae_run", how)
    }
    for name in config.data.sets:
        chosen = held_out(crops, name, min(config.held_out, 200))
        face, latent = face_psnr(backbone, crops, chosen, how.get("chroma"))
        numbers[f"autoencoder, {len(chosen)} held-out faces, {name}"] = (
            f"{face:.1f} dB in the face; latent against the pixels {latent:.1f} dB"
        )
    report(work, "autoencoder", numbers)


def unet_stage(config: DictConfig) -> None:
    """The U-Net, from the weights of the unconditional one or of luminance; the whole model to ``work``."""
    work, crops, how = Path(config.work), CropSet(config.data.crops), config.unet
    torch.manual_seed(0)
    backbone = load_backbone(config)
    if config.start is not None and not (work / "unet_run" / "state.pt").is_file():
        source = DDPMBackbone.from_pretrained(config.start).unet
        fresh = copy_unconditional_weights(backbone.unet, source)
        print(f"started from {config.start}; {len(fresh)} tensors are new", flush=True)
    if config.luminance is not None:
        luminance = StableDiffusionBackbone.from_pretrained(text_folder(config) / "backbone")
        start_unet_in_colour(backbone.unet, luminance.unet)
    task, trainer = TextToImageTask(backbone), trainer_config(how)
    kinds = plain(config.captions.kinds)
    side, channels = backbone.crop.resolution, backbone.channels
    drawn = mixture(crops, how, side, seed=trainer.seed, split=TRAINED_ON, channels=channels)
    batches = CaptionedBatches(drawn, backbone.tokenizer, kinds, empty=how.empty)

    def preview(averaged: TextToImageTask) -> torch.Tensor:
        """Faces from the same two noises under the captions of ``shown``."""
        backbone.unet = averaged.unet
        rows = [draw(backbone, list(config.shown), torch.Generator().manual_seed(seed)) for seed in (0, 1)]
        backbone.unet = task.unet
        return tiles(torch.stack(rows))

    averaged = train(task, batches, work / "unet_run", trainer, preview=preview)
    backbone.unet = rounded(averaged.unet)
    with checkpoints.new_folder(work / "backbone") as new:
        backbone.eval().save_pretrained(new)
    held = mixture(crops, how, side, seed=1, split=HELD_OUT, channels=channels)
    unseen = CaptionedBatches(held, backbone.tokenizer, kinds, empty=0.0)
    empty = token_ids(backbone.tokenizer, [""], backbone.tokenizer.model_max_length)
    losses = held_out_losses(averaged, unseen, empty, max(1, config.held_out // how.batch_size))
    numbers = {
        "U-Net": f"{sum(p.numel() for p in averaged.unet.parameters()) / 1e6:.2f} M parameters; "
        + cost(work / "unet_run", how),
        "U-Net, loss on held-out faces under": ", ".join(
            f"{'the ' if name != 'another' else ''}{name} caption {loss:.5f}" for name, loss in losses.items()
        ),
    }
    report(work, "unet", numbers)


def labelled_pictures(
    config: DictConfig, crops: CropSet, emotion: str, classifier: MeasuringNetwork, landmarks: MeasuringNetwork
) -> tuple[np.ndarray, str]:
    """Positions of the pictures that a word is learned from, by label and by the guidance classifier; what they are."""
    how = config.tokens
    data = how.data.get(emotion, how.data.others)
    usable = (crops.column("data") == data) & np.isin(crops.column("split"), TRAINED_ON)
    if emotion in BASIC:
        usable &= crops.column("emotion") == emotion
    positions = np.flatnonzero(usable)
    if emotion in how.closed:
        positions = positions[mouth_opening(landmarks, crops, positions) <= how.closed[emotion]]
    found = pick_pictures(
        read_emotions(classifier, crops, positions),
        classifier.config.emotions,
        crops.column("emotion")[positions],
        crops.column("person")[positions],
        emotion,
        how.pictures,
    )
    labels = crops.column("emotion")[positions[found]].tolist()
    counts = ", ".join(f"{labels.count(label)} {label}" for label in sorted(set(labels), key=labels.count)[::-1])
    return positions[found], f"labelled {counts}"


def voted_pictures(
    config: DictConfig, crops: CropSet, emotion: str, landmarks: MeasuringNetwork
) -> tuple[np.ndarray, str]:
    """Positions of the pictures of ``data=agreed`` that a word is learned from, by votes; what they are."""
    how = config.tokens.voted[emotion]
    named = how.get("named", ())
    positions = pick_agreed(
        crops,
        emotion,
        landmarks,
        least=how.agreed,
        closed=how.closed,
        count=config.tokens.pictures,
        named=named,
    )
    by_eye = ", chosen by eye among them" if named else ""
    return positions, f"{how.agreed:.0%} or more of the people who voted see {emotion}{by_eye}"


def tokens_stage(config: DictConfig) -> None:
    """A word for each emotion, from pictures of it."""
    work, crops, how = Path(config.work), CropSet(config.data.crops), config.tokens
    backbone, classifier = (
        load_backbone(config, trained=True),
        load_classifier(plain(config.classifier.config), config.classifier_weights),
    )
    agreed = CropSet(config.agreed.crops) if how.voted else None
    shown = []
    for name, count in how.shown.items():
        chosen = held_out(crops, name, len(crops.rows))
        shown.append(chosen[crops.column("emotion")[chosen] == "neutral"][:count])
    validation = crops.pixels(np.concatenate(shown), backbone.crop.resolution, backbone.channels)
    numbers = {}
    landmarks = EmbeddedNetwork.load("landmarks").network
    for emotion, like in how.like.items():
        if agreed is not None and emotion in how.voted:
            source, (chosen, what) = agreed, voted_pictures(config, agreed, emotion, landmarks)
        else:
            source, (chosen, what) = crops, labelled_pictures(config, crops, emotion, classifier, landmarks)
        data = str(source.column("data")[chosen[0]])
        folder = work / "tokens" / emotion
        templates = tuple(how.templates.get(data, TEMPLATES))
        about = TokenConfig(emotion, like, vectors=how.vectors, templates=templates, batch_size=how.batch_size)
        x = source.pixels(chosen, backbone.crop.resolution, backbone.channels)
        learn_token(backbone, x, about, folder, trainer_config(how.trainer), validation=validation)
        numbers[f"token {about.word}"] = f"{len(chosen)} pictures of {data} ({what}), {minutes(folder):.1f} minutes"
    report(work, "tokens", numbers)


def finish_stage(config: DictConfig) -> None:
    """The finished folder, with its card."""
    work = Path(config.work)
    backbone = load_backbone(config, trained=True)
    words = list(config.tokens.like)
    learned = (text_folder(config) if config.tokens.kept else work) / "tokens"
    steering = EmotionTokens.from_files(
        {name: learned / name / EMBEDDINGS for name in words},
        gain=torch.tensor([float(config.tokens.gain[name]) for name in words]),
        spans=plain(config.tokens.spans),
    )
    editor = Editor(backbone, [steering], name=config.name)
    text = text_folder(config)
    found = [*((text, name) for name in ("tokenizer", "clip")), *((work, name) for name in ("autoencoder", "unet"))]
    found.append((learned.parent, "tokens"))
    numbers = "".join((folder / f"{stage}.md").read_text("utf-8") for folder, stage in found).rstrip()
    card = (Path(__file__).parent / "cards" / f"{config.name}.md").read_text().replace("{numbers}", numbers)
    output = editor.save_pretrained(
        config.output,
        card=card,
        role="emotion editor (learned tokens, Stable Diffusion's layout)",
        licence=licence_of(backbone),
    )
    reader = Clip.from_pretrained(text / "clip")
    with checkpoints.new_folder(output / "clip") as new:
        write_clip(new, reader.model, reader.tokenizer)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: {size / 1e6:.1f} MB", flush=True)


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_ti")
def main(config: DictConfig) -> None:
    stages = {
        "prepare": prepare_stage,
        "tokenizer": tokenizer_stage,
        "clip": clip_stage,
        "autoencoder": autoencoder_stage,
        "unet": unet_stage,
        "tokens": tokens_stage,
        "finish": finish_stage,
    }
    for name in config.stages:
        stages[name](config)


if __name__ == "__main__":
    run(main)
