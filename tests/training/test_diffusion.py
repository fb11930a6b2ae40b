"""What the U-Net is trained for, and how shifts of h are fitted: mean differences, Asyrp's training, its guides."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from torch import Tensor

from emoedit import sampling
from emoedit.metrics.clip import Clip, directional_similarity
from emoedit.models.ddpm.backbone import DDPMConfig
from emoedit.nn.measuring import MeasuringNetwork, NetworkConfig
from emoedit.steering.hspace import AdaptedDirections, Directions, HSpace, ShiftBlock
from emoedit.training.data import CropSet, MixtureBatches
from emoedit.training.diffusion import DiffusionTask
from emoedit.training.guides import ClipGuide, Guide, OpeningGuide, RecogniserGuide
from emoedit.training.hspace import (
    ShiftLoss,
    ShiftTask,
    SourceBatches,
    edited_timesteps,
    fixed,
    invert_crops,
    learnable,
    mean_h,
)
from emoedit.training.loop import TrainerConfig, train
from emoedit.types import CheckpointError, DataError, Edit
from tests.fixtures.clip import write_clip
from tests.fixtures.ddpm import smooth, tiny
from tests.fixtures.stable_diffusion import tiny as stable_diffusion

PATCHED = {"patch": 2, "unet": {"sample_size": 8, "in_channels": 4, "out_channels": 4}}


@pytest.fixture
def crops(tmp_path) -> CropSet:
    """Twelve crops of 16 pixels: nine happy ones, three sad ones."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "crops.npy", rng.integers(0, 256, (12, 16, 16), np.uint8))
    with (tmp_path / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["data", "name", "emotion", "split"])
        writer.writerows(["a", str(n), "happy" if n < 9 else "sad", "train" if n % 2 else "fit"] for n in range(12))
    return CropSet(tmp_path)


def test_balance_makes_rare_emotions_as_frequent_as_others(crops):
    how = {"batch_size": 4000, "resolution": 16, "split": ("train", "fit"), "seed": 0}
    sad = set(np.asarray(crops.crops[9:]).reshape(3, -1).sum(1).tolist())  # no two crops here have the same sum

    def share(balance: float) -> float:
        x = MixtureBatches(crops, {"a": 1}, balance=balance, **how)(0)
        return float(np.mean([int(v) in sad for v in ((x + 1) * 127.5).round().sum((1, 2, 3)).tolist()]))

    assert share(1.0) == pytest.approx(3 / 12, abs=0.03)
    assert share(0.0) == pytest.approx(1 / 2, abs=0.03)
    with pytest.raises(DataError, match="'a'|a in split"):
        MixtureBatches(crops, {"a": 1}, **{**how, "split": "test"})


def test_the_loss_is_the_weighted_error_of_the_noise(monkeypatch):
    """With a net that finds no noise at all the error is the noise's own variance, 1, whatever the picture."""
    config = tiny(**PATCHED).config
    task = DiffusionTask(DDPMConfig(**{**config.__dict__, "t_last": 900}), gamma=5.0)
    assert len(task.alphas) == 901  # nothing is learned about timesteps that are never visited
    torch.nn.init.zeros_(task.backbone.unet.conv_out.weight)
    torch.nn.init.zeros_(task.backbone.unet.conv_out.bias)
    x = smooth(1).repeat(512, 1, 1, 1)
    torch.manual_seed(0)
    found = task(x)
    a = task.backbone.alpha_bar[:901]
    snr = a / (1 - a)
    expected = float((snr.clamp_max(5.0) / snr).mean())
    assert float(found["loss"].detach()) == pytest.approx(expected, rel=0.03)
    for part in ("low", "middle", "high"):
        assert float(found[part]) == pytest.approx(1, abs=0.03)


def test_a_net_sees_squares_of_pixels_as_channels():
    backbone, x = tiny(**PATCHED), smooth()
    assert backbone.crop.resolution == 16 and backbone.channels == 1 and backbone.h_shape == (16, 4, 4)
    planes, mean, gain = backbone.to_latent(x)
    assert planes.shape == (3, *backbone.latent_shape) == (3, 4, 8, 8)
    eps, _ = backbone.eps_at()(planes, 400)
    torch.testing.assert_close(eps, backbone.unet(planes, torch.full((3,), 400)).sample)
    torch.testing.assert_close(backbone.to_picture(planes, mean, gain), x)
    inversion = backbone.invert(x)
    torch.testing.assert_close(backbone.decode(inversion), x, atol=1e-5, rtol=0)


