"""Learning a token: only its rows move, a known answer is found, resuming changes nothing, bad input is refused."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from emoedit.editors import Editor
from emoedit.faces.detect import FaceDetector
from emoedit.io import checkpoints
from emoedit.models.stable_diffusion.backbone import StableDiffusionBackbone
from emoedit.models.stable_diffusion.text import with_tokens
from emoedit.steering.tokens import EmotionTokens, read_embedding
from emoedit.training import tokens
from emoedit.training.loop import DivergedError, TrainerConfig
from emoedit.training.tokens import (
    LatentBatches,
    TokenConfig,
    TokenTask,
    encode_pictures,
    learn_token,
    read_faces,
    start_vectors,
    validation_grid,
)
from emoedit.types import CheckpointError, DataError, Edit, EditError, ImageError
from tests.fixtures.stable_diffusion import smooth, tiny, tokenizer, write_model

QUICK = TrainerConfig(steps=2, learning_rate=0.01, warmup=1, ema=0.5, precision="no", save_every=1)
CONFIG = TokenConfig("smirk", like="happy", batch_size=2, templates=("a photo of a {} face", "the {} face"))


@pytest.fixture(scope="module")
def backbone() -> StableDiffusionBackbone:
    return tiny()


def trainer(**changes) -> TrainerConfig:
    return TrainerConfig(**{**QUICK.__dict__, **changes})


def config(**changes) -> TokenConfig:
    return TokenConfig(**{**CONFIG.__dict__, **changes})


# What moves


def test_only_the_new_rows_move_and_the_model_stays_as_it_was(tmp_path):
    backbone = tiny().requires_grad_(True).train()  # the caller's own choices stay too
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    rows = learn_token(backbone, smooth(), config(vectors=2), tmp_path, QUICK)
    start, _ = start_vectors(backbone, "happy", 2)
    assert rows.shape == (2, 16) and float((rows - start).abs().min(1).values.min()) > 0
    after = backbone.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(p.requires_grad and p.grad is None for p in backbone.parameters()) and backbone.training
    assert len(backbone.tokenizer) == len(tokenizer())
    # The table with the token in it: every other row bit-equal.
    larger, knowing = with_tokens(backbone.tokenizer, backbone.text_encoder, {"<smirk>": rows})
    table = knowing.get_input_embeddings().weight
    ids = larger.convert_tokens_to_ids(["<smirk>", "<smirk>_1"])
    others = [n for n in range(len(larger)) if n not in ids]
    assert torch.equal(table[ids], rows) and len(others) == len(tokenizer())
    assert torch.equal(table[others], before["text_encoder." + embedding_name(backbone)])


def embedding_name(backbone: StableDiffusionBackbone) -> str:
    table = backbone.text_encoder.get_input_embeddings()
    return next(name for name, p in backbone.text_encoder.named_parameters() if p is table.weight)


def test_the_task_carries_nothing_but_its_rows(backbone):
    task = TokenTask(backbone, config(vectors=3))
    assert [name for name, _ in task.named_parameters()] == ["rows"] and list(task.state_dict()) == ["rows"]
    twin = copy.deepcopy(task)  # what the moving average does
    assert twin._shared is task._shared and twin.rows is not task.rows
    batch = {"latent": torch.randn(4, 2, 8, 8), "prompt": torch.tensor([0, 1, 1, 0])}
    task(batch)["loss"].backward()
    assert bool(task.rows.grad.abs().sum(1).all())  # every vector is reached
    assert all(p.grad is None for p in task._shared.unet.parameters())
    assert all(p.grad is None for p in backbone.parameters())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_that_of_denoising_under_the_tokens_prompt(prediction):
    backbone = tiny(scheduler={"prediction_type": prediction})
    task = TokenTask(backbone, CONFIG)
    z = torch.randn(2, 2, 8, 8)
    torch.manual_seed(5)
    loss = task({"latent": z, "prompt": torch.tensor([1, 0])})["loss"]
    torch.manual_seed(5)
    t = ((torch.arange(2) + torch.rand(2)) / 2 * 1000).long()
    noise = torch.randn_like(z)
    a = backbone.alpha_bar.float()[t][:, None, None, None]
    larger, knowing = with_tokens(backbone.tokenizer, backbone.text_encoder, {"<smirk>": task.rows})
    ids = larger(["the <smirk> face", "a photo of a <smirk> face"], padding="max_length", max_length=16)["input_ids"]
    found = backbone.unet(a.sqrt() * z + (1 - a).sqrt() * noise, t, knowing(torch.tensor(ids))[0]).sample
    target = noise if prediction == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * z
    weight = backbone.face / backbone.face.mean()
    torch.testing.assert_close(loss, ((found - target).square() * weight).mean(), atol=1e-5, rtol=1e-5)


def test_a_known_answer_is_found(tmp_path):
    """A model that finds the noise added to the one picture that its context names: the token has to name it too."""

    class Unet(nn.Module):
        def __init__(self, alphas: Tensor) -> None:
            super().__init__()
            self.alphas, self.pictures = alphas, nn.Parameter(torch.randn(16, 2 * 8 * 8) * 0.3)

        def named(self, context: Tensor) -> Tensor:
            return (context.mean(1) @ self.pictures).view(-1, 2, 8, 8)

    def fake_down(unet, x, t, context):
        a = unet.alphas[t][:, None, None, None]
        return (x - a.sqrt() * unet.named(context)) / (1 - a).sqrt(), (), None

    backbone = tiny()
    unet, task = Unet(backbone.alpha_bar.float()), TokenTask(backbone, config(templates=("a {} face",)))
    task._shared.unet = unet

    @torch.no_grad()
    def named(rows: Tensor) -> Tensor:
        return unet.named(EmotionTokens({"smirk": rows}, template="a {} face").contexts(backbone))

    wanted = torch.randn(1, 16, generator=torch.Generator().manual_seed(4)) * 0.02
    truth, start = named(wanted), named(task.rows)
    batches = LatentBatches(truth.expand(2, 3, -1, -1, -1), 1, batch_size=8, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "down", fake_down)
        patch.setattr(tokens, "up", lambda unet, h, *rest: h)
        how = trainer(steps=150, learning_rate=0.02, ema=0.9, warmup=5, save_every=150)
        learned = tokens.train(task, batches, tmp_path, how).learned()
    assert float((named(learned) - truth).norm()) < 0.1 * float((start - truth).norm())


def test_vectors_grow_no_longer_than_the_longest_of_the_vocabulary(backbone):
    task = TokenTask(backbone, config(vectors=2))
    longest = float(backbone.text_encoder.get_input_embeddings().weight.norm(dim=1).max())
    start = task.learned().detach().clone()
    assert torch.equal(start, task.rows)
    with torch.no_grad():
        task.rows[0] *= 100
    found = task.learned().detach()
    assert float(found[0].norm()) == pytest.approx(longest, rel=1e-5)
    torch.testing.assert_close(torch.cosine_similarity(found[0], start[0], 0), torch.tensor(1.0))
    assert torch.equal(found[1], start[1])


def test_learning_starts_at_the_mean_of_the_words(backbone):
    table = backbone.text_encoder.get_input_embeddings().weight
    happy, sad = tokenizer()("happy sad", add_special_tokens=False)["input_ids"]
    rows, _ = start_vectors(backbone, "happy sad", 2)
    assert torch.equal(rows[0], (table[happy] + table[sad]) / 2) and torch.equal(rows[0], rows[1])


# Batches, pictures


def test_batches_are_a_function_of_the_step(backbone):
    latents = encode_pictures(backbone, smooth(3), batch_size=2)
    assert latents.shape == (2, 3, 2, 8, 8)
    torch.testing.assert_close(latents[1], backbone.to_latent(smooth(3).flip(-1))[0], atol=1e-5, rtol=0)
    batches = LatentBatches(latents, 2, batch_size=7, seed=3)
    one, again, other = batches(5), batches(5), batches(6)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["latent"], other["latent"]) and not torch.equal(one["latent"], batches(5, 1)["latent"])
    assert one["latent"].shape == (7, 2, 8, 8) and set(one["prompt"].tolist()) <= {0, 1}
    seen = [int((latents.flatten(0, 1) - z).abs().sum((1, 2, 3)).argmin()) % 3 for z in one["latent"]]
    assert min(seen.count(n) for n in range(3)) >= 2  # three pictures, seven places


class Stub(FaceDetector):
    """Finds a face in every picture that is not flat."""

    def __call__(self, rgb):
        from emoedit.faces.detect import Face

        points = np.array([[24.0, 26], [40, 26], [32, 36], [26, 44], [38, 44]])
        return [Face((10, 10, 54, 54), points, 0.99)] if rgb.std() > 5 else []


def write_pictures(folder, count: int = 3):
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for n in range(count):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / f"{n}.png")
    return folder


def test_faces_are_read_from_a_folder(tmp_path, backbone):
    folder = write_pictures(tmp_path / "smirking")
    (folder / ".DS_Store").write_bytes(b"x")
    crops = read_faces(folder, backbone, detector=Stub())
    assert crops.shape == (3, 1, 16, 16) and -1 <= float(crops.min()) < float(crops.max()) <= 1
    rgb = tiny(vae={"in_channels": 3, "out_channels": 3})
    assert read_faces(folder, rgb, detector=Stub()).shape == (3, 3, 16, 16)


def test_empty_and_mixed_folders_are_refused(tmp_path, backbone):
    def refused(match, folder=tmp_path / "pictures"):
        with pytest.raises(DataError, match=match):
            read_faces(folder, backbone, detector=Stub())

    refused("is no folder")
    folder = write_pictures(tmp_path / "pictures", 2)
    refused("is no folder", folder / "0.png")
    (folder / "happy").mkdir()
    refused(r"holds folders \(happy\)")
    (folder / "happy").rmdir()
    (folder / "notes.txt").write_text("taken in May")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    refused(r"2 not readable as pictures \(broken.jpg, notes.txt\), of 4 files")
    (folder / "notes.txt").unlink()
    (folder / "broken.jpg").unlink()
    Image.new("RGB", (64, 64)).save(folder / "wall.png")
    refused(r"1 without a face \(wall.png\)")
    for path in folder.iterdir():
        path.unlink()
    refused("is empty")


@pytest.mark.slow
def test_a_real_photograph_is_aligned(tmp_path, astronaut):
    Image.fromarray(astronaut).save(tmp_path / "portrait.png")
    rgb = tiny(vae={"in_channels": 3, "out_channels": 3}, crop_style="stable", crop_scale=0.66)
    (crop,) = read_faces(tmp_path, rgb)
    assert float(crop[:, 6:10, 6:10].mean()) > float(crop[:, :3].mean())  # skin in the middle, hair above


# The whole way


def test_a_token_is_learned_saved_and_used(tmp_path, backbone):
    rows = learn_token(backbone, smooth(), config(vectors=2), tmp_path / "run", QUICK, validation=smooth(2))
    token, found = read_embedding(tmp_path / "run")
    assert token == "<smirk>" and torch.equal(found, rows)
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"state.pt", "token.json"}
    assert any(path.name.startswith("events") for path in (tmp_path / "run").iterdir())
    editor = Editor(backbone, [EmotionTokens.from_files({"smirk": tmp_path / "run"})])
    x = smooth(1)
    none, full = editor.edit(editor.invert(x), [Edit("smirk", 0.0), Edit("smirk")])
    assert torch.equal(none, x) and float((full - x).abs().max()) > 1e-3


def test_a_model_as_published_learns_a_token_that_diffusers_reads(tmp_path):
    """Load, invert, learn two steps, edit, save, and load through diffusers."""
    from diffusers import StableDiffusionPipeline

    folder = write_model(tmp_path / "model")
    backbone = StableDiffusionBackbone.load(folder, steps=2, t_last=200)
    x = smooth(2, 3, 64)
    rows = learn_token(backbone, x, config(templates=tokens.TEMPLATES), tmp_path / "run", QUICK)
    editor = Editor(backbone, [EmotionTokens.from_files({"smirk": tmp_path / "run"})])
    inversion = editor.invert(x[:1])
    (edited,) = editor.edit(inversion, [Edit("smirk")])
    assert edited.shape == (1, 3, 64, 64) and not torch.equal(edited, x[:1])
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.load_textual_inversion(tmp_path / "run")
    (row,) = pipe.tokenizer.convert_tokens_to_ids(["<smirk>"])
    assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[row], rows[0])


def test_resuming_changes_nothing(tmp_path, backbone):
    x = smooth()
    whole = learn_token(backbone, x, CONFIG, tmp_path / "whole", trainer(steps=4))

    class Interrupted(Exception):
        pass

    class Batches(LatentBatches):
        def __call__(self, step, process=0):
            if step == 2:
                raise Interrupted
            return super().__call__(step, process)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "LatentBatches", Batches)
        with pytest.raises(Interrupted):
            learn_token(backbone, x, CONFIG, tmp_path / "parts", trainer(steps=4))
    assert not (tmp_path / "parts" / "learned_embeds.safetensors").exists()  # nothing half-learned is written
    assert torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"] == 2
    assert torch.equal(learn_token(backbone, x, CONFIG, tmp_path / "parts", trainer(steps=4)), whole)


def test_nan_stops_with_the_step_and_the_last_good_state(tmp_path):
    backbone, x = tiny(), smooth()
    learn_token(backbone, x, CONFIG, tmp_path, QUICK)
    good = (tmp_path / "state.pt").read_bytes()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    (tmp_path / "learned_embeds.safetensors").unlink()

    class Poisoned(LatentBatches):
        def __call__(self, step, process=0):
            batch = super().__call__(step, process)
            return {**batch, "latent": batch["latent"] * (float("nan") if step == 2 else 1)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "LatentBatches", Poisoned)
        with pytest.raises(DivergedError, match=r"nan at step 2; the last good state is .*state.pt"):
            learn_token(backbone, x, CONFIG, tmp_path, trainer(steps=4))
    assert (tmp_path / "state.pt").read_bytes() == good
    assert not (tmp_path / "learned_embeds.safetensors").exists()
    assert all(torch.equal(value, backbone.state_dict()[name]) for name, value in before.items())


def test_validation_grids_show_sources_and_edits(backbone):
    x = smooth(2)
    rows, _ = start_vectors(backbone, "happy", 1)
    grid = validation_grid(backbone, rows, CONFIG, x)
    assert grid.shape == (1, 3 * 16, 2 * 16) and 0 <= float(grid.min()) < float(grid.max()) <= 1
    torch.testing.assert_close(grid[0, :16, 16:], x[1, 0] / 2 + 0.5)
    inversion = backbone.invert(x)
    model = EmotionTokens({"smirk": rows}, template=CONFIG.templates[0])
    edited = backbone.decode(inversion, model.control(backbone, inversion, [Edit("smirk", 2.0)] * 2))
    torch.testing.assert_close(grid[0, 32:, 16:], (edited[1, 0] / 2 + 0.5).clamp(0, 1), atol=1e-4, rtol=0)


def test_mixed_precision_finds_nearly_the_same(backbone):
    task, batch = TokenTask(backbone, CONFIG), {"latent": torch.randn(2, 2, 8, 8), "prompt": torch.tensor([0, 1])}
    grads = []
    for low in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = task(batch)["loss"]
        grads.append(torch.autograd.grad(loss, task.rows)[0])
    assert float(torch.cosine_similarity(*grads)) > 0.95 and not torch.equal(*grads)


# What does not fit


def test_what_cannot_be_learned_is_refused_before_anything_is_written(tmp_path, backbone):
    x = smooth()
    for changes, pictures, error, match in (
        ({"token": "happy</w>"}, x, CheckpointError, "exists already"),
        ({"token": "<very happy>"}, x, CheckpointError, "holds a space"),
        ({"templates": ("a photo of a face",)}, x, EditError, "needs one {}"),
        ({"templates": ()}, x, DataError, "no template"),
        ({"templates": ("a photo of a {} face " * 1 + "of a " * 10,)}, x, EditError, "the text encoder reads 16"),
        ({"like": " "}, x, DataError, "a word that is known"),
        ({"vectors": 0}, x, DataError, "1 to 8 vectors"),
        ({}, x[:0], DataError, "no picture"),
        ({}, torch.zeros(1, 3, 16, 16), ImageError, r"expected \[N, 1, 16, 16\]"),
    ):
        with pytest.raises(error, match=match):
            learn_token(backbone, pictures, config(**changes), tmp_path / "run", QUICK)
        assert not (tmp_path / "run").exists()


def test_the_folder_of_another_run_is_refused(tmp_path, backbone):
    learn_token(backbone, smooth(), CONFIG, tmp_path, QUICK)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for changes, pictures in (({"vectors": 2}, smooth()), ({"emotion": "sneer"}, smooth()), ({}, smooth() * 0.9)):
        with pytest.raises(CheckpointError, match="another run.*give a new one"):
            learn_token(backbone, pictures, config(**changes), tmp_path, QUICK)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert checkpoints.read_json(tmp_path / "token.json")["pictures"][0] == 3
    assert json.loads((tmp_path / "token.json").read_text())["token"] == "<smirk>"
