"""The recipe of the embedded StyleGAN2: its configuration fits the code, directions come from samples and from crops,
and the whole of it runs on a tiny data set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from emoedit.editors import load_editor
from emoedit.models.luminance import in_luminance
from emoedit.models.stylegan2.backbone import StyleGAN2Backbone, StyleGAN2Config
from emoedit.models.stylegan2.network import layer_count, sides
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.nn.perceptual import PerceptualNetwork
from emoedit.steering.directions import LatentDirections, class_statistics, fit_directions
from emoedit.steering.wspace import WDirections
from emoedit.training import wspace
from emoedit.training.adversarial import AdversarialConfig
from emoedit.training.critic import Critic
from emoedit.training.guides import RecogniserGuide
from emoedit.training.hspace import ShiftLoss
from emoedit.training.loop import TrainerConfig
from emoedit.training.stylegan import GANTask, Weights, inversion_losses
from emoedit.types import DataError, Edit, EditError

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["neutral", "bright"]
LAYERS, DIM = 6, 8


@pytest.fixture(scope="module")
def backbone() -> StyleGAN2Backbone:
    torch.manual_seed(0)
    config = StyleGAN2Config(
        resolution=16, widths=(12, 12, 8), z_dim=DIM, w_dim=DIM, mapping_layers=2, encoder_widths=(8, 8)
    )
    return StyleGAN2Backbone(config).eval().requires_grad_(False)


def brightness(x: Tensor) -> Tensor:
    """A recogniser of two classes: dark is neutral."""
    bright = torch.sigmoid(4 * x.mean((1, 2, 3)))
    return torch.stack([1 - bright, bright], 1)


def reader(*emotions: str) -> MeasuringNetwork:
    torch.manual_seed(3)
    heads = {"emotion": len(emotions), "person": 4}
    return MeasuringNetwork(NetworkConfig(heads, resolution=16, widths=(8, 8, 8, 8), emotions=emotions)).eval()


def composed(*overrides: str) -> dict:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        found = compose("train_stylegan", overrides=["data.root=/data", *overrides])
        return OmegaConf.to_container(found, resolve=True)


@pytest.mark.parametrize("overrides", [(), ("recipe=stylegan_colour",)])
def test_the_config_fits_the_code(overrides):
    config = composed(*overrides)
    backbone = StyleGAN2Config(**config["backbone"])
    trainer, encoder, how = config["trainer"], config["encoder"], config["steering"]
    known = {field.name for field in fields(TrainerConfig)}
    assert trainer.keys() - known - {"balance_groups"} == {
        *("batch_size", "shown", "real", "rebuilt", "balance", "critic_widths"),
        *("adversarial", "weights", "mixing", "encoder_rate", "mapping_rate", "growing"),
    }
    assert set(trainer["growing"]) < set(sides(backbone.resolution))
    assert max(trainer["growing"].values()) <= trainer["adversarial"]["start"] < trainer["steps"]
    assert encoder.keys() - known - {"balance_groups"} == {"batch_size", "samples", "shares", "balance", "weights"}
    finetune = how["finetune"]
    assert finetune["trainer"].keys() <= known
    assert set(finetune["alone"]) | set(finetune["gain"]) <= set(finetune["emotions"]) <= set(how["emotions"])
    for other in finetune["alone"].values():
        assert "sources" not in other and set(other["loss"]["guide"]) <= {"person", "teeth", "opened", "shut"}
    # The critic sees groups of four: of samples, of rebuilt crops, and of real ones.
    assert trainer["batch_size"] % 4 == trainer["shown"] % 4 == 0 < trainer["batch_size"] - trainer["shown"]
    AdversarialConfig(**trainer["adversarial"])
    ShiftLoss(**finetune["loss"])
    Weights(**trainer["weights"]), Weights(**encoder["weights"])
    sources = set(config["data"]["sets"])
    for shares in (trainer["real"], trainer["rebuilt"], encoder["shares"], how["neutral"], finetune["sources"]):
        assert set(shares) <= sources
    assert set(how["trust"]) <= sources | {"samples"}
    assert how["layers"][1] <= layer_count(backbone.resolution)
    assert set(how["emotions"]) < set(config["classifier"]["config"]["emotions"])
    task = GANTask(backbone, PerceptualNetwork(NetworkConfig({}, widths=(8, 8, 8, 8))))
    parts = {
        name: sum(value.numel() for value in getattr(task.backbone, name).state_dict().values())
        for name in ("mapping", "synthesis", "encoder")
    }
    assert parts["mapping"] + parts["synthesis"] <= 2.2e6 and parts["encoder"] <= 1.5e6
    assert 2 * sum(parts.values()) < 7e6 - 1e5  # bytes in half precision; directions come to it
    critic = Critic(backbone.channels, trainer["critic_widths"])
    x = torch.zeros(4, backbone.channels, backbone.resolution, backbone.resolution)
    assert critic(x).shape == (4,)
    assert config["finish"]["steering"] == ("finetuned" if config["start"] is None else "kept")


# Directions


def test_a_direction_is_replaced_and_the_rest_stays():
    def steering(seed: int) -> WDirections:
        parts = torch.randn(3, 3, LAYERS * DIM, generator=torch.Generator().manual_seed(seed)).unbind()
        numbers = torch.rand(2, 3, generator=torch.Generator().manual_seed(seed)) + 0.5
        return WDirections(
            (LAYERS, DIM), ("neutral", "happy", "sad"), parts[0], numbers[0], parts[1], parts[2], numbers[1], numbers[0]
        )

    old, new = steering(1), steering(2)
    found = wspace.replace_directions(old, new, ["sad"])
    torch.testing.assert_close(wspace.full_shift(found, "sad"), wspace.full_shift(new, "sad"))
    assert torch.equal(wspace.full_shift(found, "happy"), wspace.full_shift(old, "happy"))
    assert torch.equal(found.readout, old.readout) and torch.equal(found.means, old.means)
    with pytest.raises(DataError, match="afraid"):
        wspace.replace_directions(old, new, ["afraid"])


def test_samples_scored_by_a_recogniser_lead_to_what_it_reads(backbone):
    generator = torch.Generator().manual_seed(0)
    latents, labels = wspace.scored_samples(backbone, brightness, NAMES, generator, 400, share=0.1, truncation=1.0)
    assert latents.shape == (80, LAYERS * DIM) and labels.count("bright") == 40
    assert torch.equal(latents[:, :DIM], latents[:, -DIM:])  # one w in all layers
    sets = {"samples": class_statistics(latents, labels)}
    fitted = fit_directions(sets, ["bright"], trust={"samples": 1.0}, gains={}, min_count=2)
    steering = wspace.restrict_to_layers(fitted, backbone, (0, 4))
    assert (steering.directions.unflatten(1, (LAYERS, DIM))[:, 4:] == 0).all()
    with pytest.raises(EditError, match="layers"):
        wspace.restrict_to_layers(fitted, backbone, (0, 9))

    x = backbone.sample(torch.Generator().manual_seed(5), 8, truncation=0.3).clamp(-1, 1)
    inversion = backbone.invert(x)
    strengths = [0.0, 0.5, 1.0, 2.0]
    found = wspace.emotion_scores(backbone, steering, inversion, brightness, NAMES, strengths)
    assert found.keys() == {"bright"} and found["bright"] == sorted(found["bright"])
    assert found["bright"][0] == pytest.approx(float(brightness(backbone.decode(inversion))[:, 1].mean()))
    gain = wspace.choose_gains(found, strengths, found["bright"][2] - 1e-6)["bright"]
    assert gain == 1.0 and wspace.choose_gains(found, strengths, 2.0)["bright"] == 2.0

    bare = wspace.restrict_to_layers(LatentDirections(NAMES, fitted.directions), backbone, None)
    stronger = wspace.with_gains(bare, {"bright": 2.0})
    assert stronger.gain.tolist() == [1.0, 2.0] and bare.gain.tolist() == [1.0, 1.0]
    shift = [s.control(backbone, inversion, [Edit("bright", k)] * 8).shift for s, k in ((bare, 2.0), (stronger, 1.0))]
    torch.testing.assert_close(*shift)


def test_a_recogniser_is_asked_for_what_it_knows():
    network = reader("happy", "sad", "angry")
    scores = wspace.recogniser_scores(network, ["angry", "happy"])
    x = torch.rand(3, 1, 24, 24) * 2 - 1
    small = torch.nn.functional.interpolate(x, (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(scores(x), network(small)["emotion"].softmax(1)[:, [2, 0]])
    with pytest.raises(DataError, match="calm"):
        wspace.recogniser_scores(network, ["calm"])


def test_a_direction_that_is_finetuned_is_read_better_and_stays_in_its_layers(backbone):
    torch.manual_seed(0)
    known = ["neutral", "happy", "sad"]
    fitted = LatentDirections(known, torch.randn(3, LAYERS * DIM) * 0.1, torch.tensor([1.0, 2.0, 3.0]))
    steering = wspace.restrict_to_layers(fitted, backbone, (0, 4))
    start = wspace.full_shift(steering, "sad")
    torch.testing.assert_close(start, 3 * steering.directions[2].view(LAYERS, DIM))
    guide = RecogniserGuide(reader(*known), ["sad"], jitter=0.0, noise=0.0)
    task = wspace.FinetuneTask(backbone, guide, start, ShiftLoss(near=0.01), where=(0, 4))
    latents = backbone.latents(torch.Generator().manual_seed(1), 12)
    batches = wspace.LatentBatches(latents, batch_size=64, seed=0)
    batch = batches(0)
    assert torch.equal(batch["latent"], batches(0)["latent"]) and not torch.equal(batch["latent"], batches(1)["latent"])
    assert all((row == latents).all(2).all(1).any() for row in batch["latent"]) and set(batch) == {"latent"}
    adam = torch.optim.Adam(task.parameters(), 0.05)
    first = None
    for step in range(20):
        found = task(batches(step))
        first = first or float(found["loss"].detach())
        adam.zero_grad()
        found["loss"].backward()
        adam.step()
    assert float(task(batches(0))["loss"].detach()) < first
    assert set(task.state_dict()) == {"direction"}
    after = wspace.with_direction(steering, task.mask * task.direction, "sad")
    moved = after.directions.unflatten(1, (LAYERS, DIM))
    assert (moved[:, 4:] == 0).all() and not torch.equal(moved[2], start)
    assert after.gain.tolist() == [1.0, 2.0, 3.0] and torch.equal(after.directions[:2], steering.directions[:2])
    # Strength 1 goes where the task went; what the source shows already is left out in lengths of the old direction.
    torch.testing.assert_close(wspace.full_shift(after, "sad"), (task.mask * task.direction).detach())


def test_inversion_is_told_of_looks_and_of_people(backbone):
    torch.manual_seed(4)
    trunk = PerceptualNetwork(NetworkConfig({}, resolution=16, widths=(8, 8, 8, 8)))
    people = reader("happy")
    x = torch.rand(2, 1, 16, 16) * 2 - 1
    y = (x + 0.2 * torch.randn_like(x)).requires_grad_()
    losses = inversion_losses(trunk, people, (0.0, 1.0, 0.5))
    assert losses(x, x).abs().max() < 1e-5
    loss = losses(y, x)
    expected = trunk.distance(y.detach(), x) + 0.5 * (
        1 - torch.cosine_similarity(people(y.detach())["person"], people(x)["person"])
    )
    torch.testing.assert_close(loss.detach(), expected.detach(), atol=1e-5, rtol=1e-4)
    loss.sum().backward()
    assert y.grad.abs().sum() > 0


def test_pictures_without_colour_do_not_teach_a_model_of_colour_to_draw_in_grey():
    config = StyleGAN2Config(
        resolution=16,
        channels=3,
        widths=(8, 8, 8),
        z_dim=8,
        w_dim=8,
        encoder_widths=(8, 8),
        mean=(0.3, 0, -0.2),
        std=(0.3,) * 3,
    )
    torch.manual_seed(0)
    task = GANTask(config, PerceptualNetwork(NetworkConfig({}, resolution=16, widths=(8, 8, 8, 8))))
    colours = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 0.2
    original = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    tinted = original + colours - in_luminance(colours)  # the same luminance
    grey = torch.tensor([True, False])[:, None, None, None]
    losses = task.rebuilding.losses
    first, last = (losses(tinted[[k]], original[[k]], grey=grey[[k]], half=False)["rebuild"] for k in (0, 1))
    assert first < 1e-6 and last > 0.01


# The whole recipe


@pytest.mark.slow
def test_the_whole_recipe_runs_and_its_editor_edits(tmp_path, astronaut):
    rng = np.random.default_rng(0)
    crops = tmp_path / "crops"
    crops.mkdir()
    grey = np.asarray(Image.fromarray(astronaut[0:256, 96:352]).convert("L").resize((16, 16)), float)
    np.save(crops / "crops.npy", (grey + rng.normal(0, 12, (32, 16, 16))).clip(0, 255).astype(np.uint8))
    rows = [f"faces,{n},{'happy' if n % 2 else 'neutral'},{'train' if n < 24 else 'valid'}" for n in range(32)]
    (crops / "index.csv").write_text("\n".join(["data,name,emotion,split", *rows]))
    torch.save(reader("neutral", "happy").state_dict(), tmp_path / "classifier.pt")
    command = [
        sys.executable,
        str(ROOT / "experiments" / "train_stylegan.py"),
        f"data.root={tmp_path}",
        f"data.crops={crops}",
        f"agreed.crops={crops}",
        f"work={tmp_path / 'work'}",
        f"output={tmp_path / 'editor'}",
        f"classifier_weights={tmp_path / 'classifier.pt'}",
        "stages=[gan,encoder,directions,finetune,finish]",
        "~backbone",
        "+backbone={resolution: 16, widths: [8, 8, 8], z_dim: 8, w_dim: 8, mapping_layers: 1, encoder_widths: [8, 8],"
        " encoder_neck: 4, crop_style: stable, std: 0.45}",
        "~trainer",
        "+trainer={steps: 3, batch_size: 8, shown: 4, real: {faces: 1.0}, rebuilt: {faces: 1.0}, balance: 0.5,"
        " critic_widths: [8, 8], adversarial: {gamma: 0.1, start: 1}, weights: {}, mixing: 0.5, encoder_rate: 1.0e-3,"
        " mapping_rate: 1.0e-3, growing: {8: 1},"
        " betas: [0.0, 0.99], precision: 'no', save_every: 2, preview_every: 3}",
        "~encoder",
        "+encoder={steps: 3, batch_size: 4, samples: 4, shares: {faces: 1.0}, balance: 0.5, weights: {identity: 0.5},"
        " precision: 'no', save_every: 2, preview_every: 3}",
        "~classifier.config",
        "+classifier.config={heads: {emotion: 2, person: 4}, resolution: 16, widths: [8, 8, 8, 8],"
        " emotions: [neutral, happy]}",
        "~steering",
        "+steering={emotions: [happy], samples: {count: 60, share: 0.2, truncation: 0.8}, trust: {samples: 1.0,"
        " faces: 9.0}, pictures: 10, agreed: {default: 0.8}, voted: [], closed: {}, min_count: 2, ridge: 1.0,"
        " projection: 0.0, shrinkage: 0.1, layers: [0, 4],"
        " gains: {strengths: [1.0, 2.0], score: 0.6}, neutral: {faces: 4}, finetune: {emotions: [happy],"
        " gain: {happy: 2.0}, alone: {happy: {trainer: {steps: 2}}}, sources: {faces: 8}, unlabelled: {},"
        " batch_size: 4,"
        " guide: {jitter: 0.0, noise: 0.0}, loss: {guide: {emotion: 1.0, person: 1.0}},"
        " trainer: {steps: 1, precision: 'no', preview_every: 2}}}",
        "finish.optimise_steps=0",
        "finish.replaced=null",
        "finish.steering=finetuned",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    editor = load_editor(tmp_path / "editor")
    assert editor.emotions == ("neutral", "happy") and editor.backbone.config.precision == "float32"
    (edited,) = editor.edit(editor.invert(grey.astype(np.uint8)), [Edit("happy", 3.0)])
    assert edited.shape == (1, 1, 16, 16) and bool(edited.isfinite().all())
    card = (tmp_path / "editor" / "README.md").read_text()
    assert "3 steps of 8 pictures" in card and "finetuned: happy" in card and "{numbers}" not in card
    described = json.loads((tmp_path / "editor" / "editor.json").read_text())
    assert described["backbone"]["kind"] == "stylegan2" and described["steerings"][0]["kind"] == "wspace"