COLOUR = {"patch": 2, "chroma": 4.0, "unet": {"sample_size": 8, "in_channels": 6, "out_channels": 6}}


def test_a_net_with_planes_of_colour_gives_the_source_back_with_all_its_colour():
    backbone = tiny(**COLOUR, std=[0.45, 0.4, 0.35])
    x = smooth(3).expand(-1, 3, -1, -1) * torch.tensor([0.8, 0.6, 0.5])[:, None, None] + 0.05 * torch.randn(
        3, 3, 16, 16
    )
    assert backbone.channels == 3 and backbone.latent_shape == (6, 8, 8)
    inversion = backbone.invert(x)
    torch.testing.assert_close(backbone.decode(inversion), x, atol=1e-5, rtol=0)
    bare = backbone.to_picture(*backbone.to_latent(x))
    assert float((bare - x).abs().max()) > 0.01  # the planes alone lack what colour changes between pixels
    assert backbone.sample(torch.Generator().manual_seed(0), 2).shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"chroma": 0.0}, "chroma must be a number above 0"),
        ({"chroma": None}, "expected 4 or 12"),
        ({"patch": 1}, "expected 3"),
    ],
)
def test_planes_that_do_not_fit_are_refused(wrong, says):
    with pytest.raises(CheckpointError, match=says):
        tiny(**{**COLOUR, **wrong})


def test_colours_of_grey_pictures_are_not_compared():
    """A net that finds noise in no plane: in colour all of it is missed, in grey that of luminance."""
    task = DiffusionTask(tiny(**COLOUR).config, gamma=1e9)
    torch.nn.init.zeros_(task.backbone.unet.conv_out.weight)
    torch.nn.init.zeros_(task.backbone.unet.conv_out.bias)
    grey = smooth(1).repeat(512, 3, 1, 1)
    for x, share in ((grey, 4 / 6), (grey * torch.tensor([1.0, 0.7, 0.4])[:, None, None], 1.0)):
        torch.manual_seed(0)
        assert float(task(x)["loss"].detach()) == pytest.approx(share, rel=0.03)


def test_shifts_are_fitted_on_a_latent_model_too(crops, tmp_path):
    """What the task sees of a Stable Diffusion is what it decodes to: with shifts of 0 the source itself."""
    torch.manual_seed(0)
    backbone = stable_diffusion(steps=4, t_last=600, t_edit=300, std=0.45, guidance=1.0)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    sources = invert_crops(backbone, crops, np.arange(6), batch_size=4)
    assert sources.extras["residuals"].shape == (6, 4, *backbone.latent_shape)
    batch = SourceBatches(sources, 2, np.full(6, -1), batch_size=4, seed=0)(0)
    times = edited_timesteps(backbone)
    assert min(times) >= 300 and len(times) == 2
    shifts = [learnable(Directions(torch.zeros(2, *backbone.h_shape), times)) for _ in range(2)]
    task = ShiftTask(backbone, Bright(), shifts, ShiftLoss(near=1.0))
    losses = task(batch)
    assert losses["near"] == 0
    losses["loss"].backward()
    assert all(float(shift.directions.grad.abs().max()) > 0 for shift in task.shifts)
    assert mean_h(backbone, crops, np.arange(3), torch.Generator().manual_seed(0)).shape == (2, *backbone.h_shape)
    how = TrainerConfig(steps=8, learning_rate=0.05, weight_decay=0.0, warmup=1, ema=0.5, precision="no")
    fitted = train(task, SourceBatches(sources, 2, np.full(6, -1), batch_size=4, seed=0), tmp_path, how)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    steering = HSpace(
        ["happy", "sad"], [Directions(s.directions.detach(), s.timesteps) for s in fitted.shifts], train_steps=4
    )
    inversion = backbone.invert(crops.pixels(np.arange(6), 16))
    light = [
        backbone.decode(inversion, steering.control(backbone, inversion, [Edit(e)] * 6)).mean()
        for e in ("happy", "sad")
    ]
    assert light[0] > light[1]


