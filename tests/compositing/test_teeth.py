"""Sharp mouths: the network and its files, rows of teeth and how they are pasted, what it is trained on."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from emoedit.compositing.closing import find_opening
from emoedit.compositing.paste import loses_teeth, paste

from emoedit.compositing.mouth import LARGER, teeth_level
from emoedit.compositing.teeth import DrawnMouth, gaps, new_rows, went
from emoedit.faces.align import FFHQ_POINTS, Alignment, align
from emoedit.faces.detect import Face, FaceDetector
from emoedit.faces.masks import LUMA, regions
from emoedit.io import checkpoints
from emoedit.nn.mouth import MouthConfig, MouthDrawer, MouthNetwork, standardise
from emoedit.training.guides import Guide, TeethGuide
from emoedit.training.loop import TrainerConfig, train
from emoedit.training.mouths import MouthBatches, MouthTask, Unsure, find_teeth
from emoedit.types import CheckpointError, CropSpec
from tests.fixtures.faces import LEVEL, drawn, lips, points_of

SPEC = CropSpec(96, "stable", 0.66, 0.074)
SMALL = MouthConfig(widths=(8, 8, 16))
STILL, EVERYWHERE = np.zeros((96, 96, 2), np.float32), np.ones((96, 96), np.float32)
LIPS = np.zeros((96, 96), np.float32)  # what lies between them
LIPS[68:76, 34:62] = 1


def smiling(teeth: float = 40.0) -> np.ndarray:
    """A crop of skin with lips around a row of teeth, so much brighter than skin: 96 px."""
    crop = np.full((96, 96), LEVEL, np.float32)
    cv2.ellipse(crop, (48, 72), (16, 8), 0, 0, 360, LEVEL - 50, -1)
    cv2.ellipse(crop, (48, 72), (12, 4), 0, 0, 360, LEVEL + teeth, -1)
    return cv2.GaussianBlur(crop, (0, 0), 0.8)


def test_a_network_that_has_learned_nothing_changes_nothing():
    x = torch.randn(2, 1, 64, 64)
    sharp, teeth = MouthNetwork(SMALL)(x)
    assert torch.equal(sharp, x) and not teeth.any()


def test_files(tmp_path: Path):
    torch.manual_seed(0)
    network = MouthNetwork(SMALL)
    torch.nn.init.normal_(network.last.weight)
    checkpoints.round_weights(network)
    network.save_pretrained(tmp_path / "mouth", card="a card", role="sharp mouths")
    again, x = MouthNetwork.from_pretrained(tmp_path / "mouth"), torch.randn(1, 1, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(network(x), again(x), strict=True)) and again.config == SMALL
    assert not again.training and (tmp_path / "mouth" / "README.md").read_text() == "a card"
    weights = (tmp_path / "mouth" / "model.safetensors").read_bytes()
    assert len(weights) < 1.5 * sum(p.numel() for p in network.parameters()) + 8000  # a byte a weight
    for name, text in {"widths": [8, 8], "side": "wide", "resolution": None}.items():
        raw = json.loads((tmp_path / "mouth" / "config.json").read_text())
        (tmp_path / "mouth" / "config.json").write_text(json.dumps(raw | {name: text}))
        with pytest.raises(CheckpointError, match="config.json"):
            MouthNetwork.from_pretrained(tmp_path / "mouth")
        (tmp_path / "mouth" / "config.json").write_text(json.dumps(raw))
    (tmp_path / "mouth" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="model.safetensors"):
        MouthNetwork.from_pretrained(tmp_path / "mouth")
    (tmp_path / "mouth" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        MouthNetwork.from_pretrained(tmp_path / "mouth")


@pytest.fixture(scope="module")
def drawer() -> MouthDrawer:
    return MouthDrawer()


def face_at(points: np.ndarray) -> Face:
    return Face(box=np.array([0.0, 0.0, 10.0, 10.0]), landmarks=points, confidence=1.0)


def test_teeth_are_found_where_they_are_drawn_whatever_the_crop(drawer: MouthDrawer):
    """A smile of 96 px, and the same face in a crop of 128 px that is wider and lower."""
    points = FFHQ_POINTS * 150 + [150, 140]
    first, other = align(points, SPEC), align(points, CropSpec(128, "stable", 0.8, 0.09))
    crop = smiling()
    onto = other.matrix @ np.vstack([first.inverse, [0, 0, 1]])
    wider = cv2.warpAffine(crop, onto, (128, 128), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    (mouth,) = drawer([crop], first, face_at(points))
    assert mouth.teeth.shape == mouth.levels.shape == (96 * LARGER,) * 2 and mouth.teeth.dtype == np.float32
    y, x = np.nonzero(mouth.teeth > 0.5)
    assert abs(x.mean() / LARGER - 48) < 1.5 and abs(y.mean() / LARGER - 72) < 1.5 and 14 < np.ptp(x) / LARGER < 28
    assert not mouth.teeth[mouth.cover == 0].any() and mouth.cover[: 48 * LARGER].max() == 0
    (again,) = drawer([np.repeat(wider[..., None], 3, -1)], other, face_at(points))
    y2, x2 = np.nonzero(again.teeth > 0.5)
    middle = onto @ [x.mean() / LARGER, y.mean() / LARGER, 1]
    assert np.abs(middle - [x2.mean() / LARGER, y2.mean() / LARGER]).max() < 1.0


def test_a_smile_whose_teeth_went_is_closed_however_pale_the_chin(astronaut: np.ndarray):
    """By brightness nothing changed; the network saw teeth in the reconstruction alone."""
    alignment, where = align(FaceDetector()(astronaut)[0].landmarks, SPEC), regions(SPEC)
    before = alignment.crop(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)).astype(np.float32)
    opening = find_opening(astronaut, alignment, where)
    teeth, none = drawn((38, 66, 58, 71)), drawn()
    for mouths, closed in (((teeth, none), True), ((teeth, teeth), False), ((none, none), False)):
        assert went(mouths) == closed
        assert loses_teeth(opening, [before, before + 1], where, mouths=mouths) == closed
    for first, last, lost in ((0.6, 0.25, True), (0.6, 0.35, False), (0.99, 0.45, True), (0.45, 0.1, False)):
        assert went([drawn((38, 66, 58, 71), sure=sure) for sure in (first, last)]) == lost
    # A mouth that opens further keeps them, if they are still seen: its lower lip and all below it move down.
    y, x = np.mgrid[:96, :96].astype(np.float32)
    lower = cv2.remap(before, x, y - 4 * np.clip((y - 68) / 4, 0, 1), cv2.INTER_LINEAR)
    assert not loses_teeth(opening, [before, lower], where, mouths=(teeth, teeth))
    assert loses_teeth(opening, [before, lower], where, mouths=(teeth, none))


def test_a_narrow_row_that_only_the_network_sees_is_an_opening():
    """Teeth no paler than the skin around them."""
    photo, itself = np.full((96, 96, 3), (200, 160, 140), np.uint8), Alignment(np.eye(2, 3), np.eye(2, 3), 96)
    where, size = regions(SPEC), 96 * LARGER

    def seen(left: int, right: int, sure: float) -> DrawnMouth:
        teeth = np.zeros((size, size), np.float32)
        teeth[58 * LARGER : 63 * LARGER, left * LARGER : right * LARGER] = sure
        return DrawnMouth(np.zeros_like(teeth), teeth, np.ones_like(teeth), 40.0 * LARGER)

    assert find_opening(photo, itself, where) is None
    opening = find_opening(photo, itself, where, seen(38, 66, 0.9))
    assert opening is not None
    middle = np.abs(opening.x - 0.54) < 0.05
    np.testing.assert_allclose(opening.x[[1, -2]] * 96, (38, 66), atol=2)
    np.testing.assert_allclose(opening.top[middle] * 96, 58, atol=2)
    np.testing.assert_allclose(opening.bottom[middle] * 96, 63, atol=2)
    for unsure in (seen(38, 66, 0.45), seen(46, 51, 0.9), seen(38, 66, 0.0)):
        assert find_opening(photo, itself, where, unsure) is None


def test_an_opening_ends_where_lips_meet():
    """The last teeth of a smile are in shadow: neither their colour nor the network says where it ends."""
    photo, itself = np.full((96, 96, 3), (200, 160, 140), np.uint8), Alignment(np.eye(2, 3), np.eye(2, 3), 96)
    where, teeth = regions(SPEC), drawn((42, 58, 62, 62))
    points = points_of(52, 60, half=22, apart=8)
    alone, led = (find_opening(photo, itself, where, teeth, p) for p in (None, points))
    np.testing.assert_allclose(alone.x[[1, -2]] * 96, (42, 62), atol=2)
    corners = points[[60, 64], 0] + 0.5
    np.testing.assert_allclose(led.x[[0, -1]] * 96, corners, atol=3)
    # Between the last teeth and the corners it is as high as the lips are apart, and nearly so over the teeth.
    x = np.array([38.0, 52.0, 66.0])
    height = np.interp(x / 96, led.x, led.bottom - led.top) * 96
    assert height[0] == pytest.approx(height[2], abs=1.0) and 5 < height[0] < 9 and 7 < height[1] < 11
    # Whether teeth go is asked of where they are.
    np.testing.assert_array_equal(led.teeth.x, alone.x)
    # Landmarks that are far off move the edges of the teeth that are seen by a little only.
    wrong = find_opening(photo, itself, where, teeth, points_of(52, 60, half=22, apart=40))
    middle = np.abs(wrong.x - 0.54) < 0.05
    assert (wrong.bottom - wrong.top)[middle].max() * 96 < 4 + 2 * (0.02 * 96 + 2) + 1
    # Those of a laugh are believed: a tongue and the dark below it lie between the teeth and the lower lip.
    laugh = find_opening(photo, itself, where, teeth, points_of(52, 60, half=22, apart=14))
    assert 13 < (laugh.bottom - laugh.top)[middle].max() * 96 < 18 and laugh.teeth.bottom.max() < laugh.bottom.max()


def test_a_gleam_on_a_lip_is_no_teeth(astronaut: np.ndarray):
    """Full lips shine as pale as teeth do: where a network looks and is not sure, there is nothing to be closed."""
    alignment, where = align(FaceDetector()(astronaut)[0].landmarks, SPEC), regions(SPEC)
    sure, unsure = (drawn((38, 66, 58, 71), sure=level) for level in (0.9, 0.5))
    assert find_opening(astronaut, alignment, where) is not None
    assert find_opening(astronaut, alignment, where, sure) is not None
    assert find_opening(astronaut, alignment, where, unsure) is None


def test_lips_stay_the_photographs_own_unless_teeth_are_seen():
    """A drawing in which lips are half a blur: its light changes skin and not lips, and where a row of teeth is found
    it is shown."""
    photo = np.tile(np.array([190, 150, 130], np.uint8), (300, 300, 1))
    alignment, where = align(FFHQ_POINTS * 150 + [150, 140], SPEC), regions(SPEC)
    level = float(photo[0, 0] @ LUMA)
    before = lips(48, 72) * (level / LEVEL)
    large = cv2.warpAffine(before / level, alignment.inverse, (300, 300), borderValue=1.0)
    photo = (photo * large[..., None]).clip(0, 255).round().astype(np.uint8)
    after = before + 30 * cv2.GaussianBlur((before < level - 20).astype(np.float32), (0, 0), 1.5)
    after[30:40, 40:56] -= 15  # a shadow elsewhere
    changed = {}
    for name, mouths, points in (
        ("lips", (drawn(), drawn()), (points_of(48, 72), points_of(48, 72))),
        ("teeth", (drawn(), drawn((36, 70, 60, 74))), (points_of(48, 72), points_of(48, 72, apart=5))),
        ("large", None, (points_of(48, 72), points_of(48, 72))),
        ("closing", (drawn(), drawn()), (points_of(48, 72, apart=12), points_of(48, 72))),
    ):
        result = paste(photo, alignment, [before, after], where, mode="redraw", points=points, mouths=mouths)
        light = alignment.crop((result @ LUMA - photo @ LUMA).astype(np.float32))
        changed[name] = light[70:75, 40:57].mean()
        assert light[32:38, 44:52].mean() == pytest.approx(-15, abs=4)
    assert abs(changed["lips"]) < 6 and changed["teeth"] > 20 and changed["large"] > 12 < changed["closing"]


def test_a_guide_to_teeth(drawer: MouthDrawer):
    """Beside another guide's losses: a smile that shows them counts little, closed lips much, and more light on them
    is asked for; at any resolution of the same crop, and with nothing to learn."""

    class Other(Guide):
        def forward(self, plain: torch.Tensor, edited: torch.Tensor, rows: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"emotion": (edited - plain).mean()}

    guide = TeethGuide(Other(), drawer.network)
    crops = np.stack([smiling(), lips(48, 72)])
    pictures = (torch.from_numpy(crops)[:, None] / 127.5 - 1).requires_grad_()
    shown, closed = (guide(p[None] - 1, p[None], torch.zeros(1, dtype=torch.long)) for p in pictures)
    assert shown["emotion"].item() == pytest.approx(1.0) and set(shown) == {"emotion", "teeth"}
    assert shown["teeth"] < 0.5 < 2 < closed["teeth"]
    larger = torch.nn.functional.interpolate(pictures[:1].detach(), (128, 128), mode="bicubic")
    torch.testing.assert_close(guide(larger, larger, torch.zeros(1))["teeth"], shown["teeth"], atol=0.05, rtol=0)
    closed["teeth"].backward()
    assert pictures.grad[1].any() and not pictures.grad[1, :, :40].any()
    assert not any(p.requires_grad for p in guide.parameters())


def test_no_teeth_in_closed_lips_nor_in_a_flat_picture(drawer: MouthDrawer):
    points = FFHQ_POINTS * 150 + [150, 140]
    crops = [lips(48, 72), np.full((96, 96), 90.0, np.float32)]
    for mouth, crop in zip(drawer(crops, align(points, SPEC), face_at(points)), crops, strict=True):
        assert mouth.teeth.max() < 0.5
        fine = cv2.resize(crop, mouth.levels.shape, interpolation=cv2.INTER_CUBIC)
        assert np.abs(mouth.levels - fine)[mouth.cover == 1].mean() < 6


def test_mirrored_drawings_have_mirrored_mouths(drawer: MouthDrawer):
    """Whatever training left in the network: nothing is made up on one side only."""
    crop = smiling() + np.linspace(-20, 20, 96, dtype=np.float32)
    unit = Alignment(np.eye(2, 3), np.eye(2, 3), 128)
    points = align(FFHQ_POINTS, drawer.network.crop).matrix @ np.c_[FFHQ_POINTS, np.ones(5)].T  # one that fills it
    crop = cv2.resize(crop, (128, 128), interpolation=cv2.INTER_CUBIC)
    one, other = drawer([crop, np.ascontiguousarray(crop[:, ::-1])], unit, face_at(points.T))
    assert one.teeth.max() > 0.5
    np.testing.assert_allclose(one.teeth[:, ::-1], other.teeth, atol=0.01)
    np.testing.assert_allclose(one.levels[:, ::-1], other.levels, atol=0.5)


ROW = (38, 69, 58, 75)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (None, ROW, ""),
        (ROW, ROW, "its own teeth are better than any drawn"),
        (None, (46, 69, 51, 75), "a single tooth"),
        (None, (47, 69, 70, 75), "on one side only"),
        (None, (38, 60, 58, 67), "the gleam of a lip"),
    ],
)
def test_which_rows_are_new(before: tuple | None, after: tuple, why: str):
    rows = new_rows((drawn(before), drawn(after)), STILL, EVERYWHERE, LIPS, LEVEL)
    assert bool((rows.share > 0.5).any()) is not bool(why)
    if why:
        assert not rows.laid.any()


def test_teeth_are_not_at_the_bottom_of_a_wide_open_mouth():
    opened = np.zeros((96, 96), np.float32)
    opened[60:84, 34:62] = 1
    upper, lower = (new_rows((drawn(), drawn((38, y, 58, y + 6))), STILL, EVERYWHERE, opened, LEVEL) for y in (63, 77))
    assert upper.share.max() > 0.5 and not lower.share.any()


def test_an_unsure_row_is_none():
    assert not new_rows((drawn(), drawn(ROW, 0.45)), STILL, EVERYWHERE, LIPS, LEVEL).share.any()
    assert not new_rows((drawn(), drawn(ROW)), STILL, 0 * EVERYWHERE, LIPS, LEVEL).share.any()


@pytest.mark.parametrize("skin", [60.0, 150.0])
def test_teeth_are_as_bright_as_teeth_are(skin: float):
    """Drawn too dark, they are lifted; drawn bright, they stay."""
    dark, bright = (
        new_rows((drawn(), drawn(ROW, level=level)), STILL, EVERYWHERE, LIPS, skin)
        for level in (teeth_level(skin) - 25, 240)
    )
    row = slice(72 * LARGER, 72 * LARGER + 1), slice(ROW[0] * LARGER, ROW[2] * LARGER)
    assert np.percentile(dark.levels[row], 80) == pytest.approx(0.97 * teeth_level(skin), rel=0.05)
    assert bright.levels[row].max() == pytest.approx(240, abs=2) and dark.levels[row[0], 0] == LEVEL


def test_gaps_stand_where_teeth_end():
    """In millimetres from the middle; the widths are those of the tables of dental anatomy, foreshortened."""
    pixels = 8.0  # a millimetre
    dark = gaps(400, 200.0, 63 * pixels)[0]
    inner = dark[200 - 180 : 200 + 181]
    low = [n - 180 for n in range(1, len(inner) - 1) if inner[n - 1] < inner[n] > inner[n + 1]]
    assert [n / pixels for n in low] == pytest.approx([-20.5, -15, -8.5, 0, 8.5, 15, 20.5], abs=0.3)
    np.testing.assert_allclose(dark[1:], dark[:0:-1], atol=1e-5)  # the same on both sides
    assert 0 <= dark.min() and dark.max() < 0.21


def test_drawn_teeth_are_pasted_pale_and_lips_are_not():
    """Onto red lips on skin; what is not teeth is what it is without them."""
    alignment = align(FFHQ_POINTS * 150 + [150, 140], SPEC)
    before, after = lips(48, 72), lips(48, 72, light=12)
    large = np.clip(cv2.warpAffine(before, alignment.inverse, (300, 300), borderValue=LEVEL), 0, 255)
    red = np.array([1.5, 0.8, 0.8]) / (np.array([1.5, 0.8, 0.8]) @ LUMA)
    photo = np.clip(large[..., None] * red, 0, 255).astype(np.uint8)
    points = (points_of(48, 72), points_of(48, 72, apart=8))
    teeth = (38, 68, 58, 76)

    def saturation(mouths: tuple[DrawnMouth, DrawnMouth]) -> np.ndarray:
        shown = paste(photo, alignment, [before, after], regions(SPEC), mode="mouth", points=points, mouths=mouths)
        shown = shown.astype(float)
        return np.ptp(shown, axis=-1) / shown.max(-1)

    with_teeth, without = saturation((drawn(), drawn(teeth))), saturation((drawn(), drawn()))
    x, y = np.rint(alignment.to_photo(np.array([[51.0, 70.0]]))[0]).astype(int)
    assert with_teeth[y, x] < 0.6 * without[y, x]
    x, y = np.rint(alignment.to_photo(np.array([[48.0, 50.0]]))[0]).astype(int)
    assert with_teeth[y, x] == without[y, x]


def test_teeth_of_a_photograph_are_found_and_gleams_are_not():
    crop = np.full((128, 128), LEVEL, np.float32)
    cv2.ellipse(crop, (64, 96), (22, 12), 0, 0, 360, LEVEL - 50, -1)
    closed = crop.copy()
    cv2.ellipse(crop, (64, 96), (16, 6), 0, 0, 360, LEVEL + 40, -1)
    crop += np.random.default_rng(0).normal(0, 8, crop.shape)
    points = points_of(64, 96, half=22, height=6, apart=12)
    found = find_teeth(crop.clip(0, 255).astype(np.uint8), points)
    true = np.zeros((128, 128), np.uint8)
    cv2.ellipse(true, (64, 96), (16, 6), 0, 0, 360, 1, -1)
    assert ((found > 0.5) & (true > 0)).sum() / ((found > 0.5) | (true > 0)).sum() > 0.8
    # Lips that do not part have none, however bright what is between them; nor have dark mouths.
    assert not find_teeth(crop.clip(0, 255).astype(np.uint8), points_of(64, 96, half=22, height=11)).any()
    assert not find_teeth(closed.astype(np.uint8), points).any()


def mouths(count: int = 6) -> dict[str, np.ndarray]:
    real = np.stack([np.roll(cv2.resize(smiling(), (128, 128))[64:, 32:96], n % 3, 1) for n in range(count)])
    real = real.clip(0, 255).astype(np.uint8)
    soft = np.stack([cv2.GaussianBlur(r, (0, 0), 2) for r in real])
    return {
        "real": real,
        "teeth": np.where(real > LEVEL + 15, 255, 0).astype(np.uint8),
        "denoised": soft,
        "rebuilt": soft,
    }


def test_batches_depend_on_their_step_alone():
    sources = mouths()
    batches = MouthBatches(sources, batch_size=4, seed=3)
    first, again, other = batches(5), MouthBatches(sources, batch_size=4, seed=3)(5), batches(6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["unsure"], other["unsure"])
    assert {name: tuple(value.shape) for name, value in first.items()} == dict.fromkeys(
        ("unsure", "real", "teeth"), (4, 1, 64, 64)
    )
    # A pair is flipped together: teeth are where the real mouth is bright.
    assert first["real"][first["teeth"] > 0.9].min() > (LEVEL + 10) / 127.5 - 1


def test_unsure_mouths_are_softer_than_real_ones():
    sources = mouths()
    batch = MouthBatches(sources, batch_size=6, how=Unsure(mix=0.0), seed=1)(0)
    steepest = [float(x.diff(dim=-1).abs().max()) for x in (batch["unsure"], batch["real"])]
    assert steepest[0] < 0.8 * steepest[1] and batch["unsure"].std() < 0.95 * batch["real"].std()


def test_it_learns_what_teeth_are(tmp_path: Path):
    """Forty steps on six mouths: teeth are told from lips, and it is nearer to the real mouth than what it is given."""
    torch.manual_seed(0)
    task, batches = MouthTask(SMALL), MouthBatches(mouths(), batch_size=4)
    trainer = TrainerConfig(steps=40, learning_rate=5e-3, warmup=1, ema=0.8, precision="no", save_every=40)
    averaged, held = train(task, batches, tmp_path, trainer), batches(999)
    z, mean, deviation = standardise(held["unsure"])
    sharp, teeth = averaged.network(z)
    right = ((teeth > 0) == (held["teeth"] > 0.5)).float().mean()
    assert right > 0.97 > (held["teeth"] <= 0.5).float().mean()
    off = (sharp * deviation + mean - held["real"]).abs().mean()
    assert off < 0.8 * (held["unsure"] - held["real"]).abs().mean()
