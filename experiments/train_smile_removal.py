"""Train the network that takes smiles out of photographs and write ``checkpoints/smile_removal``.

    python experiments/train_smile_removal.py data.root=/path/to/data
    python experiments/train_smile_removal.py data.root=/path stages=[train,finish]

Stop it whenever you like; the same command goes on where it stopped. Embedded editors put the smiles on that it learns
to take off. Expected: smiling photographs of held-out people come nearer to the neutral ones of the same people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import hydra
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from emoedit.compositing.relaxing import smile_amount
from emoedit.faces.align import align
from emoedit.faces.detect import FaceDetector
from emoedit.faces.landmarks import landmark_finder
from emoedit.faces.networks import GUIDANCE, EmbeddedNetwork
from emoedit.io import checkpoints
from emoedit.io.images import load_picture
from emoedit.nn.measuring import MeasuringNetwork
from emoedit.nn.relaxation import RelaxationNetwork
from emoedit.nn.smile_removal import SmileRemovalConfig, SmileRemovalNetwork, composed
from emoedit.photo import OpenPhoto, PhotoEditor
from emoedit.training.data import CropSet
from emoedit.training.loop import train
from emoedit.training.matching import read_crops
from emoedit.training.prepare import prepare_config
from emoedit.training.readers import read_pairs
from emoedit.training.recipes import HELD_OUT, LICENCE_IN_COLOUR, TRAINED_ON, choose, minutes, tiles, trainer_config
from emoedit.training.relaxation import analyse_crop, closed_crop, neutral_landmarks, rigid_map
from emoedit.training.smile_removal import Pairs, RealSmiles, SmileBatches, SmileRemovalTask, mean_error
from emoedit.types import CropSpec, DataError, Edit, EmoEditError
from lib.running import run

LARGEST = 400  # side of the photographs that smiles are put on: crops are smaller
SAME_PLACE = 0.3  # in widths of a face: how far the face of an edit may be from the photograph's


def prepare_stage(config: DictConfig) -> None:
    """Aligned crops of every data set, once."""
    print("kept", prepare_config(config.data)["kept"])


def read_first(crops: CropSet, config: DictConfig, emotion: str, splits: Sequence[str]) -> np.ndarray:
    """Positions of faces without labels in which the guidance classifier reads an emotion first, in random order."""
    positions = choose(crops, config.faces.data, [""], len(crops.rows), splits)
    network = EmbeddedNetwork.load(GUIDANCE).network
    scores = np.asarray(read_crops(network, crops, positions).scores)
    number = network.config.emotions.index(emotion)
    found = positions[(scores.argmax(1) == number) & (scores.max(1) >= config.faces[emotion])]
    if not len(found):
        raise DataError(f"no face of {config.faces.data} is read as {emotion}: prepare more pictures (data.sets)")
    return np.random.default_rng(0).permutation(found)


def is_neutral(photo: OpenPhoto, recogniser: EmbeddedNetwork) -> bool:
    """Whether the face of a photograph is neutral, with its lips together and nothing in front of them."""
    (face,) = photo.source.faces
    scores = recogniser.scores(np.stack([recogniser.faces(photo.source.rgb, face.face)]))[0]
    read = recogniser.emotions[int(scores.argmax())]
    return photo.smiles[0] is None and read == "neutral" and face.opening is None and not face.mouth_hidden


def made_smiles(
    name: str, how: Mapping[str, Any], photographs: Sequence[Path], spec: CropSpec
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Crops of smiles that an editor puts on neutral faces, and of these faces.

    Args:
        name: the editor.
        how: ``each`` (smiles on each face) and ``strengths`` (the lowest and the highest).
        photographs: photographs of neutral faces.
        spec: the crop; it is aligned to the smiling face, as it is when a smile is taken out.
    """
    editor, recogniser = PhotoEditor(name), EmbeddedNetwork.load("expression")
    rng = np.random.default_rng(0)
    for path in tqdm(photographs, desc=name):
        rgb = load_picture(path).rgb
        shrink = LARGEST / max(rgb.shape[:2])
        if shrink < 1:
            rgb = cv2.resize(rgb, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        edits = [Edit("happy", float(s)) for s in np.sort(rng.uniform(*how["strengths"], how["each"]))]
        try:
            photo = editor.open(rgb, edits=edits)
            smiles = [result.image for result in editor.edit(photo, edits)] if is_neutral(photo, recogniser) else []
        except EmoEditError as error:
            print(f"{path.name}: {error}")
            continue
        left, _, right, _ = photo.faces[0].box
        for smile in (np.asarray(image.convert("RGB")) for image in smiles):
            for face in editor.detector(smile)[:1]:
                if abs(face.box[0] - left) < SAME_PLACE * (right - left):
                    alignment = align(face.landmarks, spec)
                    yield closed_crop(alignment.crop(smile), spec), alignment.crop(rgb)


def photographed_pairs(config: DictConfig, splits: Sequence[str], spec: CropSpec) -> Pairs:
    """Crops of people photographed both ways; the neutral one lies on the smiling one's eyes and nose."""
    detector, finder = FaceDetector("cpu"), landmark_finder("cpu")
    people: dict[str, dict[str, Path]] = {}
    for sample in read_pairs(Path(config.paired.folder)):
        if sample.split in splits:
            people.setdefault(sample.person, {})[sample.emotion] = sample.picture
    smiling, neutral = [], []
    for pictures in people.values():
        crops, points, alignments, photos = {}, {}, {}, {}
        for emotion, path in pictures.items():
            photos[emotion] = load_picture(path).rgb
            face = detector.choose(photos[emotion], "largest")[0]
            alignments[emotion] = align(face.landmarks, spec)
            crops[emotion] = alignments[emotion].crop(photos[emotion])
            points[emotion] = finder([crops[emotion].astype(np.float32)], alignments[emotion], face)[0]
        moved = rigid_map(points["neutral"], points["happy"])
        smiling.append(closed_crop(crops["happy"], spec))
        neutral.append(alignments["neutral"].followed_by(moved).crop(photos["neutral"]))
    return Pairs(np.array(smiling), np.array(neutral))


def real_smiles(config: DictConfig, crops: CropSet, splits: Sequence[str], spec: CropSpec) -> RealSmiles:
    """Crops of smiles, and landmarks of the neutral faces as the relaxation network predicts them."""
    network = RelaxationNetwork.from_pretrained(checkpoints.embedded_root() / "relaxation")
    chosen, points = [], []
    for position in tqdm(read_first(crops, config, "happy", splits)[: config.real], desc="smiles"):
        face = analyse_crop(np.ascontiguousarray(crops.crops[position]), spec)
        if smile_amount(face, network) > 0:
            chosen.append(closed_crop(crops.crops[position], spec))
            points.append(neutral_landmarks(face, network))
    return RealSmiles(np.stack(chosen), np.array(points, np.float32))


def smiles_stage(config: DictConfig) -> None:
    """All that the network learns from; to ``work``."""
    crops, work = CropSet(config.data.crops), Path(config.work)
    spec = CropSpec(config.config.resolution, "stable", config.config.scale, config.config.down)
    work.mkdir(parents=True, exist_ok=True)
    real = real_smiles(config, crops, TRAINED_ON, spec)
    np.savez(work / "real.npz", crops=real.crops, points=real.points)
    paired = photographed_pairs(config, TRAINED_ON, spec)
    np.savez(work / "photographed.npz", smiling=paired.smiling, neutral=paired.neutral)
    faces = read_first(crops, config, "neutral", TRAINED_ON)
    paths = [Path(config.faces.folder) / crops.rows[position]["name"] for position in faces]
    for name, how in OmegaConf.to_container(config.smiles, resolve=True).items():
        if not (work / f"made_{name}.npz").is_file():
            pairs = list(made_smiles(name, how, paths[: how["faces"]], spec))
            smiling, neutral = (np.array(side) for side in zip(*pairs, strict=True))
            np.savez(work / f"made_{name}.npz", smiling=smiling, neutral=neutral)


def train_stage(config: DictConfig) -> None:
    """The network; its averaged, rounded weights go to ``work``."""
    how, work = OmegaConf.to_container(config, resolve=True), Path(config.work)
    trainer = trainer_config(how["trainer"])
    files = [work / f"made_{name}.npz" for name in how["smiles"]]
    made = [Pairs(**np.load(file)) for file in files]
    batches = SmileBatches(
        Pairs(*(np.concatenate([getattr(pairs, side) for pairs in made]) for side in ("smiling", "neutral"))),
        Pairs(**np.load(work / "photographed.npz")),
        RealSmiles(**np.load(work / "real.npz")),
        how["batch"],
        seed=trainer.seed,
    )
    torch.manual_seed(trainer.seed)
    landmarks = MeasuringNetwork.from_pretrained(checkpoints.embedded_root() / "landmarks").eval()
    task = SmileRemovalTask(
        SmileRemovalConfig(**how["config"]),
        landmarks.requires_grad_(False).to(memory_format=torch.channels_last),
        weights=how["weights"],
        same=how["same"],
        photographed=how["batch"]["photographed"],
    ).to(memory_format=torch.channels_last)
    shown = batches(10**6)["real"]

    def preview(averaged: SmileRemovalTask) -> torch.Tensor:
        """Real smiles over what is composed."""
        return tiles(torch.stack([shown, composed(shown, averaged.network(shown))]))

    averaged = train(task, batches, work, trainer, preview=preview)
    # Rounded here, once: what is measured later sees the weights that are shipped, in a quarter of the space.
    checkpoints.round_weights(averaged.network)
    torch.save(averaged.network.state_dict(), work / "network.pt")


def finish_stage(config: DictConfig) -> None:
    """Metrics on held-out people, the card and the finished folder."""
    work, how = Path(config.work), OmegaConf.to_container(config.config, resolve=True)
    network = SmileRemovalNetwork(SmileRemovalConfig(**how))
    network.load_state_dict(torch.load(work / "network.pt", weights_only=True))
    network.eval().requires_grad_(False)
    paired = photographed_pairs(config, HELD_OUT, network.crop)
    before, after = mean_error(network, paired)
    _, kept = mean_error(network, Pairs(paired.neutral, paired.neutral))
    made = {name: len(np.load(work / f"made_{name}.npz")["smiling"]) for name in config.smiles}
    numbers = "\n".join(
        [
            f"- made smiles: {', '.join(f'{count:,} by {name}' for name, count in made.items())}",
            f"- held-out people photographed both ways: {len(paired.smiling)}",
            "- distance from the smiling to the neutral photograph (a Laplacian pyramid's, levels from -1 to 1): "
            f"{before:.4f}; after removal: {after:.4f}; neutral photographs change by {kept:.4f}",
            f"- {config.trainer.steps:,} steps, {minutes(work):.0f} minutes",
        ]
    )
    card = (Path(__file__).parent / "cards" / "smile_removal.md").read_text(encoding="utf-8")
    network.save_pretrained(
        config.output, card=card.replace("{numbers}", numbers), role="removal of smiles", licence=LICENCE_IN_COLOUR
    )
    print(numbers)


@hydra.main(version_base="1.3", config_path="../configs", config_name="train_smile_removal")
def main(config: DictConfig) -> None:
    """The stages, in order."""
    stages = {"prepare": prepare_stage, "smiles": smiles_stage, "train": train_stage, "finish": finish_stage}
    for name, stage in stages.items():
        if name in config.stages:
            stage(config)


if __name__ == "__main__":
    run(main)