def test_what_a_fit_pays_for_a_pale_mouth():
    backbone = tiny()
    zero = Directions(torch.zeros(len(edited_timesteps(backbone)), *backbone.h_shape), edited_timesteps(backbone))
    task = ShiftTask(backbone, Bright(), [learnable(zero)], ShiftLoss(pale=1.0))
    plain = torch.full((1, 1, 16, 16), 0.2)
    (rows, columns), darker, brighter, elsewhere = task.mouth, plain.clone(), plain.clone(), plain.clone()
    darker[..., rows, columns] = -0.5
    brighter[..., rows.start, columns.start] = 0.7
    elsewhere[..., :6, :] = 0.9
    assert task.paleness(plain, plain) == task.paleness(plain, darker) == task.paleness(plain, elsewhere) == 0
    count = (rows.stop - rows.start) * (columns.stop - columns.start)
    assert task.paleness(plain, brighter).item() == pytest.approx(0.5 / count)
    assert task.paleness(brighter, brighter) == 0  # it was there before


def test_the_state_at_a_timestep_is_what_an_inversion_sees_there():
    backbone, x = tiny(std=0.4), smooth()
    for state, _ in backbone.path(x):
        found = backbone.state(state.x_t, int(state.t[0]))
        torch.testing.assert_close(found.h, state.h)
        torch.testing.assert_close(found.temb, state.temb)


def test_mean_h_is_the_mean_over_pictures_mirror_images_and_noise(crops):
    backbone = tiny()
    found = mean_h(backbone, crops, np.arange(5), torch.Generator().manual_seed(3), batch_size=2)
    times = edited_timesteps(backbone)
    assert found.shape == (len(times), *backbone.h_shape) and min(times) >= backbone.config.t_edit
    generator, total = torch.Generator().manual_seed(3), torch.zeros_like(found)
    for start in (0, 2, 4):
        x = crops.pixels(np.arange(start, min(start + 2, 5)), 16)
        for k, t in enumerate(times):
            a = float(backbone.alpha_bar[t])
            noise = torch.randn(x.shape, generator=generator)
            seen = torch.stack([face if (n + k) % 2 else face.flip(-1) for n, face in enumerate(x)])
            x_t = a**0.5 * seen + (1 - a) ** 0.5 * noise
            total[k] += backbone.state(x_t, t).h.double().sum(0)
    torch.testing.assert_close(found, total / 5)


class Bright(Guide):
    """The first emotion is a bright picture, the second a dark one."""

    def forward(self, plain: Tensor, edited: Tensor, rows: Tensor) -> dict[str, Tensor]:
        sign = 1 - 2 * rows.float()
        return {"emotion": -(sign * (edited - plain.detach()).mean((1, 2, 3))).mean()}


@pytest.mark.parametrize("kind", ["block", "directions", "adapted"])
def test_fitting_moves_pictures_where_the_guide_says_and_nothing_but_the_shifts(crops, tmp_path, kind):
    backbone = tiny(std=0.4)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    torch.manual_seed(1)
    if kind == "block":
        shifts = [ShiftBlock(backbone.h_shape[0], backbone.temb_dim) for _ in range(2)]
    else:
        zero = torch.zeros(len(edited_timesteps(backbone)), *backbone.h_shape)
        shifts = [learnable(Directions(zero, edited_timesteps(backbone))) for _ in range(2)]
    if kind == "adapted":
        width = {"channels": backbone.h_shape[0], "temb_dim": backbone.temb_dim}
        shifts = [AdaptedDirections.starting_from(each, **width) for each in shifts]
    task = ShiftTask(backbone, Bright(), shifts, ShiftLoss(near=0.0))
    sources = invert_crops(backbone, crops, np.arange(12), batch_size=5)
    assert len(sources) == 12 and sources.extras["residuals"].dtype == torch.float16
    batches = SourceBatches(sources, 2, np.full(12, -1), batch_size=4, seed=0)
    how = TrainerConfig(steps=12, learning_rate=0.05, weight_decay=0.0, warmup=1, ema=0.5, precision="no")
    fitted = train(task, batches, tmp_path, how)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all("shifts" in name or name == "outer" for name in fitted.state_dict())
    done = [fixed(s) for s in fitted.shifts]
    steering = HSpace(["happy", "sad"], done, train_steps=backbone.steps)
    x = smooth()
    inversion = backbone.invert(x)
    bright, dark = (
        backbone.decode(inversion, steering.control(backbone, inversion, [Edit(name)] * 3)).mean((1, 2, 3))
        for name in ("happy", "sad")
    )
    assert bool((bright > dark + 0.005).all())


