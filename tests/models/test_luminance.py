"""Crops at one mean and contrast, of luminance or of each channel, and back."""

from __future__ import annotations

import pytest
import torch

from emoedit.models.luminance import face_oval, fits, in_luminance, is_grey, normalise, restore

OVAL = face_oval(32)
ALL, EACH = {"mean": 0.1, "std": 0.45}, {"mean": (0.3, 0.0, -0.2), "std": (0.34, 0.31, 0.29)}


def picture(seed: int = 0, channels: int = 3) -> torch.Tensor:
    return torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(seed)) - 0.5


@pytest.mark.parametrize(("channels", "how"), [(1, ALL), (3, ALL), (3, EACH)])
def test_what_is_normalised_comes_back(channels, how):
    x = picture(channels=channels) * 0.3 + 0.2
    normal, own, gain = normalise(x, OVAL, **how)
    inside = normal[:, :, OVAL > 0]
    over = 2 if how is EACH else (1, 2)
    mean, std = inside.mean(over), inside.std(over, unbiased=False)
    assert torch.allclose(mean, torch.tensor(how["mean"]).expand_as(mean), atol=1e-4)
    assert torch.allclose(std, torch.tensor(how["std"]).expand_as(std), atol=1e-4)
    assert torch.allclose(restore(normal, own, gain, **how), x, atol=1e-5)


def test_no_contrast_leaves_crops_as_they_are():
    x = picture()
    normal, own, gain = normalise(x, OVAL, mean=0.0, std=None)
    assert torch.equal(normal, x) and torch.equal(restore(x, own, gain, mean=0.0, std=None), x)


def test_the_colour_of_the_lamp_is_neither_seen_nor_lost():
    x = picture()
    lamp = torch.tensor([1.2, 0.9, 0.5])[:, None, None]
    warm = (x + 1) * lamp - 1
    (plain, *_), (seen, own, gain) = (normalise(each, OVAL, **EACH) for each in (x, warm))
    assert torch.allclose(seen, plain, atol=1e-5)  # the model sees the same face
    brighter = restore(plain + 0.1, own, gain, **EACH) - warm
    ratio = brighter.mean((0, 2, 3)) / torch.tensor(EACH["std"]) ** -1
    assert ratio[0] / ratio[2] == pytest.approx(1.2 / 0.5 * (x[:, 0].std() / x[:, 2].std()).item(), rel=0.05)


def test_a_grey_photograph_stays_grey_and_one_in_colour_does_not():
    grey, colour = picture(channels=1).expand(-1, 3, -1, -1), picture()
    x = torch.cat([grey[:1], colour[:1]])
    assert is_grey(x).flatten().tolist() == [True, False]
    normal, own, gain = normalise(x, OVAL, **EACH)
    back = restore(normal + 0.2 * picture(1), own, gain, **EACH)  # something that has colours is drawn
    spread = (back.amax(1) - back.amin(1)).amax((1, 2))
    assert spread[0] < 1e-6 and spread[1] > 0.1
    assert torch.allclose(in_luminance(back[:1]), back[:1, :1], atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std", "channels", "good"),
    [
        (0.0, None, 1, True),
        (0.0, 0.45, 3, True),
        ([0.3, 0.0, -0.2], [0.3, 0.3, 0.3], 3, True),
        ([0.3, 0.0, -0.2], [0.3, 0.3, 0.3], 1, False),
        (0.0, 0.0, 1, False),
        (0.0, [0.3, -0.3, 0.3], 3, False),
        (float("nan"), 0.3, 1, False),
        ("dark", 0.3, 1, False),
        (None, 0.3, 1, False),
        (0.0, True, 1, False),
        (0.0, [], 3, False),
    ],
)
def test_which_means_and_contrasts_make_sense(mean, std, channels, good):
    assert fits(mean, std, channels) is good