def test_the_training_goes_the_way_that_editing_goes(crops):
    """Every step's plain and edited P_t are those of decoding under the same shifts."""
    backbone, seen, edits = tiny(std=0.4), [], []
    torch.manual_seed(1)
    block = ShiftBlock(backbone.h_shape[0], backbone.temb_dim)

    class Watch(Guide):
        def forward(self, plain, edited, rows):
            seen.append((plain.detach(), edited.detach()))
            return {"emotion": edited.mean()}

    inversion = backbone.invert(crops.pixels(np.arange(3), 16))
    batch = {"target": torch.zeros(3, dtype=torch.long), "latent": inversion.latent}
    batch |= {name: inversion.extras[name] for name in ("residuals", "mean", "gain")}
    ShiftTask(backbone, Watch(), [block], ShiftLoss())(batch)
    eps_at = backbone.eps_at(block)

    def spy(x, t):
        eps, shifted = eps_at(x, t)
        if shifted is not None:
            a = backbone.schedule.alpha_bar[backbone.schedule.timesteps.index(t)]
            edits.append([sampling.predicted_x0(x, e, a) * batch["gain"] + batch["mean"] for e in (eps, shifted)])
        return eps, shifted

    with torch.no_grad():
        sampling.decode(spy, inversion.latent, backbone.schedule, residuals=inversion.extras["residuals"])
    assert len(seen) == len(edits) > 1
    for ours, theirs in zip(seen, edits, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)
    # Judged at one step only, and at another one in time: the way is the same.
    everywhere, found = seen.copy(), set()
    for seed in range(12):
        seen.clear()
        torch.manual_seed(seed)
        ShiftTask(backbone, Watch(), [block], ShiftLoss(), judged=1)(batch)
        assert len(seen) == 1
        found |= {k for k, (_, edited) in enumerate(everywhere) if torch.allclose(edited, seen[0][1], atol=2e-5)}
    assert found == set(range(len(everywhere)))


def test_mirrored_sources_follow_the_others(crops):
    backbone = tiny()
    plain = invert_crops(backbone, crops, np.arange(5), batch_size=2)
    both = invert_crops(backbone, crops, np.arange(5), mirrored=True, batch_size=2)
    assert len(both) == 10 and torch.equal(both.latent[:5], plain.latent)
    x = crops.pixels(np.arange(5), 16)
    torch.testing.assert_close(both.latent[5:], backbone.invert(x.flip(-1)).latent, atol=1e-5, rtol=1e-4)


def test_no_source_is_asked_for_what_it_shows(crops):
    backbone = tiny()
    sources = invert_crops(backbone, crops, np.arange(12))
    shown = np.array([0] * 6 + [1] * 6)
    batches = SourceBatches(sources, 2, shown, batch_size=64, seed=0)
    batch = batches(3)
    which = (batch["latent"][:, None] - sources.latent[None]).abs().flatten(2).amax(2).argmin(1).numpy()
    assert not (shown[which] == batch["target"].numpy()).any() and set(batch["target"].tolist()) == {0, 1}
    assert all(torch.equal(value, batches(3)[name]) for name, value in batch.items())
    assert not torch.equal(batches(4)["latent"], batch["latent"])


def classifier(**heads: int) -> MeasuringNetwork:
    torch.manual_seed(0)
    heads = heads or {"emotion": 3, "person": 8}
    return MeasuringNetwork(NetworkConfig(heads, 32, widths=(8, 8, 8, 8), emotions=("neutral", "happy", "sad"))).eval()


def test_a_recogniser_guides_by_what_it_reads_and_whom():
    network, x = classifier(), smooth(4)
    guide = RecogniserGuide(network, ["sad", "happy"], jitter=0.0, noise=0.0)
    edited = (x + 0.2 * x.roll(3, -1)).requires_grad_()
    rows = torch.tensor([0, 1, 1, 0])
    found = guide(x.requires_grad_(), edited, rows)
    side = torch.nn.functional.interpolate(torch.cat([x, edited]), (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        out = network(side)
    log = out["emotion"][4:].log_softmax(1)
    expected = -log[torch.arange(4), torch.tensor([2, 1, 1, 2])].mean()
    torch.testing.assert_close(found["emotion"].detach(), expected, atol=1e-4, rtol=1e-4)
    cosine = torch.cosine_similarity(out["person"][:4], out["person"][4:]).mean()
    torch.testing.assert_close(found["person"].detach(), 1 - cosine, atol=1e-4, rtol=1e-3)
    sum(found.values()).backward()
    assert edited.grad.abs().max() > 0 and (x.grad is None or not bool(x.grad.any()))
    assert not any(p.requires_grad for p in guide.parameters())
    same = RecogniserGuide(network, ["sad"])(x, x, torch.zeros(4, dtype=torch.long))
    assert float(same["person"].abs()) < 1e-5  # both halves are moved and made noisy alike
    with pytest.raises(DataError, match="angry"):
        RecogniserGuide(network, ["angry"])
    with pytest.raises(DataError, match="a head 'person'"):
        RecogniserGuide(classifier(emotion=3), ["happy"])


class _Shapes(torch.nn.Module):
    """A network of landmarks for a test: a picture's first three pixels say how far lips are apart, how high the eyes
    are, and how far to the right everything lies."""

    config = NetworkConfig({"points": 136}, 32)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        apart, high, right = x[:, 0, 0, :3].unbind(1)
        points = torch.full((len(x), 68, 2), 0.5)
        for first, left in ((36, 0.3), (42, 0.6)):  # eyes .1 wide and .3 apart
            across = left + torch.tensor([0, 0.03, 0.07, 0.1, 0.07, 0.03])
            half = high[:, None] * torch.tensor([0, -0.05, -0.05, 0, 0.05, 0.05])
            points[:, first : first + 6] = torch.stack([across.expand(len(x), -1), 0.4 + half], -1)
        lips = torch.full((len(x), 20, 2), 0.5)
        lips[:, 17:20, 1] = 0.5 + 0.3 * apart[:, None]
        points = torch.cat([points[:, :48], lips], 1)
        return {"points": points + right[:, None, None]}


def test_open_lips_and_shut_eyes_have_their_price():
    """Only what the edit does counts, only to the worse, in eye distances and in heights over widths."""

    class Other(Guide):
        def forward(self, plain: torch.Tensor, edited: torch.Tensor, rows: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"emotion": (edited - plain).mean()}

    def picture(apart: float, high: float, right: float = 0.0) -> torch.Tensor:
        x = torch.zeros(1, 1, 32, 32)
        x[..., 0, :3] = torch.tensor([apart, high, right])
        return x

    guide, row = OpeningGuide(Other(), _Shapes()), torch.zeros(1, dtype=torch.long)

    def price(before: torch.Tensor, after: torch.Tensor) -> tuple[float, float]:
        found = guide(before, after, row)
        assert set(found) == {"emotion", "opened", "shut"}
        return pytest.approx(float(found["opened"]), abs=1e-5), pytest.approx(float(found["shut"]), abs=1e-5)

    assert price(picture(0.1, 0.3), picture(0.4, 0.1, 0.05)) == (0.3, 0.2)
    assert price(picture(0.4, 0.1), picture(0.1, 0.3)) == (0.0, 0.0)
    assert price(picture(0.2, 0.3), picture(0.2, 0.3)) == (0.0, 0.0)
    before, after = picture(0.0, 0.3).requires_grad_(), picture(0.2, 0.2).requires_grad_()
    sum(guide(before, after, row)[name] for name in ("opened", "shut")).backward()
    assert after.grad[0, 0, 0, 0] > 0 > after.grad[0, 0, 0, 1] and not before.grad.any()
    with pytest.raises(DataError, match="a head 'points'"):
        OpeningGuide(Other(), classifier())


def test_clip_guides_by_direction(tmp_path):
    clip = Clip.from_pretrained(write_clip(tmp_path))
    guide, x = ClipGuide(clip, ["happy", "sad"]), smooth(3)
    edited = (x * 0.7 + 0.1).requires_grad_()
    rows = torch.tensor([0, 1, 0])
    found = guide(x, edited, rows)["emotion"]
    texts = clip.text_embeddings(["face", "smiling face", "sad face"])
    with torch.no_grad():
        images = clip.image_embeddings(x), clip.image_embeddings(edited)
    expected = 1 - directional_similarity(*images, texts[[0, 0, 0]], texts[[1, 2, 1]]).mean()
    torch.testing.assert_close(found.detach(), expected)
    found.backward()
    assert edited.grad.abs().max() > 0
